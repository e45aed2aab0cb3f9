"""Redirects on the wire: what is read is rebuilt to the byte, and nothing else passes for one."""

from __future__ import annotations

import random

import pytest

from nfreaim.helpers.oscar.redirects import Server
from nfreaim.layers.oscar_messages import FLAP, SNAC, TLV, rebuild
from nfreaim.layers.oscar_redirect import Migration, Redirect, dissect_redirect, servers_of
from tests.golden import load
from tests.oscar.flap import flap
from tests.oscar.redirect import HOME, NAMED, REDIRECTS, migration, naming
from tests.oscar.tlv import tlv
from tests.unit.talk import REACHED, Talk

GOLDEN = load()


@pytest.mark.parametrize("name", REDIRECTS)
def test_a_dissected_redirect_is_rebuilt_to_the_byte(name: str) -> None:
    data = GOLDEN[name].data
    parsed = dissect_redirect(data)
    assert rebuild(parsed) == data
    assert [value for _, value in servers_of(parsed)] == [NAMED]
    assert all(data[at : at + 4] == b"\0\5\0\x10" for at, _ in servers_of(parsed))


def test_redirects_can_be_built_with_their_lengths_computed() -> None:
    tlvs = [TLV(type=5, value=HOME), TLV(type=6, value=b"cookie")]
    wire = tlv(5, HOME) + tlv(6, b"cookie")
    snac = SNAC(family=1, subtype=0x12, request_id=2)
    assert bytes(
        FLAP(channel=2, sequence=0x66) / snac / Migration(families=[2, 4, 0x13], tlvs=tlvs)
    ) == migration(b"" + wire, b"\0\3\0\2\0\4\0\x13")
    assert bytes(FLAP(channel=4, sequence=0x66) / Redirect(tlvs=tlvs)) == flap(4, 0x66, wire)


@pytest.mark.parametrize("name", [name for name in GOLDEN if name not in REDIRECTS])
def test_nothing_else_passes_for_a_redirect(name: str) -> None:
    with pytest.raises(ValueError, match=r"not a redirect|too short|FLAP magic|cut short"):
        dissect_redirect(GOLDEN[name].data)


@pytest.mark.parametrize(
    ("value", "server"),
    [
        (b"a:1", Server("a", 1)),
        (b"a", Server("a", None)),
        (b"A-b_c.9:65535", Server("A-b_c.9", 65535)),
        (b"10.0.0.9:05190", Server("10.0.0.9", 5190)),
        (b"-a:1", None),
        (b"a" * 254, None),
        (b"a:123456", None),
        (b"a:+1", None),
        (b"a b:1", None),
        (b"a:1:1", None),
        ("a:\u0661".encode(), None),
    ],
)
def test_the_text_of_a_redirect(value: bytes, server: Server | None) -> None:
    assert Server.parse(value) == server


def test_a_damaged_redirect_leaves_as_it_came_or_is_whole() -> None:
    rng = random.Random(1703)
    frames = [naming(HOME, name) for name in REDIRECTS] + [migration(tlv(5, HOME) + tlv(6, bytes(9)))]
    changed = 0
    for _ in range(3000):
        frame = bytearray(rng.choice(frames))
        for _ in range(rng.randrange(1, 4)):
            frame[rng.randrange(6, min(len(frame), 60))] = rng.choice(
                (0, 1, 2, 5, 6, 9, 0x0D, 0x2E, 0x3A, 255)
            )
        cut = rng.randrange(6, len(frame))
        for damaged in (bytes(frame), flap(frame[1], data=bytes(frame[6:cut]))):
            out = Talk().begun().send(1, damaged, [1, 2, 4, 6])
            if out != damaged:
                changed += 1
                found = {value for _, value in servers_of(dissect_redirect(out))}
                assert found <= {str(REACHED).encode(), REACHED.address.encode()}
                assert len(found) == 1
    assert 100 < changed < 3000
