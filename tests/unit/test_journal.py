"""The log: an error of ours must be found from it, and nothing that was read may stand in it."""

from __future__ import annotations

import io
import logging
import math
from collections.abc import Callable
from dataclasses import replace

import pytest

from nfreaim.core.address import Endpoint, FlowId
from nfreaim.core.firewall.pinhole import Pinhole
from nfreaim.core.helper import Report
from nfreaim.host.report.journal import Journal, QuietFormatter

SECRET = b"markedtext\xff"


def quote() -> None:
    SECRET.decode()


def wrap() -> None:
    try:
        quote()
    except UnicodeDecodeError as error:
        raise KeyError(error.object) from error


@pytest.mark.parametrize(("fail", "named"), [(quote, "UnicodeDecodeError"), (wrap, "KeyError")])
def test_logged_exception_shows_its_place_and_type_and_no_byte_that_was_read(
    fail: Callable[[], None], named: str
) -> None:
    text = io.StringIO()
    handler = logging.StreamHandler(text)
    handler.setFormatter(QuietFormatter("%(levelname)s %(message)s"))
    log = logging.Logger("test")
    log.addHandler(handler)
    try:
        fail()
    except Exception:
        log.exception("a packet failed")
    said = text.getvalue()
    assert said.startswith("ERROR a packet failed\nTraceback")
    assert said.endswith(f"builtins.{named}\n")
    assert f"in {fail.__name__}" in said
    assert "marked" not in said


ALICE = FlowId(Endpoint("10.0.0.5", 40123), Endpoint("203.0.113.9", 7777))
HERE, THERE = Endpoint("10.0.0.5", 5000), Endpoint("203.0.113.1", 40000)


def test_every_line_about_a_pinhole_or_a_message_names_the_protocol(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "nfreaim")
    journal = Journal()
    pinhole = Pinhole(HERE, THERE, ALICE, b"agreed", "chat", math.inf, ("198.51.100.7",), protocol="one")
    journal.opened(pinhole)
    journal.claimed(pinhole, "198.51.100.7")
    journal.closed(pinhole, "cancelled")
    report = Report("out", "chat", 1, b"agreed", HERE, HERE, "left", "too many")
    journal.reported(ALICE, "one", report)
    journal.reported(ALICE, "one", replace(report, action="mapped-back"))
    assert len(caplog.messages) == 5
    assert all(line.startswith("one: ") for line in caplog.messages)
    assert "agreed" not in caplog.text
    assert b"agreed".hex() not in caplog.text


def test_what_comes_again_and_again_is_for_those_who_look_closer(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "nfreaim")
    report = Report("in", "chat", 0, b"", THERE, HERE, "mapped-back", "", routine=True)
    Journal().reported(ALICE, "one", report)
    Journal().reported(ALICE, "one", replace(report, action="left", direction="in", routine=False))
    assert caplog.messages == []
