"""What ICQ's clients tell each other about direct connections, as scapy layers.

    DirectInfo      TLV 0x000C in SNAC(01,1E) and in every user-info block, 37 bytes, big-endian
    ReverseConnect  TLV 0x2711 of a rendezvous with capability "icq-reverse", 27 bytes, little-endian but for
                    the address
    RelayMessage    TLV 0x2711 with capability "icq-relay" (a "type-2 message"), and the data of a SNAC(04,0B)

Layouts: DirectInfo recorded from climm 0.7.1 and libpurple 2.12.1, and published by the IServerd project; the
others were read from the sources of Licq and climm.

This module may not decide anything about a message, and may import only scapy.packet, scapy.fields and its
siblings.
"""

# ruff: noqa: RUF012 - fields_desc is a plain class attribute, as everywhere in scapy
from __future__ import annotations

import struct
from enum import IntEnum

from scapy.fields import (
    FieldLenField,
    IntField,
    LEIntField,
    LEShortField,
    ShortField,
    StrField,
    StrFixedLenField,
    StrLenField,
    XByteField,
    XIntField,
)
from scapy.packet import Packet

from nfreaim.layers.oscar_messages import aim_capability

REVERSE_CONNECT = aim_capability("1344")
SERVER_RELAY = aim_capability("1349")
RELAY_BEGIN = b"\x1b\0"
"""How every type-2 message that was seen begins: the length of its first block."""


class UserTag(IntEnum):
    """TLVs of a user-info block that carry an address; 0x0003 and 0x0005 only look as if they did."""

    EXTERNAL_IP = 0x000A  # added by AOL's servers for ICQ users, 4 bytes
    DIRECT_INFO = 0x000C  # as the client sent it in SNAC(01,1E), 37 bytes


class DirectType(IntEnum):
    """How a client can be reached. climm sends 3."""

    DISABLED = 0
    FIREWALL = 1
    SOCKS = 2
    NORMAL = 4
    WEB = 6  # a web client: nothing listens


class DirectInfo(Packet):
    """Where a client listens for other clients. The port has 32 bits; address and port 0: it does not."""

    fields_desc = [
        StrFixedLenField("address", bytes(4), length=4),
        IntField("port", 0),
        XByteField("type", DirectType.NORMAL),
        ShortField("version", 8),
        XIntField("cookie", 0),
        IntField("web_port", 0x50),
        IntField("features", 3),
        IntField("info_updated", 0),
        IntField("extended_info_updated", 0),
        IntField("extended_status_updated", 0),
        ShortField("unknown", 0),
    ]


class ReverseConnect(Packet):
    """ "I cannot reach you: connect to me." The address is in network order, everything else little-endian.

    failed_port is Licq's; climm writes its external address there. Readers take `port`, and `port_again` if
    that is 0.
    """

    fields_desc = [
        LEIntField("uin", 0),
        StrFixedLenField("address", bytes(4), length=4),
        LEIntField("port", 0),
        XByteField("mode", DirectType.NORMAL),
        LEIntField("failed_port", 0),
        LEIntField("port_again", 0),
        LEShortField("version", 8),
        LEIntField("connection", 0),
    ]


class RelayMessage(Packet):
    """A type-2 message: two blocks that number it, then its type, status, text, and what the type adds."""

    fields_desc = [
        FieldLenField("header_length", None, fmt="<H", length_of="header"),
        StrLenField("header", b"", length_from=lambda pkt: pkt.header_length),
        FieldLenField("counter_length", None, fmt="<H", length_of="counter"),
        StrLenField("counter", b"", length_from=lambda pkt: pkt.counter_length),
        XByteField("type", 1),
        XByteField("flags", 0),
        LEShortField("status", 0),
        LEShortField("priority", 0),
        FieldLenField("text_length", None, fmt="<H", length_of="text"),
        StrLenField("text", b"\0", length_from=lambda pkt: pkt.text_length),
        StrField("rest", b""),
    ]


class RelayType(IntEnum):
    CHAT = 2
    FILE = 3
    PLUGIN = 0x1A  # what it is stands in the GUID


REFUSED = 1
"""Status of a type-2 message that says no."""

PLUGIN_FILE = bytes.fromhex("f02d12d93091d3118dd700104b06462e")
PLUGIN_CHAT = bytes.fromhex("bff720b2378ed411bd280004ac96d905")


class Plugin(Packet):
    """`rest` of a type-2 message of type PLUGIN: what it is, a description, and what that kind adds.

    rest_length counts what follows it; Licq's older versions count four bytes too few.
    """

    fields_desc = [
        FieldLenField("header_length", None, fmt="<H", length_of="title", adjust=lambda _, x: x + 16),
        StrFixedLenField("guid", PLUGIN_FILE, length=16),
        StrLenField("title", b"", length_from=lambda pkt: max(pkt.header_length - 16, 0)),
        LEIntField("rest_length", 0),
        FieldLenField("description_length", None, fmt="<I", length_of="description"),
        StrLenField("description", b"", length_from=lambda pkt: pkt.description_length),
        StrField("tail", b""),
    ]


class Described(Packet):
    """`rest` of a type-2 message of type FILE, the form without GUID."""

    fields_desc = [
        FieldLenField("description_length", None, fmt="<H", length_of="description"),
        StrLenField("description", b"", length_from=lambda pkt: pkt.description_length),
        StrField("tail", b""),
    ]


class FileTail(Packet):
    """The port in both byte orders. Requests have none: 0, or Licq's 2D384444 in the first place."""

    fields_desc = [
        ShortField("port", 0),
        LEShortField("zero", 0),
        FieldLenField("file_length", None, fmt="<H", length_of="file"),
        StrLenField("file", b"\0", length_from=lambda pkt: pkt.file_length),
        LEIntField("size", 0),
        StrField("again", b""),
    ]


class ChatTail(Packet):
    """Who takes part, then the port in both byte orders; climm leaves the second one out."""

    fields_desc = [
        FieldLenField("users_length", None, fmt="<H", length_of="users"),
        StrLenField("users", b"\0", length_from=lambda pkt: pkt.users_length),
        ShortField("port", 0),
        LEShortField("zero", 0),
        StrField("again", b""),
    ]


def read(cls: type[Packet], data: bytes) -> Packet | None:
    """*data*, all of it, as a layer of that class; None if it is cut short or not rebuilt as it was."""
    try:
        layer = cls(bytes(data))
        layer.clear_cache()
        return layer if bytes(layer) == data and not len(layer.payload) else None
    except struct.error:  # scapy's word for an integer that is not there in full
        return None


def relay_message(data: bytes) -> Packet | None:
    """The type-2 message in *data*, or None: its first block has 27 bytes in all that were seen."""
    if data[:2] != RELAY_BEGIN:
        return None
    message = read(RelayMessage, data)
    return message if message is not None and len(message.text) == message.text_length else None


class Listening:
    """A type-2 message that names the port its sender listens on: twice, or once as climm does.

    port  TCP port, never 0
    """

    def __init__(self, layers: list[tuple[Packet, str]], tail: Packet) -> None:
        self.port: int = tail.port
        self._layers = layers
        self._tail = tail

    def moved(self, port: int) -> bytes:
        """The message with another port in the same places."""
        self._tail.port = port
        if self._tail.again:
            self._tail.again = port.to_bytes(4, "little")
        inner = self._tail
        for layer, field in reversed(self._layers):
            inner.clear_cache()
            layer.setfieldval(field, bytes(inner))
            inner = layer
        inner.clear_cache()
        return bytes(inner)


def listening(message: Packet) -> Listening | None:
    """Where *message*, a RelayMessage, names a port: both times the same, and nothing behind it."""
    layers: list[tuple[Packet, str]] = [(message, "rest")]
    tail_of: type[Packet] = FileTail
    if message.type == RelayType.CHAT:
        tail_of = ChatTail
    elif message.type == RelayType.FILE:
        layers.append((read(Described, message.rest), "tail"))
    elif message.type == RelayType.PLUGIN:
        plugin = read(Plugin, message.rest)
        layers.append((plugin, "tail"))
        if plugin is None or plugin.guid not in (PLUGIN_FILE, PLUGIN_CHAT):
            return None
        tail_of = ChatTail if plugin.guid == PLUGIN_CHAT else FileTail
    else:
        return None
    if layers[-1][0] is None:
        return None
    tail = read(tail_of, layers[-1][0].getfieldval(layers[-1][1]))
    if tail is None or not tail.port or tail.zero:
        return None
    twice = tail.again == tail.port.to_bytes(4, "little")
    once = tail_of is ChatTail and not tail.again
    return Listening(layers, tail) if twice or once else None
