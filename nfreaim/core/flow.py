"""Flow: one control connection. Knows TCP's handshake, no protocol above it.

A flow comes into being with the server's SYN/ACK, not with the client's SYN: packets from the inside are
seen before any firewall, and a SYN alone proves nothing. Until then one integer is kept for it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from nfreaim.core.address import Direction, FlowId, flow_id
from nfreaim.core.tcp.stream import Stream

if TYPE_CHECKING:
    from nfreaim.core.helper import Helper
    from nfreaim.core.nat import FlowNat
    from nfreaim.core.resume import Resuming


class Flow:
    """One control connection.

    key      of the packets in the original direction
    server_inside  which of them is the inside one: the server (behind this router, or on it) or the client
    skewed   an edit changed a length: headers of both directions are translated, and it must fail closed
    helper   reads it, or None once it is bypassed
    nat      what the helper is handed
    midstream its beginning was not seen
    resuming  of an earlier daemon's life: how it comes to be read again, and may stop being read for a while
    finished a bit for each direction whose FIN was seen
    reset    an RST was seen: that alone proves nothing
    seen     when its last packet passed
    closed   when both its ends were done, or None
    """

    __slots__ = (
        "closed",
        "finished",
        "helper",
        "key",
        "midstream",
        "nat",
        "reset",
        "resuming",
        "seen",
        "server_inside",
        "skewed",
        "streams",
    )

    def __init__(
        self, key: bytes, client_base: int, server_base: int, helper: Helper | None, now: float
    ) -> None:
        self.key = key
        self.server_inside = False
        self.skewed = False
        self.helper = helper
        self.nat: FlowNat | None = None
        self.midstream = False
        self.resuming: Resuming | None = None
        self.streams = (
            Stream(self, Direction.ORIGINAL, client_base),
            Stream(self, Direction.REPLY, server_base),
        )
        self.seen = now
        self.finished = 0
        self.reset = False
        self.closed: float | None = None

    @property
    def owner(self) -> FlowId:
        """Its ends. Made anew each time: kept, the texts would take a fifth of an idle flow's memory."""
        return flow_id(self.key)

    def seen_from(self, client_inside: bool) -> None:
        """Which end is the inside one; until told, it is the client."""
        self.server_inside = not client_inside
        for stream in self.streams:
            stream.from_inside = (stream.direction is Direction.ORIGINAL) is client_inside

    def scaled(self, client: int | None, server: int | None) -> None:
        """Both SYNs were seen, with these window scales: either both ends shift their windows, or none."""
        used = client is not None and server is not None
        self.streams[Direction.ORIGINAL].scale = server if used else 0
        self.streams[Direction.REPLY].scale = client if used else 0
