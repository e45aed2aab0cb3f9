"""Firewall: a pinhole, what the table asks of whatever opens it, and who is told. Decides nothing."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Protocol

from nfreaim.core.address import Endpoint, FlowId


@dataclass(frozen=True, slots=True)
class Pinhole:
    """One outside endpoint that leads to one inside endpoint until *deadline* (the engine's clock, seconds).

    owner, cookie, service say why it is there (see Expectation); of several agreements, the latest one, but
    one for the whole session before any other. Its deadline is infinity: the end of its control connection.
    peers are the only outside addresses it admits; none: everybody. since is when it was opened. verify: the
    first bytes of its connections have to be looked at.
    """

    inside: Endpoint
    outside: Endpoint
    owner: FlowId
    cookie: bytes
    service: str
    deadline: float
    peers: tuple[str, ...] = ()
    since: float = 0.0
    verify: bool = False

    @property
    def session(self) -> bool:
        """It stays for as long as its control connection does, and any number of peers may use it."""
        return math.isinf(self.deadline)


class Firewall(Protocol):
    """What the table needs of a firewall, and all it can do to it."""

    def put(self, pinhole: Pinhole, earlier: Pinhole | None) -> None:
        """Open *pinhole*, in place of *earlier* at the same outside endpoint if that is given.

        All or nothing: BackendError leaves what was there. When this returns it is open, and it closes by
        itself at its deadline.
        """

    def drop(self, pinhole: Pinhole) -> None:
        """Close it; an absent one is closed already. Raises BackendError."""

    def list(self) -> list[Pinhole]:
        """The pinholes that are in the kernel, ours of an earlier life included. Raises BackendError."""

    def busy(self, outside: Endpoint) -> bool:
        """Whether something else on the router answers at *outside*."""

    def prepare(self, host: str) -> None:
        """A pinhole to the inside *host* may be wanted soon: what takes long and opens nothing may be done
        ahead. Never raises."""

    def upkeep(self) -> None:
        """Do what was put off; called about every second. Never raises."""


class Observer(Protocol):
    """Who is told of each pinhole's life."""

    def opened(self, pinhole: Pinhole) -> None: ...

    def claimed(self, pinhole: Pinhole, peer: str) -> None: ...

    def closed(self, pinhole: Pinhole, reason: str) -> None: ...
