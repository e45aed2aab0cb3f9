"""OSCAR through the whole core: frames cut anywhere, foreign protocols, lengths that lie."""

from __future__ import annotations

import random

import pytest

from tests.golden import load
from tests.tcp.packets import packed
from tests.unit.fakes import OUTSIDE
from tests.unit.oscar_fixtures import Wire

GOLDEN = load()
PROPOSAL = GOLDEN["send-file-proposal"].data
EDITED = GOLDEN["send-file-proposal"].expected["same-port"]
AIM = GOLDEN["aim-proposal"].data
AIM_EDITED = AIM.replace(packed("10.0.0.5"), packed(OUTSIDE)).replace(
    b"\xf5\xff\xff\xfa", b"\x34\xff\x8e\xfe"
)
KOPETE = GOLDEN["kopete-proposal"].data
KOPETE_EDITED = KOPETE.replace(packed("10.0.0.5"), packed(OUTSIDE))
MESSAGE = GOLDEN["text-message"].data
PAIRS = {
    "libpurple": (PROPOSAL, EDITED),
    "AIM": (AIM, AIM_EDITED),
    "Kopete": (KOPETE, KOPETE_EDITED),
    "relay": (GOLDEN["relay-proposal"].data, GOLDEN["relay-proposal"].data),
    "stage 3a": (GOLDEN["stage-3a-request"].data, GOLDEN["stage-3a-request"].data),
    "text": (MESSAGE, MESSAGE),
}
each_message = pytest.mark.parametrize(("data", "expected"), PAIRS.values(), ids=PAIRS)


@pytest.fixture
def wire() -> Wire:
    return Wire().sign_on()


@each_message
def test_one_byte_per_segment(data: bytes, expected: bytes) -> None:
    wire = Wire().sign_on()
    assert wire.client(data, range(1, len(data))) == expected
    assert not wire.router.open_tokens
    assert len(wire.router.pinholes) == (data != expected)


@each_message
def test_cut_in_two_at_every_offset(data: bytes, expected: bytes) -> None:
    for cut in range(1, len(data)):
        wire = Wire().sign_on()
        assert wire.client(data, [cut]) == expected, cut
        assert wire.router.firewall.changes == (data != expected)


def test_several_frames_in_one_segment_cut_at_random_places() -> None:
    data, expected = (b"".join(pair[side] for pair in PAIRS.values()) for side in (0, 1))
    rng = random.Random(1)
    for count in [0] + [rng.randrange(1, 60) for _ in range(150)]:
        cuts = sorted(rng.sample(range(1, len(data)), count))
        wire = Wire().sign_on()
        assert wire.client(data, cuts) == expected, cuts
        assert len(wire.router.pinholes) == 3
        assert not wire.router.open_tokens


@pytest.mark.parametrize("before", range(1, 400, 23))
def test_sequence_numbers_that_wrap_inside_the_conversation(before: int) -> None:
    wire = Wire(isn=(2**32 - before, 2**32 - before)).sign_on()
    assert wire.client(MESSAGE + PROPOSAL, range(5, 200, 9)) == MESSAGE + EDITED
    wire = Wire(isn=(2**32 - 288 - before, 1)).sign_on()
    assert wire.client(PROPOSAL + AIM, range(5, 200, 9)) == EDITED + AIM_EDITED


def test_a_relay_proposal_is_let_go_as_soon_as_it_says_that_it_is_one(wire: Wire) -> None:
    relay = GOLDEN["relay-proposal"].data
    told = relay.index(b"\0\x10\0\0") + 4
    assert wire.client(relay[: told - 4], [80])[80:] == b""
    assert len(wire.router.open_tokens) == 2
    wire.client(relay[told - 4 : told])
    assert not wire.router.open_tokens


@pytest.mark.parametrize("way", [0, 1])
@pytest.mark.parametrize(
    "data",
    [
        b"\x2a" * 3000,
        b"\x16\x03\x01\x02\0\x01\0\x01\xfc\x03\x03" + bytes(600),
        b"GET / HTTP/1.1\r\nHost: example.com\r\n\r\n",
        GOLDEN["oft2-prompt"].data,
        GOLDEN["odc2-hello"].data,
        GOLDEN["ars-create"].data,
        b"\x2a\x00\0\0\0\x04\0\0\0\1",
        b"\x2a\x06\0\0\0\x04\0\0\0\1",
    ],
    ids=["asterisks", "TLS", "HTTP", "OFT2", "ODC2", "ARS", "channel 0", "channel 6"],
)
def test_a_foreign_protocol_passes_and_leaves_the_queue(data: bytes, way: int) -> None:
    for cuts in ((), range(1, len(data), 5)):
        wire = Wire().handshake()
        wire.send(way, data, cuts)
        assert (wire.c2s, wire.s2c)[way] == data
        assert wire.router.engine.counters.foreign_flows == 1
        assert wire.router.kernel.offloaded == [wire.flow_id]
        assert not wire.stored.reading.reads


def test_lengths_that_overrun_and_frames_of_64_kib_pass_within_bounds(wire: Wire) -> None:
    huge = b"\x2a\2\0\1\xff\xff\0\4\0\6" + bytes(6) + b"COOKIE7\0\0\2\4bob1" + b"\0\5\xff\xd0\0\0"
    huge += b"\x2a" * (65541 - len(huge))
    edge = huge[:4] + (8186).to_bytes(2, "big") + huge[6:8192]
    for data in (huge, edge, edge, huge):
        assert wire.client(data + MESSAGE, range(700, len(data), 700)) == data + MESSAGE
        wire.router.wait(0.03)
    assert wire.router.engine.counters.helpers["malformed_messages"] == 4
    assert wire.client(PROPOSAL) == EDITED


def test_a_long_proposal_is_edited_as_long_as_it_fits_what_may_be_held(wire: Wire) -> None:
    long = PROPOSAL + b"\x27\x12\x1f\x00" + bytes(0x1F00)
    grown = len(long) - len(PROPOSAL)
    long = (
        long[:4]
        + (len(long) - 6).to_bytes(2, "big")
        + long[6:39]
        + (0x4C + grown).to_bytes(2, "big")
        + long[41:]
    )
    expected = long.replace(bytes([10, 0, 0, 5]), bytes([203, 0, 113, 1]))
    assert wire.client(long, range(500, len(long), 500)) == expected


@pytest.mark.parametrize("at", range(len(PROPOSAL)))
def test_every_byte_of_a_proposal_may_be_wrong(at: int) -> None:
    for value in (0, 0xFF, PROPOSAL[at] ^ 1):
        bad = PROPOSAL[:at] + bytes([value]) + PROPOSAL[at + 1 :]
        whole, pieces = Wire().sign_on(), Wire().sign_on()
        whole.client(bad)
        pieces.client(bad, range(1, len(bad)))
        for wire in (whole, pieces):
            wire.router.wait(0.03)
            assert len(wire.c2s) == len(wire.sent[0])
        assert pieces.c2s == whole.c2s
        assert whole.router.engine.counters.failed_flows == 0
