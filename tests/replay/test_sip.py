"""SIP, which no helper of nfreaim reads: whatever helper is pointed at it, it comes out as it was.

What the kernel's helper makes of SIP over UDP is in a pair of captures; `kernel_helpers` relies on it.
"""

from __future__ import annotations

import re
from ipaddress import IPv4Network
from pathlib import Path

import pytest

from nfreaim.capture import Capture
from nfreaim.helpers import HELPERS
from nfreaim.replay.player import replay
from tests.tcp.captures import read_frames

CAPTURES = Path(__file__).parents[2] / "pcaps" / "sip"
BEFORE, BEHIND = CAPTURES / "kernel-helper.ra-lan.pcap", CAPTURES / "kernel-helper.ra-wan.pcap"


@pytest.mark.parametrize("midstream", [False, True], ids=["from-the-syn", "midstream"])
@pytest.mark.parametrize("protocol", [spec.name for spec in HELPERS])
@pytest.mark.parametrize("source", sorted(CAPTURES.glob("*.ra-lan.pcap")), ids=lambda path: path.name)
def test_no_helper_takes_it_for_its_own(source: Path, protocol: str, midstream: bool, tmp_path: Path) -> None:
    target = tmp_path / "out.pcap"
    capture = Capture.load(source)
    ports = {protocol: (5060, 5070, 6891)}
    result = replay(capture, IPv4Network("10.0.0.0/24"), "203.0.113.1", ports, midstream)
    capture.save(target)
    assert target.read_bytes() == source.read_bytes()
    assert (result.changed, result.messages, result.pinholes) == (0, [], [])
    assert result.flows > 0 or not midstream, "nothing of this capture was looked at"


def requests(path: Path) -> list[str]:
    """The requests from the phone over UDP, without Content-Length, which follows."""
    texts = [frame[42:].decode(errors="replace") for _, frame in read_frames(path) if frame[23] == 17]
    phone = [text for text in texts if re.match(r"(REGISTER|INVITE|MESSAGE) sip:srv", text)]
    return [re.sub(r"Content-Length: \d+", "", text) for text in phone]


def test_the_kernels_helper_edits_via_contact_and_the_description_of_audio_and_nothing_else() -> None:
    before, behind = requests(BEFORE), requests(BEHIND)
    assert len(before) == len(behind) == 5
    for one, other in zip(before, behind, strict=True):
        for line, translated in zip(one.splitlines(), other.splitlines(), strict=True):
            audio = "m=audio" in one and line.startswith(("o=", "c="))
            edited = audio or line.startswith(("Via:", "Contact:"))
            expected = line.replace("10.0.0.5", "203.0.113.1") if edited else line
            assert translated == expected
