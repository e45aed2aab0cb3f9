"""YMSG, the protocol of Yahoo! Messenger: the packet's header as a scapy layer, and its pairs.

    YMSG | "YMSG" | version:2 | vendor:2 | length:2 | service:2 | status:4 | session:4 | pairs
    pair | key, decimal digits | C0 80 | value | C0 80

All integers are big-endian, but some clients write the version in the other order (Yahoo! Messenger 5 writes
09 00). The length counts the bytes behind the header. A value is bytes of any code page, in which C0 80
cannot occur; keys may repeat. From the sources of libpurple 2.10.9 and of Escargot.

As in oscar_messages, the length is computed only if it was left out.
"""

# ruff: noqa: RUF012 - fields_desc is a plain class attribute, as everywhere in scapy
from __future__ import annotations

import re
from typing import Final, NamedTuple

from scapy.fields import LenField, StrFixedLenField, XIntField, XShortField
from scapy.packet import Packet

from nfreaim.layers.structs import header_struct

MAGIC: Final = b"YMSG"
SEPARATOR: Final = b"\xc0\x80"
LENGTH_AT: Final = 8
"""Where a packet has its length, which is the first field that an edit may change."""
SERVICE_AT: Final = 10
MAX_PAIRS: Final = 100
"""At most as many pairs in a packet that is read, to bound the time it takes; offers have a dozen."""

VERSIONS: Final = frozenset(range(8, 17)) | {number << 8 for number in range(8, 17)}
"""The versions that clients of this framing write, in either order."""

LOGON: Final = 0x01
LOGOFF: Final = 0x02
FILETRANSFER: Final = 0x46
"""Announces a file that was uploaded to the server."""
VERIFY: Final = 0x4C
P2PFILEXFER: Final = 0x4D
"""Offers a file at the sender's own web server, among others; also the first packet of a peer link."""
PEERTOPEER: Final = 0x4F
"""Says where its sender listens for peer links."""
AUTHRESP: Final = 0x54
LIST: Final = 0x55
AUTH: Final = 0x57
FILETRANS_15: Final = 0xDC
FILETRANS_INFO_15: Final = 0xDD
FILETRANS_ACC_15: Final = 0xDE
LIST_15: Final = 0xF1

SENDER_URL: Final = 20
"""The key of 0x4D's URL."""
RECIPIENT: Final = 5
PEER_ADDRESS: Final = 12
WAY: Final = 249
"""The key that says how a file of 0xDD and 0xDE gets to its receiver."""
BY_RELAY: Final = b"3"


class YMSG(Packet):
    """The header; what is behind it are the pairs."""

    fields_desc = [
        StrFixedLenField("magic", MAGIC, 4),
        XShortField("version", 0x0010),
        XShortField("vendor", 0),
        LenField("length", None),
        XShortField("service", 0),
        XIntField("status", 0),
        XIntField("session", 0),
    ]


HEADER: Final = header_struct(YMSG)


class Pair(NamedTuple):
    """One pair; its value begins at index *at* of the packet."""

    key: int
    value: bytes
    at: int


_KEY: Final = re.compile(rb"0|[1-9][0-9]{0,4}")


def pairs_of(packet: bytes, padded: bool = False) -> list[Pair]:
    """The pairs of a whole packet, header included.

    padded  a rest behind them that begins with a NUL counts for nothing: Yahoo's servers sent packets that
            were a byte or more too long (in a public capture of 2009 each 0xDE, by one NUL)

    Raises ValueError if its bytes are not pairs to the end, if a key is no number in its usual form, or if
    there are more than MAX_PAIRS.
    """
    if packet.count(SEPARATOR, HEADER.size) > 2 * MAX_PAIRS:
        raise ValueError("too many pairs")
    *fields, rest = packet[HEADER.size :].split(SEPARATOR)
    if (rest and not (padded and rest.startswith(b"\0"))) or len(fields) % 2:
        raise ValueError("a rest that is no pair")
    pairs: list[Pair] = []
    at = HEADER.size
    for key, value in zip(fields[::2], fields[1::2], strict=True):
        if not _KEY.fullmatch(key):
            raise ValueError("a key that is no number")
        at += len(key) + len(SEPARATOR)
        pairs.append(Pair(int(key), value, at))
        at += len(value) + len(SEPARATOR)
    return pairs
