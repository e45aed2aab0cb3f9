"""Mutations of OSCAR frames by structure: TLVs and blocks are changed as such, lengths and counts follow."""

from __future__ import annotations

import random
from typing import Final

from tests.fuzz.numbers import WRONG
from tests.golden import packets
from tests.oscar import icq
from tests.oscar import snac as snacs
from tests.oscar.flap import FLAP_SIGNOFF, FLAP_SNAC, HEADER, MAGIC, frames_of
from tests.oscar.rendezvous import RELAY, REVERSE, SEND_FILE
from tests.oscar.tlv import Tlv, tlv, whole_tlvs
from tests.oscar.values import complement, ip4

GOLDEN: Final = packets()
ADDRESSES: Final = [
    ip4(text)
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
KINDS: Final = (
    snacs.TO_HOST,
    snacs.TO_CLIENT,
    snacs.CLIENT_ERROR,
    snacs.ICBM_FAILED,
    snacs.FAMILY_LIST,
    snacs.SET_STATUS,
    snacs.SELF_INFO,
    snacs.USER_INFO,
    snacs.BUDDY_ARRIVED,
    snacs.LOGIN_REPLY,
    snacs.SERVICE_REDIRECT,
    snacs.MIGRATION,
)
TAGS: Final = (2, 2, 3, 3, 4, 4, 5, 5, 5, 0x16, 0x17, 0xA, 0xC, 0xF, 0x10, 0x14, 0x2711, 0x2711, 0x8E, 6)
SIZES: Final = (0, 1, 2, 3, 4, 5, 8, 26, 37, 300, 9000)
_CAPABILITIES: Final = (REVERSE, RELAY, SEND_FILE, bytes(16))


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
    elif channel == FLAP_SNAC and len(body) >= snacs.HEADER.size:
        body = snac(body, rng)
    elif channel == FLAP_SIGNOFF:
        body = _list_bytes(whole_tlvs(body)[0], rng)
    else:
        body = flipped(body, rng)
    size = len(body) if rng.random() > 0.03 else _wrong(len(body), rng)
    number = rng.randrange(1 << 16)
    if rng.random() < 0.04:
        number = WRONG << 8 | rng.choice((1, 2, 16, 17, 0x80, 0xEF, 0xF0, 0xFF))
    return HEADER.pack(MAGIC, channel, number, size & 0xFFFF) + body[:0xFFFF]


def snac(data: bytes, rng: random.Random) -> bytes:
    family, subtype, flags, request = snacs.HEADER.unpack_from(data)
    kind, body = (family, subtype), data[snacs.HEADER.size :]
    extra = b""
    if flags & snacs.EXTRA_BLOCK and len(body) >= 2:
        size = 2 + int.from_bytes(body[:2], "big")
        extra, body = body[:size], body[size:]
    what = rng.random()
    if what < 0.05:
        kind = rng.choice(KINDS)
    elif what < 0.1:
        flags ^= snacs.EXTRA_BLOCK
        extra = b"" if extra else rng.choice((b"\0\0", b"\0\6\0\1\0\2\0\3", b"\0\4ab", b"\xff\xff"))
    elif what < 0.13:
        request = int.from_bytes(rng.randbytes(4), "big")
    else:
        body = _body(kind, body, rng)
    return snacs.HEADER.pack(*kind, flags, request) + extra + body


def _body(kind: snacs.Kind, body: bytes, rng: random.Random) -> bytes:
    if kind in (snacs.TO_HOST, snacs.TO_CLIENT) and len(body) > 11:
        return _icbm(kind, body, rng)
    if kind in (snacs.SELF_INFO, snacs.USER_INFO, snacs.BUDDY_ARRIVED) and len(body) > 5:
        head, rest = _user(body, rng)
        if rng.random() < 0.2:
            head += head
        return head + rest
    if kind in (snacs.SET_STATUS, snacs.LOGIN_REPLY, snacs.SERVICE_REDIRECT):
        return _list_bytes(whole_tlvs(body)[0], rng)
    if kind == snacs.FAMILY_LIST:
        return body + b"\0\4" if rng.random() < 0.3 else flipped(body, rng)
    return flipped(body, rng)


def _icbm(kind: snacs.Kind, body: bytes, rng: random.Random) -> bytes:
    cookie, channel, rest = body[:8], body[8:10], body[10:]
    if kind == snacs.TO_CLIENT:
        touch = rng.random() < 0.25
        head, rest = _user(rest, rng, touch)
        if touch:
            return cookie + channel + head + rest
    else:
        head, rest = rest[: 1 + rest[0]], rest[1 + rest[0] :]
    items, left = whole_tlvs(rest)
    what = rng.random()
    if what < 0.03:
        channel = rng.choice((b"\0\1", b"\0\2", b"\0\4"))
    elif what < 0.06:
        cookie = rng.choice((cookie[:7] + b"x", b"COOKIE7\0", bytes(8)))
    elif what < 0.8:
        blocks = [at for at, (tag, value) in enumerate(items) if tag == 5 and len(value) >= 26]
        if blocks:
            at = rng.choice(blocks)
            items[at] = (5, _block(items[at][1], rng))
            if items[at][1][2:10] != cookie and rng.random() < 0.8:
                cookie = items[at][1][2:10]
    else:
        return cookie + channel + head + _list_bytes(items, rng) + left
    return cookie + channel + head + _joined(items) + left


def _block(data: bytes, rng: random.Random) -> bytes:
    kind, cookie, capability, inner = data[:2], data[2:10], data[10:26], whole_tlvs(data[26:])[0]
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
    items, rest = whole_tlvs(data, count)
    if touch:
        items = _changed(items, rng)
    count = len(items) if rng.random() > 0.03 else _wrong(len(items), rng)
    return head + (count & 0xFFFF).to_bytes(2, "big") + _joined(items), rest


def _joined(items: list[Tlv]) -> bytes:
    """Their lengths modulo 2**16, for it may be too much."""
    return b"".join(tlv(tag, value, len(value) & 0xFFFF) for tag, value in items)


def _list_bytes(items: list[Tlv], rng: random.Random) -> bytes:
    data = bytearray(_joined(_changed(items, rng)))
    if rng.random() < 0.04 and len(data) > 4:  # a length that is wrong
        data[2:4] = (_wrong(int.from_bytes(data[2:4], "big"), rng) & 0xFFFF).to_bytes(2, "big")
    return bytes(data)


def _changed(items: list[Tlv], rng: random.Random) -> list[Tlv]:
    items = list(items)
    at = rng.randrange(len(items)) if items else 0
    what = rng.random()
    if not items or what < 0.2:
        tag = rng.choice(TAGS)
        items.insert(at, (tag, value(tag, rng)))
    elif what < 0.3:
        del items[at]
    elif what < 0.4:
        items.insert(rng.randint(0, len(items)), items[at])
    elif what < 0.45:
        rng.shuffle(items)
    elif what < 0.5:
        items[at] = (rng.choice(TAGS), items[at][1])
    elif what < 0.52:
        items += [items[at]] * rng.choice((2, 50, 101))
    elif what < 0.85:
        items[at] = (items[at][0], value(items[at][0], rng))
    else:
        items[at] = (items[at][0], flipped(items[at][1], rng))
    return items


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
        return complement(address)
    if tag == 0x17:
        return complement(port.to_bytes(2, "big"))
    if tag == 0xC:
        return _direct(address, port, rng)
    if tag == 0x2711:
        return _service(address, port, rng)
    return rng.choice((b"", b"\0\1", b"\0\2", b"\0\0\0\1"))


def _direct(address: bytes, port: int, rng: random.Random) -> bytes:
    if rng.random() < 0.05:
        port += 0x10000
    return icq.direct(address, port, rng.choice((0, 1, 3, 4, 6)), rng.getrandbits(32))


def _service(address: bytes, port: int, rng: random.Random) -> bytes:
    if rng.random() < 0.5:
        return icq.call_back(100001, address, port, again=port if rng.random() < 0.8 else rng.choice(PORTS))
    kind, status = rng.choice((1, icq.CHAT, icq.FILE, icq.FILE, icq.PLUGIN)), rng.choice((0, 0, 0, 1))
    if kind == icq.CHAT:
        return icq.type2(kind, icq.chat_ports(port, rng.random() < 0.7), status)
    return icq.type2(kind, icq.file_ports(port), status)


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
