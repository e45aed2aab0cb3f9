"""Frames that outgrow the snapshot length of their file, to which readers would cut them: it grows, too."""

import struct
from pathlib import Path

import pytest

from nfreaim.capture import Capture
from tests.tcp.captures import write_pcap
from tests.tcp.pcapng import enhanced, interface, obsolete, section, simple
from tests.tcp.tshark import tshark_fields


def saved(capture: Capture, target: Path) -> bytes:
    capture.save(target)
    return target.read_bytes()


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize(("snaplen", "after"), [(9, 12), (12, 12), (99, 99), (0, 0)])
def test_snapshot_length_of_a_pcap(order: str, snaplen: int, after: int, tmp_path: Path) -> None:
    path = tmp_path / "in.pcap"
    write_pcap(path, [(0, bytes(8)), (0, bytes(9))], order=order)
    raw = path.read_bytes()
    capture = Capture(raw[:16] + struct.pack(f"{order}I", snaplen) + raw[20:])
    capture.replace(1, bytes(12))
    left = saved(capture, tmp_path / "out.pcap")
    assert struct.unpack_from(f"{order}I", left, 16) == (after,)
    assert [len(frame.data) for frame in Capture(left)] == [12, 9]


@pytest.mark.parametrize("order", ["<", ">"])
def test_snapshot_length_of_the_interface_whose_frame_grows(order: str, tmp_path: Path) -> None:
    def whole(snaplen: int, size: int) -> bytes:
        packets = [enhanced(bytes(14), order=order), enhanced(bytes(size), number=1, order=order)]
        return section(
            *(interface(snaplen=each, order=order) for each in (20, snaplen)), *packets, order=order
        )

    capture = Capture(whole(20, 18))
    capture.replace(2, bytes(25))
    target = tmp_path / "out.pcapng"
    assert saved(capture, target) == whole(25, 25)
    assert tshark_fields(target, "frame.len", "frame.cap_len") == [["14", "14"], ["25", "25"]]


def test_snapshot_length_of_an_obsolete_packet_block(tmp_path: Path) -> None:
    capture = Capture(section(interface(snaplen=20), obsolete(bytes(18))))
    capture.replace(1, bytes(25))
    assert saved(capture, tmp_path / "out.pcapng") == section(interface(snaplen=25), obsolete(bytes(25)))


def test_snapshot_length_stays_where_sizes_of_other_frames_follow_from_it(tmp_path: Path) -> None:
    capture = Capture(section(interface(snaplen=20), enhanced(bytes(18)), simple(bytes(20), 60)))
    capture.replace(1, bytes(25))
    left = Capture(saved(capture, tmp_path / "out.pcapng"))
    assert [(len(frame.data), frame.length) for frame in left] == [(25, 25), (20, 60)]
