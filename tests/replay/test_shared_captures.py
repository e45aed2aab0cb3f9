"""Captures of real clients that may not be copied here: ../shared/pcaps, where it exists."""

from pathlib import Path
from typing import NamedTuple

import pytest

from nfreaim.capture import Capture
from tests.replay.played import SHARED, play
from tests.tcp.tshark import tshark_problems

pytestmark = pytest.mark.skipif(not SHARED.is_dir(), reason=f"{SHARED} is absent")

EVIDENCE = SHARED / "evidence01.pcap"


class Foreign(NamedTuple):
    """A capture in which nothing may change, and how to point nfreaim at its connections."""

    name: str
    inside: str
    ports: tuple[int, ...]


FOREIGN = [
    Foreign("Oscar.pcap", "10.30.29.3/32", (443,)),
    Foreign("oft2-on-5190.pcap", "192.168.1.159/32", (5190,)),
    Foreign("derived-tls-5190.pcap", "192.168.1.159/32", (5190,)),
    Foreign("irc-dcc-send.pcapng", "10.0.0.7/32", (6667,)),
    Foreign("irc-dcc-first-command.pcap", "10.0.0.1/32", (6667,)),
    Foreign("irc-dcc-send-malformed-host.pcap", "192.168.1.200/32", (6667,)),
    Foreign("irc-dcc-send-malformed-port.pcap", "192.168.1.200/32", (6667,)),
    Foreign("irc-dcc-state-growth.pcapng", "192.0.2.10/32", (6667,)),
    Foreign("msn-chat.pcap", "192.168.0.114/32", (1863,)),
    Foreign("yahoo-filetransfer.pcap", "192.168.129.131/32", (5050, 5101, 80)),
    Foreign("libpurple-send-alice-carol.rb-lan.pcap", "10.0.0.0/24", (5190,)),
]


def differing(before: Path, after: Path) -> dict[int, dict[int, tuple[int, int]]]:
    """By frame and offset in it: the byte before and after."""
    return {
        one.number: {at: (a, b) for at, (a, b) in enumerate(zip(one.data, two.data, strict=True)) if a != b}
        for one, two in zip(Capture.load(before), Capture.load(after), strict=True)
        if one.data != two.data
    }


def changed_bytes(*changes: tuple[int, str, str]) -> dict[int, tuple[int, int]]:
    return {
        at + index: (old, new)
        for at, before, after in changes
        for index, (old, new) in enumerate(zip(bytes.fromhex(before), bytes.fromhex(after), strict=True))
        if old != new
    }


def test_proposal_of_a_connection_met_in_the_middle_is_the_only_change(tmp_path: Path) -> None:
    target = tmp_path / "out.pcap"
    result = play(EVIDENCE, target, "192.168.1.158/32", ports=(443, 5190), midstream=True)
    assert differing(EVIDENCE, target) == {
        92: changed_bytes((50, "df0b", "eb94"), (130, "c0a8019e", "cb007101"), (138, "c0a8019e", "cb007101"))
    }
    assert result.as_dict() == {
        "packets": 240,
        "changed": 1,
        "flows": 1,
        "messages": [
            {
                "frame": 92,
                "protocol": "oscar",
                "direction": "out",
                "service": "send-file",
                "stage": 1,
                "cookie": "3731373436343700",
                "before": "192.168.1.158:5190",
                "after": "203.0.113.1:5190",
                "action": "rewritten",
                "reason": "own address",
            }
        ],
        "pinholes": [{"inside": "192.168.1.158:5190", "outside": "203.0.113.1:5190"}],
        "malformed": 0,
    }
    assert tshark_problems(target, (443, 5190)) == tshark_problems(EVIDENCE, (443, 5190))


@pytest.mark.parametrize(
    ("ports", "midstream"), [((443, 5190), False), ((5190,), True)], ids=["not-told-so", "other-port"]
)
def test_connection_met_in_the_middle_is_left_alone(
    ports: tuple[int, ...], midstream: bool, tmp_path: Path
) -> None:
    target = tmp_path / "out.pcap"
    result = play(EVIDENCE, target, "192.168.1.158/32", ports=ports, midstream=midstream)
    assert target.read_bytes() == EVIDENCE.read_bytes()
    assert (result.changed, result.messages) == (0, [])


@pytest.mark.parametrize("midstream", [False, True], ids=["from-the-syn", "midstream"])
@pytest.mark.parametrize("foreign", FOREIGN, ids=lambda foreign: foreign.name)
def test_nothing_to_change(foreign: Foreign, midstream: bool, tmp_path: Path) -> None:
    source, target = SHARED / foreign.name, tmp_path / "out"
    result = play(source, target, foreign.inside, ports=foreign.ports, midstream=midstream)
    assert target.read_bytes() == source.read_bytes()
    assert (result.changed, result.messages, result.pinholes) == (0, [], [])
    assert result.packets == sum(1 for _ in Capture.load(source))
    if midstream and not foreign.name.startswith("libpurple"):
        assert result.flows > 0, "nothing of this capture was looked at"
