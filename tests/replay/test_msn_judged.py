"""What became of MSN's captures, as a codec reads it that shares nothing with nfreaim: pcaps/msn.

Every byte belongs to a command on either side of the router, as many there as here; and what agreed with
itself before still does: P2P's sizes with its data, Content-Length with the body, PortX with Port.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.msn import msnftp, p2p
from tests.msn.commands import Command, commands_of
from tests.msn.fields import Message
from tests.msn.msnftp import Endpoint
from tests.msn.p2p import Frame
from tests.msn.slp import Slp
from tests.tcp.captures import read_frames, streams
from tests.tcp.packets import Direction

PCAPS = Path(__file__).parents[2] / "pcaps" / "msn"
NAMES = sorted(path.name.removesuffix(".in.pcap") for path in PCAPS.glob("*.in.pcap"))
SERVERS = {1863, 1864}


def read(path: Path) -> dict[Direction, list[Command]]:
    """The commands of each direction of each connection to a server."""
    found: dict[Direction, list[Command]] = {}
    for direction, data in streams(read_frames(path)).items():
        _, source, _, target = direction
        if SERVERS & {source, target}:
            found[direction] = commands_of(data, from_client=target in SERVERS)
    return found


def disagreements(one: Command) -> list[str]:
    """What in a message does not agree with itself."""
    if one.name != "MSG" or not one.payload:
        return []
    try:
        message = Message.decode(one.payload)
        if message.content_type == msnftp.INVITATION:
            fields = msnftp.fields_of(message)
            return [] if "IP-Address" not in dict(fields) else _endpoint(fields)
        if message.content_type == p2p.P2P:
            return _frame(Frame.of(message))
    except ValueError:  # a message of another form, or a frame of the second version
        return []
    return []


def _endpoint(fields: tuple[tuple[str, str], ...]) -> list[str]:
    try:
        Endpoint.of(fields)
    except ValueError as error:
        return [str(error)]
    return []


def _frame(frame: Frame) -> list[str]:
    header = frame.header
    found = [] if header.size in (0, len(frame.data)) else ["size"]
    if header.session or header.flags & p2p.FLAG_ACK or header.offset or header.total > len(frame.data):
        return found
    found += [] if header.total == len(frame.data) else ["total"]
    return found + ([] if Slp.decode(frame.data).length is None else ["Content-Length"])


@pytest.mark.parametrize("name", NAMES)
def test_what_leaves_is_as_consistent_as_what_came(name: str) -> None:
    came, left = (read(PCAPS / f"{name}.{side}.pcap") for side in ("in", "out"))
    assert came.keys() == left.keys()
    for direction, before in came.items():
        after = left[direction]
        assert [one.name for one in before] == [one.name for one in after]
        for one, other in zip(before, after, strict=True):
            assert disagreements(other) == disagreements(one), (one, other)
            if one.payload is None:
                assert [_unless_server(word) for word in one.words] == [
                    _unless_server(word) for word in other.words
                ]


def _unless_server(word: str) -> str:
    """Only XFR and RNG name servers in their lines."""
    return "" if word.rpartition(":")[2].isdigit() and word.count(".") == 3 else word


def test_a_disagreement_is_found() -> None:
    payload = msnftp.listening(1, Endpoint("10.0.0.5", 6891, extended=True), 1).encode()
    wrong = payload.replace(b"Port: 6891", b"Port: 6892")
    assert disagreements(Command(("MSG", "1", "N", str(len(payload))), payload)) == []
    assert disagreements(Command(("MSG", "1", "N", str(len(wrong))), wrong)) != []
