"""OSCAR messages for the synthetic captures: golden packets with other values, and built ones.

Nothing of nfreaim is used here: what comes out of this file is compared with what nfreaim does.
"""

from tests.golden import packets
from tests.oscar import rendezvous as rdv
from tests.oscar.fields import announcing
from tests.oscar.flap import CLIENT, SERVER
from tests.oscar.icbm import ICBM_ACK, ICBM_RDV, RENDEZVOUS, icbm_to_client, icbm_to_server
from tests.oscar.messages import addressed
from tests.oscar.rendezvous import SEND_FILE, rdv_block
from tests.oscar.snac import TO_CLIENT, TO_HOST, snac_frame
from tests.oscar.tlv import name8, tlv
from tests.oscar.values import complement, ip4, u16

GOLDEN = packets()

COOKIE = bytes.fromhex("3332373533323800")  # of send-file-proposal and its relatives
AIM_COOKIE = bytes.fromhex("3341354431394300")  # of aim-proposal
# The extra block of a SNAC with flag 0x8000, as AOL's servers sent it: length, TLV 0x0001.
EXTRA = bytes.fromhex("0006 0001 0002 0004")
# User info as AOL's servers sent it: TLVs 0x0005 and 0x0003 have four bytes and are times. The second one is
# chosen to look like the outside address 203.0.113.1.
AOL_INFO = bytes.fromhex("0000 0005 0001 0002 0010 0005 0004 00001446") + bytes.fromhex(
    "001d 0009 000100050201d20472 000f 0004 00000e10 0003 0004 cb007101"
)
OOS_INFO = GOLDEN["send-file-proposal-received"][33:244]  # warning, count, six TLVs; behind the name
_FORMS = {
    "libpurple": ("send-file-proposal", CLIENT),
    "libpurple-direct-im": ("direct-im-proposal", CLIENT),
    "libpurple-counter": ("counter-proposal", CLIENT),
    "libpurple-received": ("send-file-proposal-received", SERVER),
    "aim": ("aim-proposal", CLIENT),
    "kopete": ("kopete-proposal", CLIENT),
}


def proposal(form: str, host: str, port: int) -> bytes:
    """The golden proposal of that form, announcing `host` and `port`."""
    name, way = _FORMS[form]
    return announcing(GOLDEN[name], way, host, port)


def block(kind: int, cookie: bytes, capability: bytes, *tlvs: bytes) -> bytes:
    """Outer TLV 0x0005: a rendezvous block."""
    return tlv(ICBM_RDV, rdv_block(kind, cookie, capability, b"".join(tlvs)))


def to_host(cookie: bytes, name: str, *outer: bytes, channel: int = RENDEZVOUS, extra: bytes = b"") -> bytes:
    """SNAC(04,06), client to server."""
    body = icbm_to_server(cookie, channel, name, b"".join(outer))
    return snac_frame(TO_HOST, body, number=0, request=0x31, extra=extra)


def to_client(
    cookie: bytes, name: str, info: bytes, *outer: bytes, channel: int = RENDEZVOUS, extra: bytes = b""
) -> bytes:
    """SNAC(04,07), server to client."""
    body = icbm_to_client(cookie, channel, name8(name) + info, b"".join(outer))
    return snac_frame(TO_CLIENT, body, number=0, request=0x8000_0000, extra=extra)


def aim_block(host: str, port: int, *more: bytes) -> bytes:
    """The rendezvous block of aim-proposal with other values, `more` TLVs at its end."""
    return tlv(ICBM_RDV, proposal("aim", host, port)[37:167] + b"".join(more))


def counter(host: str, port: int) -> bytes:
    """AIM's counter-proposal: 0x0014 stands where a first proposal has 0x000F."""
    ip, number = ip4(host), u16(port)
    inner = (
        tlv(rdv.SEQUENCE, u16(2)),
        tlv(rdv.COUNTER_REASON, u16(0)),
        tlv(rdv.RDV_IP, ip),
        tlv(rdv.IP_CHECK, complement(ip)),
        tlv(rdv.REQUESTER_IP, ip),
        tlv(rdv.PORT, number),
        tlv(rdv.PORT_CHECK, complement(number)),
    )
    return to_host(AIM_COOKIE, "alice1", block(rdv.PROPOSE, AIM_COOKIE, SEND_FILE, *inner), tlv(ICBM_ACK))


def plain(capability: bytes, cookie: bytes, host: str, port: int, *more: bytes) -> bytes:
    """A proposal in joscar's order (000A 000F 0003 0005), of any capability."""
    where = addressed(rdv.REQUESTER_IP, address=ip4(host), port=port)
    inner = tlv(rdv.SEQUENCE, u16(1)), tlv(rdv.HOST_CHECK), where, *more
    return to_host(cookie, "carol1", block(rdv.PROPOSE, cookie, capability, *inner))
