"""The re-cutting of captures itself: it changes segments, never streams, and tshark finds nothing wrong."""

from pathlib import Path

import pytest

from tests.tcp.captures import (
    Conversation,
    Frames,
    edited,
    read_frames,
    streams,
    tcp_frame,
    tcp_in,
    write_pcap,
)
from tests.tcp.packets import ACK, PSH, SYN
from tests.tcp.recut import HOWS, recut
from tests.tcp.tshark import tshark_problems

RECORDED = Path(__file__).parents[2].parent / "shared" / "pcaps"
CLIENT, SERVER = ("10.0.0.5", 49152), ("203.0.113.9", 5190)
UP, DOWN = (*CLIENT, *SERVER), (*SERVER, *CLIENT)
ARP = bytes(12) + b"\x08\x06" + bytes(46)
FLAP = b"*\x05\x00\x01\x00\x00"


def talk(*, timestamps: bool = False) -> Frames:
    """Both sides write FLAPs; the server cuts each as open-oscar-server does, its numbers wrap on the way."""
    conversation = Conversation(CLIENT, SERVER, timestamps=timestamps).open()
    for number in range(8):
        data = bytes([number]) * (90 + number)
        frame = b"*\x02" + number.to_bytes(2) + len(data).to_bytes(2) + data
        conversation.send("server", frame, cuts=(1, 2, 4, 6))
        conversation.send("client", frame, cuts=(), acked=False).send("client", FLAP)
    return conversation.close().frames


def payloads(frames: Frames, direction: tuple[str, int, str, int]) -> list[bytes]:
    segments = [tcp_in(frame) for _, frame in frames]
    return [s.payload for s in segments if s is not None and s.direction == direction and s.payload]


@pytest.mark.parametrize("timestamps", [False, True])
@pytest.mark.parametrize("how", HOWS)
def test_recut_conversation_carries_the_same_and_satisfies_tshark(
    how: str, timestamps: bool, tmp_path: Path
) -> None:
    frames = talk(timestamps=timestamps)
    again = recut(frames, how, seed=3)
    assert again != frames
    assert streams(again, strict=True) == streams(frames, strict=True)
    assert [time for time, _ in again] == sorted(time for time, _ in again)
    write_pcap(tmp_path / "again.pcap", again)
    problems = tshark_problems(tmp_path / "again.pcap")
    assert problems.checksums == []
    assert (problems.analysis != []) == (how in ("duplicates", "reorder"))


@pytest.mark.parametrize(
    "name", ["libpurple-send-alice-bob.pcap", "libpurple-send-bob-alice.pcap", "evidence01.pcap"]
)
@pytest.mark.parametrize("how", HOWS)
def test_recut_recording_carries_the_same(name: str, how: str, tmp_path: Path) -> None:
    if not (RECORDED / name).exists():
        pytest.skip(f"{RECORDED / name} is absent")
    frames = read_frames(RECORDED / name)
    if name.startswith("libpurple-send-bob") and how == "bytewise":
        frames = frames[:380]  # the 30 kB transfer behind it adds nothing but time
    again = recut(frames, how, seed=1)
    assert again != frames
    assert streams(again, strict=True) == streams(frames, strict=True)
    write_pcap(tmp_path / "again.pcap", again)
    problems = tshark_problems(tmp_path / "again.pcap")
    assert problems.checksums == []
    if how not in ("duplicates", "reorder") and not name.startswith("evidence"):  # which has retransmissions
        assert problems.analysis == []
    if how == "coalesced":
        assert problems.malformed == []


@pytest.mark.parametrize("how", HOWS)
def test_same_seed_gives_the_same_cuts(how: str) -> None:
    assert recut(talk(), how, seed=5) == recut(talk(), how, seed=5)


def test_random_cuts_depend_on_the_seed() -> None:
    assert recut(talk(), "random", seed=1) != recut(talk(), "random", seed=2)


def test_coalesced_server_writes_each_flap_in_one_segment() -> None:
    down = payloads(recut(talk(), "coalesced"), DOWN)
    assert len(down) == 8
    assert all(payload[:2] == b"*\x02" for payload in down)


def test_data_is_not_merged_across_an_answer() -> None:
    conversation = Conversation(CLIENT, SERVER, step=0.001).open()
    conversation.send("client", b"one").send("server", b"answer").send("client", b"two").send(
        "client", b"three"
    )
    assert payloads(recut(conversation.frames, "coalesced"), UP) == [b"one", b"twothree"]


def test_segments_do_not_grow_beyond_1400_bytes() -> None:
    conversation = (
        Conversation(CLIENT, SERVER, step=0.001).open().send("client", bytes(3000), cuts=(700, 1400, 1401))
    )
    assert [len(part) for part in payloads(recut(conversation.frames, "coalesced"), UP)] == [1400, 1, 1599]


def test_bytewise_pieces_stay_within_a_millisecond() -> None:
    frames = Conversation(CLIENT, SERVER).open().send("client", b"0123456789").frames
    times = [time for time, frame in recut(frames, "bytewise") if tcp_in(frame).payload]  # type: ignore[union-attr]
    assert len(times) == 10
    assert times[-1] - times[0] < 0.001


def test_late_duplicate_comes_before_its_acknowledgement() -> None:
    frames = Conversation(CLIENT, SERVER).open().send("client", b"abcd", cuts=(2,)).frames
    orders = {tuple(payloads(recut(frames, "duplicates", seed), UP)) for seed in range(20)}
    both = (b"ab", b"ab", b"cd", b"cd")
    assert orders == {both, (*both, b"ab"), (*both, b"cd"), (*both, b"ab", b"cd")}
    for seed in range(20):
        last = tcp_in(recut(frames, "duplicates", seed)[-1][1])
        assert last is not None
        assert last.direction == DOWN


def test_reordered_segments_swap_content_but_not_times() -> None:
    frames = Conversation(CLIENT, SERVER).open().send("client", b"abcd", cuts=(2,)).frames
    again = next(new for seed in range(20) if (new := recut(frames, "reorder", seed)) != frames)
    assert payloads(again, UP) == [b"cd", b"ab"]
    assert [time for time, _ in again] == [time for time, _ in frames]
    assert streams(again) == streams(frames)


@pytest.mark.parametrize("how", HOWS)
def test_frames_that_are_not_tcp_are_kept(how: str) -> None:
    frames = talk()
    frames.insert(20, (frames[20][0], ARP))
    assert [frame for _, frame in recut(frames, how) if frame == ARP] == [ARP]
    assert streams(recut(frames, how)) == streams(frames)


def test_ways_can_be_chained() -> None:
    chained = recut(recut(talk(), "random", 1), "reorder", 2)
    assert streams(chained, strict=True) == streams(talk())


def test_stream_whose_first_segments_come_swapped_and_without_syn() -> None:
    frames = [
        (0.0, tcp_frame(CLIENT, SERVER, 1, 9, ACK | PSH, b"world")),
        (0.1, tcp_frame(CLIENT, SERVER, 2**32 - 5, 9, ACK | PSH, b"hello ")),
    ]
    assert streams(frames) == {UP: b"hello world"}


def test_bytes_that_are_repeated_differently() -> None:
    frames = [
        (0.0, tcp_frame(CLIENT, SERVER, 100, 0, SYN)),
        (0.1, tcp_frame(CLIENT, SERVER, 101, 9, ACK, b"first")),
        (0.2, tcp_frame(CLIENT, SERVER, 101, 9, ACK, b"fIrst")),
    ]
    assert streams(frames) == {UP: b"first"}
    with pytest.raises(AssertionError, match="byte 1 is repeated differently"):
        streams(frames, strict=True)


def test_next_connection_on_the_same_ports_continues_the_stream() -> None:
    first = Conversation(CLIENT, SERVER).open().send("client", b"one").close().frames
    second = (
        Conversation(CLIENT, SERVER, seqs=(7, 8), start=1_700_000_100.0).open().send("client", b"two").frames
    )
    assert streams(first + second) == {UP: b"onetwo"}


def test_edit_of_a_stream_overwrites_in_place() -> None:
    assert edited(b"0123456789", (2, b"AB"), (8, b"YZ")) == b"01AB4567YZ"
    with pytest.raises(AssertionError, match="overruns"):
        edited(b"0123", (3, b"AB"))


def test_wrong_checksum_is_seen_by_tshark(tmp_path: Path) -> None:
    frames = Conversation(CLIENT, SERVER).open().send("client", FLAP).frames
    time, frame = frames[3]
    frames[3] = (time, frame[:-1] + b"\x01")
    write_pcap(tmp_path / "bad.pcap", frames)
    assert tshark_problems(tmp_path / "bad.pcap").checksums == [4]


def test_malformed_flap_is_seen_by_tshark(tmp_path: Path) -> None:
    snac = b"\x00\x04\x00\x06\x00\x00\x00\x00\x00\x01" + bytes(8) + b"\x00\x01\xff"
    frame = b"*\x02\x00\x01" + len(snac).to_bytes(2) + snac
    write_pcap(tmp_path / "bad.pcap", Conversation(CLIENT, SERVER).open().send("client", frame).frames)
    assert tshark_problems(tmp_path / "bad.pcap").malformed == [4]
