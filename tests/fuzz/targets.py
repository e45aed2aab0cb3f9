"""The targets: each takes any bytes and raises if something that must hold does not. No atheris here."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from nfreaim.core.address import Endpoint
from nfreaim.core.tcp.segment import Segment
from nfreaim.errors import Malformed
from nfreaim.helpers.oscar import session
from nfreaim.helpers.oscar.flap import MAX_FRAME, FlapReader, Frame
from tests.fuzz import damaged, pager, stanzas
from tests.fuzz import msn as msn_streams
from tests.fuzz.conversation import Conversation
from tests.fuzz.failures import silence
from tests.fuzz.numbers import numbered
from tests.fuzz.peers import Peers
from tests.fuzz.program import Program
from tests.fuzz.world import World
from tests.oscar.flap import frames_of, number_of, runs_on
from tests.tcp.judge import same_checksums
from tests.tcp.packets import checksum_error


def segment(data: bytes) -> None:
    """[at:2, count:1, sequence shift:4] packet: parsing never fails, and an edit keeps the checksums."""
    at, count, shift = int.from_bytes(data[:2], "big"), data[2] if len(data) > 2 else 0, data[3:7]
    raw = data[7:]
    found = Segment.parse(raw)
    if found is None:
        return
    assert found.raw == raw
    assert raw[0] >> 4 == 4
    assert raw[9] == 6
    assert int.from_bytes(raw[2:4], "big") == len(raw)
    assert found.tcp == (raw[0] & 15) * 4
    assert found.tcp + 20 <= found.start <= len(raw)
    assert found.key == raw[12:20] + raw[found.tcp : found.tcp + 4]
    payload = raw[found.start :]
    assert found.rebuilt(found.seq, found.ack, payload, None).raw in same_zero(raw, found.tcp)
    number = int.from_bytes(shift, "big")
    new = bytes(byte ^ 0x5A for byte in payload[at : at + count])
    if new:
        patched = found.patched(found.start + at, new)
        assert patched.raw[: found.tcp + 16] == raw[: found.tcp + 16]
        assert patched.raw[found.start :] == payload[:at] + new + payload[at + count :]
        assert checksum_error(patched.raw) == checksum_error(raw)
    grown = payload[:at] + new * 2 + payload[at + count :]
    if found.start + len(grown) > 0xFFFF:
        return
    rebuilt = found.rebuilt(
        found.seq + number, found.ack - number, grown, lambda a, b: (a + number, b + number)
    )
    again = Segment.parse(rebuilt.raw)
    assert again is not None
    assert (again.key, again.flags, again.start) == (found.key, found.flags, found.start)
    assert (
        (again.seq, again.ack)
        == (rebuilt.seq, rebuilt.ack)
        == (
            (found.seq + number) & 0xFFFFFFFF,
            (found.ack - number) & 0xFFFFFFFF,
        )
    )
    assert again.raw[again.start :] == grown
    same_checksums(raw, rebuilt.raw)


def same_zero(raw: bytes, tcp: int) -> list[bytes]:
    """*raw*, and the same with the other of the two zeros that one's complement has in its checksums."""
    found = [raw]
    for place in (10, tcp + 16):
        for each in list(found):
            if each[place : place + 2] in (b"\0\0", b"\xff\xff"):
                other = bytes(byte ^ 255 for byte in each[place : place + 2])
                found.append(each[:place] + other + each[place + 2 :])
    return found


def flap(data: bytes) -> None:
    """A program's streams: cut as its steps say or not at all, frames and errors are the same."""
    program = Program.decode(data)
    for slot in range(4):
        for way in (0, 1):
            steps = [s for s in program.steps if s.kind == 0 and s.slot == slot and s.way == way]
            steps = numbered(steps, program.settings)
            if steps:
                _flap([s.data for s in steps], [s.numbers[0] for s in steps], way)


def _flap(datas: list[bytes], pieces: list[int], way: int) -> None:
    stream = b"".join(datas)
    wanted = session._WANTED[way]
    cut: list[bytes] = []
    for data, size in zip(datas, pieces, strict=True):
        cut += (
            [data[low : low + size] for low in range(0, len(data), size)] if size else [data] if data else []
        )
    slack = session.OscarHelper.slacks[way]

    def reader() -> FlapReader:
        return FlapReader(wanted, False, bool(way), slack)

    whole, why = _read(reader(), [stream])
    other, why_cut = _read(reader(), cut)
    assert whole == other, f"frames differ with the cuts: {whole} {other}"
    assert why == why_cut, f"{why} without cuts and {why_cut} with them"
    bytewise, why_bytes = _read(reader(), [stream[x : x + 1] for x in range(min(len(stream), 3000))])
    if len(stream) <= 3000:
        assert (whole, why) == (bytewise, why_bytes), "frames differ byte by byte"
    at = {frame.at: frame for frame in whole}
    pos = 0
    due = None
    for number, frame in enumerate(frames_of(stream)):
        if not number and (frame[1] != 1 or frame[6:10] != b"\0\0\0\1"):
            break
        if not runs_on(frame, due, way):
            assert why == "OutOfSequence", "a frame with a wrong number was read over"
            assert all(place < pos for place in at), "a frame behind a wrong number was handed out"
            break
        due = number_of(frame) + 1 & 0xFFFF
        needed = frame[1] == 2 and frame[6:10] in wanted and len(frame) >= 16 and len(frame) <= MAX_FRAME
        if needed and (not wanted[frame[6:10]] or (not frame[10] & 0x80 and frame[24:26] == b"\0\2")):
            assert at[pos].data == frame, "a frame was not handed out as it stands in the stream"
        pos += len(frame)


def _read(reader: FlapReader, pieces: list[bytes]) -> tuple[list[Frame], str | None]:
    frames: list[Frame] = []
    start = 0
    for piece in [*pieces, b""]:
        try:
            frames += reader.feed(piece, start)
        except Malformed as error:
            return frames, type(error).__name__
        assert len(reader.kept) <= MAX_FRAME, "more than one frame is kept"
        start += len(piece)
    return frames, None


def helper(data: bytes) -> None:
    """A program's streams straight into the OSCAR helper, with the client and with the server inside."""
    silence()
    program = Program.decode(data)
    for slot in range(4):
        steps = numbered([s for s in program.steps if s.kind == 0 and s.slot == slot], program.settings)
        if steps:
            home = Endpoint("10.0.0.9", 5190)
            for server_inside in (False, True):
                Conversation(server_inside, home, late=bool(program.settings & 1)).play(steps)


def engine(data: bytes) -> None:
    """A whole program."""
    silence()
    World(Program.decode(data)).run()


def gate(data: bytes) -> None:
    """Peers against the peer gate."""
    Peers(data).run()


def records(data: bytes) -> None:
    """A damaged record of an earlier life, and packets for what is made of it."""
    silence()
    damaged.play(data)


def msn(data: bytes) -> None:
    """A program's streams straight into the MSN helper."""
    silence()
    msn_streams.play(data)


TARGETS: Final[dict[str, Callable[[bytes], None]]] = {
    "segment": segment,
    "flap": flap,
    "helper": helper,
    "engine": engine,
    "gate": gate,
    "records": records,
    "pager": pager.play,
    "msn": msn,
    "stanzas": stanzas.play,
}
