"""OSCAR, the protocol of AIM and ICQ: FLAP, SNAC, ICBM and the rendezvous block, as scapy layers.

    FLAP | 2A | channel:1 | sequence:2 | length:2 | ...                     one frame
    SNAC | family:2 | subtype:2 | flags:2 | request id:4 | [extra] | ...    on FLAP channel 2
    ICBM | cookie:8 | channel:2 | whom | TLVs                               SNAC(04,06), (04,07)
    TLV  | type:2 | length:2 | value
    rendezvous | type:2 | cookie:8 | capability:16 | TLVs                   in TLV 0x0005 on ICBM channel 2

All integers are big-endian, all lengths count bytes. Layouts and client habits were recorded from libpurple
2.12.1 against open-oscar-server v0.24.0, or read from client sources; names of constants are AOL's.

Dissecting is too slow for every packet, so helpers compare bytes first and dissect few frames.

Lengths and counts are ordinary fields. A field that is left out when a packet is built is computed; one that
was dissected or set keeps its value, so that rebuilding never repairs a wrong length.
"""

# ruff: noqa: RUF012 - fields_desc is a plain class attribute, as everywhere in scapy
from __future__ import annotations

from enum import IntEnum
from uuid import UUID

from scapy.fields import (
    ConditionalField,
    FieldLenField,
    LenField,
    PacketField,
    PacketLenField,
    PacketListField,
    ShortEnumField,
    ShortField,
    StrField,
    StrFixedLenField,
    StrLenField,
    XByteField,
    XIntField,
    XShortField,
)
from scapy.packet import Packet, bind_layers

from nfreaim.layers.oscar_names import (
    CHANNEL_MSG_TO_CLIENT,
    CHANNEL_MSG_TO_HOST,
    CLIENT_ERR,
    numbers,
    spelled,
)
from nfreaim.layers.structs import header_struct

FLAP_MAGIC = 0x2A
MAX_TLVS = 100
"""At most as many TLVs in one list, to bound the time that a hostile frame takes; proposals have a dozen."""


class FlapChannel(IntEnum):
    SIGNON = 1
    DATA = 2
    ERROR = 3
    SIGNOFF = 4  # open-oscar-server leaves the length field out for AIM 1.x to 4.1, which hang otherwise
    KEEPALIVE = 5


SNAC_FLAG_EXTRA = 0x8000
"""An extra block precedes the body. AOL's servers send it, so a reader that wants flags 0 loses messages."""


class IcbmChannel(IntEnum):
    IM = 1
    RENDEZVOUS = 2
    MIME = 3
    ICQ = 4


class IcbmTag(IntEnum):
    """Outer TLVs of an ICBM, in any order: libpurple puts REQUEST_HOST_ACK before DATA, AIM after it."""

    AOL_IM_DATA = 0x0002
    REQUEST_HOST_ACK = 0x0003
    AUTO_RESPONSE = 0x0004
    DATA = 0x0005
    STORE = 0x0006
    WANT_EVENTS = 0x000B


class RdvType(IntEnum):
    PROPOSE = 0
    CANCEL = 1
    ACCEPT = 2
    NAK = 3  # defined, but a refusal travels as SNAC(04,0B)


class RdvTag(IntEnum):
    """Inner TLVs of a rendezvous block. Servers may stop reading at the first private tag (0x2711 and up)."""

    RDV_CHAN = 0x0001  # ICBM channel to use instead of TCP, 2 bytes
    RDV_IP = 0x0002  # address to connect to, 4 bytes; the relay's with USE_ARS
    REQUESTER_IP = 0x0003  # the sender's own address, 4 bytes; open-oscar-server overwrites it
    VERIFIED_IP = 0x0004  # added by the server only, behind all other TLVs, 4 bytes
    PORT = 0x0005  # TCP port, 2 bytes; with USE_ARS a PIN. Licq writes it little-endian
    DOWNLOAD_URL = 0x0006
    DOWNLOAD_URL2 = 0x0007
    VERIFIED_DOWNLOAD_URL = 0x0008
    SEQ_NUM = 0x000A  # number of the proposal in this conversation, from 1; in proposals only
    CANCEL_REASON = 0x000B
    INVITATION = 0x000C
    INVITE_MIME_CHARSET = 0x000D
    INVITE_MIME_LANG = 0x000E
    REQUEST_HOST_CHK = 0x000F
    USE_ARS = 0x0010  # empty; libpurple and Kopete put it behind the addresses
    REQUEST_SECURE = 0x0011
    MAX_PROTO_VERSION = 0x0012
    MIN_PROTO_VERSION = 0x0013
    COUNTER_REASON = 0x0014  # AIM's counter-proposals, in place of REQUEST_HOST_CHK
    INVITE_MIME_TYPE = 0x0015
    IP_XOR = 0x0016  # RDV_IP xor FFFFFFFF, made to detect translators
    PORT_XOR = 0x0017  # PORT xor FFFF; Kopete sends it without IP_XOR
    ADDR_LIST = 0x0018
    SESS_ID = 0x0019
    ROLLOVER_ID = 0x001A
    SVC_DATA = 0x2711


class ClientErr(IntEnum):
    """Reasons in SNAC(04,0B). CHANNEL_SPECIFIC refuses a rendezvous: 0002, then a 2-byte code."""

    UNSUPPORTED_CHANNEL = 1
    BUSTED_PAYLOAD = 2
    CHANNEL_SPECIFIC = 3


def aim_capability(short: str) -> bytes:
    """The 16 bytes of a capability of AOL's, which differ in the second half of the first word only."""
    return UUID(f"0946{short}-4C7F-11D1-8222-444553540000").bytes


CAPABILITIES: dict[bytes, str] = {
    aim_capability("1341"): "talk",
    aim_capability("1342"): "direct-play",
    aim_capability("1343"): "send-file",
    aim_capability("1344"): "icq-reverse",
    aim_capability("1345"): "direct-im",
    aim_capability("1346"): "buddy-icon",
    aim_capability("1347"): "add-ins",
    aim_capability("1348"): "get-file",
    aim_capability("1349"): "icq-relay",
    aim_capability("134A"): "games",
    UUID("0946134A-4C7F-11D1-2282-444553540000").bytes: "games",  # the same with two bytes swapped
    aim_capability("134B"): "send-buddy-list",
    aim_capability("0100"): "video",  # in libpurple's table
    aim_capability("0101"): "live-video",
    aim_capability("0102"): "camera",
    aim_capability("0103"): "microphone",
    aim_capability("0104"): "rtc-audio",
    aim_capability("0105"): "ichat-av",
    UUID("748F2420-6287-11D1-8222-444553540000").bytes: "chat-invite",
}
"""Names of services by capability (16 bytes)."""


class _Inner(Packet):
    """An item of a list: the bytes behind it belong to its container and are not its payload."""

    def extract_padding(self, s: bytes) -> tuple[bytes, bytes]:
        return b"", s


class TLV(_Inner):
    """type:2 length:2 value. Of two of one type libpurple takes the first, joscar and Kopete the last."""

    fields_desc = [
        XShortField("type", 0),
        FieldLenField("length", None, length_of="value"),
        StrLenField("value", b"", length_from=lambda pkt: pkt.length),
    ]


class Rendezvous(Packet):
    """type:2 cookie:8 capability:16, then TLVs to the end; an accept usually has none."""

    fields_desc = [
        ShortEnumField("type", RdvType.PROPOSE, {t.value: t.name.lower() for t in RdvType}),
        StrFixedLenField("cookie", bytes(8), length=8),
        StrFixedLenField("capability", bytes(16), length=16),
        PacketListField("tlvs", [], TLV, max_count=MAX_TLVS),
    ]

    def first(self, tlv_type: int) -> TLV | None:
        """The first inner TLV of that type, to read or to set its value; None if there is none."""
        return next((tlv for tlv in self.tlvs if tlv.type == tlv_type), None)

    def all(self, tlv_type: int) -> list[TLV]:
        """Every inner TLV of that type, in order."""
        return [tlv for tlv in self.tlvs if tlv.type == tlv_type]


class RendezvousTLV(TLV):
    """Outer TLV 0x0005 of an ICBM on channel 2; `value` is a Rendezvous instead of bytes."""

    fields_desc = [
        XShortField("type", IcbmTag.DATA),
        FieldLenField("length", None, length_of="value"),
        PacketLenField("value", Rendezvous(), Rendezvous, length_from=lambda pkt: pkt.length),
    ]


class UserInfo(_Inner):
    """The sender in SNAC(04,07). Only `count` separates its TLVs from those of the message.

    The same types mean other things here: 0x0003 is the sign-on time and 0x0005 (AOL's servers) "member
    since", each of 4 bytes like an address.
    """

    fields_desc = [
        FieldLenField("name_length", None, fmt="B", length_of="screen_name"),
        StrLenField("screen_name", b"", length_from=lambda pkt: pkt.name_length),
        ShortField("warning", 0),
        FieldLenField("count", None, count_of="tlvs"),
        PacketListField("tlvs", [], TLV, count_from=lambda pkt: pkt.count, max_count=MAX_TLVS),
    ]


def _outer_tlv(icbm: Packet, _seen: object, _last: object, rest: bytes) -> type[TLV] | None:
    """The class of the outer TLV in *rest*; a rendezvous on channel 2 only, because text may imitate one."""
    if not rest:
        return None
    if icbm.channel == IcbmChannel.RENDEZVOUS and rest[:2] == IcbmTag.DATA.to_bytes(2, "big"):
        return RendezvousTLV
    return TLV


class FLAP(Packet):
    """2A channel:1 sequence:2 length:2, then `length` bytes."""

    fields_desc = [
        XByteField("magic", FLAP_MAGIC),
        XByteField("channel", FlapChannel.DATA),
        ShortField("sequence", 0),
        LenField("length", None),
    ]

    def extract_padding(self, s: bytes) -> tuple[bytes, bytes]:
        return s[: self.length], s[self.length :]


def _has_extra(snac: Packet) -> bool:
    return bool(snac.flags & SNAC_FLAG_EXTRA)


class SNAC(Packet):
    """family:2 subtype:2 flags:2 request_id:4, and with flag 0x8000 extra_length:2 and as many bytes of TLVs.

    Ids chosen by the server have the top bit set. The extra TLVs stay bytes, because no reader needs them.
    """

    fields_desc = [
        XShortField("family", numbers(CHANNEL_MSG_TO_HOST)[0]),
        XShortField("subtype", 0),
        XShortField("flags", 0),
        XIntField("request_id", 0),
        ConditionalField(FieldLenField("extra_length", None, length_of="extra"), _has_extra),
        ConditionalField(StrLenField("extra", b"", length_from=lambda pkt: pkt.extra_length), _has_extra),
    ]


class IcbmToHost(Packet):
    """SNAC(04,06), client to server: cookie:8 channel:2 name_length:1 recipient, then TLVs to the end."""

    fields_desc = [
        StrFixedLenField("cookie", bytes(8), length=8),
        ShortField("channel", IcbmChannel.RENDEZVOUS),
        FieldLenField("name_length", None, fmt="B", length_of="screen_name"),
        StrLenField("screen_name", b"", length_from=lambda pkt: pkt.name_length),
        PacketListField("tlvs", [], next_cls_cb=_outer_tlv, max_count=MAX_TLVS),
    ]


class IcbmToClient(Packet):
    """SNAC(04,07), server to client: cookie:8 channel:2, the sender's user info, then TLVs to the end."""

    fields_desc = [
        StrFixedLenField("cookie", bytes(8), length=8),
        ShortField("channel", IcbmChannel.RENDEZVOUS),
        PacketField("sender", UserInfo(), UserInfo),
        PacketListField("tlvs", [], next_cls_cb=_outer_tlv, max_count=MAX_TLVS),
    ]


class ClientError(Packet):
    """SNAC(04,0B), both directions: cookie:8 channel:2 name_length:1 name reason:2, then data to the end."""

    fields_desc = [
        StrFixedLenField("cookie", bytes(8), length=8),
        ShortField("channel", IcbmChannel.RENDEZVOUS),
        FieldLenField("name_length", None, fmt="B", length_of="screen_name"),
        StrLenField("screen_name", b"", length_from=lambda pkt: pkt.name_length),
        ShortField("reason", ClientErr.CHANNEL_SPECIFIC),
        StrField("data", b""),
    ]


ICBM_BODIES: dict[bytes, type[Packet]] = {
    CHANNEL_MSG_TO_HOST: IcbmToHost,
    CHANNEL_MSG_TO_CLIENT: IcbmToClient,
    CLIENT_ERR: ClientError,
}
bind_layers(FLAP, SNAC, channel=FlapChannel.DATA)
for _name, _body in ICBM_BODIES.items():
    bind_layers(SNAC, _body, **dict(zip(("family", "subtype"), numbers(_name), strict=True)))

FLAP_HEADER = header_struct(FLAP)
SNAC_HEADER = header_struct(SNAC)
TLV_HEADER = header_struct(TLV)
RENDEZVOUS_HEADER = header_struct(Rendezvous)


def dissect(frame: bytes) -> FLAP:
    """The layers of one complete FLAP frame that holds SNAC(04,06), (04,07) or (04,0B).

    Raises ValueError for other frames, if a length or the user-info count reaches beyond its container, if
    bytes remain that no TLV covers, or if a list has more than MAX_TLVS TLVs. scapy itself raises for none of
    these: it shortens values and wraps the rest in Raw.
    """
    if len(frame) < FLAP_HEADER.size + SNAC_HEADER.size:
        raise ValueError(f"{len(frame)} bytes are too short for FLAP and SNAC headers")
    magic, channel, _, length = FLAP_HEADER.unpack_from(frame)
    if magic != FLAP_MAGIC or channel != FlapChannel.DATA:
        raise ValueError(f"FLAP magic {magic:#04x}, channel {channel}: not a data frame")
    if length != len(frame) - FLAP_HEADER.size:
        raise ValueError(f"FLAP length {length} for {len(frame) - FLAP_HEADER.size} bytes of data")
    name = frame[FLAP_HEADER.size : FLAP_HEADER.size + 4]
    if name not in ICBM_BODIES:
        raise ValueError(f"{spelled(name)} is not an ICBM")
    flap = FLAP(bytes(frame))
    _check(flap, name)
    return flap


def rebuild(flap: FLAP) -> bytes:
    """The frame, serialised anew from its fields.

    bytes(flap) would return the bytes that scapy remembers. They prove nothing about the dissection, and miss
    a value that was changed more than one layer down.
    """
    flap.clear_cache()
    return bytes(flap)


def rendezvous_of(flap: FLAP) -> Rendezvous | None:
    """The rendezvous block of a dissected ICBM on channel 2.

    None if there is none, and also if there are several, because clients disagree about which one counts.
    """
    outer = getattr(flap.payload.payload, "tlvs", [])
    blocks = [tlv.value for tlv in outer if isinstance(tlv, RendezvousTLV)]
    return blocks[0] if len(blocks) == 1 else None


def _check(flap: FLAP, name: bytes) -> None:
    snac = flap.payload
    if type(snac) is not SNAC or (snac.flags & SNAC_FLAG_EXTRA and snac.extra_length != len(snac.extra)):
        raise ValueError(f"extra block overruns {spelled(name)}")
    icbm = snac.payload
    if type(icbm) is not ICBM_BODIES[name]:
        raise ValueError(f"{spelled(name)} is cut short, or a list has more than {MAX_TLVS} TLVs")
    whom = icbm.sender if isinstance(icbm, IcbmToClient) else icbm
    if whom.name_length != len(whom.screen_name):
        raise ValueError(f"screen name overruns {spelled(name)}")
    if isinstance(icbm, IcbmToClient):
        if whom.count != len(whom.tlvs):
            raise ValueError(f"user info announces {whom.count} TLVs and has {len(whom.tlvs)}")
        check_tlvs(whom.tlvs, "the user info")
    for tlv in getattr(icbm, "tlvs", []):
        if isinstance(tlv, RendezvousTLV):
            _check_rendezvous(tlv)
        else:
            check_tlvs([tlv], spelled(name))


def check_tlvs(tlvs: list[TLV], where: str) -> None:
    """Raise ValueError if a TLV overruns *where*, or bytes remain that no TLV covers."""
    for tlv in tlvs:
        if type(tlv) is not TLV:
            raise ValueError(f"{len(tlv)} bytes left over in {where}")
        if tlv.length != len(tlv.value):
            raise ValueError(
                f"TLV {tlv.type:#06x} of {tlv.length} bytes overruns {where}: {len(tlv.value)} left"
            )


def _check_rendezvous(outer: RendezvousTLV) -> None:
    block = outer.value
    if type(block) is not Rendezvous or outer.length < RENDEZVOUS_HEADER.size:
        raise ValueError(f"rendezvous block of {outer.length} bytes: too short, or more than {MAX_TLVS} TLVs")
    # `original` has the bytes that scapy dissected. From no bytes scapy makes a block of defaults, of legal
    # size.
    if len(block.original) != outer.length:
        raise ValueError(f"rendezvous block of {outer.length} bytes overruns: {len(block.original)} left")
    check_tlvs(block.tlvs, "the rendezvous block")
