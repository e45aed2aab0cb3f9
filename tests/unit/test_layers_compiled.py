"""Readers compiled from the layers against scapy's dissection: the same values, and the same refusals."""

from __future__ import annotations

import random
from functools import cache
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scapy.fields import FieldListField, IntField, LEShortField, ShortField, SignedByteField, StrNullField
from scapy.packet import Packet

from nfreaim.layers.compiled import Reader, Record
from nfreaim.layers.oscar_messages import MAX_TLVS, dissect, rebuild, rendezvous_of
from nfreaim.layers.oscar_reading import read_icbm, rendezvous_in
from tests.fuzz import corpus, frames
from tests.fuzz.program import Kind
from tests.golden import load
from tests.oscar.flap import frames_of, resized
from tests.oscar.messages import READABLE, block, to_host
from tests.oscar.snac import CLIENT_ERROR, TO_CLIENT, TO_HOST, kind_of, snac_frame
from tests.oscar.tlv import tlv
from tests.oscar.values import put

GOLDEN = load()
MUTATIONS = 1500


def plain(found: Any) -> Any:
    """A record, or a packet of scapy's without its payload, as plain data."""
    if isinstance(found, Record):
        return found.layer.__name__, {
            name: plain(value) for name, value in vars(found).items() if name != "layer"
        }
    if isinstance(found, Packet):
        fields = {field.name: found.getfieldval(field.name) for field in found.fields_desc}
        absent = {
            field.name for field in found.fields_desc if field.isconditional and not field._evalcond(found)
        }
        return type(found).__name__, {name: plain(fields[name]) for name in fields if name not in absent}
    return [plain(item) for item in found] if isinstance(found, list) else found


def both(data: bytes) -> bool:
    """Whether both read *data*, which they have to agree on."""
    try:
        flap = dissect(data)
    except ValueError:
        with pytest.raises(ValueError, match=r"."):
            read_icbm(data)
        return False
    assert rebuild(flap) == data
    headers = flap, flap.payload, flap.payload.payload
    read = read_icbm(data)
    assert [plain(one) for one in read] == [plain(one) for one in headers]
    one, other = rendezvous_in(read[2]), rendezvous_of(flap)
    assert (one is None) is (other is None)
    assert one is None or plain(one) == plain(other)
    return True


@cache
def of_the_fuzzers() -> list[bytes]:
    """Every ICBM in the seeds and regressions of the fuzz targets."""
    found: dict[bytes, None] = {}
    for _, program in corpus.programs():
        for step in program.steps:
            if step.kind is Kind.SEND:
                found |= dict.fromkeys(frames_of(step.data))
    return [frame for frame in found if kind_of(frame) in (TO_HOST, TO_CLIENT, CLIENT_ERROR)]


@pytest.mark.parametrize("name", GOLDEN)
def test_golden_packets(name: str) -> None:
    assert both(GOLDEN[name].data) is (name in READABLE)
    for edited in GOLDEN[name].expected.values():
        assert both(edited) is (name in READABLE)


@pytest.mark.parametrize("name", READABLE)
def test_golden_packets_cut_or_with_one_byte_changed(name: str) -> None:
    data = GOLDEN[name].data
    for at in range(len(data)):
        both(data[:at])
        both(resized(data[:at]) if at >= 6 else b"")
        both(put(data, (at, bytes([data[at] + 1 & 0xFF]))))
        both(put(data, (at, b"\xff")))


def test_frames_of_the_fuzz_corpus_and_mutations_of_them() -> None:
    found = of_the_fuzzers()
    assert sum(both(frame) for frame in found) > 50
    rng = random.Random(5190)
    changed = [frames.mutated(rng.choice(found), rng) for _ in range(MUTATIONS)]
    read = sum(both(resized(frame) if len(frame) >= 6 and rng.random() < 0.7 else frame) for frame in changed)
    assert MUTATIONS / 10 < read < MUTATIONS


@pytest.mark.parametrize("more", [0, 1])
def test_lists_of_as_many_as_there_may_be(more: int) -> None:
    count = MAX_TLVS + more
    filler = tlv(9, b"x") * count
    assert both(to_host(filler)) is not more
    assert both(to_host(tlv(5, block(filler)))) is not more
    sender = b"COOKIE7\0\0\2\3bob\0\0" + count.to_bytes(2, "big")
    assert both(snac_frame(TO_CLIENT, sender + filler)) is not more


@given(
    rest=st.binary(max_size=120),
    subtype=st.sampled_from([6, 7, 11, 12]),
    flags=st.sampled_from([0, 1, 0x8000, 0xFFFF]),
    name=st.integers(0, 8),
)
def test_any_bytes_behind_an_icbm_header(rest: bytes, subtype: int, flags: int, name: int) -> None:
    extra = b"\x00\x02ab" if flags & 0x8000 else b""
    both(
        snac_frame(
            (4, subtype), extra + b"COOKIE7\0\x00\x02" + bytes([name]) + b"n" * name + rest, flags=flags
        )
    )


@given(
    inner=st.lists(st.tuples(st.integers(0, 30), st.binary(max_size=40)), max_size=30),
    name=st.binary(max_size=97),
)
def test_any_block(inner: list[tuple[int, bytes]], name: bytes) -> None:
    whole = b"".join(tlv(kind, value) for kind, value in inner)
    assert both(to_host(tlv(5, block(whole)), name=name))
    both(to_host(tlv(5, block(whole)) + whole, name=name))


@pytest.mark.parametrize(
    ("field", "why"),
    [
        (StrNullField("text", b""), "no reader for a StrNullField"),
        (FieldListField("numbers", [], ShortField("", 0)), "no reader for a FieldListField"),
        (LEShortField("number", 0), "not big-endian"),
        (SignedByteField("number", 0), "no reader for a SignedByteField"),
        (IntField("layer", 0), "has a 'layer' already"),
    ],
)
def test_a_declaration_that_no_reader_follows_is_refused_when_it_is_compiled(field: Any, why: str) -> None:
    with pytest.raises(TypeError, match=why):
        Reader(type("Strange", (Packet,), {"fields_desc": [field]}))


def test_a_field_whose_value_is_made_of_the_number_on_the_wire_is_refused() -> None:
    class Doubled(ShortField):  # type: ignore[misc]
        def m2i(self, pkt: Any, x: int) -> int:
            return 2 * x

    with pytest.raises(TypeError, match="not what the wire has"):
        Reader(type("Strange", (Packet,), {"fields_desc": [Doubled("number", 0)]}))
