"""The rendezvous block, outer TLV 0x0005 of a channel 2 message: u16 type, cookie[8], capability[16], TLVs.

Layouts and orders as recorded from libpurple 2.12.1 and open-oscar-server v0.24.0.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass, field

from tests.oscar.tlv import Tlv, first_tlv, parse_tlvs, tlvs
from tests.oscar.values import WireError, ip_text

PROPOSE, CANCEL, ACCEPT = 0, 1, 2
RDV_IP, REQUESTER_IP, VERIFIED_IP, PORT, SEQUENCE = 0x0002, 0x0003, 0x0004, 0x0005, 0x000A
CANCEL_REASON, HOST_CHECK, USE_RELAY, COUNTER_REASON = 0x000B, 0x000F, 0x0010, 0x0014
IP_CHECK, PORT_CHECK, SERVICE_DATA = 0x0016, 0x0017, 0x2711
HEADER = struct.Struct("!H8s16s")


def capability(short: int) -> bytes:
    """The 16 bytes of ``0946xxxx-4C7F-11D1-8222-444553540000``."""
    return struct.pack("!HH", 0x0946, short) + bytes.fromhex("4c7f11d18222444553540000")


TALK, SEND_FILE, DIRECT_IM, GET_FILE = (capability(short) for short in (0x1341, 0x1343, 0x1345, 0x1348))
REVERSE, RELAY = capability(0x1344), capability(0x1349)
"""ICQ's: "connect to me instead", and a type-2 message, which the server hands on."""


def rdv_block(kind: int, cookie: bytes, service: bytes, inner: bytes = b"") -> bytes:
    """A block with these bytes as its TLVs."""
    return HEADER.pack(kind, cookie, service) + inner


@dataclass(frozen=True)
class Rendezvous:
    """A block as read, or to be written."""

    kind: int
    cookie: bytes
    capability: bytes
    tlvs: list[Tlv] = field(default_factory=list)

    def encode(self) -> bytes:
        """The block's bytes."""
        return rdv_block(self.kind, self.cookie, self.capability, tlvs(self.tlvs))

    @classmethod
    def decode(cls, data: bytes) -> Rendezvous:
        """Inverse of :meth:`encode`."""
        if len(data) < HEADER.size:
            raise WireError("rendezvous block cut off")
        kind, cookie, service = HEADER.unpack_from(data)
        return cls(kind, cookie, service, parse_tlvs(data[HEADER.size :])[0])

    def get(self, kind: int) -> bytes | None:
        """Value of the first inner TLV of that type."""
        return first_tlv(self.tlvs, kind)

    def address(self, kind: int) -> str | None:
        """An inner TLV of four bytes as a dotted address."""
        value = self.get(kind)
        return ip_text(value) if value is not None and len(value) == 4 else None

    def number(self, kind: int) -> int:
        """An inner TLV of two bytes as a number; 0 where it is absent or of another length."""
        value = self.get(kind)
        return int.from_bytes(value) if value is not None and len(value) == 2 else 0
