"""FlapReader: frames cut anywhere, and bytes that are no frames."""

from __future__ import annotations

import random
from collections.abc import Iterable
from itertools import pairwise

import pytest

from nfreaim.errors import Foreign, Malformed
from nfreaim.helpers.oscar.flap import MAX_FRAME, FlapReader, Frame
from tests.golden import load
from tests.oscar.flap import FLAP_SNAC, flap, number_of, numbered

GOLDEN = load()
TO_HOST = b"\x00\x04\x00\x06"
SIGNON = GOLDEN["signon-with-cookie"].data
PROPOSAL = GOLDEN["send-file-proposal"].data
NAMES = ["signon-with-cookie", "client-versions", "send-file-proposal", "keepalive", "text-message"]
SESSION = b"".join(
    GOLDEN[name].data for name in [*NAMES, "aim-proposal", "login", "relay-proposal", "signoff"]
)


ANY = 0x8000  # for what is not about numbers: golden frames keep those that they were recorded with


def reader(midstream: bool = False) -> FlapReader:
    return FlapReader({TO_HOST: True}, midstream, slack=ANY)


def begun(wanted: dict[bytes, bool] | None = None) -> FlapReader:
    made = FlapReader(wanted or {TO_HOST: True}, False, slack=ANY)
    made.begun = True
    return made


def fed(data: bytes, cuts: Iterable[int] = (), made: FlapReader | None = None) -> list[Frame]:
    made = made or reader()
    frames: list[Frame] = []
    for low, high in pairwise([0, *cuts, len(data)]):
        frames += made.feed(data[low:high], low)
        assert len(made.kept) < MAX_FRAME
        assert made.kept == data[made.kept_at : high] or not made.kept
    return frames


WHOLE = fed(SESSION)


def test_the_wanted_frames_and_the_sign_off_come_with_their_offsets() -> None:
    wanted = ["send-file-proposal", "aim-proposal", "relay-proposal"]
    assert [got.data for got in WHOLE] == [*(GOLDEN[name].data for name in wanted), GOLDEN["signoff"].data]
    assert all(SESSION[got.at : got.at + len(got.data)] == got.data for got in WHOLE)
    assert [got.channel for got in WHOLE] == [2, 2, 2, 4]


def test_a_message_too_short_for_its_channel_is_not_judged_by_the_bytes_of_the_next_frame() -> None:
    stream = flap(FLAP_SNAC, data=b"\0\4\0\6" + bytes(6) + b"COOKIE") + flap(5, data=bytes(20))
    assert fed(stream, made=begun()) == fed(stream, [22], made=begun())


def test_text_is_passed_over_but_never_what_might_be_a_rendezvous() -> None:
    text, extra = GOLDEN["text-message"].data, bytearray(GOLDEN["text-message"].data)
    extra[10] |= 0x80  # an extra block: the channel stands elsewhere
    assert not fed(text, made=begun())
    assert [got.data for got in fed(bytes(extra), made=begun())] == [bytes(extra)]
    assert [got.data for got in fed(text, made=begun({TO_HOST: False}))] == [text]


def test_frame_is_skipped_behind_one_that_came_in_pieces() -> None:
    first, second = (numbered(GOLDEN["client-versions"].data, number) for number in (7, 8))
    for cut in range(6, len(first)):
        made = begun()
        made.due = 7
        assert not made.skips(first[:cut], 0)
        assert made.feed(first[:cut], 0) == made.feed(first[cut:], cut) == []
        assert made.skips(second, 0), cut


def test_one_byte_at_a_time() -> None:
    assert fed(SESSION, range(1, len(SESSION))) == WHOLE


def test_cut_in_two_at_every_offset() -> None:
    for cut in range(1, len(SESSION)):
        assert fed(SESSION, [cut]) == WHOLE, cut


def test_cut_at_random_places() -> None:
    rng = random.Random(5190)
    for _ in range(300):
        cuts = sorted(rng.sample(range(1, len(SESSION)), rng.randrange(1, 40)))
        assert fed(SESSION, cuts) == WHOLE, cuts


def test_each_frame_in_the_five_segments_of_a_server() -> None:
    cuts: list[int] = []
    at = 0
    while at < len(SESSION):
        cuts += [at + step for step in (0, 1, 2, 4, 6)]
        at += 6 + int.from_bytes(SESSION[at + 4 : at + 6], "big")
    assert fed(SESSION, [cut for cut in cuts[1:] if cut < len(SESSION)]) == WHOLE


@pytest.mark.parametrize(
    "first",
    [
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
        b"GET / HTTP/1.1\r\n\r\n",
        b"OFT2\x01\x00\x01\x01",
        GOLDEN["odc2-hello"].data,
        GOLDEN["ars-create"].data,
        b"\x2a" * 16,
        b"\x00",
        b"",
    ],
    ids=["TLS", "HTTP", "OFT2", "ODC2", "ARS", "asterisks", "zero", "nothing"],
)
def test_a_foreign_protocol_is_known_by_its_first_bytes(first: bytes) -> None:
    if not first:
        assert fed(first) == []
        return
    with pytest.raises(Foreign):
        fed(first)
    with pytest.raises(Foreign):
        fed(first, range(1, len(first)))


@pytest.mark.parametrize(
    "first",
    [
        flap(2, data=b"\0\0\0\1"),
        flap(1, data=b"\0\0\0\2"),
        flap(1, data=b"\1\0\0\0"),
        flap(1, data=b"\0\0\0"),
        flap(1, data=b""),
        flap(0, data=b"\0\0\0\1"),
        flap(6, data=b"\0\0\0\1"),
    ],
    ids=["data", "version 2", "little-endian", "short", "empty", "channel 0", "channel 6"],
)
def test_a_flow_that_does_not_begin_with_a_sign_on_is_foreign(first: bytes) -> None:
    for cuts in ((), range(1, len(first))):
        made = reader()
        with pytest.raises(Foreign):
            fed(first, cuts, made)
        assert not made.begun


@pytest.mark.parametrize("junk", [b"\x2b", b"\x2a\x00\0\0\0\0", b"\x2a\x06\0\0\0\0", b"\x2a\xff\0\0\xff\xff"])
def test_a_frame_that_does_not_begin_as_one_ends_the_reading(junk: bytes) -> None:
    made = reader()
    assert len(fed(SIGNON + PROPOSAL, (), made)) == 1
    with pytest.raises(Malformed) as caught:
        made.feed(junk, len(SIGNON + PROPOSAL))
    assert not isinstance(caught.value, Foreign)


def test_it_does_not_hunt_for_the_next_frame_in_garbage() -> None:
    with pytest.raises(Malformed):
        fed(SIGNON + b"\0" + PROPOSAL)


def test_frames_before_garbage_count_however_the_bytes_are_cut() -> None:
    data = SIGNON + PROPOSAL + b"\0" + PROPOSAL
    made = reader()
    assert [got.data for got in fed(data, (), made)] == [PROPOSAL]
    assert made.kept == b""
    with pytest.raises(Malformed):
        made.feed(PROPOSAL, len(data))
    made = reader()
    assert [got.data for got in fed(data[: -len(PROPOSAL) - 1], range(1, 300), made)] == [PROPOSAL]
    with pytest.raises(Malformed):
        made.feed(b"\0", len(data) - len(PROPOSAL) - 1)


def test_a_length_one_too_long_swallows_the_next_frame_s_first_byte_and_ends_the_reading() -> None:
    longer = bytearray(PROPOSAL)
    longer[5] += 1
    made = reader()
    assert [got.data for got in fed(SIGNON + longer + PROPOSAL, (), made)] == [bytes(longer) + b"\x2a"]
    with pytest.raises(Malformed):
        made.feed(b"\x2a", 0)


def test_frames_of_64_kib_are_skipped_without_being_kept() -> None:
    icon = flap(FLAP_SNAC, data=b"\0\x10\0\3" + bytes(6) + b"\x2a" * 65525)
    made = reader()
    data = SIGNON + icon + PROPOSAL
    assert [got.at for got in fed(data, range(1000, len(data), 1000), made)] == [len(SIGNON + icon)]
    assert made.oversized == 0


def test_a_wanted_frame_of_64_kib_is_skipped_and_counted() -> None:
    huge = flap(FLAP_SNAC, data=TO_HOST + bytes(6) + b"\x2a" * 65525)
    made = reader()
    data = SIGNON + huge + PROPOSAL
    assert [got.at for got in fed(data, range(1, len(data), 7), made)] == [len(SIGNON + huge)]
    assert made.oversized == 1


@pytest.mark.parametrize(("size", "read"), [(MAX_FRAME, True), (MAX_FRAME + 1, False)])
def test_the_longest_frame_that_is_read(size: int, read: bool) -> None:
    edge = flap(FLAP_SNAC, data=TO_HOST + bytes(14) + b"\0\2" + bytes(size - 26))
    made = reader()
    assert bool(fed(SIGNON + edge, range(1, len(SIGNON + edge), 97), made)) == read
    assert made.oversized == (not read)


@pytest.mark.parametrize("size", [0, 1, 9])
def test_a_data_frame_too_short_for_a_snac_is_skipped(size: int) -> None:
    data = SIGNON + flap(FLAP_SNAC, data=TO_HOST[:size].ljust(size, b"\0")) + PROPOSAL
    assert [got.data for got in fed(data)] == [PROPOSAL]
    assert [got.data for got in fed(data, range(1, len(data)))] == [PROPOSAL]


@pytest.mark.parametrize("last", [b"\x2a\x04\0\x68", b"\x2a"])
def test_an_end_without_a_length_is_no_error(last: bytes) -> None:
    made = reader()
    assert fed(SIGNON + last, (), made) == []
    assert made.kept == last


def test_midstream_reading_begins_at_a_chain_of_whole_frames() -> None:
    made = reader(midstream=True)
    assert made.feed(PROPOSAL[50:], 0) == []
    at = len(PROPOSAL[50:])
    assert made.feed(PROPOSAL[:70], at) == []  # begins as a frame, but nothing proves it
    at += 70
    assert made.feed(PROPOSAL[70:], at) == []
    at += len(PROPOSAL[70:])
    assert made.feed(PROPOSAL + PROPOSAL, at) == []  # numbers that do not run on prove nothing, either
    at += 2 * len(PROPOSAL)
    second = numbered(PROPOSAL, number_of(PROPOSAL) + 1)
    assert [got.at for got in made.feed(PROPOSAL + second, at)] == [at, at + len(PROPOSAL)]
    assert made.feed(PROPOSAL[:70], 0) == []
    assert len(made.feed(PROPOSAL[70:], 70)) == 1  # from here on cuts do not matter


def test_midstream_reading_is_given_up_where_nothing_begins_as_a_frame() -> None:
    made = reader(midstream=True)
    for _ in range(64):
        assert made.feed(b"\x17\x03\x03\0\x20", 0) == []
    with pytest.raises(Malformed):
        made.feed(b"\x17\x03\x03\0\x20", 0)


def whole_signoffs() -> FlapReader:
    made = FlapReader({TO_HOST: True}, False, whole_signoff=True, slack=ANY)
    made.begun = True
    return made


def test_a_sign_off_comes_with_its_data_where_it_is_asked_for_however_it_is_cut() -> None:
    reply, empty = GOLDEN["icq-flap-login-reply"].data, GOLDEN["signoff"].data
    data = reply + PROPOSAL + empty + reply
    for cuts in [(), range(1, len(data)), *([cut] for cut in range(1, len(data)))]:
        got = fed(data, cuts, whole_signoffs())
        assert [frame.data for frame in got] == [reply, PROPOSAL, empty, reply], cuts
        assert [frame.channel for frame in got] == [4, 2, 4, 4]
    assert [frame.data for frame in fed(data, (), begun())] == [reply[:6], PROPOSAL, empty, reply[:6]]


@pytest.mark.parametrize(("size", "whole"), [(MAX_FRAME - 6, True), (MAX_FRAME - 5, False), (65535, False)])
def test_a_sign_off_longer_than_any_login_reply_comes_as_its_header(size: int, whole: bool) -> None:
    data = flap(4, data=bytes(size))
    for cuts in ((), range(6, len(data), 1000)):
        (got, then) = fed(data + PROPOSAL, cuts, whole_signoffs())
        assert got.data == (data if whole else data[:6])
        assert then.data == PROPOSAL
