"""Mutations of OSCAR frames by structure: TLVs and blocks are changed as such, lengths and counts follow."""

from __future__ import annotations

import random
import struct
from typing import Final

from tests.fuzz.fields import RELAY, REVERSE, frames_of
from tests.fuzz.numbers import WRONG
from tests.golden import load
from tests.unit.fakes import packed

GOLDEN: Final = {name: golden.data for name, golden in load().items()}
ADDRESSES: Final = [
    packed(text)
    for text in (
        "10.0.0.5",
        "10.0.0.5",
        "10.0.0.6",
        "10.0.0.9",
        "10.0.0.77",
        "10.0.0.1",
        "203.0.113.1",
        "203.0.113.1",
        "203.0.113.20",
        "198.51.100.200",
        "198.51.100.7",
        "192.0.2.7",
        "127.0.0.1",
        "0.0.0.0",
        "255.255.255.255",
    )
]
PORTS: Final = (0, 1, 80, 1023, 1024, 3306, 4000, 4001, 4010, 5190, 5190, 5191, 40000, 40001, 65535)
HOSTS: Final = (
    b"10.0.0.9:5190",
    b"10.0.0.9",
    b"home.example:5190",
    b"HOME.example",
    b"203.0.113.9:5190",
    b"203.0.113.9:443",
    b"192.168.1.1:0",
    b"10.0.0.9:99999",
    b"[::1]:5190",
    b"",
    b"198.51.100.200:45190",
    b"a" * 260,
)
NAMES: Final = (
    b"\0\4\0\6",
    b"\0\4\0\7",
    b"\0\4\0\x0b",
    b"\0\4\0\1",
    b"\0\1\0\3",
    b"\0\1\0\x1e",
    b"\0\1\0\x0f",
    b"\0\2\0\6",
    b"\0\3\0\x0b",
    b"\0\x17\0\3",
    b"\0\1\0\5",
    b"\0\1\0\x12",
)
TAGS: Final = (2, 2, 3, 3, 4, 4, 5, 5, 5, 0x16, 0x17, 0xA, 0xC, 0xF, 0x10, 0x14, 0x2711, 0x2711, 0x8E, 6)
SIZES: Final = (0, 1, 2, 3, 4, 5, 8, 26, 37, 300, 9000)
_CAPABILITIES: Final = (REVERSE, RELAY, bytes.fromhex("094613434c7f11d18222444553540000"), bytes(16))

Tlvs = list[tuple[int, bytes]]


def mutated(data: bytes, rng: random.Random) -> bytes:
    """*data*, FLAP frames and perhaps a rest, with one of the frames changed, or their order."""
    whole = frames_of(data)
    if not whole:
        return flipped(data, rng)
    rest = data[sum(map(len, whole)) :]
    at = rng.randrange(len(whole))
    what = rng.random()
    if what < 0.06:
        whole.insert(at, GOLDEN[rng.choice(list(GOLDEN))])
    elif what < 0.1:
        del whole[at]
    elif what < 0.14:
        whole.insert(at, rng.choice(whole))
    else:
        whole[at] = frame(whole[at], rng)
    return b"".join(whole) + rest


def frame(data: bytes, rng: random.Random) -> bytes:
    """One frame changed."""
    channel, body = data[1], data[6:]
    what = rng.random()
    if what < 0.05:
        return flipped(data, rng)
    if what < 0.08:
        channel = rng.choice((1, 2, 3, 4, 5, 0, 6))
    elif channel == 2 and len(body) >= 10:
        body = snac(body, rng)
    elif channel == 4:
        body = _list_bytes(_split(body)[0], rng)
    else:
        body = flipped(body, rng)
    size = len(body) if rng.random() > 0.03 else _wrong(len(body), rng)
    number = rng.randrange(1 << 16)
    if rng.random() < 0.04:
        number = WRONG << 8 | rng.choice((1, 2, 16, 17, 0x80, 0xEF, 0xF0, 0xFF))
    return struct.pack("!BBHH", 0x2A, channel, number, size & 0xFFFF) + body[:0xFFFF]


def snac(data: bytes, rng: random.Random) -> bytes:
    name, flags, request, body = data[:4], data[4:6], data[6:10], data[10:]
    extra = b""
    if flags[0] & 0x80 and len(body) >= 2:
        size = 2 + int.from_bytes(body[:2], "big")
        extra, body = body[:size], body[size:]
    what = rng.random()
    if what < 0.05:
        name = rng.choice(NAMES)
    elif what < 0.1:
        flags = bytes([flags[0] ^ 0x80, flags[1]])
        extra = b"" if extra else rng.choice((b"\0\0", b"\0\6\0\1\0\2\0\3", b"\0\4ab", b"\xff\xff"))
    elif what < 0.13:
        request = rng.randbytes(4)
    else:
        body = _body(name, body, rng)
    return name + flags + request + extra + body


def _body(name: bytes, body: bytes, rng: random.Random) -> bytes:
    if name in (b"\0\4\0\6", b"\0\4\0\7") and len(body) > 11:
        return _icbm(name, body, rng)
    if name in (b"\0\1\0\x0f", b"\0\2\0\6", b"\0\3\0\x0b") and len(body) > 5:
        head, rest = _user(body, rng)
        if rng.random() < 0.2:
            head += head
        return head + rest
    if name in (b"\0\1\0\x1e", b"\0\x17\0\3", b"\0\1\0\5"):
        return _list_bytes(_split(body)[0], rng)
    if name == b"\0\1\0\3":
        return body + b"\0\4" if rng.random() < 0.3 else flipped(body, rng)
    return flipped(body, rng)


def _icbm(name: bytes, body: bytes, rng: random.Random) -> bytes:
    cookie, channel, rest = body[:8], body[8:10], body[10:]
    if name == b"\0\4\0\7":
        touch = rng.random() < 0.25
        head, rest = _user(rest, rng, touch)
        if touch:
            return cookie + channel + head + rest
    else:
        head, rest = rest[: 1 + rest[0]], rest[1 + rest[0] :]
    tlvs, left = _split(rest)
    what = rng.random()
    if what < 0.03:
        channel = rng.choice((b"\0\1", b"\0\2", b"\0\4"))
    elif what < 0.06:
        cookie = rng.choice((cookie[:7] + b"x", b"COOKIE7\0", bytes(8)))
    elif what < 0.8:
        blocks = [at for at, (tag, value) in enumerate(tlvs) if tag == 5 and len(value) >= 26]
        if blocks:
            at = rng.choice(blocks)
            tlvs[at] = (5, _block(tlvs[at][1], rng))
            if tlvs[at][1][2:10] != cookie and rng.random() < 0.8:
                cookie = tlvs[at][1][2:10]
    else:
        return cookie + channel + head + _list_bytes(tlvs, rng) + left
    return cookie + channel + head + _joined(tlvs) + left


def _block(data: bytes, rng: random.Random) -> bytes:
    kind, cookie, capability, inner = data[:2], data[2:10], data[10:26], _split(data[26:])[0]
    what = rng.random()
    if what < 0.08:
        kind = rng.choice((b"\0\0", b"\0\1", b"\0\2", b"\0\3"))
    elif what < 0.13:
        capability = rng.choice(_CAPABILITIES)
    elif what < 0.18:
        cookie = bytes([*cookie[:6], rng.randrange(4), 0])
    else:
        return kind + cookie + capability + _list_bytes(inner, rng)
    return kind + cookie + capability + _joined(inner)


def _user(data: bytes, rng: random.Random, touch: bool = True) -> tuple[bytes, bytes]:
    """A user-info block, changed if *touch*, and what follows it."""
    size = 1 + data[0]
    head, count, data = data[: size + 2], int.from_bytes(data[size + 2 : size + 4], "big"), data[size + 4 :]
    tlvs, rest = _split(data, count)
    if touch:
        tlvs = _changed(tlvs, rng)
    count = len(tlvs) if rng.random() > 0.03 else _wrong(len(tlvs), rng)
    return head + (count & 0xFFFF).to_bytes(2, "big") + _joined(tlvs), rest


def _split(data: bytes, count: int = 1 << 16) -> tuple[Tlvs, bytes]:
    tlvs: Tlvs = []
    while len(data) >= 4 and len(tlvs) < count:
        tag, size = struct.unpack_from("!HH", data)
        if len(data) < 4 + size:
            break
        tlvs.append((tag, data[4 : 4 + size]))
        data = data[4 + size :]
    return tlvs, data


def _joined(tlvs: Tlvs) -> bytes:
    return b"".join(struct.pack("!HH", tag & 0xFFFF, len(value) & 0xFFFF) + value for tag, value in tlvs)


def _list_bytes(tlvs: Tlvs, rng: random.Random) -> bytes:
    data = _joined(_changed(tlvs, rng))
    if rng.random() < 0.04 and len(data) > 4:  # a length that is wrong
        data = bytearray(data)
        data[2:4] = (_wrong(int.from_bytes(data[2:4], "big"), rng) & 0xFFFF).to_bytes(2, "big")
    return bytes(data)


def _changed(tlvs: Tlvs, rng: random.Random) -> Tlvs:
    tlvs = list(tlvs)
    at = rng.randrange(len(tlvs)) if tlvs else 0
    what = rng.random()
    if not tlvs or what < 0.2:
        tag = rng.choice(TAGS)
        tlvs.insert(at, (tag, value(tag, rng)))
    elif what < 0.3:
        del tlvs[at]
    elif what < 0.4:
        tlvs.insert(rng.randint(0, len(tlvs)), tlvs[at])
    elif what < 0.45:
        rng.shuffle(tlvs)
    elif what < 0.5:
        tlvs[at] = (rng.choice(TAGS), tlvs[at][1])
    elif what < 0.52:
        tlvs += [tlvs[at]] * rng.choice((2, 50, 101))
    elif what < 0.85:
        tlvs[at] = (tlvs[at][0], value(tlvs[at][0], rng))
    else:
        tlvs[at] = (tlvs[at][0], flipped(tlvs[at][1], rng))
    return tlvs


def value(tag: int, rng: random.Random) -> bytes:
    """A value that a TLV of that type may have, or one that it should not."""
    address, port = rng.choice(ADDRESSES), rng.choice(PORTS)
    what = rng.random()
    if what < 0.1:
        return rng.randbytes(rng.choice(SIZES))
    if tag in (2, 3, 4, 0xA):
        return address
    if tag == 5:
        if what < 0.35:
            return rng.choice(HOSTS)
        return port.to_bytes(2, "big" if what < 0.9 else "little")
    if tag == 0x16:
        return bytes(byte ^ 255 for byte in address)
    if tag == 0x17:
        return (port ^ 0xFFFF).to_bytes(2, "big")
    if tag == 0xC:
        return _direct(address, port, rng)
    if tag == 0x2711:
        return _service(address, port, rng)
    return rng.choice((b"", b"\0\1", b"\0\2", b"\0\0\0\1"))


def _direct(address: bytes, port: int, rng: random.Random) -> bytes:
    if rng.random() < 0.05:
        port += 0x10000
    info = address + port.to_bytes(4, "big") + bytes([rng.choice((0, 1, 3, 4, 6))])
    return info + bytes.fromhex("0008") + rng.randbytes(4) + bytes(22)


def _service(address: bytes, port: int, rng: random.Random) -> bytes:
    if rng.random() < 0.5:
        again = port if rng.random() < 0.8 else rng.choice(PORTS)
        head = struct.pack("<I4sIBII", 100001, address, port, 4, 0, again)
        return head + struct.pack("<HI", 8, 7)
    kind = rng.choice((1, 2, 3, 3, 0x1A))
    head = b"\x1b\0" + bytes(27) + b"\x0e\0" + bytes(14)
    head += struct.pack("<BBHHH", kind, 0, rng.choice((0, 0, 0, 1)), 1, 1) + b"\0"
    both = port.to_bytes(2, "big") + bytes(2), port.to_bytes(4, "little")
    if kind == 2:
        return head + b"\1\0\0" + both[0] + (both[1] if rng.random() < 0.7 else b"")
    return head + b"\1\0\0" + both[0] + b"\2\0a\0" + bytes(4) + both[1]


def _wrong(size: int, rng: random.Random) -> int:
    return rng.choice((size + 1, size - 1, 0, 0xFFFF, size * 2, size + 256))


def flipped(data: bytes, rng: random.Random) -> bytes:
    """*data* with a few bytes changed, removed or added, or a known value put somewhere."""
    out = bytearray(data)
    for _ in range(rng.choice((1, 1, 2, 4))):
        at = rng.randint(0, len(out))
        what = rng.random()
        if what < 0.4 and at < len(out):
            out[at] = rng.choice((0, 1, 2, 4, 5, 0x10, 0x2A, 0x7F, 0x80, 0xFF, rng.randrange(256)))
        elif what < 0.55:
            del out[at : at + rng.choice((1, 1, 2, 4, 20))]
        elif what < 0.7:
            out[at:at] = rng.randbytes(rng.choice((1, 1, 2, 4, 20)))
        elif what < 0.85:
            out[at : at + 4] = rng.choice(ADDRESSES)
        else:
            out[at : at + 2] = rng.choice(PORTS).to_bytes(2, "big")
    return bytes(out)
