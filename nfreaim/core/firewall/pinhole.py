"""Pinhole, what the pinhole table asks of a firewall, and the observer that is told."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol

from nfreaim.core.address import Endpoint, FlowId


class Origin(NamedTuple):
    """Whose expectation it is.

    protocol  whose helper asks
    host      the only inside address that it may name
    address   the outside address of the pinhole
    mapped    peers reach that address only where the router in front maps a port to it
    """

    protocol: str
    host: str
    address: str
    mapped: bool = False


@dataclass(frozen=True, slots=True)
class Pinhole:
    """One outside endpoint that leads to one inside endpoint until *deadline* (the engine's clock, seconds).

    flow, agreement, service, protocol
              why it is there (see Expectation). Where several agreements share it these are of the latest
              one, but of a standing one before any other.
    deadline  infinity for a standing pinhole: it ends with its flow
    peers     the only outside addresses it admits; empty: everybody
    since     when it was opened
    verify    the first bytes of its connections have to be verified
    unverified  their greetings prove little, and this is why (see Expectation); "" if they prove something
    told      the endpoint of the router in front that is mapped to *outside*, if peers reach that only so
    """

    inside: Endpoint
    outside: Endpoint
    flow: FlowId
    agreement: bytes
    service: str
    deadline: float
    peers: tuple[str, ...] = ()
    since: float = 0.0
    verify: bool = False
    protocol: str = ""
    unverified: str = ""
    told: Endpoint | None = None

    @property
    def reached(self) -> Endpoint:
        """Where peers on the Internet reach it, unless the operator named another address for all."""
        return self.told or self.outside

    @property
    def standing(self) -> bool:
        """Whether it stays for as long as its flow does, and any number of peers may use it."""
        return math.isinf(self.deadline)


class Firewall(Protocol):
    """What the table needs of a firewall, and all it can do to it."""

    def open(self, pinhole: Pinhole, earlier: Pinhole | None) -> None:
        """Open *pinhole*, in place of *earlier* at the same outside endpoint if that is given.

        All or nothing: BackendError leaves what was there. When this returns it is open, and it closes by
        itself at its deadline, or when nobody has called ``renew`` for a while.
        """

    def close(self, pinhole: Pinhole) -> None:
        """Close it; an absent one is closed already. Raises BackendError."""

    def list(self) -> list[Pinhole]:
        """The pinholes that are in the kernel, those of an earlier daemon included. Raises BackendError."""

    def renew(self, pinholes: Sequence[Pinhole]) -> Sequence[Pinhole]:
        """Keep all of *pinholes* open, which are all that are: called about every second.

        Returns those that somebody else had removed; they are open again. Raises BackendError.
        """

    def busy(self, outside: Endpoint) -> bool:
        """Whether something else on the router answers at *outside*."""

    def forwarded(self, outside: Endpoint) -> bool:
        """Whether a rule of somebody else forwards *outside*."""

    def prepare(self, host: str) -> None:
        """A pinhole to the inside *host* may be wanted soon: make ahead what takes long and opens nothing.

        Raises nothing.
        """

    def upkeep(self) -> None:
        """Do what was put off; called about every second. Raises nothing."""


class Observer(Protocol):
    """Is told of each pinhole's life."""

    def opened(self, pinhole: Pinhole) -> None:
        """It is open now, or was found open at the start."""

    def claimed(self, pinhole: Pinhole, peer: str) -> None:
        """*peer* (an address) has connected through it."""

    def closed(self, pinhole: Pinhole, reason: str) -> None:
        """It is closed."""
