"""What the stand-in clients write into rendezvous messages, in the TLV order of the client they imitate.

Pure functions; no I/O. Orders of libpurple are recorded from libpurple 2.12.1; those of AIM for Windows are
the published ones, with the complements 0x0016 and 0x0017 that expose a translator which edits only half.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from dataclasses import dataclass

from tests.lab import oscar_wire as wire
from tests.lab.oscar_wire import Rendezvous, Tlv


@dataclass(frozen=True)
class Offer:
    """What a proposal announces: the proposer's own address and port, its stage (1 first, 2 counter) and
    service."""

    cookie: bytes
    capability: bytes
    address: str
    port: int
    stage: int = 1
    file_name: str = "f.bin"
    file_size: int = 0

    def service_data(self) -> list[Tlv]:
        """TLV 0x2711 of a first Send File proposal; counter-proposals and Direct IM have none."""
        if self.capability != wire.SEND_FILE or self.stage != 1:
            return []
        data = struct.pack("!HHI", 1, 1, self.file_size) + self.file_name.encode() + b"\0"
        return [(wire.SERVICE_DATA, data)]


def complement(value: bytes) -> bytes:
    """Bitwise inverse, as in TLV 0x0016 of 0x0002 and in TLV 0x0017 of 0x0005."""
    return bytes(byte ^ 0xFF for byte in value)


def _libpurple(offer: Offer) -> list[Tlv]:
    address = wire.ip4(offer.address)
    return [
        (wire.RDV_IP, address),
        (wire.REQUESTER_IP, address),
        (wire.PORT, struct.pack("!H", offer.port)),
        (wire.SEQUENCE, struct.pack("!H", offer.stage)),
        (wire.HOST_CHECK, b""),
        *offer.service_data(),
    ]


def _winaim(offer: Offer) -> list[Tlv]:
    address, port = wire.ip4(offer.address), struct.pack("!H", offer.port)
    where = [
        (wire.RDV_IP, address),
        (wire.IP_CHECK, complement(address)),
        (wire.REQUESTER_IP, address),
        (wire.PORT, port),
        (wire.PORT_CHECK, complement(port)),
    ]
    stage = (wire.SEQUENCE, struct.pack("!H", offer.stage))
    if offer.stage > 1:
        return [stage, (wire.COUNTER_REASON, b"\0\1"), *where]
    invitation = [(0x000E, b"en"), (0x000D, b"us-ascii"), (0x000C, b"<HTML>")]
    service = offer.service_data()
    charset = [(0x2712, b"us-ascii")] if service else []
    return [stage, (wire.HOST_CHECK, b""), *invitation, *where, *service, *charset]


@dataclass(frozen=True)
class Profile:
    """One client program: the order of its TLVs and whether it checks what it receives."""

    name: str
    inner: Callable[[Offer], list[Tlv]]
    ack_first: bool  # outer TLV 0x0003 before 0x0005 (libpurple) or after it (AIM)
    strict: bool  # refuses proposals whose complements or cookies do not match
    cookie_in_prompt: bool  # OFT2 prompt carries the rendezvous cookie (AIM) or zero (libpurple)

    def outer(self, block: Rendezvous) -> list[Tlv]:
        """Outer TLVs around a proposal or a cancel."""
        items: list[Tlv] = [(wire.ICBM_RDV, block.encode())]
        items.insert(0 if self.ack_first else 1, (wire.ICBM_ACK, b""))
        return items

    def proposal(self, to: str, offer: Offer) -> bytes:
        """Body of SNAC(04,06) with a proposal or counter-proposal."""
        block = Rendezvous(wire.PROPOSE, offer.cookie, offer.capability, self.inner(offer))
        return wire.icbm_to_server(offer.cookie, 2, to, self.outer(block))

    def cancel(self, to: str, cookie: bytes, capability: bytes) -> bytes:
        """Body of SNAC(04,06) that withdraws a rendezvous: type 1, TLV 0x000B = 1."""
        block = Rendezvous(wire.CANCEL, cookie, capability, [(wire.CANCEL_REASON, b"\0\1")])
        return wire.icbm_to_server(cookie, 2, to, self.outer(block))

    @staticmethod
    def accept(to: str, cookie: bytes, capability: bytes) -> bytes:
        """Body of SNAC(04,06), type 2: no outer TLV 0x0003, no inner TLVs."""
        block = Rendezvous(wire.ACCEPT, cookie, capability)
        return wire.icbm_to_server(cookie, 2, to, [(wire.ICBM_RDV, block.encode())])


PROFILES = {
    "libpurple": Profile("libpurple", _libpurple, ack_first=True, strict=False, cookie_in_prompt=False),
    "winaim": Profile("winaim", _winaim, ack_first=False, strict=True, cookie_in_prompt=True),
}


def objection(icbm_cookie: bytes, block: Rendezvous) -> str | None:
    """Why a strict client refuses this proposal; None if it is sound."""
    if block.cookie != icbm_cookie:
        return "block cookie differs from ICBM cookie"
    kinds = [kind for kind, _ in block.tlvs]
    if len(kinds) != len(set(kinds)):
        return "duplicate TLV"
    for check, checked in ((wire.IP_CHECK, wire.RDV_IP), (wire.PORT_CHECK, wire.PORT)):
        value, proof = block.get(checked), block.get(check)
        if proof is not None and (value is None or complement(value) != proof):
            return f"TLV {check:#06x} is not the complement of {checked:#06x}"
    return None
