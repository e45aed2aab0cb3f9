"""What confirms the edits of a proposal before they leave: outlines that do wrong, each in one way."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from nfreaim.helpers.oscar.outline import Outline
from tests.oscar.flap import resized
from tests.oscar.messages import BASIC, OWN, proposal
from tests.oscar.tlv import tlv
from tests.oscar.values import put
from tests.unit.oscar_fixtures import Wire

Wrong = Callable[[bytes], bytes]
FRAME = proposal(BASIC)
FIRST = FRAME.index(OWN)


def _in_name(edited: bytes) -> bytes:
    return edited.replace(b"bob1", b"bob2")


def _in_length(edited: bytes) -> bytes:
    return put(edited, (FIRST - 1, b"\5"))


def _in_type(edited: bytes) -> bytes:
    return put(edited, (FIRST - 3, b"\x1e"))


def _in_value(edited: bytes) -> bytes:
    return put(edited, (FIRST, b"\x7f"))


def _in_request(edited: bytes) -> bytes:
    return put(edited, (15, b"\x99"))


def _grown(edited: bytes) -> bytes:
    return edited + b"\0"


def _grown_with_its_length(edited: bytes) -> bytes:
    return resized(edited + tlv(3))


@pytest.mark.parametrize(
    "wrong", [_in_name, _in_length, _in_type, _in_value, _in_request, _grown, _grown_with_its_length]
)
def test_an_edit_that_does_more_than_it_should_is_not_made(
    wrong: Wrong, monkeypatch: pytest.MonkeyPatch
) -> None:
    patched = Outline.patched
    wire = Wire().sign_on()

    def does_wrong(self: Outline, frame: bytes) -> bytes | None:
        right = patched(self, frame)
        assert right is not None
        assert right != frame
        return wrong(right)

    monkeypatch.setattr(Outline, "patched", does_wrong)
    assert wire.client(FRAME) == FRAME
    counters = wire.router.engine.counters.helpers
    assert counters["unfaithful"] == 1
    assert not counters["rewritten"]
    assert not len(wire.router.pinholes)


def test_an_edit_that_does_what_it_should_is_made() -> None:
    wire = Wire().sign_on()
    out = wire.client(FRAME)
    assert out != FRAME
    assert len(out) == len(FRAME)
    assert not wire.router.engine.counters.helpers["unfaithful"]
