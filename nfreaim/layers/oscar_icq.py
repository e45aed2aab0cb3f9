"""ICQ's messages about direct connections, as scapy layers.

    DirectInfo      TLV 0x000C in SNAC(01,1E) and in every user-info block, 37 bytes, big-endian
    ReverseConnect  TLV 0x2711 of a rendezvous with capability "icq-reverse", 27 bytes, little-endian but for
                    the address
    RelayMessage    TLV 0x2711 with capability "icq-relay" (a "type-2 message"), and the data of a SNAC(04,0B)

Layouts: DirectInfo was recorded from climm 0.7.1 and libpurple 2.12.1, and is published by the IServerd
project; the others were read from the sources of Licq and climm.
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
"""First bytes of every type-2 message that was seen: the length of its first block."""


class UserTag(IntEnum):
    """TLVs of a user-info block that carry an address; 0x0003 and 0x0005 only have the size of one."""

    EXTERNAL_IP = 0x000A  # added by AOL's servers for ICQ users, 4 bytes
    DIRECT_INFO = 0x000C  # as the client sent it in SNAC(01,1E), 37 bytes


class DirectType(IntEnum):
    """The way to reach a client. climm sends 3."""

    DISABLED = 0
    FIREWALL = 1
    SOCKS = 2
    NORMAL = 4
    WEB = 6  # a web client: it does not listen


class DirectInfo(Packet):
    """The endpoint at which a client listens for other clients; the port has 32 bits. All 0: it does not
    listen."""

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
    """ "I cannot reach you: connect to me." The address is in network order, all other fields are
    little-endian.

    Licq writes failed_port there; climm writes its external address. Readers take `port`, and `port_again` if
    `port` is 0.
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
    """A type-2 message: two blocks that number it, then type, flags, status, priority, text; `rest` depends
    on the type."""

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
    PLUGIN = 0x1A  # the GUID says which


REFUSED = 1
"""Status of a type-2 message that refuses."""

PLUGIN_FILE = bytes.fromhex("f02d12d93091d3118dd700104b06462e")
PLUGIN_CHAT = bytes.fromhex("bff720b2378ed411bd280004ac96d905")


class Plugin(Packet):
    """`rest` of a type-2 message of type PLUGIN: GUID, title, description; `tail` depends on the GUID.

    rest_length counts the bytes after it; Licq's older versions count four bytes too few.
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
    """The port in both byte orders. Requests have no port: 0, or Licq's 2D384444 at the beginning."""

    fields_desc = [
        ShortField("port", 0),
        LEShortField("zero", 0),
        FieldLenField("file_length", None, fmt="<H", length_of="file"),
        StrLenField("file", b"\0", length_from=lambda pkt: pkt.file_length),
        LEIntField("size", 0),
        StrField("again", b""),
    ]


class ChatTail(Packet):
    """The participants, then the port in both byte orders; climm leaves the second one out."""

    fields_desc = [
        FieldLenField("users_length", None, fmt="<H", length_of="users"),
        StrLenField("users", b"\0", length_from=lambda pkt: pkt.users_length),
        ShortField("port", 0),
        LEShortField("zero", 0),
        StrField("again", b""),
    ]


def read(cls: type[Packet], data: bytes) -> Packet | None:
    """All of *data* as a layer of class *cls*; None if it is cut short or would be rebuilt differently."""
    try:
        layer = cls(bytes(data))
        layer.clear_cache()
        return layer if bytes(layer) == data and not len(layer.payload) else None
    except struct.error:  # scapy raises this for an integer that is cut short
        return None


def relay_message(data: bytes) -> Packet | None:
    """The type-2 message in *data*, or None. The first block of every message that was seen has 27 bytes."""
    if data[:2] != RELAY_BEGIN:
        return None
    message = read(RelayMessage, data)
    return message if message is not None and len(message.text) == message.text_length else None


class Listening:
    """A type-2 message that names the port its sender listens on: twice, or once as climm writes it.

    port  TCP port, never 0
    """

    def __init__(self, layers: list[tuple[Packet, str]], tail: Packet) -> None:
        self.port: int = tail.port
        self._layers = layers
        self._tail = tail

    def moved(self, port: int) -> bytes:
        """The message with another port in the same fields."""
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
    """*message*, a RelayMessage, as a Listening if it names a port, both times the same and at its end."""
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
