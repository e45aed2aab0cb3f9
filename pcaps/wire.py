"""OSCAR messages for the synthetic captures: golden packets with other values, and built ones.

Nothing of nfreaim is used here: what comes out of this file is compared with what nfreaim does.
"""

from ipaddress import IPv4Address
from typing import NamedTuple

from tests.golden import load

GOLDEN = {name: packet.data for name, packet in load().items()}

COOKIE = bytes.fromhex("3332373533323800")  # of send-file-proposal and its relatives
AIM_COOKIE = bytes.fromhex("3341354431394300")  # of aim-proposal
SEND_FILE = bytes.fromhex("094613434c7f11d18222444553540000")
# The extra block of a SNAC with flag 0x8000, as AOL's servers sent it: length, TLV 0x0001.
EXTRA = bytes.fromhex("0006 0001 0002 0004")
# User info as AOL's servers sent it: TLVs 0x0005 and 0x0003 have four bytes and are times. The second one is
# chosen to look like the outside address 203.0.113.1.
AOL_INFO = bytes.fromhex("0000 0005 0001 0002 0010 0005 0004 00001446") + bytes.fromhex(
    "001d 0009 000100050201d20472 000f 0004 00000e10 0003 0004 cb007101"
)
OOS_INFO = GOLDEN["send-file-proposal-received"][33:244]  # warning, count, six TLVs; behind the name


class _Form(NamedTuple):
    """A golden proposal, and the offsets in it of addresses, port, and the complements of both."""

    golden: str
    addresses: tuple[int, ...]
    port: int
    address_check: int | None = None
    port_check: int | None = None


_FORMS = {
    "libpurple": _Form("send-file-proposal", (71, 79), 87),
    "libpurple-direct-im": _Form("direct-im-proposal", (71, 79), 87),
    "libpurple-counter": _Form("counter-proposal", (71, 79), 87),
    "libpurple-received": _Form("send-file-proposal-received", (278, 286, 328), 294),
    "aim": _Form("aim-proposal", (105, 121), 129, 113, 135),
    "kopete": _Form("kopete-proposal", (77,), 85, None, 91),
}


def address(text: str) -> bytes:
    return IPv4Address(text).packed


def complement(data: bytes) -> bytes:
    return bytes(byte ^ 0xFF for byte in data)


def proposal(form: str, host: str, port: int) -> bytes:
    """The golden proposal of that form, announcing `host` and `port`."""
    golden, addresses, port_at, address_check, port_check = _FORMS[form]
    frame = bytearray(GOLDEN[golden])
    for at in addresses:
        frame[at : at + 4] = address(host)
    frame[port_at : port_at + 2] = port.to_bytes(2)
    if address_check is not None:
        frame[address_check : address_check + 4] = complement(address(host))
    if port_check is not None:
        frame[port_check : port_check + 2] = complement(port.to_bytes(2))
    return bytes(frame)


def put(data: bytes, *changes: tuple[int, bytes]) -> bytes:
    """`data` with other bytes at these offsets."""
    for at, new in changes:
        data = data[:at] + new + data[at + len(new) :]
    return data


def tlv(kind: int, value: bytes = b"") -> bytes:
    return kind.to_bytes(2) + len(value).to_bytes(2) + value


def block(kind: int, cookie: bytes, capability: bytes, *tlvs: bytes) -> bytes:
    """Outer TLV 0x0005: a rendezvous block."""
    return tlv(5, kind.to_bytes(2) + cookie + capability + b"".join(tlvs))


def snac(subtype: int, body: bytes, extra: bytes = b"") -> bytes:
    """SNAC(04,subtype) in its FLAP; `extra` sets flag 0x8000."""
    data = bytes.fromhex("0004") + subtype.to_bytes(2) + (b"\x80\0" if extra else b"\0\0")
    data += (0x8000_0000 if subtype == 7 else 0x31).to_bytes(4) + extra + body
    return b"\x2a\x02\0\0" + len(data).to_bytes(2) + data


def to_host(cookie: bytes, name: str, *outer: bytes, channel: int = 2, extra: bytes = b"") -> bytes:
    """SNAC(04,06), client to server."""
    whom = bytes([len(name)]) + name.encode()
    return snac(6, cookie + channel.to_bytes(2) + whom + b"".join(outer), extra)


def to_client(
    cookie: bytes, name: str, info: bytes, *outer: bytes, channel: int = 2, extra: bytes = b""
) -> bytes:
    """SNAC(04,07), server to client."""
    whom = bytes([len(name)]) + name.encode() + info
    return snac(7, cookie + channel.to_bytes(2) + whom + b"".join(outer), extra)


def received(frame: bytes, info: bytes = AOL_INFO) -> bytes:
    """ICQ's SNAC(04,06) on channel 2, to a number of six digits, as the SNAC(04,07) that becomes of it."""
    assert frame[24:27] == b"\0\2\6"
    return to_client(frame[16:24], "100003", info, frame[33:])


def aim_block(host: str, port: int, *more: bytes) -> bytes:
    """The rendezvous block of aim-proposal with other values, `more` TLVs at its end."""
    inner = proposal("aim", host, port)[37:167]
    return tlv(5, inner + b"".join(more))


def counter(host: str, port: int) -> bytes:
    """AIM's counter-proposal: 0x0014 stands where a first proposal has 0x000F."""
    ip, number = address(host), port.to_bytes(2)
    inner = (
        tlv(0x0A, b"\0\2"),
        tlv(0x14, b"\0\0"),
        tlv(2, ip),
        tlv(0x16, complement(ip)),
        tlv(3, ip),
        tlv(5, number),
        tlv(0x17, complement(number)),
    )
    return to_host(AIM_COOKIE, "alice1", block(0, AIM_COOKIE, SEND_FILE, *inner), tlv(3))


def plain(capability: bytes, cookie: bytes, host: str, port: int, *more: bytes) -> bytes:
    """A proposal in joscar's order (000A 000F 0003 0005), of any capability."""
    inner = tlv(0x0A, b"\0\1"), tlv(0x0F), tlv(3, address(host)), tlv(5, port.to_bytes(2)), *more
    return to_host(cookie, "carol1", block(0, cookie, capability, *inner))
