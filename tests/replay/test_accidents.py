"""What goes wrong in captures: pinholes, wrong order, odd links, damaged ends; the proposal is Alice's."""

import struct
from dataclasses import replace
from pathlib import Path

import pytest

from nfreaim import protocols
from nfreaim.capture import Capture
from nfreaim.helpers.oscar import OSCAR
from nfreaim.replay.outcome import Replay
from pcaps.scenes import ALICE, AMY, ROUTER_A, Scene
from pcaps.wire import GOLDEN, proposal
from tests.replay.played import play
from tests.tcp.captures import Conversation, Frames, streams, tcp_frame, tcp_in, write_pcap
from tests.tcp.packets import ACK, PSH
from tests.tcp.pcapng import enhanced, interface, option, section
from tests.unit.oscar_fixtures import AnyNumbers

BEFORE, AFTER = proposal("libpurple", ALICE, 5190), proposal("libpurple", ROUTER_A, 5190)
AIM_BEFORE, AIM_AFTER = proposal("aim", ALICE, 4000), proposal("aim", ROUTER_A, 4000)
SIGN_ON = bytes.fromhex("2a0100640004 00000001")


@pytest.fixture(autouse=True)
def any_numbers(monkeypatch: pytest.MonkeyPatch) -> None:
    """The same golden frames again and again, with the numbers that they were recorded with."""
    monkeypatch.setattr(protocols, "HELPERS", (replace(OSCAR, load=lambda: AnyNumbers),))


def signed_on(
    port: int = 49100, server: tuple[str, int] = ("203.0.113.9", 5190), **more: int
) -> Conversation:
    talk = Conversation((ALICE, port), server, start=1_700_000_000.0 + more.get("later", 0)).open()
    talk.send("server", SIGN_ON)
    talk.send("client", GOLDEN["signon-with-cookie"])
    return talk.send("server", GOLDEN["host-online"])


def played(frames: Frames, folder: Path, *, midstream: bool = False) -> tuple[Replay, Frames]:
    source, target = folder / "in.pcap", folder / "out.pcap"
    write_pcap(source, frames)
    result = play(source, target, "10.0.0.0/24", midstream=midstream)
    left = [(frame.time, frame.data) for frame in Capture.load(target)]
    assert len(left) == len(frames)
    return result, left


def payloads(frames: Frames) -> list[bytes]:
    return [segment.payload for _, frame in frames if (segment := tcp_in(frame)) and segment.payload]


def test_pieces_in_reverse_order(tmp_path: Path) -> None:
    """The last piece arrives first, and the first one, which completes the message, last."""
    talk = signed_on()
    talk.send("client", BEFORE, cuts=(40, 73, 88), acked=False)
    head, pieces = talk.frames[:-4], talk.frames[-4:]
    times = [time for time, _ in pieces]
    frames = head + [(time, frame) for time, (_, frame) in zip(times, reversed(pieces), strict=True)]
    result, left = played(frames, tmp_path)
    assert payloads(left)[-4:] == [AFTER[88:], AFTER[73:88], AFTER[40:73], AFTER[:40]]
    assert [message.frame for message in result.messages] == [len(frames)]


def test_repeated_piece_while_its_twin_is_held_leaves_like_it(tmp_path: Path) -> None:
    talk = signed_on()
    talk.send("client", BEFORE, cuts=(75,), acked=False)
    first = talk.frames[-2]
    frames = [*talk.frames[:-1], first, talk.frames[-1]]
    _, left = played(frames, tmp_path)
    assert payloads(left)[-3:] == [AFTER[:75], AFTER[:75], AFTER[75:]]


def test_hole_behind_a_held_piece_is_filled_in_time(tmp_path: Path) -> None:
    """Held, missing, present: the missing piece frees all three although it is itself held first."""
    talk = signed_on()
    talk.send("client", BEFORE, cuts=(73, 88), acked=False)
    one, two, three = talk.frames[-3:]
    frames = [*talk.frames[:-3], one, (two[0], three[1]), (three[0], two[1])]
    _, left = played(frames, tmp_path)
    assert payloads(left)[-3:] == [AFTER[:73], AFTER[88:], AFTER[73:88]]


def test_hole_that_never_fills_ends_one_flow_only(tmp_path: Path) -> None:
    broken = signed_on(49101)
    broken.send("client", GOLDEN["text-message"])
    del broken.frames[-2:]
    for _ in range(400):  # more than the engine waits for
        broken.send("client", BEFORE)
    whole = signed_on(49102, later=60)
    whole.send("client", BEFORE)
    result, left = played(broken.frames + whole.frames, tmp_path)
    assert payloads(left) == [*payloads(broken.frames), *payloads(whole.frames)[:-1], AFTER]
    assert (result.changed, result.flows, result.malformed) == (1, 2, 0)


def test_hole_at_the_end_of_the_capture(tmp_path: Path) -> None:
    talk = signed_on()
    talk.send("client", GOLDEN["text-message"], acked=False)
    del talk.frames[-1:]
    talk.send("client", BEFORE, acked=False)
    result, left = played(talk.frames, tmp_path)
    assert left == talk.frames
    assert result.messages == []


def test_capture_that_ends_inside_a_proposal(tmp_path: Path) -> None:
    talk = signed_on()
    talk.send("client", BEFORE, cuts=(88,), acked=False)
    result, left = played(talk.frames[:-1], tmp_path)
    assert left == talk.frames[:-1]
    assert (result.messages, result.pinholes) == ([], [])


def test_one_proposal_and_the_beginning_of_another_at_the_end_of_the_capture(tmp_path: Path) -> None:
    """The segment is held for the second one's sake, repeated, and leaves twice with the first one edited."""
    talk = signed_on()
    talk.send("client", BEFORE + AIM_BEFORE[:110], acked=False)
    result, left = played([*talk.frames, talk.frames[-1]], tmp_path)
    assert payloads(left)[-2:] == [AFTER + AIM_BEFORE[:110]] * 2
    assert result.changed == 2


def test_many_packets_behind_a_hole_that_is_filled_at_last(tmp_path: Path) -> None:
    talk = signed_on()
    for _ in range(40):
        talk.send("client", BEFORE, acked=False)
    missing = talk.frames.pop(-40)
    frames = [*talk.frames, (talk.time, missing[1])]
    result, left = played(frames, tmp_path)
    assert payloads(left)[-40:] == [AFTER] * 40
    assert {message.frame for message in result.messages} == {len(frames)}


def test_old_hole_is_not_filled_by_a_new_connection_on_the_same_ports(tmp_path: Path) -> None:
    old = signed_on()
    old.send("client", GOLDEN["text-message"], acked=False)
    del old.frames[-1:]
    old.send("client", BEFORE, acked=False)
    new = signed_on(later=100)
    new.send("client", BEFORE)
    new.send("client", AIM_BEFORE)
    _, left = played(old.frames + new.frames, tmp_path)
    assert payloads(left) == [*payloads(old.frames), *payloads(new.frames)[:-2], AFTER, AIM_AFTER]


def test_clock_that_jumps_back(tmp_path: Path) -> None:
    talk = signed_on()
    talk.send("client", BEFORE, cuts=(73,))
    frames = [(time - 3600 * (number % 2), frame) for number, (time, frame) in enumerate(talk.frames)]
    _, left = played(frames, tmp_path)
    assert b"".join(payloads(left)[-2:]) == AFTER


def test_connection_whose_syn_is_missing(tmp_path: Path) -> None:
    frames = signed_on().send("client", BEFORE).frames[3:]
    result, left = played(frames, tmp_path)
    assert left == frames
    assert result.flows == 0
    result, left = played(frames, tmp_path, midstream=True)
    assert payloads(left)[-1] == AFTER


def test_between_two_inside_hosts(tmp_path: Path) -> None:
    frames = signed_on(server=(AMY, 5190)).send("client", BEFORE).frames
    result, left = played(frames, tmp_path)
    assert left == frames
    assert result.flows == 0


def test_server_port_that_was_not_named(tmp_path: Path) -> None:
    frames = signed_on(server=("203.0.113.9", 443)).send("client", BEFORE).frames
    result, left = played(frames, tmp_path)
    assert left == frames
    assert result.flows == 0


def test_unfinished_checksum_stays_as_wrong_as_it_was(tmp_path: Path) -> None:
    frames = signed_on().send("client", BEFORE, acked=False).frames
    at = 14 + 20 + 16
    time, good = frames[-1]
    _, left = played(frames, tmp_path)
    right = int.from_bytes(left[-1][1][at : at + 2])
    wrong = (int.from_bytes(good[at : at + 2]) + 0x101).to_bytes(2)
    _, left = played([*frames[:-1], (time, good[:at] + wrong + good[at + 2 :])], tmp_path)
    assert int.from_bytes(left[-1][1][at : at + 2]) == right + 0x101


def test_padding_of_short_frames_and_frames_that_are_no_tcp(tmp_path: Path) -> None:
    talk = signed_on()
    talk.send("client", BEFORE, acked=False)
    arp = bytes(12) + b"\x08\x06" + bytes(46)
    fragment = bytearray(tcp_frame((ALICE, 49100), ("203.0.113.9", 5190), 1, 1, ACK | PSH, b"2a"))
    fragment[20] |= 0x20
    odd = [(0.0, arp), (0.0, b""), (0.0, bytes(5)), (0.0, bytes(fragment))]
    frames = odd + [(time, frame + b"\xaa\xbb\xcc") for time, frame in talk.frames]
    result, left = played(frames, tmp_path)
    assert left[: len(odd)] == odd
    assert all(frame.endswith(b"\xaa\xbb\xcc") for _, frame in left[len(odd) :])
    assert payloads(left)[-1] == AFTER
    assert result.packets == len(frames)


def test_frame_cut_to_a_snapshot_is_a_gap(tmp_path: Path) -> None:
    talk = signed_on()
    talk.send("client", GOLDEN["text-message"], acked=False)
    time, frame = talk.frames.pop()
    talk.send("client", BEFORE, acked=False)
    frames = [*talk.frames[:-1], (time, frame[:80]), talk.frames[-1]]
    _, left = played(frames, tmp_path)
    assert left == frames


LINKS = {
    "ethernet": (1, bytes(12) + b"\x08\x00"),
    "vlan": (1, bytes(12) + bytes.fromhex("8100 0007 0800")),
    "pppoe": (1, bytes(12) + bytes.fromhex("8864 1100 0001 0000 0021")),
    "cooked": (113, bytes(14) + b"\x08\x00"),
    "cooked-v2": (276, b"\x08\x00" + bytes(18)),
    "raw": (101, b""),
}


@pytest.mark.parametrize("name", LINKS)
def test_every_link_type(name: str, tmp_path: Path) -> None:
    link, header = LINKS[name]
    talk = signed_on()
    talk.send("client", BEFORE, acked=False)
    source, target = tmp_path / "in.pcap", tmp_path / "out.pcap"
    write_pcap(source, [(time, header + frame[14:]) for time, frame in talk.frames], link=link)
    assert play(source, target, "10.0.0.0/24").changed == 1
    assert list(Capture.load(target))[-1].data.endswith(AFTER)
    assert len(target.read_bytes()) == len(source.read_bytes())


@pytest.mark.parametrize("order", ["<", ">"])
def test_pcapng_stays_pcapng_with_all_its_options(order: str, tmp_path: Path) -> None:
    talk = signed_on()
    talk.send("client", BEFORE, acked=False)

    def whole(frames: Frames) -> bytes:
        notes = option(1, b"kept", order) + option(0, b"", order)
        blocks = [
            enhanced(frame, ticks=round(time * 1e6), order=order, options=notes) for time, frame in frames
        ]
        return section(interface(order=order), *blocks, order=order)

    _, left = played(talk.frames, tmp_path)
    source, target = tmp_path / "in.pcapng", tmp_path / "out.pcapng"
    source.write_bytes(whole(talk.frames))
    assert play(source, target, "10.0.0.0/24").changed == 1
    assert target.read_bytes() == whole(left)


def test_file_that_ends_inside_a_record(tmp_path: Path) -> None:
    talk = signed_on()
    talk.send("client", BEFORE)
    source, target = tmp_path / "in.pcap", tmp_path / "out.pcap"
    write_pcap(source, talk.frames)
    source.write_bytes(source.read_bytes()[:-7])
    result = play(source, target, "10.0.0.0/24")
    assert (result.packets, result.changed) == (len(talk.frames) - 1, 1)
    assert len(target.read_bytes()) == len(source.read_bytes())


def test_malformed_message_is_counted_and_left(tmp_path: Path) -> None:
    talk = signed_on()
    overrun = BEFORE[:69] + struct.pack(">H", 400) + BEFORE[71:]  # the length of TLV 0x0002
    talk.send("client", overrun)
    talk.send("client", BEFORE)
    talk.send("client", b"this is no frame")
    talk.send("client", BEFORE)
    result, left = played(talk.frames, tmp_path)
    assert payloads(left)[-4:] == [overrun, AFTER, b"this is no frame", BEFORE]
    assert (result.changed, result.malformed) == (1, 2)


def test_private_outside_address_is_written_when_told_so(tmp_path: Path) -> None:
    source, target = tmp_path / "in.pcap", tmp_path / "out.pcap"
    write_pcap(source, signed_on().send("client", BEFORE, acked=False).frames)
    result = play(source, target, "10.0.0.0/24", "192.168.1.2")
    assert [str(message.report.after) for message in result.messages] == ["192.168.1.2:5190"]
    left = list(Capture.load(target))[-1].data
    assert left.endswith(proposal("libpurple", "192.168.1.2", 5190))


def test_proposal_that_comes_too_late_for_its_pinhole_is_not_mapped_back(tmp_path: Path) -> None:
    """The pinhole's ten minutes pass by the capture's clock."""
    scene = Scene(expected=False)
    alice, amy = scene.sign_on(ALICE, 49103), scene.sign_on(AMY, 49103)
    alice.say(BEFORE)
    relayed = proposal("libpurple-received", ROUTER_A, 5190)
    amy.hear(relayed)
    scene.time += 601
    amy.hear(relayed)
    result, left = played(scene.frames, tmp_path)
    assert [message.report.action for message in result.messages] == ["rewritten", "mapped-back", "left"]
    assert sum(proposal("libpurple-received", ALICE, 5190)[6:] == data for data in payloads(left)) == 1
    assert len(streams(left)) == 4
