"""pcapng files made to measure, block by block."""

import struct


def block(kind: int, body: bytes, order: str = "<") -> bytes:
    body += bytes(-len(body) % 4)
    total = struct.pack(f"{order}I", len(body) + 12)
    return struct.pack(f"{order}I", kind) + total + body + total


def option(code: int, value: bytes, order: str = "<") -> bytes:
    return struct.pack(f"{order}HH", code, len(value)) + value + bytes(-len(value) % 4)


def section(*blocks: bytes, order: str = "<", length: int | None = None) -> bytes:
    """A section header with a comment, and its blocks; `length` None writes the true one."""
    told = sum(map(len, blocks)) if length is None else length
    head = struct.pack(f"{order}IHHQ", 0x1A2B3C4D, 1, 0, told % 2**64)
    comment = option(1, b"made for a test", order) + option(0, b"", order)
    return block(0x0A0D0D0A, head + comment, order) + b"".join(blocks)


def interface(link: int = 1, snaplen: int = 0, options: bytes = b"", order: str = "<") -> bytes:
    return block(1, struct.pack(f"{order}HHI", link, 0, snaplen) + options, order)


def enhanced(
    data: bytes,
    *,
    number: int = 0,
    ticks: int = 0,
    length: int | None = None,
    order: str = "<",
    options: bytes = b"",
) -> bytes:
    sizes = len(data), len(data) if length is None else length
    head = struct.pack(f"{order}IIIII", number, ticks >> 32, ticks & 0xFFFFFFFF, *sizes)
    return block(6, head + data + bytes(-len(data) % 4) + options, order)


def simple(data: bytes, length: int | None = None) -> bytes:
    return block(3, struct.pack("<I", len(data) if length is None else length) + data)


def obsolete(data: bytes, ticks: int = 0) -> bytes:
    return block(
        2, struct.pack("<HHIIII", 0, 3, ticks >> 32, ticks & 0xFFFFFFFF, len(data), len(data)) + data
    )
