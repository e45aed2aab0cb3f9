"""The wire layer on lengths that lie and on anything at all: refused or unharmed, never another error."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nfreaim.layers.oscar_messages import MAX_TLVS, dissect, rebuild, rendezvous_of
from tests.golden import load
from tests.oscar.flap import resized
from tests.oscar.messages import BLOCKS, OWN, READABLE, block, to_host
from tests.oscar.snac import CLIENT_ERROR, TO_CLIENT, TO_HOST, snac_frame
from tests.oscar.tlv import tlv
from tests.oscar.values import put

GOLDEN = load()

# --- lengths that lie ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", READABLE)
def test_message_cut_anywhere_is_refused_or_unharmed(name: str) -> None:
    data = GOLDEN[name].data
    readable = 0
    for end in range(6, len(data)):
        cut = resized(data[:end])
        try:
            flap = dissect(cut)
        except ValueError:
            continue
        readable += 1
        assert rebuild(flap) == cut
    assert readable < len(data) / 4


@pytest.mark.parametrize("name", BLOCKS)
def test_block_cut_anywhere_with_all_lengths_consistent_is_refused_or_unharmed(name: str) -> None:
    """The cut falls inside the block and its own length follows, so only the inner TLVs can notice."""
    data = GOLDEN[name].data
    rdv = rendezvous_of(dissect(data))
    assert rdv is not None
    whole = bytes(rdv)
    for size in range(len(whole)):
        cut = to_host(tlv(5, whole[:size]))
        ends = {26}
        for inner in rdv.tlvs:
            ends.add(max(ends) + len(inner))
        if size in ends:
            assert rebuild(dissect(cut)) == cut
        else:
            with pytest.raises(ValueError, match="rendezvous block"):
                dissect(cut)


@pytest.mark.parametrize(
    ("data", "why"),
    [
        (snac_frame(TO_HOST, b""), r"SNAC\(04,06\) is cut short"),
        (snac_frame(TO_HOST, b"COOKIE7\0\x00"), "is cut short"),
        (snac_frame(TO_HOST, b"COOKIE7\0\x00\x02\x05bob1"), "screen name overruns"),
        (to_host(tlv(3, b"", length=1)), "TLV 0x0003 of 1 bytes"),
        (to_host(tlv(5, block(b""), length=27)), "rendezvous block of 27 bytes overruns"),
        (to_host(tlv(5, b"")), "rendezvous block of 0 bytes"),
        (to_host(tlv(5, b"", length=26)), "rendezvous block of 26 bytes overruns: 0 left"),
        (to_host(tlv(5, block(b"")[:25])), "rendezvous block of 25 bytes"),
        (to_host(tlv(5, block(tlv(3, OWN, length=5)))), "TLV 0x0003 of 5 bytes overruns the rendezvous"),
        (to_host(tlv(5, block(tlv(3, OWN) + b"\x00\x05\x00"))), "3 bytes left over in the rendezvous"),
        (to_host(tlv(5, block(b"")) + b"\x00"), "1 bytes left over"),
        (to_host(tlv(5, block(tlv(3, OWN, length=0xFFFF)))), "TLV 0x0003 of 65535 bytes"),
        (snac_frame(TO_HOST, b"", flags=0x8000), "extra block overruns"),
        (snac_frame(TO_HOST, b"\x00", flags=0x8000), "extra block overruns"),
        (snac_frame(TO_HOST, b"\x00\x05\x00\x01\x00\x00", flags=0x8000), "extra block overruns"),
        (snac_frame(TO_CLIENT, b"COOKIE7\0\x00\x02"), "screen name overruns"),
        (snac_frame(TO_CLIENT, b"COOKIE7\0\x00\x02\x04bob1\x00\x00\x00"), "is cut short"),
        (
            snac_frame(TO_CLIENT, b"COOKIE7\0\x00\x02\x04bob1\x00\x00\x00\x02" + tlv(3, OWN)),
            "announces 2 TLVs and has 1",
        ),
        (
            snac_frame(TO_CLIENT, b"COOKIE7\0\x00\x02\x04bob1\x00\x00\x00\x01" + tlv(3, OWN, 9)),
            "overruns the user info",
        ),
        (
            snac_frame(TO_CLIENT, b"COOKIE7\0\x00\x02\x04bob1\x00\x00\x00\x01\x00\x03"),
            "left over in the user info",
        ),
        (snac_frame(CLIENT_ERROR, b"COOKIE7\0\x00\x02\x09alice1"), "is cut short"),
        (to_host(tlv(3, b"") * (MAX_TLVS + 1)), "more than 100 TLVs"),
        (to_host(tlv(5, block(tlv(3, b"") * (MAX_TLVS + 1)))), "more than 100 TLVs"),
        (
            snac_frame(TO_CLIENT, bytes(10) + b"\x00\x00\x00\xff\xff" + tlv(3, b"") * 16000),
            "more than 100 TLVs",
        ),
        (to_host(b"") + b"\x00", "FLAP length"),
        (to_host(b"")[:-1], "FLAP length"),
        (put(to_host(b""), (0, b"\x2b")), "not a data frame"),
        (put(to_host(b""), (1, b"\x01")), "not a data frame"),
        (b"", "too short"),
    ],
)
def test_overrun_or_leftover_is_refused_with_its_reason(data: bytes, why: str) -> None:
    with pytest.raises(ValueError, match=why):
        dissect(data)


def test_user_info_count_too_small_turns_its_last_tlv_into_a_message_tlv() -> None:
    """Nothing but the count says where user info ends; one less still round-trips, and must not crash."""
    data = GOLDEN["send-file-proposal-received"].data
    fewer = put(data, (35, b"\x00\x05"))
    flap = dissect(fewer)
    assert [t.type for t in flap.payload.payload.tlvs] == [0x1E, 5]
    assert rebuild(flap) == fewer


def test_largest_lists_are_still_read() -> None:
    data = to_host(tlv(5, block(tlv(3, b"") * MAX_TLVS)) + tlv(3, b"") * (MAX_TLVS - 1))
    assert rebuild(dissect(data)) == data


# --- anything at all ----------------------------------------------------------------------------------------

tlv_lists = st.lists(st.tuples(st.integers(0, 0xFFFF), st.binary(max_size=40)), max_size=30)


def encode(tlvs: list[tuple[int, bytes]]) -> bytes:
    return b"".join(tlv(t, value) for t, value in tlvs)


@given(inner=tlv_lists, outer=tlv_lists, name=st.binary(max_size=97))
def test_any_tlv_lists_round_trip(
    inner: list[tuple[int, bytes]], outer: list[tuple[int, bytes]], name: bytes
) -> None:
    plain = [pair for pair in outer if pair[0] != 5]
    data = to_host(encode(plain) + tlv(5, block(encode(inner))), name=name)
    flap = dissect(data)
    rdv = rendezvous_of(flap)
    assert rdv is not None
    assert [(t.type, t.value) for t in rdv.tlvs] == inner
    assert [(t.type, t.value) for t in flap.payload.payload.tlvs[:-1]] == plain
    assert rebuild(flap) == data


@given(info=tlv_lists, outer=tlv_lists, channel=st.sampled_from([1, 3, 4]))
def test_any_user_info_round_trips(
    info: list[tuple[int, bytes]], outer: list[tuple[int, bytes]], channel: int
) -> None:
    body = b"COOKIE7\0" + channel.to_bytes(2, "big") + b"\x04bob1\x00\x00" + len(info).to_bytes(2, "big")
    data = snac_frame(TO_CLIENT, body + encode(info) + encode(outer))
    icbm = dissect(data).payload.payload
    assert [(t.type, t.value) for t in icbm.sender.tlvs] == info
    assert [(t.type, t.value) for t in icbm.tlvs] == outer
    assert rebuild(dissect(data)) == data


@given(
    rest=st.binary(max_size=120),
    subtype=st.sampled_from([6, 7, 11]),
    flags=st.sampled_from([0, 1, 0x8000, 0xFFFF]),
    name=st.integers(0, 8),
)
def test_any_bytes_behind_an_icbm_header_are_refused_or_unharmed(
    rest: bytes, subtype: int, flags: int, name: int
) -> None:
    extra = b"\x00\x02ab" if flags & 0x8000 else b""
    body = extra + b"COOKIE7\0\x00\x02" + bytes([name]) + b"n" * name + rest
    data = snac_frame((4, subtype), body, flags=flags)
    try:
        flap = dissect(data)
    except ValueError:
        return
    assert rebuild(flap) == data


@given(name=st.sampled_from(READABLE), at=st.integers(0, 400), new=st.binary(min_size=1, max_size=4))
def test_damaged_golden_message_is_refused_or_unharmed(name: str, at: int, new: bytes) -> None:
    data = put(GOLDEN[name].data, (at % (len(GOLDEN[name].data) - 4), new))
    try:
        flap = dissect(data)
    except ValueError:
        return
    assert rebuild(flap) == data
