"""Rendezvous messages made to order, for tests of the OSCAR helper."""

from __future__ import annotations

from nfreaim.core.address import Endpoint
from nfreaim.core.firewall.policy import PinholePolicy
from pcaps.wire import tlv
from tests.unit.fakes import CLIENT, OUTSIDE, Router, Wire, packed

OWN, OUT = packed(CLIENT.address), packed(OUTSIDE)


def proposal(
    inner: bytes, subtype: int = 6, outer: bytes = b"", kind: int = 0, block: bytes = b"COOKIE7\0"
) -> bytes:
    """A frame with a rendezvous block of these TLVs; the message's own cookie is COOKIE7."""
    capability = bytes.fromhex("094613434c7f11d18222444553540000")
    whom = b"\4bob1" if subtype == 6 else b"\4bob1\0\0\0\1\0\3\0\4\x0a\0\0\5"
    body = b"COOKIE7\0\0\2" + whom + outer + tlv(5, kind.to_bytes(2, "big") + block + capability + inner)
    snac = b"\0\4" + subtype.to_bytes(2, "big") + bytes(2) + b"\0\0\0\x77" + body
    return b"\x2a\2\0\1" + len(snac).to_bytes(2, "big") + snac


def addressed(*tags: int, port: int = 5190, address: bytes = OWN) -> bytes:
    return b"".join(tlv(tag, address) for tag in tags) + tlv(5, port.to_bytes(2, "big"))


def wire_of(name: str = "", taken: tuple[int, ...] = (), **policy: object) -> Wire:
    address = {"counter-proposal": "192.168.7.5"}.get(name, "192.0.2.2" if "loopback" in name else "10.0.0.5")
    wire = Wire(Router(policy=PinholePolicy(**policy)), client=Endpoint(address, 40123))  # type: ignore[arg-type]
    wire.router.firewall.taken = {Endpoint(OUTSIDE, port) for port in taken}
    return wire.sign_on()


BASIC = addressed(2, 3)
SECOND = tlv(10, b"\0\2")  # a counter-proposal
