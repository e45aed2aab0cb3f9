"""Rendezvous messages made to order: whole frames, whose cookie is COOKIE7 and whose client is 10.0.0.5
unless a test says otherwise."""

from __future__ import annotations

from tests.golden import packets
from tests.oscar import icbm
from tests.oscar import rendezvous as rdv
from tests.oscar.rendezvous import PROPOSE, SEND_FILE, rdv_block
from tests.oscar.snac import CLIENT_ERROR, TO_CLIENT, TO_HOST, kind_of, snac_frame
from tests.oscar.tlv import name8, tlv, user_info
from tests.oscar.values import complement, ip4, u16

OWN, OUT = ip4("10.0.0.5"), ip4("203.0.113.1")
COOKIE = b"COOKIE7\0"
READABLE = [name for name, data in packets().items() if kind_of(data) in (TO_HOST, TO_CLIENT, CLIENT_ERROR)]
"""The golden packets that are messages, and those of them that have a rendezvous block."""
BLOCKS = [name for name in READABLE if name not in ("text-message", "decline")]


def addressed(*tags: int, port: int = 5190, address: bytes = OWN) -> bytes:
    """TLVs of those types with the address, and 0x0005 with the port."""
    return b"".join(tlv(tag, address) for tag in tags) + tlv(rdv.PORT, u16(port))


BASIC = addressed(2, 3)
SECOND = tlv(rdv.SEQUENCE, u16(2))
"""Makes a counter-proposal of it."""


def checks(address: bytes = OWN, port: int = 5190) -> bytes:
    """The complements of both."""
    return tlv(rdv.IP_CHECK, complement(address)) + tlv(rdv.PORT_CHECK, complement(u16(port)))


PORT, FIRST = tlv(rdv.PORT, u16(5190)), tlv(rdv.SEQUENCE, u16(1))
OOS = BASIC + FIRST + tlv(rdv.SERVICE_DATA, OWN) + tlv(rdv.VERIFIED_IP, OWN)
AIM = FIRST + PORT + tlv(rdv.RDV_IP, OWN) + checks() + tlv(rdv.REQUESTER_IP, OWN) + tlv(rdv.VERIFIED_IP, OWN)
"""libpurple's through open-oscar-server, and AIM's, as a server inside relays them."""


def block(inner: bytes = b"", kind: int = PROPOSE, cookie: bytes = COOKIE) -> bytes:
    """A rendezvous block with these bytes as its TLVs."""
    return rdv_block(kind, cookie, SEND_FILE, inner)


def to_host(
    outer: bytes, channel: int = icbm.RENDEZVOUS, name: bytes = b"bob1", cookie: bytes = COOKIE
) -> bytes:
    """SNAC(04,06) with these bytes behind the recipient's name."""
    return snac_frame(TO_HOST, icbm.icbm_to_server(cookie, channel, name, outer))


def to_client(sender: bytes, outer: bytes, channel: int = icbm.RENDEZVOUS, cookie: bytes = COOKIE) -> bytes:
    """SNAC(04,07) with these bytes behind the sender's user info."""
    return snac_frame(TO_CLIENT, icbm.icbm_to_client(cookie, channel, sender, outer))


def proposal(
    inner: bytes, subtype: int = 6, outer: bytes = b"", kind: int = PROPOSE, cookie: bytes = COOKIE
) -> bytes:
    """A rendezvous message with these inner TLVs, to or from bob1; *cookie* is the block's. The sender's info
    has a time that looks like an address."""
    whole = outer + tlv(icbm.ICBM_RDV, block(inner, kind, cookie))
    return to_host(whole) if subtype == 6 else to_client(user_info("bob1", tlv(3, OWN)), whole)


def relayed(
    inner: bytes,
    kind: int = PROPOSE,
    who: bytes = b"alice1",
    cookie: bytes = COOKIE,
    info: bytes = b"\0\2" + tlv(3, OWN) + tlv(5, OWN),
) -> bytes:
    """The same as a server hands it on to *who*'s peer; *info* is count and TLVs of the sender, unless told
    otherwise with times that look like addresses."""
    whole = tlv(icbm.ICBM_RDV, block(inner, kind, cookie))
    return to_client(name8(who) + bytes(2) + info, whole, cookie=cookie)


def answered(kind: int, whom: bytes = b"alice1", cookie: bytes = COOKIE, inner: bytes = b"") -> bytes:
    """And what the peer says to that."""
    return to_host(tlv(icbm.ICBM_RDV, block(inner, kind, cookie)), name=whom, cookie=cookie)


def declined(name: bytes = b"bob1", cookie: bytes = COOKIE, channel: int = icbm.RENDEZVOUS) -> bytes:
    """SNAC(04,0B) that declines."""
    return snac_frame(CLIENT_ERROR, icbm.client_error(cookie, name, icbm.DECLINED, channel=channel))
