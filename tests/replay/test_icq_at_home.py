"""A capture on the LAN of a server at home: what its clients outside are told of ICQ users inside."""

from pathlib import Path

import pytest

from tests.oscar.flap import numbered
from tests.oscar.icq import direct, user
from tests.oscar.signon import CLIENT_SIGNON, HOST_ONLINE, hello
from tests.oscar.snac import BUDDY_ARRIVED, BUDDY_DEPARTED, snac_frame
from tests.oscar.tlv import tlv
from tests.oscar.values import ip4
from tests.replay.played import play
from tests.tcp.captures import Conversation, read_frames, streams, write_pcap

BOB, SERVER = ("203.0.113.20", 51000), ("10.0.0.9", 5190)
OUTSIDE = "203.0.113.1"


def arrived(address: str) -> bytes:
    return snac_frame(BUDDY_ARRIVED, user(tlv(3, bytes(4)), tlv(0xC, direct(ip4(address)))))


@pytest.mark.parametrize("cuts", [(), (1, 2, 4, 6), (35, 50), (60,)])
def test_an_arrival_leaves_with_the_outside_endpoint(cuts: tuple[int, ...], tmp_path: Path) -> None:
    said = [hello(), HOST_ONLINE, arrived("10.0.0.5"), snac_frame(BUDDY_DEPARTED, user(tlv(1, b"\0\0")))]
    scene = Conversation(BOB, SERVER, step=0.002, timestamps=True)
    scene.open()
    scene.send("server", numbered(said[0], 0x64))
    scene.send("client", numbered(CLIENT_SIGNON, 1))
    for number, frame in enumerate(said[1:], 0x65):
        scene.time += 0.2
        scene.send("server", numbered(frame, number), cuts=cuts)
    scene.close()
    source, target = tmp_path / "in.pcap", tmp_path / "out.pcap"
    write_pcap(source, scene.frames)
    result = play(source, target, "10.0.0.0/24", OUTSIDE)
    (message,) = result.as_dict()["messages"]
    assert (message["service"], message["action"]) == ("icq-direct", "rewritten")
    assert (message["before"], message["after"]) == ("10.0.0.5:4001", f"{OUTSIDE}:4001")
    before, after = (
        next(data for key, data in streams(read_frames(path)).items() if key[1] == 5190)
        for path in (source, target)
    )
    assert after == before.replace(arrived("10.0.0.5")[6:], arrived(OUTSIDE)[6:])
    assert after != before
