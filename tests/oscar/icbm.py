"""Messages between users: SNAC(04,06) to the server, (04,07) from it, (04,0B) to refuse one.

Bodies: cookie[8], u16 channel, the recipient's name or the sender's user info, outer TLVs.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass, field

from tests.oscar.rendezvous import Rendezvous
from tests.oscar.snac import TO_HOST, Snac
from tests.oscar.tlv import Tlv, first_tlv, name8, parse_tlvs, take_name8, take_user_info, tlv
from tests.oscar.values import WireError

TEXT, RENDEZVOUS = 1, 2  # channels
ICBM_TEXT, ICBM_ACK, ICBM_RDV = 0x0002, 0x0003, 0x0005
"""Outer TLVs: the text of channel 1; "tell me by (04,0C)"; the rendezvous block of channel 2."""


def icbm_head(cookie: bytes, channel: int = RENDEZVOUS) -> bytes:
    """What every message begins with."""
    return cookie + struct.pack("!H", channel)


def icbm_to_server(cookie: bytes, channel: int, to: str | bytes, outer: bytes) -> bytes:
    """Body of SNAC(04,06)."""
    return icbm_head(cookie, channel) + name8(to) + outer


def icbm_to_client(cookie: bytes, channel: int, sender: bytes, outer: bytes) -> bytes:
    """Body of SNAC(04,07); *sender* is a user-info block."""
    return icbm_head(cookie, channel) + sender + outer


def text(words: bytes) -> bytes:
    """TLV 0x0002 of a channel 1 message: fragments ``05 01`` with the features and ``01 01`` with u16
    charset, u16 subset and the words, both behind a u16 length."""
    return tlv(ICBM_TEXT, b"\5\1\0\1\1" + b"\1\1" + struct.pack("!HHH", len(words) + 4, 0, 0) + words)


def client_error(
    cookie: bytes, name: str | bytes, data: bytes, reason: int = 3, channel: int = RENDEZVOUS
) -> bytes:
    """Body of SNAC(04,0B): head, name, u16 reason, data. Reason 3 is "see the data", which are a code, as in
    DECLINED, or the answer to a type-2 message."""
    return icbm_head(cookie, channel) + name8(name) + struct.pack("!H", reason) + data


def refusal(code: int) -> bytes:
    """The data of a client error that refuses a rendezvous: ``00 02`` and u16 code."""
    return struct.pack("!HH", 2, code)


DECLINED = refusal(1)


@dataclass(frozen=True)
class Icbm:
    """A message as read: *name* is the recipient in SNAC(04,06) and the sender in SNAC(04,07)."""

    cookie: bytes
    channel: int
    name: str
    outer: list[Tlv]
    info: list[Tlv] = field(default_factory=list)

    def rendezvous(self) -> Rendezvous | None:
        """The rendezvous block of a channel 2 message, if it has one."""
        block = first_tlv(self.outer, ICBM_RDV) if self.channel == RENDEZVOUS else None
        return None if block is None else Rendezvous.decode(block)


def parse_icbm(snac: Snac) -> Icbm:
    """Read SNAC(04,06) or SNAC(04,07)."""
    if len(snac.body) < 11:
        raise WireError("ICBM cut off")
    cookie, channel = struct.unpack_from("!8sH", snac.body)
    info: list[Tlv] = []
    if snac.kind == TO_HOST:
        name, rest = take_name8(snac.body[10:])
    else:
        name, info, rest = take_user_info(snac.body[10:])
    return Icbm(cookie, channel, name, parse_tlvs(rest)[0], info)
