"""Unread: says why a connection passes unread whose beginning was not seen.

Three kinds of connections look alike: those that are older than the daemon, those of peers through pinholes
that lead to a server's port (some clients listen there), and those of which only one direction is queued.
Only the first kind is put right by a new sign-on, and only the last one by the operator. What is known of a
handshake tells them apart: one half of it came to the queue, or connection tracking knows the pinhole.
"""

from __future__ import annotations

import logging
from enum import Enum
from typing import Final

from nfreaim.core.address import flow_id
from nfreaim.core.backend import Conntrack
from nfreaim.errors import BackendError

log = logging.getLogger(__name__)

_MOST: Final = 1024  # answers without a SYN that are remembered, in two generations
_ASK_EVERY_S: Final = 0.1  # a question to connection tracking; of a flood of strays most are not looked at


class Why(Enum):
    """The words for the log; {} stands for the ends."""

    OLDER = "{}: a connection older than this daemon passes unread: its client has to sign on again first"
    PEER = "{}: a peer's connection through a pinhole passes unread, as it should"
    ONE_SIDED = (
        "{}: only one direction of this connection comes to nfreaim, so it passes unread; the other one takes"
        " an interface that lan and wan do not name, or another program's rules take it before nfreaim's;"
        " remedy: name all interfaces, and see what nfreaim check says"
    )


class Unread:
    """Of one engine. Each kind is logged once for the operator to see, and later ones at level debug."""

    def __init__(self, conntrack: Conntrack) -> None:
        self._conntrack = conntrack
        self._said: set[Why] = set()
        self._young: dict[bytes, None] = {}
        self._old: dict[bytes, None] = {}
        self._ask_at = 0.0

    def answer_without_syn(self, forward: bytes) -> None:
        """A SYN/ACK came whose SYN did not. *forward*: the key of the client's packets."""
        self._young[forward] = None
        if len(self._young) >= _MOST // 2:
            self.turn()

    def turn(self) -> None:
        """Forget the older half of these answers."""
        self._old, self._young = self._young, {}

    def met(self, forward: bytes, syn_seen: bool, peer: bool, now: float) -> None:
        """A packet of the middle of an unknown connection; from now on its packets are not queued.

        syn_seen  the client's SYN came not long ago, without an answer to it
        peer      a pinhole leads to its server's end
        """
        why = self._why(forward, syn_seen, peer, now)
        if why is None:
            return
        quiet = why is Why.PEER or why in self._said
        self._said.add(why)
        log.log(logging.DEBUG if quiet else logging.INFO, "%s", why.value.format(flow_id(forward)))

    def _why(self, forward: bytes, syn_seen: bool, peer: bool, now: float) -> Why | None:
        """None: there was no time to find out."""
        if peer:
            return Why.PEER
        if now < self._ask_at:
            return None
        self._ask_at = now + _ASK_EVERY_S
        try:
            if self._conntrack.by_pinhole(flow_id(forward)):
                return Why.PEER
        except BackendError:
            return None
        half = syn_seen or forward in self._young or forward in self._old
        return Why.ONE_SIDED if half else Why.OLDER
