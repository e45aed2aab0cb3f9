"""The tests' own OSCAR codec on golden packets: what it reads it writes back, and what it finds is there."""

from __future__ import annotations

import pytest

from tests.golden import load, packets
from tests.oscar.fields import announcing, found
from tests.oscar.flap import CLIENT, SERVER, FlapReader, flap, frames_of
from tests.oscar.icbm import ICBM_RDV, icbm_to_client, icbm_to_server, parse_icbm
from tests.oscar.messages import BLOCKS, READABLE
from tests.oscar.redirect import NAMED, REDIRECTS, renamed
from tests.oscar.snac import TO_HOST, Snac
from tests.oscar.tlv import first_tlv, take_user_info, tlvs
from tests.oscar.values import put

GOLDEN = packets()
FRAMES = [name for name, golden in load().items() if golden.protocol == "flap" and "without" not in name]
DATA = [name for name in FRAMES if GOLDEN[name][1] == 2]


@pytest.mark.parametrize("name", FRAMES)
def test_a_frame_is_cut_out_of_its_stream_wherever_that_is_cut(name: str) -> None:
    frame = GOLDEN[name]
    assert frames_of(frame + frame[:5]) == [frame]
    for cut in range(len(frame)):
        reader = FlapReader()
        ((channel, number, data),) = reader.feed(frame[:cut]) + reader.feed(frame[cut:])
        assert flap(channel, number, data) == frame


@pytest.mark.parametrize("name", DATA)
def test_a_snac_is_written_as_it_was_read(name: str) -> None:
    assert Snac.decode(GOLDEN[name][6:]).encode() == GOLDEN[name][6:]


@pytest.mark.parametrize("name", [name for name in READABLE if name != "decline"])
def test_a_message_is_written_as_it_was_read(name: str) -> None:
    snac = Snac.decode(GOLDEN[name][6:])
    message = parse_icbm(snac)
    rest = snac.body[10:]
    outer = tlvs(message.outer)
    if snac.kind == TO_HOST:
        assert icbm_to_server(message.cookie, message.channel, message.name, outer) == snac.body
    else:
        sender = rest[: len(rest) - len(take_user_info(rest)[2])]
        assert icbm_to_client(message.cookie, message.channel, sender, outer) == snac.body
    block = message.rendezvous()
    assert (block is not None) == (name in BLOCKS)
    assert block is None or block.encode() == first_tlv(message.outer, ICBM_RDV)


@pytest.mark.parametrize("name", [name for name, golden in load().items() if "same-port" in golden.expected])
def test_what_the_golden_file_expects_is_what_announces_the_outside_address(name: str) -> None:
    golden = load()[name]
    assert announcing(golden.data, CLIENT, "203.0.113.1") == golden.expected["same-port"]


@pytest.mark.parametrize("name", REDIRECTS)
def test_what_the_golden_file_expects_of_a_redirect_names_another_server(name: str) -> None:
    golden = load()[name]
    for case, text in (("grown", b"198.51.100.200:45190"), ("shrunk", b"192.0.2.7:80")):
        assert renamed(golden.data, NAMED, text) == golden.expected[case]
    (span,) = found(golden.data, SERVER, True)
    assert golden.data[span[0] : span[1]] == NAMED


def test_bytes_are_put_over_others() -> None:
    assert put(b"abcdef", (1, b"XY"), (5, b"Z")) == b"aXYdeZ"
