"""What the two ends of the measured connections say, as bytes: OSCAR's way in, a text message, an offer.

Frames are numbered as clients and servers number them, because a flow whose frames are out of sequence is not
read. A server answers each message with the very same bytes, so its numbers have to run one behind at first.
"""

from __future__ import annotations

import struct

from tests.golden import load
from tests.lab import oscar_wire as wire
from tests.lab.profiles import PROFILES, Offer

VERSION = bytes.fromhex("00000001")
CLIENT_FIRST = 1
"""Sequence number of the client's first frame; the server's first has the one before."""

_golden = load()
HOST_ONLINE = _golden["host-online"].data[6:]
TEXT = _golden["text-message"].data[6:]
MESSAGE = 6 + len(TEXT)
"""Bytes of a text message with its FLAP header."""
SERVER_HELLO = wire.flap(wire.FLAP_SIGNON, 0, VERSION) + wire.flap(wire.FLAP_SNAC, 1, HOST_ONLINE)
CLIENT_HELLO = wire.flap(wire.FLAP_SIGNON, CLIENT_FIRST, VERSION)


def message(number: int) -> bytes:
    """The text message that is the client's frame *number* (the sign-on frame is number 0)."""
    return wire.flap(wire.FLAP_SNAC, CLIENT_FIRST + number, TEXT)


def offer(number: int, cookie: bytes, address: str, port: int) -> bytes:
    """Frame *number*: a file is offered on *port* of *address*."""
    body = PROFILES["libpurple"].proposal("bob", Offer(cookie, wire.SEND_FILE, address, port))
    return wire.flap(wire.FLAP_SNAC, CLIENT_FIRST + number, wire.Snac(4, 6, body).encode())


def cancel(number: int, cookie: bytes) -> bytes:
    """Frame *number*: that offer is withdrawn."""
    body = PROFILES["libpurple"].cancel("bob", cookie, wire.SEND_FILE)
    return wire.flap(wire.FLAP_SNAC, CLIENT_FIRST + number, wire.Snac(4, 6, body).encode())


PEER = struct.Struct("!4sHH8s16xI220x")
"""The part of an OFT2 header that is used here: magic, length 256, type, cookie, total size at offset 32."""


def peer_request(size: int) -> bytes:
    """A receiver's OFT2 acknowledgement (type 0x0202): "send me *size* bytes"."""
    return PEER.pack(b"OFT2", 256, 0x0202, bytes(8), size)
