"""Connection tracking between the router's hooks: what it takes for INVALID, and so drops.

A model of the window check of Linux 6.x (net/netfilter/nf_conntrack_proto_tcp.c, ``tcp_in_window``, read and
written down anew), for connections without window scaling. Its oddity is what matters here: a segment that
begins beyond the window passes, but the end of what its sender has sent is then *set* to that segment's end,
be that a step back; whoever acknowledges what came before is INVALID for ever after.
"""

from __future__ import annotations

from dataclasses import dataclass

from tests.tcp.packets import ACK, FIN, RST, Packet, near


@dataclass
class Side:
    """One sender. *end*: of what it sent; *limit*: of what it may; *window*: the largest it offered."""

    end: int = 0
    limit: int = 0
    window: int = 0


class Tracker:
    """One connection; offsets as on the outside. *invalid*: how many packets were."""

    def __init__(self, bases: tuple[int, int], windows: tuple[int, int]) -> None:
        self.bases = bases
        self.sides = (Side(0, windows[1], windows[0]), Side(0, windows[0], windows[1]))
        self.invalid = 0

    def passes(self, way: int, packet: Packet) -> bool:
        """Whether the packet of the client (0) or the server (1) is none that a firewall drops."""
        me, other = self.sides[way], self.sides[1 - way]
        seq = near(packet.seq - self.bases[way], me.end)
        end = seq + len(packet.payload) + (packet.flags & FIN)
        if packet.flags & RST and not packet.flags & ACK:
            return True
        ack = near(packet.ack - self.bases[1 - way], other.end)
        sack = max([ack, *(near(right - self.bases[1 - way], other.end) for _, right in packet.blocks)])
        fits = not other.window or end > me.end - other.window - 1
        late = sack <= other.end - max(me.window, 66000) - 1
        if seq > me.limit:
            if other.window and fits and not late and end - me.limit < other.window and sack <= other.end:
                me.end = end  # the oddity
                return True
            return self._invalid()
        if sack > other.end:
            return self._invalid()
        if not fits or late:
            return True
        me.window = max(me.window, packet.window + sack - ack)
        me.end = max(me.end, end)
        if other.window and end > me.limit:
            other.window += end - me.limit
        if sack + packet.window >= other.limit:
            other.limit = sack + packet.window + (not packet.window)
        return True

    def _invalid(self) -> bool:
        self.invalid += 1
        return False
