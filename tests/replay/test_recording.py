"""Copies of captures: they hold no secret, and tell the same story."""

from __future__ import annotations

import random
from dataclasses import replace
from pathlib import Path

import pytest

from nfreaim.capture import Capture
from nfreaim.capture.link_layer import network_offset
from nfreaim.core.tcp.segment import Segment
from tests.replay.secret_sessions import SESSIONS, Session, spellings
from tests.replay.told import copied, story, without_frames
from tests.tcp.captures import Conversation, write_pcap
from tests.tcp.recut import recut

REPO = Path(__file__).resolve().parents[2]
CAPTURES = sorted({*(REPO / "pcaps").glob("*/*.in.pcap"), *(REPO / "pcaps").glob("*/*-wan.pcap")})
SHARED = Path("/work/shared/pcaps")

every = pytest.mark.parametrize("session", SESSIONS, ids=lambda one: f"{one.protocol}-{one.port}")


def segments(path: Path) -> list[Segment]:
    """The TCP segments of a capture, in order; what is not stored of their payload is "x"."""
    found = []
    for frame in Capture.load(path):
        at = network_offset(frame.link, frame.data)
        if at is not None:
            length = int.from_bytes(frame.data[at + 2 : at + 4], "big")
            segment = Segment.parse(frame.data[at : at + length].ljust(length, b"x"))
            assert segment is not None
            found.append(segment)
    return found


@every
def test_no_secret_is_in_the_copy_and_the_story_stays(session: Session, tmp_path: Path) -> None:
    raw = tmp_path / "raw.pcap"
    write_pcap(raw, session.frames())
    present = {one for one in spellings() if one in raw.read_bytes()}
    assert present, "the session has secrets"
    copy = copied(raw, tmp_path / "copy.pcapng")
    assert not {one for one in spellings() if one in copy.read_bytes()}
    told = story(raw)
    assert without_frames(told) == without_frames(story(copy))
    if session.peer:
        assert told.ladders
        assert told.ladders[0].good, without_frames(told)


@every
@pytest.mark.parametrize("how", ["bytewise", "random", "coalesced", "duplicates", "reorder"])
def test_cuts_let_no_secret_through(session: Session, how: str, tmp_path: Path) -> None:
    raw, small = tmp_path / "raw.pcap", tmp_path / "small.pcap"
    write_pcap(raw, session.frames())
    write_pcap(small, recut(session.frames(), how))
    copy = copied(small, tmp_path / "copy.pcapng")
    data = b"".join(segment.raw[segment.start :] for segment in segments(copy))
    assert not {one for one in spellings() if one in data}
    assert without_frames(story(copy)) == without_frames(story(small))


@every
def test_headers_and_lengths_stay(session: Session, tmp_path: Path) -> None:
    raw = tmp_path / "raw.pcap"
    write_pcap(raw, session.frames())
    before, after = segments(raw), segments(copied(raw, tmp_path / "copy.pcapng"))
    assert len(before) == len(after)
    for one, other in zip(before, after, strict=True):
        checksum = one.tcp + 16
        assert one.raw[:checksum] == other.raw[:checksum]
        assert one.raw[checksum + 2 : one.start] == other.raw[checksum + 2 : other.start]
        assert len(one.raw) == len(other.raw)


@every
def test_of_a_peers_connection_its_greeting_alone_stays(session: Session, tmp_path: Path) -> None:
    raw = tmp_path / "raw.pcap"
    write_pcap(raw, session.frames())
    streams: dict[bytes, bytes] = {}
    for segment in segments(copied(raw, tmp_path / "copy.pcapng")):
        if 5500 in (int.from_bytes(segment.key[8:10], "big"), int.from_bytes(segment.key[10:12], "big")):
            data = segment.raw[segment.start :]
            streams[segment.key] = streams.get(segment.key, b"") + data
    for data in streams.values():
        kept = data.rstrip(b"x")
        assert len(kept) <= max(len(session.greets), 8)
    if session.greets:
        assert any(data.startswith(session.greets[:4]) for data in streams.values())


@pytest.mark.parametrize("path", CAPTURES, ids=lambda path: f"{path.parent.name}-{path.stem}")
def test_copies_of_captures_tell_the_same(path: Path, tmp_path: Path) -> None:
    assert without_frames(story(path)) == without_frames(story(copied(path, tmp_path / "copy.pcapng")))


@pytest.mark.skipif(not SHARED.is_dir(), reason="the captures of third parties are not on this machine")
@pytest.mark.parametrize("path", sorted(SHARED.glob("*.pcap*")), ids=lambda path: path.stem)
def test_copies_of_third_parties_captures_tell_the_same(path: Path, tmp_path: Path) -> None:
    assert without_frames(story(path)) == without_frames(story(copied(path, tmp_path / "copy.pcapng")))


@pytest.mark.parametrize("port", [5190, 6667, 1863, 5222, 5050])
@pytest.mark.parametrize(
    "first",
    [
        b"GET / HTTP/1.1\r\nHost: secret\r\n\r\n",
        b"\x16\x03\x01\x00\xf8\x01secret",
        b"PASS secret\r\n",
    ],
    ids=["http", "tls", "half a sign-on"],
)
def test_what_is_not_recognised_keeps_no_payload(port: int, first: bytes, tmp_path: Path) -> None:
    talk = Conversation(("10.0.0.5", 40123), ("203.0.113.9", port)).open()
    talk.send("client", first).send("server", b"HTTP/1.1 200 OK\r\n\r\nsecret").send("client", b"more secret")
    raw = tmp_path / "raw.pcap"
    write_pcap(raw, talk.close().frames)
    data = b"".join(one.raw[one.start :] for one in segments(copied(raw, tmp_path / "copy.pcapng")))
    assert data
    assert set(data) == {ord("x")}


def test_a_session_whose_beginning_is_not_in_the_capture_is_read(tmp_path: Path) -> None:
    """As it is when somebody records who has long been signed on."""
    for session in SESSIONS:
        if session.protocol == "msn":
            continue  # it is read from its first byte on, or not at all
        raw = tmp_path / f"{session.protocol}.pcap"
        control = session.frames()[3:]
        write_pcap(raw, control)
        told = story(raw)
        assert told.ladders, session.protocol
        copy = copied(raw, tmp_path / f"{session.protocol}.pcapng")
        assert without_frames(story(copy)) == without_frames(told)
        assert not {one for one in spellings() if one in copy.read_bytes()}


@every
def test_damaged_messages_let_no_secret_through(session: Session, tmp_path: Path) -> None:
    """A message whose structure is not understood is overwritten, not copied as it stands."""
    choice = random.Random(session.port)
    for number in range(40):
        turns = [(side, _damaged(data, choice)) for side, data in session.turns]
        raw, copy = tmp_path / f"{number}.pcap", tmp_path / f"{number}.pcapng"
        write_pcap(raw, replace(session, turns=turns).frames())
        streams: dict[bytes, bytes] = {}
        for segment in segments(copied(raw, copy)):
            streams[segment.key] = streams.get(segment.key, b"") + segment.raw[segment.start :]
        for data in streams.values():
            assert not {one for one in spellings() if one in data}


def _damaged(data: bytes, choice: random.Random) -> bytes:
    damaged = bytearray(data)
    for _ in range(choice.choice((0, 0, 0, 1, 1, 2))):
        at = choice.randrange(len(damaged))
        kind = choice.randrange(3)
        if kind == 0:
            damaged[at] = choice.choice((*b"\0\1\2\4\x2a\r\n <>'\xff", choice.randrange(256)))
        elif kind == 1:
            del damaged[at : at + choice.randrange(1, 4)]
        else:
            damaged[at:at] = choice.randbytes(choice.randrange(1, 3))
    return bytes(damaged)


def test_text_that_looks_like_a_message_is_no_beginning(tmp_path: Path) -> None:
    """A connection that is met in its midst: what is copied of it begins with a segment of whole messages."""
    texts = {
        5190: b"\x2a\2\0\7\0\x40\0\4\0\6secret words",
        5050: b"YMSG\0\x10\0\0\0\xff\0\6secret words",
        5222: b"<message to='secret words'><body>",
    }
    for port, text in texts.items():
        talk = Conversation(("10.0.0.5", 40123), ("203.0.113.9", port))
        talk.send("client", text).send("client", text)
        raw, copy = tmp_path / f"{port}.pcap", tmp_path / f"{port}.pcapng"
        write_pcap(raw, talk.frames)
        data = b"".join(one.raw[one.start :] for one in segments(copied(raw, copy)))
        assert set(data) == {ord("x")}, port
