"""What the two ends of the measured connections say, as bytes: OSCAR's way in, a text message, an offer.

Frames are numbered as clients and servers number them, because a flow whose frames are out of sequence is not
read. A server answers each message with the very same bytes, so its numbers have to run one behind at first.
"""

from __future__ import annotations

import struct
import zlib

from tests.golden import packets
from tests.oscar import rendezvous as rdv
from tests.oscar.flap import numbered
from tests.oscar.profiles import PROFILES, Offer
from tests.oscar.signon import HOST_ONLINE, hello
from tests.oscar.snac import TO_HOST, snac_frame

CLIENT_FIRST = 1
"""Sequence number of the client's first frame; the server's first has the one before."""

TEXT = packets()["text-message"]
MESSAGE = len(TEXT)
"""Bytes of a text message with its FLAP header."""
SERVER_HELLO = hello(0) + numbered(HOST_ONLINE, 1)
CLIENT_HELLO = hello(CLIENT_FIRST)


def message(number: int) -> bytes:
    """The text message that is the client's frame *number* (the sign-on frame is number 0)."""
    return numbered(TEXT, CLIENT_FIRST + number)


def offer(number: int, cookie: bytes, address: str, port: int) -> bytes:
    """Frame *number*: a file is offered on *port* of *address*."""
    body = PROFILES["libpurple"].proposal("bob", Offer(cookie, rdv.SEND_FILE, address, port))
    return snac_frame(TO_HOST, body, number=CLIENT_FIRST + number, request=0)


def cancel(number: int, cookie: bytes) -> bytes:
    """Frame *number*: that offer is withdrawn."""
    body = PROFILES["libpurple"].cancel("bob", cookie, rdv.SEND_FILE)
    return snac_frame(TO_HOST, body, number=CLIENT_FIRST + number, request=0)


ARRIVAL = struct.Struct("!dI")
"""What the server tells of a proposal: when it came (monotonic seconds), and the checksum of its bytes."""


def checksum(frame: bytes) -> int:
    """By which the sender of a proposal knows whether it was edited on its way."""
    return zlib.crc32(frame)


PEER = struct.Struct("!4sHH8s16xI220x")
"""The part of an OFT2 header that is used here: magic, length 256, type, cookie, total size at offset 32."""


def peer_request(size: int) -> bytes:
    """A receiver's OFT2 acknowledgement (type 0x0202): "send me *size* bytes"."""
    return PEER.pack(b"OFT2", 256, 0x0202, bytes(8), size)
