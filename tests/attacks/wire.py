"""The messages that the attacks send."""

from __future__ import annotations

from tests.oscar import rendezvous as rdv
from tests.oscar.flap import FLAP_KEEPALIVE, flap
from tests.oscar.icbm import ICBM_RDV, RENDEZVOUS, icbm_to_client, icbm_to_server
from tests.oscar.signon import families, hello
from tests.oscar.snac import FAMILY_LIST, TO_CLIENT, TO_HOST, snac_frame
from tests.oscar.tlv import tlv, user_info
from tests.oscar.values import ip4, u16

SECURE = 0x0011  # inner TLV: the link between the peers will be TLS
SIGN_ON = hello(1)
HOST_ONLINE = snac_frame(FAMILY_LIST, families((1, 2, 3, 4, 0x13, 0x15)), number=2, request=0)
GREETING = SIGN_ON + HOST_ONLINE
"""All that a server says before a session is complete."""


def offer(address: str, port: int, secure: bool = False, verified: bool = False) -> bytes:
    """The inner TLVs of an offer of *address*:*port*. *verified*: a server vouches for the address."""
    inner = tlv(rdv.SEQUENCE, u16(1)) + tlv(rdv.RDV_IP, ip4(address)) + tlv(rdv.REQUESTER_IP, ip4(address))
    inner += tlv(rdv.PORT, u16(port))
    if verified:
        inner += tlv(rdv.VERIFIED_IP, ip4(address))
    return inner + (tlv(SECURE) if secure else b"")


def body_to_server(
    to: str, cookie: bytes, kind: int = rdv.PROPOSE, inner: bytes = b"", service: bytes = rdv.SEND_FILE
) -> bytes:
    """Body of SNAC(04,06) with one rendezvous block."""
    block = tlv(ICBM_RDV, rdv.rdv_block(kind, cookie, service, inner))
    return icbm_to_server(cookie, RENDEZVOUS, to, block)


def proposal(
    address: str, port: int, number: int = 3, cookie: bytes = b"cookie1\0", secure: bool = False
) -> bytes:
    """SNAC(04,06): *address*:*port* offered to bob. *secure*: the link will be TLS."""
    body = body_to_server("bob", cookie, inner=offer(address, port, secure))
    return snac_frame(TO_HOST, body, number=number, request=7)


def relayed(
    address: str, port: int, number: int = 3, cookie: bytes = b"cookie1\0", secure: bool = False
) -> bytes:
    """SNAC(04,07): a server relays eve's offer of *address*:*port* and vouches for it (0x0003 = 0x0004)."""
    inner = offer(address, port, secure, verified=True)
    block = tlv(ICBM_RDV, rdv.rdv_block(rdv.PROPOSE, cookie, rdv.SEND_FILE, inner))
    body = icbm_to_client(cookie, RENDEZVOUS, user_info("eve"), block)
    return snac_frame(TO_CLIENT, body, number=number, request=7)


def keepalive(number: int) -> bytes:
    """A frame that says nothing, for an end that sends it back."""
    return flap(FLAP_KEEPALIVE, number)
