"""Rendezvous messages as each client writes them, in its order of TLVs.

Orders of libpurple are recorded from libpurple 2.12.1; those of AIM for Windows are
the published ones, with the complements 0x0016 and 0x0017 that expose a translator which edits only half.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from dataclasses import dataclass

from tests.oscar import rendezvous as rdv
from tests.oscar.icbm import ICBM_ACK, ICBM_RDV, RENDEZVOUS, icbm_to_server
from tests.oscar.rendezvous import Rendezvous
from tests.oscar.tlv import Tlv, tlv
from tests.oscar.values import complement, ip4, u16


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
        if self.capability != rdv.SEND_FILE or self.stage != 1:
            return []
        data = struct.pack("!HHI", 1, 1, self.file_size) + self.file_name.encode() + b"\0"
        return [(rdv.SERVICE_DATA, data)]


def _libpurple(offer: Offer) -> list[Tlv]:
    address = ip4(offer.address)
    return [
        (rdv.RDV_IP, address),
        (rdv.REQUESTER_IP, address),
        (rdv.PORT, u16(offer.port)),
        (rdv.SEQUENCE, u16(offer.stage)),
        (rdv.HOST_CHECK, b""),
        *offer.service_data(),
    ]


def _winaim(offer: Offer) -> list[Tlv]:
    address, port = ip4(offer.address), u16(offer.port)
    where = [
        (rdv.RDV_IP, address),
        (rdv.IP_CHECK, complement(address)),
        (rdv.REQUESTER_IP, address),
        (rdv.PORT, port),
        (rdv.PORT_CHECK, complement(port)),
    ]
    stage = (rdv.SEQUENCE, u16(offer.stage))
    if offer.stage > 1:
        return [stage, (rdv.COUNTER_REASON, b"\0\1"), *where]
    invitation = [(0x000E, b"en"), (0x000D, b"us-ascii"), (0x000C, b"<HTML>")]
    service = offer.service_data()
    charset = [(0x2712, b"us-ascii")] if service else []
    return [stage, (rdv.HOST_CHECK, b""), *invitation, *where, *service, *charset]


@dataclass(frozen=True)
class Profile:
    """One client program: the order of its TLVs and whether it checks what it receives."""

    name: str
    inner: Callable[[Offer], list[Tlv]]
    ack_first: bool  # outer TLV 0x0003 before 0x0005 (libpurple) or after it (AIM)
    strict: bool  # refuses proposals whose complements or cookies do not match
    cookie_in_prompt: bool  # OFT2 prompt carries the rendezvous cookie (AIM) or zero (libpurple)

    def outer(self, block: Rendezvous) -> bytes:
        """Outer TLVs around a proposal or a cancel."""
        whole, ack = tlv(ICBM_RDV, block.encode()), tlv(ICBM_ACK)
        return ack + whole if self.ack_first else whole + ack

    def proposal(self, to: str, offer: Offer) -> bytes:
        """Body of SNAC(04,06) with a proposal or counter-proposal."""
        block = Rendezvous(rdv.PROPOSE, offer.cookie, offer.capability, self.inner(offer))
        return icbm_to_server(offer.cookie, RENDEZVOUS, to, self.outer(block))

    def cancel(self, to: str, cookie: bytes, capability: bytes) -> bytes:
        """Body of SNAC(04,06) that withdraws a rendezvous: type 1, TLV 0x000B = 1."""
        block = Rendezvous(rdv.CANCEL, cookie, capability, [(rdv.CANCEL_REASON, b"\0\1")])
        return icbm_to_server(cookie, RENDEZVOUS, to, self.outer(block))

    @staticmethod
    def accept(to: str, cookie: bytes, capability: bytes) -> bytes:
        """Body of SNAC(04,06), type 2: no outer TLV 0x0003, no inner TLVs."""
        block = Rendezvous(rdv.ACCEPT, cookie, capability)
        return icbm_to_server(cookie, RENDEZVOUS, to, tlv(ICBM_RDV, block.encode()))


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
    for check, checked in ((rdv.IP_CHECK, rdv.RDV_IP), (rdv.PORT_CHECK, rdv.PORT)):
        value, proof = block.get(checked), block.get(check)
        if proof is not None and (value is None or complement(value) != proof):
            return f"TLV {check:#06x} is not the complement of {checked:#06x}"
    return None
