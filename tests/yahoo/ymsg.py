"""YMSG packets, put together and taken apart byte by byte.

    "YMSG" version:2 vendor:2 length:2 service:2 status:4 session:4 {key C0 80 value C0 80}

The length is that of the pairs. Clients up to version 9 write the version with its low byte first.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Iterator
from typing import NamedTuple

MAGIC = b"YMSG"
HEAD = 20
SEPARATOR = b"\xc0\x80"
OLD, V9, V10, V16 = 0x0800, 0x0900, 0x000A, 0x0010

LOGON, LOGOFF, MESSAGE, FILETRANSFER, NOTIFY = 0x01, 0x02, 0x06, 0x46, 0x4B
VERIFY, P2PFILEXFER, PEERTOPEER = 0x4C, 0x4D, 0x4F
AUTHRESP, LIST, AUTH, PING = 0x54, 0x55, 0x57, 0x8A
OFFER15, INFO15, ACCEPT15, LIST15 = 0xDC, 0xDD, 0xDE, 0xF1
SESSION = 0x12345678

Pairs = list[tuple[int, bytes]]


class Ymsg(NamedTuple):
    """A packet taken apart."""

    version: int
    service: int
    status: int
    session: int
    pairs: Pairs

    def value(self, key: int) -> bytes:
        """The first value of a key, or nothing."""
        return next((value for found, value in self.pairs if found == key), b"")


def ymsg(
    service: int,
    pairs: Iterable[tuple[int, bytes]] = (),
    status: int = 0,
    version: int = V9,
    session: int = SESSION,
) -> bytes:
    """A packet."""
    data = b"".join(b"%d%b%b%b" % (key, SEPARATOR, value, SEPARATOR) for key, value in pairs)
    return raw(service, data, status=status, version=version, session=session)


def raw(
    service: int, data: bytes, status: int = 0, version: int = V9, session: int = SESSION, length: int = -1
) -> bytes:
    """A packet with any data and, unless -1, any length."""
    size = len(data) if length < 0 else length
    return MAGIC + struct.pack(">HHHHII", version, 0, size, service, status, session) + data


def parse(packet: bytes, padded: bool = False) -> Ymsg:
    """One whole packet; *padded*: there may be more behind its pairs, from a NUL on."""
    assert packet.startswith(MAGIC)
    version, _, length, service, status, session = struct.unpack_from(">HHHHII", packet, 4)
    data = packet[HEAD:]
    assert len(data) == length, f"{len(data)} bytes with the length {length}"
    *fields, rest = data.split(SEPARATOR)
    assert not rest or (padded and rest.startswith(b"\0"))
    assert len(fields) % 2 == 0
    pairs = [(int(key), value) for key, value in zip(fields[::2], fields[1::2], strict=True)]
    return Ymsg(version, service, status, session, pairs)


def packets_of(stream: bytes) -> Iterator[bytes]:
    """The whole packets at the beginning of a stream."""
    while len(stream) >= HEAD:
        size = HEAD + int.from_bytes(stream[8:10], "big")
        if len(stream) < size or not stream.startswith(MAGIC):
            return
        yield stream[:size]
        stream = stream[size:]


def url(address: str, port: int | None, path: bytes = b"/Messenger.alice1.file.txt") -> bytes:
    """The URL of a web server; without a port it is 80."""
    where = b"" if port is None else b":%d" % port
    return b"http://" + address.encode() + where + path


def offer(where: bytes, to: bytes = b"bob1", kind: bytes = b"1", version: int = V9) -> bytes:
    """A client's offer of a file at a URL."""
    return ymsg(
        P2PFILEXFER,
        [
            (5, to),
            (49, b"FILEXFER"),
            (1, b"alice1"),
            (13, kind),
            (27, b"file.txt"),
            (28, b"3000"),
            (20, where),
            (53, b"file.txt"),
            (14, b""),
            (54, b"MSG1.0"),
        ],
        version=version,
    )


def relayed(packet: bytes, version: int = 0, session: int = 0x7654321) -> bytes:
    """What a server makes of a client's packet for its recipient: key 4 in place of 1, all others copied."""
    sent = parse(packet)
    sender = sent.value(1) or sent.value(4)
    pairs = [(5, sent.value(5)), (4, sender), *[pair for pair in sent.pairs if pair[0] not in (1, 4, 5)]]
    return ymsg(sent.service, pairs, status=1, version=version, session=session)


def sign_on(version: int = V9, name: bytes = b"alice1") -> tuple[bytes, bytes, bytes, bytes]:
    """AUTH, the challenge, AUTHRESP, and what the server answers: LIST and LOGON."""
    reply = {"version": 0, "session": SESSION}
    return (
        ymsg(AUTH, [(1, name)], version=version, session=0),
        ymsg(AUTH, [(1, name), (94, b"challenge"), (13, b"0")], status=1, **reply),
        ymsg(
            AUTHRESP,
            [(0, name), (6, b"hash"), (96, b"hash"), (1, name), (135, b"5, 5, 0, 1244")],
            version=version,
            session=SESSION,
        ),
        ymsg(LIST, [(87, b"Friends:bob1\n"), (88, b""), (89, name)], **reply)
        + ymsg(LOGON, [(1, name), (8, b"0")], **reply),
    )
