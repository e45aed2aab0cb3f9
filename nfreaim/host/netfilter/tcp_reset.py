"""ResetSender: sends TCP resets for connections that can no longer be translated.

A reset carries the sequence numbers that its receiver knows. A reset towards outside is tracked and
translated like any packet of its connection. One towards inside must not be tracked, because connection
tracking knows the outside's sequence numbers only. The rules tell the two apart by their packet mark.
Layouts: IPv4 RFC 791 section 3.1, TCP RFC 9293 section 3.1; answer to a segment: RFC 9293 section 3.10.7.
"""

from __future__ import annotations

import logging
import socket
from collections.abc import Callable
from typing import Final

from nfreaim.core.address import flow_id, reverse
from nfreaim.core.tcp.segment import ACK, FIN, RST, SYN, Segment, bare_packet
from nfreaim.errors import BackendError
from nfreaim.host.netfilter.names import INSIDE_MARK, OWN_MARK

log = logging.getLogger(__name__)

_SO_MARK: Final = 36
# Far enough before a segment's number to be old also where edits shortened the stream, and near enough for
# connection tracking, which accepts numbers of up to a window before.
_BEFORE: Final = 2048


class ResetSender:
    """A raw socket. *is_inside* says whether an address is that of an inside host or of this router."""

    def __init__(self, is_inside: Callable[[str], bool]) -> None:
        self._is_inside = is_inside
        try:
            self._socket = socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_RAW)
        except OSError as error:
            raise BackendError(f"no raw socket: {error}; is CAP_NET_RAW there?") from error
        self._socket.setblocking(False)

    def close(self) -> None:
        """Close the socket."""
        self._socket.close()

    def answer(self, segment: Segment) -> None:
        """Reset the sender of *segment*, unless that is a reset, and then the other end. Raises nothing.

        The other end accepts a reset only with numbers that are unknown here. An empty segment from before
        its window makes it send them (RFC 9293 section 3.10.7.4), and that segment is answered by a reset in
        turn.
        """
        if segment.flags & RST:
            return
        log.info("reset: %s is not known any more", flow_id(segment.key))
        end = segment.seq + len(segment.raw) - segment.start
        end += bool(segment.flags & SYN) + bool(segment.flags & FIN)
        self.send(reverse(segment.key), segment.ack if segment.flags & ACK else 0, end)
        self.send(segment.key, segment.seq - _BEFORE, segment.ack, ACK)

    def send(self, key: bytes, seq: int, ack: int, flags: int = RST | ACK) -> None:
        """Send a packet with the addresses and ports of *key* (see Segment). Raises nothing."""
        target = socket.inet_ntoa(key[4:8])
        try:
            mark = OWN_MARK | (INSIDE_MARK if self._is_inside(target) else 0)
            self._socket.setsockopt(socket.SOL_SOCKET, _SO_MARK, mark)
            self._socket.sendto(bare_packet(key, seq, ack, flags), (target, 0))
        except (OSError, BackendError) as error:
            # The end concerned will send again, and be answered again.
            log.warning("reset towards %s was not sent: %s", target, error)
