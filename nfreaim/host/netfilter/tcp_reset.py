"""ResetSender: sends packets of ours on connections of others: resets for connections that can no longer be
translated, and bytes that were taken into custody.

A packet carries the sequence numbers that its receiver knows. One towards outside is tracked and
translated like any packet of its connection. One towards inside must not be tracked, because connection
tracking knows the outside's sequence numbers only. The rules tell the two apart by their destination, and
ours from other packets by the socket's group, or its priority.
Layouts: IPv4 RFC 791 section 3.1, TCP RFC 9293 section 3.1; answer to a segment: RFC 9293 section 3.10.7.
"""

from __future__ import annotations

import logging
import socket
from typing import Final

from nfreaim.core.address import flow_id, reverse
from nfreaim.core.tcp.segment import ACK, FIN, RST, SYN, Segment, bare_packet
from nfreaim.errors import BackendError
from nfreaim.host.netfilter.names import OWN_PRIORITY
from nfreaim.host.netfilter.own_packets import own_group

log = logging.getLogger(__name__)

# Far enough before a segment's number to be old also where edits shortened the stream, and near enough for
# connection tracking, which accepts numbers of up to a window before.
_BEFORE: Final = 2048


class ResetSender:
    """A raw socket."""

    def __init__(self) -> None:
        try:
            with own_group():
                self._socket = socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_RAW)
            self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_PRIORITY, OWN_PRIORITY)
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
        self.send_packet(bare_packet(key, seq, ack, flags))

    def send_packet(self, raw: bytes) -> None:
        """Send the IPv4 packet *raw* where its header says. Raises nothing."""
        target = socket.inet_ntoa(raw[16:20])
        try:
            self._socket.sendto(raw, (target, 0))
        except OSError as error:
            # It is sent again: a reset when the end concerned sends again, anything else after a while.
            log.warning("a packet of ours towards %s was not sent: %s", target, error)
