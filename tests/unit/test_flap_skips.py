"""A FLAP reader that skips what nobody wants finds and keeps what one that reads everything does."""

from __future__ import annotations

import random

import pytest

from nfreaim.errors import Malformed
from nfreaim.helpers.oscar.flap import FlapReader
from tests.golden import packets
from tests.oscar.flap import numbered

GOLDEN = packets()
TEXT = GOLDEN["text-message"]
WANTED = {b"\x00\x04\x00\x06": True, b"\x00\x04\x00\x07": True, b"\x00\x01\x00\x03": False}


def altered(random_: random.Random, data: bytes) -> bytes:
    """*data* with some bytes near its beginning changed, or cut, or with more behind it; or as it is."""
    made = bytearray(data)
    match random_.randrange(8):
        case 0 | 1:
            for _ in range(random_.randint(1, 3)):
                made[random_.randrange(min(len(made), 40))] = random_.choice((0, 1, 2, 4, 0x2A, 0x80, 255))
        case 2:
            del made[random_.randrange(1, len(made)) :]
        case 3:
            made += random_.choice((b"\x2a", TEXT, b"\0\0\0\0\0\0\0"))
    return bytes(made)


def told(reader: FlapReader, data: bytes, at: int) -> object:
    try:
        return reader.feed(data, at)
    except Malformed as error:
        return type(error)


@pytest.mark.parametrize("seed", range(20))
def test_a_reader_that_skips_finds_and_keeps_what_another_does(seed: int) -> None:
    random_ = random.Random(seed)
    frames = [data for data in GOLDEN.values() if data[:1] == b"\x2a"]
    skipped = 0
    for _ in range(30):
        one, other = (FlapReader(WANTED, False, True, slack=random_.choice((0, 16))) for _ in "ab")
        other.slack = one.slack
        for reader in (one, other):
            reader.begun, reader.due = True, 7
        at = 0
        for number in range(12):
            data = altered(random_, numbered(random_.choice(frames), 7 + number))
            if one.skips(b"header" + data, 6):
                skipped += 1
                assert told(other, data, at) == []
            else:
                found = told(one, data, at)
                assert told(other, data, at) == found
                if isinstance(found, type):
                    break
            at += len(data)
            assert one.position() == other.position()
            assert (one.kept, one.broken is None) == (other.kept, other.broken is None)
    assert skipped > 5
