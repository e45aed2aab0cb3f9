"""What becomes of packets on their way into a copy: order, waiting, bounds, and the file."""

from __future__ import annotations

import stat
from pathlib import Path

import pytest

from nfreaim.capture import Capture
from nfreaim.capture.writing import Writer
from nfreaim.core.address import Direction, Endpoint
from nfreaim.core.greeting import Field
from nfreaim.core.redaction import Pseudonyms
from nfreaim.core.tcp.segment import Segment
from nfreaim.errors import ConfigError
from nfreaim.helpers.irc import IRC
from nfreaim.host.record.tap import MOST_PORTS, program
from nfreaim.recording.copying import Copying, Packet
from nfreaim.recording.flow_copy import PeerCopy
from nfreaim.recording.recording_file import RecordingFile
from tests.tcp.captures import Conversation, Frames

OFFER = b"PRIVMSG bob :\x01DCC SEND f 167772165 5500 3\x01\r\n"
GREETINGS = ((Field(0, frozenset({b"ABC"})), Field(5, frozenset({b"\1", b"\2"}))),)


def session() -> Conversation:
    talk = Conversation(("10.0.0.5", 40123), ("203.0.113.9", 6667)).open()
    talk.send("client", b"NICK alice\r\nUSER alice 0 * :Alice\r\n")
    return talk.send("server", b":irc.test 001 alice :Welcome\r\n").send("client", OFFER)


def packets(frames: Frames) -> list[Packet]:
    return [Packet(time, 0, frame[14:]) for time, frame in frames]


def payload(packet: Packet) -> bytes:
    segment = Segment.parse(packet.raw)
    assert segment is not None
    return segment.raw[segment.start :]


def copied(copying: Copying, given: list[Packet]) -> list[Packet]:
    return [made for packet in given for made in copying.packet(packet)]


def new() -> Copying:
    return Copying({6667: IRC}, b"a key")


def test_nothing_leaves_before_the_connection_is_recognised_and_then_in_order() -> None:
    copying, given = new(), packets(session().frames)
    welcome = next(at for at, packet in enumerate(given) if b" 001 " in packet.raw)
    first = next(at for at, packet in enumerate(given) if b"NICK" in packet.raw)
    early = copied(copying, given[:welcome])
    assert len(early) == first
    rest = copied(copying, given[welcome:])
    assert [packet.time for packet in early + rest] == [packet.time for packet in given]
    assert payload(rest[0]).startswith(b"NICK ")


def test_connection_that_is_never_recognised_leaves_blank_once_it_has_waited_long_enough() -> None:
    copying, given = new(), packets(session().frames[:4])
    assert len(copied(copying, given)) == 3
    assert not list(copying.tick(given[-1].time + 9.0))
    (late,) = copying.tick(given[-1].time + 11.0)
    assert set(payload(late)) == {ord("x")}
    assert not copying.ports - {6667}


def test_bytes_that_are_missing_cost_what_follows_and_nothing_else() -> None:
    talk = session()
    before = len(talk.frames)
    talk.send("client", b"PRIVMSG bob :one\r\n").send("client", b"PRIVMSG bob :two\r\n")
    given = packets(talk.frames[:before] + talk.frames[before + 2 :])
    copying = new()
    made = copied(copying, given) + list(copying.close())
    assert len(made) == len(given)
    said = [payload(packet) for packet in made if payload(packet)]
    assert b"DCC SEND x 167772165 5500" in said[2]
    assert set(said[3]) == {ord("x")}


def test_what_waits_is_bounded() -> None:
    copying, size = new(), 0
    talk = Conversation(("10.0.0.5", 40123), ("203.0.113.9", 6667)).open()
    for _ in range(7000):
        talk.emit("client", 0x18, b"NICK " + bytes(1395))
    for packet in packets(talk.frames):
        now = Packet(talk.frames[0][0], 0, packet.raw)
        size += len(packet.raw) - sum(len(made.raw) for made in copying.packet(now))
        assert size <= (8 << 20) + 2000


def test_peer_that_is_quicker_than_the_message_is_in_the_copy() -> None:
    talk = session()
    peer = Conversation(("203.0.113.20", 50001), ("10.0.0.5", 5500), start=talk.frames[-2][0] - 0.02).open()
    peer.send("client", b"secret")
    at = next(at for at, (_, frame) in enumerate(talk.frames) if b"DCC SEND" in frame)
    given = packets([*talk.frames[:at], *peer.frames[:1], *talk.frames[at:], *peer.frames[1:]])
    copying = new()
    made = copied(copying, given) + list(copying.close())
    assert len(made) == len(given)
    assert 5500 in copying.ports
    assert not any(b"secret" in packet.raw for packet in made)


def test_packets_of_others_are_not_copied() -> None:
    other = (
        Conversation(("10.0.0.5", 40124), ("203.0.113.9", 80)).open().send("client", b"GET / HTTP/1.1\r\n")
    )
    copying = new()
    assert not copied(copying, packets(other.frames))
    assert not list(copying.close())


def test_pinhole_that_the_daemon_names_is_followed() -> None:
    copying, grown = new(), []
    copying.grew = lambda: grown.append(copying.ports)
    copying.expect(Endpoint("203.0.113.1", 5501), "irc", "dcc-chat")
    copying.expect(Endpoint("203.0.113.1", 5501), "irc", "dcc-chat")
    copying.expect(Endpoint("203.0.113.1", 5502), "smoke", "signals")
    assert grown == [{6667, 5501}]
    peer = Conversation(("203.0.113.20", 50001), ("203.0.113.1", 5501)).open().send("client", b"hello")
    made = copied(copying, packets(peer.frames))
    assert len(made) == len(peer.frames)
    assert not any(b"hello" in packet.raw for packet in made)


@pytest.mark.parametrize("cut", range(1, 9))
def test_fields_of_a_greeting_stay_in_every_cut_and_nothing_between_them(cut: int) -> None:
    greeting, copy = b"ABC--\1secret", PeerCopy(GREETINGS, midstream=False)
    copy.add(Direction.ORIGINAL, 0, greeting[:cut])
    if cut < 6:
        assert copy.copied(Direction.ORIGINAL, 0, cut) is None
    copy.add(Direction.ORIGINAL, cut, greeting[cut:])
    parts = copy.copied(Direction.ORIGINAL, 0, cut), copy.copied(Direction.ORIGINAL, cut, 12 - cut)
    assert b"".join(part or b"" for part in parts) == b"ABCxx\1xxxxxx"


@pytest.mark.parametrize("first", [b"ABD--\1secret", b"ABC--\3secret", b"GET / HTTP/1.1"])
def test_of_another_greeting_nothing_stays(first: bytes) -> None:
    copy = PeerCopy(GREETINGS, midstream=False)
    copy.add(Direction.REPLY, 0, first)
    assert copy.copied(Direction.REPLY, 0, len(first)) == b"x" * len(first)


def test_pseudonyms_are_as_long_alike_in_either_case_and_another_for_each_key() -> None:
    names = Pseudonyms(b"one")
    assert names.name(b"Alice@Lab.Test/pc") == names.name(b"alice@lab.test/PC")
    made = names.name(b"alice@lab.test")
    assert [len(part) for part in made.replace(b"@", b".").split(b".")] == [5, 3, 4]
    assert names.name(b"alice") != names.name(b"carol")
    assert Pseudonyms(b"two").name(b"alice") != names.name(b"alice")
    assert len(names.plain(b"n" * 1000)) == 1000


def test_written_packets_are_read_again(tmp_path: Path) -> None:
    path = tmp_path / "out.pcapng"
    whole, cut = packets(session().frames)[:2]
    with path.open("wb") as file:
        writer = Writer(file, ["lan", "wan"])
        writer.packet(1_700_000_000.123456789, 1, whole.raw)
        writer.packet(1_700_000_001.5, 0, cut.raw[:40])
        assert writer.size == file.tell()
    first, second = Capture.load(path)
    assert (first.data, first.length, first.link) == (whole.raw, len(whole.raw), 101)
    assert abs(first.time - 1_700_000_000.123456789) < 1e-6
    assert (second.data, second.length) == (cut.raw[:40], len(cut.raw))


def test_file_is_new_for_its_owner_alone_and_no_longer_than_allowed(tmp_path: Path) -> None:
    path, target = tmp_path / "out.pcapng", tmp_path / "link.pcapng"
    (packet,) = packets(session().frames)[:1]
    with RecordingFile(path, 1000) as out:
        out.interface("lan")
        for _ in range(100):
            out.packet(packet)
        assert out.full
        assert 0 < out.packets < 20
    assert path.stat().st_size <= 1000
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    target.symlink_to(tmp_path / "elsewhere")
    for taken in (path, target):
        with pytest.raises(ConfigError, match="exists; name another file"):
            RecordingFile(taken, 1000)
    with pytest.raises(ConfigError, match="name a place that can be written"):
        RecordingFile(tmp_path / "no" / "such", 1000)


def test_filter_fits_into_the_kernel_with_as_many_ports_as_there_can_be() -> None:
    assert len(program(range(1, 65536))) // 8 <= 4096
    assert len(program(range(1, 65536))) == len(program(range(1, MOST_PORTS + 1)))
