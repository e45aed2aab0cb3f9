"""Capture files: saved as they were read, changed where asked, numbered as in tshark, refused if damaged."""

import struct
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nfreaim.capture import Capture, CaptureError, Frame
from nfreaim.capture.link_layer import network_offset
from tests.tcp.captures import Conversation, write_pcap
from tests.tcp.pcapng import block, enhanced, interface, obsolete, option, section, simple
from tests.tcp.tshark import tshark_fields

RECORDED = Path(__file__).parents[2].parent / "shared" / "pcaps"
PCAPS = sorted(RECORDED.glob("*.pcap*"))
recorded = pytest.mark.parametrize(
    "path",
    [pytest.param(path, id=path.name) for path in PCAPS]
    or [pytest.param(None, marks=pytest.mark.skip(reason=f"{RECORDED} is absent"))],
)
IPV4 = b"\x45" + bytes(19)
ETHERNET = bytes(12)


NOISE = block(0x7777, b"nobody knows me")


@pytest.fixture
def target(tmp_path: Path) -> Path:
    return tmp_path / "out.pcap"


def saved(capture: Capture, target: Path) -> bytes:
    capture.save(target)
    return target.read_bytes()


def datas(raw: bytes) -> list[bytes]:
    return [frame.data for frame in Capture(raw)]


@recorded
def test_recorded_capture_is_saved_byte_for_byte(path: Path, target: Path) -> None:
    assert saved(Capture.load(path), target) == path.read_bytes()


@recorded
def test_numbers_lengths_and_times_are_those_of_tshark(path: Path) -> None:
    fields = ("frame.number", "frame.len", "frame.cap_len", "frame.time_epoch")
    theirs = tshark_fields(path, *fields)
    ours = [
        [str(frame.number), str(frame.length), str(len(frame.data)), f"{frame.time:.6f}"]
        for frame in Capture.load(path)
    ]
    assert ours == [[*row[:3], f"{float(row[3]):.6f}"] for row in theirs]


@recorded
def test_every_frame_replaced_by_itself_changes_nothing(path: Path, target: Path) -> None:
    capture = Capture.load(path)
    for frame in capture:
        capture.replace(frame.number, frame.data)
    assert saved(capture, target) == path.read_bytes()


@pytest.mark.parametrize("nanoseconds", [False, True])
@pytest.mark.parametrize("order", ["<", ">"])
def test_pcap_of_either_byte_order_and_clock(
    order: str, nanoseconds: bool, tmp_path: Path, target: Path
) -> None:
    path = tmp_path / "in.pcap"
    write_pcap(path, [(1.5, b"one"), (2.25, b"three")], order=order, nanoseconds=nanoseconds, link=101)
    capture = Capture.load(path)
    assert list(capture) == [Frame(1, 1.5, 101, b"one", 3), Frame(2, 2.25, 101, b"three", 5)]
    assert saved(capture, target) == path.read_bytes()
    capture.replace(1, b"longer")
    assert list(Capture(saved(capture, target))) == [
        Frame(1, 1.5, 101, b"longer", 6),
        Frame(2, 2.25, 101, b"three", 5),
    ]


@pytest.mark.parametrize("data", [b"ABCDE", b"ABCDEFGH", b"AB", b""])
def test_replaced_frame_moves_its_neighbours_but_does_not_change_them(
    data: bytes, tmp_path: Path, target: Path
) -> None:
    path = tmp_path / "in.pcap"
    write_pcap(path, [(1, b"before"), (2, b"abcde"), (3, b"behind")])
    capture = Capture.load(path)
    capture.replace(2, data)
    raw = saved(capture, target)
    assert list(Capture(raw)) == list(capture)
    assert datas(raw) == [b"before", data, b"behind"]
    assert raw[:54] == path.read_bytes()[:54]  # up to the second record's captured length
    assert raw[-22:] == path.read_bytes()[-22:]


def test_frame_cut_to_a_snapshot_keeps_its_missing_tail(target: Path) -> None:
    raw = struct.pack("<IHHiIII", 0xA1B2C3D4, 2, 4, 0, 0, 4, 1) + struct.pack("<IIII", 1, 0, 4, 100) + b"abcd"
    capture = Capture(raw)
    capture.replace(1, b"abcdef")
    assert [(frame.data, frame.length) for frame in Capture(saved(capture, target))] == [(b"abcdef", 102)]


def test_saving_over_the_file_that_was_read(tmp_path: Path) -> None:
    path = tmp_path / "in.pcap"
    write_pcap(path, [(1, b"abc")])
    capture = Capture.load(path)
    capture.replace(1, b"ABC")
    assert datas(saved(capture, path)) == [b"ABC"]


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("data", [b"ABCDE", b"ABCDEFGHI", b"A"])
def test_pcapng_keeps_options_and_unknown_blocks(order: str, data: bytes, target: Path) -> None:
    noise = block(0x7777, b"nobody knows me", order)
    options = option(1, b"kept", order) + option(0, b"", order)

    def whole(middle: bytes) -> bytes:
        frames = [enhanced(b"first", order=order), enhanced(middle, order=order, options=options)]
        return section(
            interface(order=order), noise, *frames, noise, enhanced(b"last", order=order), order=order
        )

    capture = Capture(whole(b"abcde"))
    assert saved(capture, target) == whole(b"abcde")
    capture.replace(2, data)
    assert saved(capture, target) == whole(data)  # the section's own length included


def test_padding_that_is_not_zero_survives_an_edit_of_the_same_length(target: Path) -> None:
    raw = section(interface(), enhanced(b"abcde")).replace(b"abcde\0\0\0", b"abcdeXYZ")
    capture = Capture(raw)
    capture.replace(1, b"ABCDE")
    assert saved(capture, target) == raw.replace(b"abcdeXYZ", b"ABCDEXYZ")


def test_section_grows_by_all_its_replaced_frames(target: Path) -> None:
    capture = Capture(section(interface(), enhanced(b"one"), enhanced(b"two")))
    capture.replace(2, b"two more")
    capture.replace(1, b"one more")
    assert saved(capture, target) == section(interface(), enhanced(b"one more"), enhanced(b"two more"))


def test_section_of_unknown_length_stays_unknown(target: Path) -> None:
    capture = Capture(section(interface(), enhanced(b"abc"), length=-1))
    capture.replace(1, b"abcdefgh")
    assert saved(capture, target) == section(interface(), enhanced(b"abcdefgh"), length=-1)


def test_sections_have_their_own_byte_order_interfaces_and_length(target: Path) -> None:
    def whole(second: bytes) -> bytes:
        return (
            section(interface(1), enhanced(b"one"))
            + section()
            + section(
                interface(113, order=">"),
                interface(101, order=">"),
                enhanced(second, number=1, order=">"),
                order=">",
            )
        )

    capture = Capture(whole(b"two"))
    assert [(frame.number, frame.link, frame.data) for frame in capture] == [(1, 1, b"one"), (2, 101, b"two")]
    capture.replace(2, b"two and a half")
    assert saved(capture, target) == whole(b"two and a half")


@pytest.mark.parametrize(
    ("options", "ticks", "time"),
    [
        (b"", 1_500_000, 1.5),
        (option(9, b"\x09"), 1_500_000_000, 1.5),
        (option(9, b"\x8a"), 1536, 1.5),  # 2**-10 s
        (option(2, b"eth0") + option(9, b"\x00"), 7, 7.0),
        (option(14, struct.pack("<q", 1000)), 500_000, 1000.5),
        (option(0, b"") + option(9, b"\x00"), 500_000, 0.5),  # behind the end of options
        (option(9, b"\x7f"), 2**64 - 1, 2**64 / 10**127),
    ],
)
def test_clock_of_an_interface(options: bytes, ticks: int, time: float) -> None:
    (frame,) = Capture(section(interface(options=options), enhanced(b"abc", ticks=ticks)))
    assert frame.time == pytest.approx(time)


def test_simple_and_obsolete_packet_blocks(target: Path) -> None:
    raw = section(interface(), simple(b"simple"), obsolete(b"old", ticks=2_000_000), NOISE)
    capture = Capture(raw)
    assert list(capture) == [Frame(1, 0.0, 1, b"simple", 6), Frame(2, 2.0, 1, b"old", 3)]
    capture.replace(1, b"simpler")
    capture.replace(2, b"older")
    assert list(Capture(saved(capture, target))) == list(capture)
    assert target.read_bytes() == section(
        interface(), simple(b"simpler"), obsolete(b"older", 2_000_000), NOISE
    )


def test_simple_packet_block_cannot_pass_its_snapshot_length(target: Path) -> None:
    capture = Capture(section(interface(snaplen=4), simple(b"abcd", 60), simple(b"abc")))
    assert [(frame.data, frame.length) for frame in capture] == [(b"abcd", 60), (b"abc", 3)]
    for number, data in ((1, b"abc"), (2, b"abcde")):
        with pytest.raises(CaptureError, match=f"frame {number}: .* cut at 4 bytes"):
            capture.replace(number, data)
    capture.replace(1, b"ABCD")
    assert [(frame.data, frame.length) for frame in Capture(saved(capture, target))] == [
        (b"ABCD", 60),
        (b"abc", 3),
    ]


def test_blocks_that_are_no_packets_are_numbered_as_tshark_does(tmp_path: Path) -> None:
    custom = block(0xBAD, struct.pack("<I", 32473) + b"data")
    journal = block(9, b"__REALTIME_TIMESTAMP=1\nMESSAGE=x\n")
    statistics = block(5, bytes(12))
    path = tmp_path / "in.pcapng"
    frame = ETHERNET + b"\x08\x00" + IPV4
    path.write_bytes(
        section(
            interface(), NOISE, enhanced(frame), custom, statistics, simple(frame), journal, obsolete(frame)
        )
    )
    numbers = [int(row[0]) for row in tshark_fields(path, "frame.number", options=["-Y", "ip"])]
    capture = Capture.load(path)
    assert [frame.number for frame in capture] == numbers == [1, 3, 5]
    with pytest.raises(CaptureError, match="no frame 2"):
        capture.replace(2, b"")


@pytest.mark.parametrize("number", [-1, 0, 2, 99])
def test_frame_that_does_not_exist_cannot_be_replaced(number: int) -> None:
    for raw in (section(interface(), enhanced(b"abc")), section()):
        with pytest.raises(CaptureError, match=f"no frame {number}"):
            Capture(raw).replace(number, b"abc")


def test_frame_longer_than_any_reader_takes_is_refused() -> None:
    capture = Capture(section(interface(), enhanced(b"abc")))
    with pytest.raises(CaptureError, match="frame 1: 262145 bytes"):
        capture.replace(1, bytes(262145))


@pytest.mark.parametrize("left", range(1, 19))
def test_last_pcap_record_cut_short_is_kept_and_told(left: int, tmp_path: Path, target: Path) -> None:
    path = tmp_path / "in.pcap"
    write_pcap(path, [(1, b"whole"), (2, b"cut")])
    raw = path.read_bytes()[: 24 + 21 + left]
    path.write_bytes(raw)
    capture = Capture.load(path)
    assert capture.truncated is not None
    assert f"{path}: offset 45: " in capture.truncated
    assert [frame.data for frame in capture] == [b"whole"]
    capture.replace(1, b"longer whole")
    assert saved(capture, target)[-left:] == raw[-left:]


def test_last_pcapng_block_cut_short_is_kept_and_told(target: Path) -> None:
    begin, end = section(interface(), enhanced(b"whole"), length=-1), enhanced(b"cut")
    for last in (end, section()):
        for left in range(1, len(last)):
            capture = Capture(begin + last[:left])
            assert f"offset {len(begin)}: " in (capture.truncated or "")
            assert [frame.data for frame in capture] == [b"whole"]
            assert saved(capture, target) == begin + last[:left]


def test_whole_file_is_not_called_truncated() -> None:
    assert Capture(section(interface(), enhanced(b"abc"))).truncated is None


@pytest.mark.parametrize(
    ("raw", "cause"),
    [
        (b"", "offset 0: neither pcap nor pcapng"),
        (b"\x1f\x8b\x08\x00", "begins with 1f8b0800"),
        (b"GET / HTTP/1.1\r\n\r\n", "neither pcap nor pcapng"),
        (b"\xd4\xc3\xb2\xa1", "the pcap header has 24 bytes, 4 are here"),
        (b"\xd4\xc3\xb2\xa1\x01\x00\x04\x00" + bytes(16), "offset 4: pcap version 1.4"),
        (
            b"\xd4\xc3\xb2\xa1\x02\x00\x04\x00" + bytes(24) + b"\xff" * 8,
            "offset 24: a frame of 4294967295 bytes",
        ),
        (section()[:20], "inside a section header"),
        (section()[:36], "before the block does"),
        (section().replace(b"\x4d\x3c\x2b\x1a", b"\x4d\x3c\x2b\x1b"), "offset 8: byte order magic 4d3c2b1b"),
        (section().replace(b"\x4d\x3c\x2b\x1a\x01", b"\x4d\x3c\x2b\x1a\x02"), "pcapng version 2.0"),
        (block(0x0A0D0D0A, b"\x4d\x3c\x2b\x1a\x01\0\0\0") + bytes(20), "less than 28 bytes"),
        (section(enhanced(b"abc")), "a packet of interface 0, which is not described"),
        (section(interface(), enhanced(b"abc", number=1)), "a packet of interface 1"),
        (section(block(1, bytes(4))), "interface description block of less than 20"),
        (section(interface(options=struct.pack("<HH", 9, 200))), "an option of 200 bytes overruns"),
        (section(interface(), block(6, bytes(16))), "a packet block of 28 bytes"),
        (section(interface(), simple(b"abc", 400)), "a frame of 400 bytes in a block of 20"),
        (section(NOISE[:-1] + b"\x01"), "two lengths differ"),
        (section(struct.pack("<III", 7, 13, 13) + bytes(8)), "a block of 13 bytes"),
        (section(struct.pack("<III", 7, 0, 0)), "a block of 0 bytes"),
    ],
)
def test_garbage_is_refused_with_offset_and_cause(raw: bytes, cause: str) -> None:
    with pytest.raises(CaptureError) as caught:
        Capture(raw, "some.pcap")
    assert str(caught.value).startswith("some.pcap: offset ")
    assert cause in str(caught.value)


def test_file_that_cannot_be_opened_or_written(tmp_path: Path) -> None:
    with pytest.raises(CaptureError, match=r"absent\.pcap: No such file"):
        Capture.load(tmp_path / "absent.pcap")
    with pytest.raises(CaptureError, match="Is a directory"):
        Capture(section()).save(tmp_path)


HEADS = [
    b"",
    struct.pack("<IHHiIII", 0xA1B2C3D4, 2, 4, 0, 0, 0, 1),
    struct.pack(">IHHiIII", 0xA1B23C4D, 2, 4, 0, 0, 0, 1),
    section(interface(snaplen=8), length=2**63),
    section(interface(order=">"), order=">"),
]
SMALL = st.integers(0, 40).map(lambda size: struct.pack("<I", size))
PIECES = st.one_of(
    st.binary(max_size=40),
    SMALL,
    st.builds(block, st.integers(0, 12), st.binary(max_size=40)),
    st.just(section()),
)


@given(
    head=st.sampled_from(HEADS), tail=st.lists(PIECES, max_size=8).map(b"".join), data=st.binary(max_size=60)
)
def test_random_bytes_raise_nothing_but_capture_error(
    head: bytes, tail: bytes, data: bytes, tmp_path_factory: pytest.TempPathFactory
) -> None:
    target = tmp_path_factory.getbasetemp() / "random.pcap"
    try:
        capture = Capture(head + tail)
    except CaptureError:
        return
    assert saved(capture, target) == head + tail
    for frame in capture:
        network_offset(frame.link, frame.data)
        try:
            capture.replace(frame.number, data)
        except CaptureError:
            return
    again = Capture(saved(capture, target))
    assert [(f.number, f.data, f.length) for f in again] == [(f.number, f.data, f.length) for f in capture]


@pytest.mark.parametrize(
    ("link", "before"),
    [
        (1, ETHERNET + b"\x08\x00"),
        (1, ETHERNET + b"\x81\x00\x00\x05\x08\x00"),
        (1, ETHERNET + b"\x88\xa8\x00\x05\x81\x00\x00\x06\x08\x00"),
        (1, ETHERNET + b"\x88\x64\x11\x00\x00\x01\x00\x16\x00\x21"),
        (1, ETHERNET + b"\x81\x00\x00\x07\x88\x64\x11\x00\x00\x01\x00\x16\x00\x21"),
        (113, bytes(14) + b"\x08\x00"),
        (113, bytes(14) + b"\x81\x00\x00\x05\x08\x00"),
        (276, b"\x08\x00" + bytes(18)),
        (12, b""),
        (14, b""),
        (101, b""),
        (228, b""),
        (0, b"\x02\0\0\0"),
        (0, b"\0\0\0\x02"),
        (108, b"\0\0\0\x02"),
    ],
)
def test_ipv4_is_found_behind_every_known_link_header(link: int, before: bytes) -> None:
    assert network_offset(link, before + IPV4) == len(before)
    assert network_offset(link, before + b"\x60" + bytes(39)) is None
    assert all(network_offset(link, (before + IPV4)[:cut]) is None for cut in range(len(before) + 1))


@pytest.mark.parametrize(
    ("link", "frame"),
    [
        (1, ETHERNET + b"\x08\x06" + IPV4),
        (1, ETHERNET + b"\x86\xdd" + IPV4),
        (1, ETHERNET + b"\x88\x64\x11\x00\x00\x01\x00\x16\xc0\x21" + IPV4),
        (1, ETHERNET + b"\x81\x00" * 30),
        (0, b"\x1e\0\0\0" + IPV4),
        (147, IPV4),
    ],
)
def test_other_frames_hold_no_ipv4(link: int, frame: bytes) -> None:
    assert network_offset(link, frame) is None


def test_frames_of_a_conversation_are_found_and_saved(tmp_path: Path, target: Path) -> None:
    frames = Conversation().open().send("client", b"*\x01").close().frames
    path = tmp_path / "in.pcap"
    write_pcap(path, frames)
    capture = Capture.load(path)
    assert [frame.data for frame in capture] == [data for _, data in frames]
    assert all(network_offset(frame.link, frame.data) == 14 for frame in capture)
