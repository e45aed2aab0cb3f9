"""Permissive stand-ins for everything below the core: for replay, the benchmark and the fakes of tests.

They agree to everything and keep nothing, except what their documentation names.
"""

from __future__ import annotations

from collections.abc import Callable, Container, Sequence
from ipaddress import IPv4Address
from typing import Any

from nfreaim.core.address import Endpoint, FlowId
from nfreaim.core.backend import Backend, Followed, Record, Sender
from nfreaim.core.firewall.pinhole import Pinhole
from nfreaim.core.helper import Report
from nfreaim.core.tcp.segment import Segment


class NullConntrack:
    """A router that translates everything to one address, port by port, and never loses a connection."""

    def __init__(self, outside: str, inside: Container[IPv4Address]) -> None:
        self.outside = outside
        self.inside = inside

    def outside_address(self, flow: FlowId) -> str:
        return self.outside

    def reached(self, flow: FlowId) -> Endpoint:
        return Endpoint(self.outside, flow.server.port)

    def is_inside_host(self, address: str) -> bool:
        return IPv4Address(address) in self.inside

    def may_meet(self, one: str, other: str) -> bool:
        return True

    def handshake_seen(self, flow: FlowId) -> bool:
        return True

    def alive(self, flow: FlowId) -> bool:
        return True

    def ended(self, flow: FlowId) -> bool:
        return False

    def by_pinhole(self, flow: FlowId) -> bool:
        return False


class NullHomeServers:
    """Every server on the inside is the operator's."""

    def met(self, flow: FlowId) -> None:
        pass

    def why_not(self, flow: FlowId, reached: Endpoint, host: str) -> str | None:
        return None

    def port_of(self, server: Endpoint, address: str) -> int | None:
        return server.port


class NullQueueControl:
    """Every packet is queued. *followed*: servers that clients were redirected to."""

    def __init__(self) -> None:
        self.followed: set[Followed] = set()

    def offload(self, flow: FlowId) -> None:
        pass

    def undo_offload(self, flow: FlowId) -> None:
        pass

    def know(self, flow: FlowId) -> None:
        pass

    def forget(self, flow: FlowId) -> None:
        pass

    def unqueue_server(self, followed: Followed) -> None:
        pass

    def queue_server(self, followed: Followed) -> None:
        self.followed.add(followed)


class NullFlowStore:
    """No flow outlives its engine."""

    def protect(self, key: bytes, record: Record) -> None:
        pass

    def unprotect(self, key: bytes) -> None:
        pass

    def save_session(self, key: bytes, record: Record) -> None:
        pass

    def save_position(self, key: bytes, position: bytes) -> None:
        pass

    def forget_session(self, key: bytes, skewed: bool) -> None:
        pass


class NullSenders:
    """Links without hardware addresses."""

    def hardware(self, token: Any) -> bytes | None:
        return None

    def sent(self, address: str, hardware: bytes | None) -> Sender:
        return Sender.UNCHECKED


def no_reset(segment: Segment) -> None:
    """Sends nothing."""


def no_packet(raw: bytes) -> None:
    """Sends nothing."""


def null_backend(
    conntrack: NullConntrack,
    queue: NullQueueControl | None = None,
    store: NullFlowStore | None = None,
    reset: Callable[[Segment], None] = no_reset,
) -> Backend:
    """A Backend of these."""
    queue, store = queue or NullQueueControl(), store or NullFlowStore()
    return Backend(conntrack, queue, store, reset, NullHomeServers(), NullSenders(), no_packet)


class NullFirewall:
    """Opens everything, and has no port of its own."""

    def open(self, pinhole: Pinhole, earlier: Pinhole | None) -> None:
        pass

    def close(self, pinhole: Pinhole) -> None:
        pass

    def list(self) -> list[Pinhole]:
        return []

    def renew(self, pinholes: Sequence[Pinhole]) -> Sequence[Pinhole]:
        return ()

    def busy(self, outside: Endpoint) -> bool:
        return False

    def forwarded(self, outside: Endpoint) -> bool:
        return False

    def prepare(self, host: str) -> None:
        pass

    def upkeep(self) -> None:
        pass


class NullWatcher:
    """Is told, and does nothing."""

    def opened(self, pinhole: Pinhole) -> None:
        pass

    def claimed(self, pinhole: Pinhole, peer: str) -> None:
        pass

    def closed(self, pinhole: Pinhole, reason: str) -> None:
        pass

    def reported(self, flow: FlowId, protocol: str, report: Report) -> None:
        pass
