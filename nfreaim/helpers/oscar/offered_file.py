"""OfferedFile: OSCAR's session for the self-test, in which a client offers a file and takes that back.

The order of the TLVs is that of libpurple 2.12.1's proposals.
"""

from __future__ import annotations

import socket
from collections.abc import Sequence
from itertools import count
from typing import Final

from nfreaim.core.address import Direction, Endpoint
from nfreaim.layers.oscar_messages import (
    FLAP,
    SNAC,
    TLV,
    FlapChannel,
    IcbmChannel,
    IcbmTag,
    IcbmToHost,
    RdvTag,
    RdvType,
    Rendezvous,
    RendezvousTLV,
    aim_capability,
    dissect,
    rendezvous_of,
)
from nfreaim.layers.oscar_names import CHANNEL_MSG_TO_HOST, HOST_ONLINE, numbers

_VERSION: Final = b"\0\0\0\1"
_COOKIE_TAG: Final = 0x0006  # of a sign-on frame: what the login server gave to the client
_FAMILIES: Final = (1, 2, 3, 4)  # of the server: 4 has the messages between users
_NAME: Final = b"selftest"
_COOKIE: Final = b"selftest"  # 8 bytes
_SEND_FILE: Final = aim_capability("1343")
_FILE: Final = b"\0\1\0\1\0\0\0\1selftest\0"  # one file, so many files, size:4, name
_OFT_SIZE: Final = 256


class OfferedFile:
    """See core.sample.Sample."""

    greeting: Final = b"OFT2\x01\x00\x02\x02".ljust(_OFT_SIZE, b"\0")
    """An acknowledgement, with which the receiver of a file begins."""

    def __init__(self) -> None:
        self._client, self._server = count(1), count(1)

    def sign_on(self) -> Sequence[tuple[Direction, bytes]]:
        """See core.sample.Sample."""
        families = b"".join(number.to_bytes(2, "big") for number in _FAMILIES)
        family, subtype = numbers(HOST_ONLINE)
        online = SNAC(family=family, subtype=subtype) / families
        cookie = bytes(TLV(type=_COOKIE_TAG, value=bytes(_OFT_SIZE)))
        signon = FlapChannel.SIGNON
        return (
            (Direction.REPLY, bytes(FLAP(channel=signon, sequence=next(self._server)) / _VERSION)),
            (
                Direction.ORIGINAL,
                bytes(FLAP(channel=signon, sequence=next(self._client)) / (_VERSION + cookie)),
            ),
            (Direction.REPLY, bytes(FLAP(sequence=next(self._server)) / online)),
        )

    def offer(self, inside: Endpoint) -> bytes:
        """See core.sample.Sample."""
        address, port = socket.inet_aton(inside.address), inside.port.to_bytes(2, "big")
        values = (
            (RdvTag.SEQ_NUM, b"\0\1"),
            (RdvTag.REQUEST_HOST_CHK, b""),
            (RdvTag.RDV_IP, address),
            (RdvTag.REQUESTER_IP, address),
            (RdvTag.PORT, port),
            (RdvTag.IP_XOR, bytes(byte ^ 0xFF for byte in address)),
            (RdvTag.PORT_XOR, bytes(byte ^ 0xFF for byte in port)),
            (RdvTag.SVC_DATA, _FILE),
        )
        return self._message(RdvType.PROPOSE, [TLV(type=tag, value=value) for tag, value in values])

    def announced(self, message: bytes) -> Endpoint:
        """See core.sample.Sample."""
        block = rendezvous_of(dissect(message))
        address = None if block is None else block.first(RdvTag.RDV_IP)
        port = None if block is None else block.first(RdvTag.PORT)
        if address is None or port is None:
            raise ValueError("no address and port in the message")
        return Endpoint(socket.inet_ntoa(address.value), int.from_bytes(port.value, "big"))

    def withdrawal(self) -> bytes:
        """See core.sample.Sample."""
        return self._message(RdvType.CANCEL, [TLV(type=RdvTag.CANCEL_REASON, value=b"\0\1")])

    def _message(self, kind: RdvType, tlvs: list[TLV]) -> bytes:
        block = Rendezvous(type=kind, cookie=_COOKIE, capability=_SEND_FILE, tlvs=tlvs)
        outer = [RendezvousTLV(type=IcbmTag.DATA, value=block)]
        body = IcbmToHost(cookie=_COOKIE, channel=IcbmChannel.RENDEZVOUS, screen_name=_NAME, tlvs=outer)
        family, subtype = numbers(CHANNEL_MSG_TO_HOST)
        snac = SNAC(family=family, subtype=subtype, request_id=1)
        return bytes(FLAP(sequence=next(self._client)) / snac / body)
