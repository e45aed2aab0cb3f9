"""Edits that change lengths: what leaves is one TCP conversation, with the numbers of the edited streams.

The judges are an independent reassembly, an oracle that edits whole streams, and tshark, which may complain
about no frame that it did not complain about before.
"""

from __future__ import annotations

import struct
from ipaddress import IPv4Network
from pathlib import Path

import pytest

from nfreaim import protocols
from nfreaim.capture import Capture
from nfreaim.replay.outcome import Replay
from nfreaim.replay.player import replay
from tests.replay.bracketed import BRACKETS, PORT, edited
from tests.tcp.captures import ETHERNET, Conversation, Frames, streams, tcp_frame, tcp_in, write_pcap
from tests.tcp.packets import ACK, PSH, SYN, Direction, Packet, packet, sack
from tests.tcp.pcapng import enhanced, interface, section
from tests.tcp.recut import recut
from tests.tcp.tshark import tshark_fields

CLIENT, SERVER = ("10.0.0.5", 49152), ("203.0.113.9", PORT)
INSIDE = {"client": "10.0.0.0/24", "server": "203.0.113.0/24"}
either_end = pytest.mark.parametrize("inside", INSIDE)
SAID = [
    ("client", b"hello"),
    ("server", b"welcome [to] all"),
    ("client", b"[abcd]"),
    ("client", b"again [wxyz] and [] and [xyz] there"),
    ("server", b"yes"),
    ("server", b"[no][more]"),
    ("client", b"[long " + b"x" * 300 + b"] gone"),
    ("server", b"bye"),
    ("client", b"bye"),
]


@pytest.fixture(autouse=True)
def brackets(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(protocols, "HELPERS", (BRACKETS,))


def played(source: Path, inside: str) -> tuple[Replay, Path]:
    capture, target = Capture.load(source), source.with_suffix(".out")
    result = replay(capture, IPv4Network(INSIDE[inside]), "198.51.100.1", {"brackets": (PORT,)})
    capture.save(target)
    return result, target


def conversation(timestamps: bool = False) -> Conversation:
    talk = Conversation(CLIENT, SERVER, step=0.001, timestamps=timestamps).open()
    for side, words in SAID:
        talk.send("client" if side == "client" else "server", words)
    return talk.close()


def frames_of(path: Path) -> Frames:
    return [(frame.time, frame.data) for frame in Capture.load(path)]


def segments(frames: Frames) -> list[Packet]:
    return [segment for _, frame in frames if (segment := tcp_in(frame))]


def reverse(direction: Direction) -> Direction:
    return (*direction[2:], *direction[:2])


def complaints(path: Path) -> list[set[str]]:
    """What tshark's TCP analysis and its checksums find wrong with each frame.

    A byte that an edit takes out leaves as an empty segment, so what looks like a keep-alive is none.
    """
    options = ["-o", "tcp.check_checksum:TRUE", "-o", "ip.check_checksum:TRUE"]
    flags = "retransmission lost_segment ack_lost_segment out_of_order".split()
    fields = [f"tcp.analysis.{flag}" for flag in flags]
    found = tshark_fields(path, *fields, "ip.checksum.status", "tcp.checksum.status", options=options)
    assert all("0" not in line[-1] + line[-2] for line in found)
    return [{flag for flag, said in zip(flags, line[:-2], strict=True) if said} for line in found]


def no_new_complaints(before: Path, after: Path) -> bool:
    return all(new <= old for old, new in zip(complaints(before), complaints(after), strict=True))


def check_numbers(before: Frames, after: Frames) -> None:
    """Numbers of segments' ends stand behind what the oracle makes of all that comes before."""
    whole = streams(before)
    isns = {one.direction: one.seq for one in segments(before) if one.flags & SYN}
    ends = {
        (one.direction, (one.seq - isns[one.direction] - 1 + size) % 2**32)
        for one in segments(before)
        for size in (0, len(one.payload))
        if not one.flags & SYN
    }
    for old, new in zip(segments(before), segments(after), strict=True):
        ways = [(reverse(old.direction), old.ack, new.ack)]
        if new.payload or not old.payload:  # what is left of no byte stands one ahead, to be answered
            ways.append((old.direction, old.seq, new.seq))
        for direction, was, now in ways:
            if old.flags & SYN:
                assert was == now
                continue
            at, stream = (was - isns[direction] - 1) % 2**32, whole.get(direction, b"")
            head, past = stream[:at], max(0, at - len(stream))  # a FIN takes one
            if (direction, at - past) in ends and head.rfind(b"[") <= head.rfind(b"]"):
                assert (now - isns[direction] - 1) % 2**32 == len(edited(head)) + past, (direction, at)


@either_end
@pytest.mark.parametrize(
    "how",
    ["", "coalesced", "bytewise", "random", "duplicates", "reorder", "random reorder", "random duplicates"],
)
def test_conversation_in_whatever_segments(how: str, inside: str, tmp_path: Path) -> None:
    frames = conversation(timestamps="random" in how).frames
    for seed, step in enumerate(how.split()):
        frames = recut(frames, step, seed)
    source = tmp_path / "in.pcap"
    write_pcap(source, frames)
    result, target = played(source, inside)
    left = frames_of(target)
    assert streams(left, strict=True) == {key: edited(data) for key, data in streams(frames).items()}
    check_numbers(frames, left)
    assert no_new_complaints(source, target)
    assert (result.packets, result.flows, result.malformed) == (len(frames), 1, 0)
    assert result.changed == sum(old != new for (_, old), (_, new) in zip(frames, left, strict=True))


@either_end
def test_acknowledgement_between_the_pieces_of_a_message_goes_with_its_edit(
    inside: str, tmp_path: Path
) -> None:
    """The peer of the capture had the first piece before the second was sent; ours holds it."""
    talk = Conversation(CLIENT, SERVER, step=0.001).open()
    talk.send("client", b"[abc").send("client", b"de] fg").send("server", b"[ab").send("server", b"]")
    source = tmp_path / "in.pcap"
    write_pcap(source, talk.close().frames)
    _, target = played(source, inside)
    left = frames_of(target)
    assert streams(left, strict=True) == {key: edited(data) for key, data in streams(talk.frames).items()}
    assert no_new_complaints(source, target)
    assert not any(complaints(target))


@either_end
def test_new_connection_on_the_same_ports_begins_anew(inside: str, tmp_path: Path) -> None:
    old = conversation()
    new = Conversation(CLIENT, SERVER, start=old.time + 9, step=0.001, seqs=(77, 88)).open()
    new.send("client", b"plain").send("server", b"plain").send("client", b"[abcd]").close()
    source = tmp_path / "in.pcap"
    write_pcap(source, old.frames + new.frames)
    _, target = played(source, inside)
    left = frames_of(target)
    check_numbers(old.frames, left[: len(old.frames)])
    check_numbers(new.frames, left[len(old.frames) :])
    assert [data for _, data in left[len(old.frames) : -6]] == [data for _, data in new.frames[:-6]]
    assert no_new_complaints(source, target)


@either_end
def test_blocks_of_a_selective_acknowledgement_follow(inside: str, tmp_path: Path) -> None:
    talk = Conversation(CLIENT, SERVER, step=0.001, seqs=(1000, 5000)).open()
    talk.send("client", b"[abcd]")  # 1001 to 1007, six bytes more
    talk.send("client", b"lost", acked=False).send("client", b"seen", acked=False)
    selective = packet(SERVER, CLIENT, 5001, 1007, ACK, tcp_options=sack(1011, 1015))
    frames = [*talk.frames, (talk.time, ETHERNET + selective)]
    source = tmp_path / "in.pcap"
    write_pcap(source, frames)
    _, target = played(source, inside)
    last = segments(frames_of(target))[-1]
    assert (last.ack, last.blocks) == (1013, [(1017, 1021)])
    assert no_new_complaints(source, target)


@either_end
def test_padding_makes_room_for_longer_data_and_fills_up_for_shorter(inside: str, tmp_path: Path) -> None:
    talk = Conversation(CLIENT, SERVER, step=0.001).open()
    talk.send("client", b"[a]").send("client", b"[]xyz").send("client", b"[ab]")
    padded = [(time, frame.ljust(60, b"\0")) for time, frame in talk.frames]
    source = tmp_path / "in.pcap"
    write_pcap(source, padded)
    _, target = played(source, inside)
    left = frames_of(target)
    assert [len(frame) for _, frame in left] == [60] * len(padded)
    assert streams(left, strict=True) == {(*CLIENT, *SERVER): b"axyzababab"}
    assert no_new_complaints(source, target)


@either_end
def test_frames_cut_to_a_snapshot_length_have_the_numbers_of_the_others(inside: str, tmp_path: Path) -> None:
    talk = Conversation(CLIENT, SERVER, step=0.001, seqs=(1000, 5000)).open()
    talk.send("client", b"[abcd]").send("client", b"x" * 900).send("server", b"y" * 900).close()
    raw = section(
        interface(snaplen=200),
        *(enhanced(frame[:200], length=len(frame), ticks=round(time * 1e6)) for time, frame in talk.frames),
    )
    source = tmp_path / "in.pcapng"
    source.write_bytes(raw)
    _, target = played(source, inside)
    before, after = list(Capture.load(source)), list(Capture.load(target))
    assert [frame.length for frame in after] == [
        frame.length + 6 * (number == 3) for number, frame in enumerate(before)
    ]
    numbers = [struct.unpack_from(">II", frame.data, 38) for frame in after]
    assert numbers[3:9] == [
        (1001, 5001),
        (5001, 1013),
        (1013, 5001),
        (5001, 1913),
        (5001, 1913),
        (1913, 5901),
    ]
    assert no_new_complaints(source, target)


@either_end
def test_flow_that_is_given_up_behind_a_gap_keeps_its_numbers_in_line(inside: str, tmp_path: Path) -> None:
    talk = Conversation(CLIENT, SERVER, step=0.05, seqs=(1000, 5000)).open()
    talk.send("client", b"[abcd]").send("client", b"not in the capture")
    del talk.frames[-2:]
    for _ in range(300):  # more than the engine waits for
        talk.send("client", b"[abcd]").send("server", b"plain")
    source = tmp_path / "in.pcap"
    write_pcap(source, talk.frames)
    _, target = played(source, inside)
    for old, new in zip(segments(talk.frames)[5:], segments(frames_of(target))[5:], strict=True):
        client = old.direction[0] == CLIENT[0]
        assert (new.seq - old.seq, new.ack - old.ack) == ((6, 0) if client else (0, 6))
        assert new.payload == old.payload
    assert no_new_complaints(source, target)


@either_end
def test_what_does_not_fit_into_the_window_is_written_all_the_same(inside: str, tmp_path: Path) -> None:
    """Its sender would bring the rest again, but the sender of a capture does not."""
    talk = Conversation(CLIENT, SERVER, step=0.001).open()
    talk.send("client", b"[abcd]")
    small = [
        (time, narrow(frame, 16)) for time, frame in talk.send("client", b"[abcdefghijkl]").close().frames
    ]
    source = tmp_path / "in.pcap"
    write_pcap(source, small)
    _, target = played(source, inside)
    assert streams(frames_of(target)) == {(*CLIENT, *SERVER): b"abcd" * 3 + b"abcdefghijkl" * 3}


def narrow(frame: bytes, window: int) -> bytes:
    segment = tcp_in(frame)
    assert segment is not None
    return frame[: len(ETHERNET)] + segment.changed(window=window).raw


@pytest.mark.parametrize(
    ("pause", "probe"),
    [(20, (1006, b"bcdabcd", 5001)), (60, (1012, b"]", 5001))],
    ids=["edit known", "forgotten"],
)
@either_end
def test_probes_that_repeat_an_old_byte_still_stand_before_the_next_one(
    inside: str, pause: int, probe: tuple[int, bytes, int], tmp_path: Path
) -> None:
    """A flow that is idle for a minute forgets edits that its receiver has acknowledged."""
    talk = Conversation(CLIENT, SERVER, step=0.001, seqs=(1000, 5000)).open()
    talk.send("client", b"[abcd]")
    probes = [tcp_frame(CLIENT, SERVER, 1006, 5001, ACK, data) for data in (b"", b"]")]
    answer = tcp_frame(SERVER, CLIENT, 5001, 1007, ACK)
    frames = talk.frames + [
        (talk.time + pause + n, frame) for n, frame in enumerate((probes[0], answer, probes[1]))
    ]
    frames.append((talk.time + 99, tcp_frame(CLIENT, SERVER, 1007, 5001, ACK | PSH, b"ok")))
    source = tmp_path / "in.pcap"
    write_pcap(source, frames)
    _, target = played(source, inside)
    assert [(one.seq, one.payload, one.ack) for one in segments(frames_of(target))[-4:]] == [
        (1012, b"", 5001),
        (5001, b"", 1013),
        probe,
        (1013, b"ok", 5001),
    ]


@pytest.mark.parametrize("order", ["<", ">"])
def test_pcapng_holds_longer_and_shorter_frames(order: str, tmp_path: Path) -> None:
    frames = conversation().frames
    blocks = [enhanced(frame, ticks=round(time * 1e6), order=order) for time, frame in frames]
    source, plain = tmp_path / "in.pcapng", tmp_path / "in.pcap"
    source.write_bytes(section(interface(order=order), *blocks, order=order))
    write_pcap(plain, frames)
    _, target = played(source, "client")
    _, expected = played(plain, "client")
    assert [frame.data for frame in Capture.load(target)] == [frame.data for frame in Capture.load(expected)]
    assert all(len(frame.data) == frame.length for frame in Capture.load(target))
    assert no_new_complaints(source, target)
