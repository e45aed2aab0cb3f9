"""PinholeIndex: the open pinholes and the agreements they are kept for, by everything that is asked of them.

Counts instead of searches: what is asked for each new pinhole must not cost more because others are open.
Decides nothing and touches no firewall.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import TypeVar

from nfreaim.core.address import Endpoint, FlowId
from nfreaim.core.firewall.pinhole import Pinhole
from nfreaim.core.greeting import Greeting

T = TypeVar("T")

Agreement = tuple[FlowId, bytes]
"""A flow, and the protocol's own name for one expectation in it."""


@dataclass(slots=True, eq=False)
class Entry:
    """A live pinhole with the agreements that share it: a client may use one port for all its peers.

    agreements  when each of them ends
    peers       who has claimed it, in this order
    greetings   what the peer of each agreement may say first
    services    what each of them is for
    """

    pinhole: Pinhole
    agreements: dict[Agreement, float] = field(default_factory=dict)
    peers: dict[str, None] = field(default_factory=dict)
    greetings: dict[Agreement, tuple[Greeting, ...]] = field(default_factory=dict)
    services: dict[Agreement, str] = field(default_factory=dict)

    def deadline(self) -> float:
        return max(self.agreements.values())


class PinholeIndex:
    """All entries. A Counter or dict here has no key that nothing lives behind."""

    def __init__(self) -> None:
        self.places: dict[tuple[Endpoint, str], Entry] = {}
        self.outside: dict[Endpoint, Entry] = {}
        self.agreements: dict[Agreement, Entry] = {}
        self.sessions: set[Agreement] = set()
        self.owners: dict[FlowId, set[bytes]] = {}
        self.hosts: Counter[str] = Counter()
        self.insides: dict[Endpoint, list[Entry]] = {}
        self.session_hosts: Counter[str] = Counter()
        self._ports: dict[int, list[Entry]] = {}

    def of_port(self, port: int) -> Entry | None:
        """The first entry with that outside port, at whatever address."""
        entries = self._ports.get(port)
        return entries[0] if entries else None

    def add(self, entry: Entry) -> None:
        pinhole = entry.pinhole
        self.places[target(pinhole)] = self.outside[pinhole.outside] = entry
        self._ports.setdefault(pinhole.outside.port, []).append(entry)
        self.hosts[pinhole.inside.address] += 1
        self.insides.setdefault(pinhole.inside, []).append(entry)

    def remove(self, entry: Entry) -> None:
        """Take the entry out, with all its agreements."""
        for agreement in list(entry.agreements):
            self.leave(agreement)
        pinhole = entry.pinhole
        del self.places[target(pinhole)], self.outside[pinhole.outside]
        entries = self._ports[pinhole.outside.port]
        entries.remove(entry)
        if not entries:
            del self._ports[pinhole.outside.port]
        _less(self.hosts, pinhole.inside.address)
        same = self.insides[pinhole.inside]
        same.remove(entry)
        if not same:
            del self.insides[pinhole.inside]

    def agree(self, agreement: Agreement, entry: Entry, deadline: float, session: bool) -> None:
        """Keep *entry* for *agreement* until *deadline*; an agreement has one entry at a time."""
        entry.agreements[agreement] = deadline
        self.agreements[agreement] = entry
        self.owners.setdefault(agreement[0], set()).add(agreement[1])
        if session is not (agreement in self.sessions):
            if session:
                self.sessions.add(agreement)
                self.session_hosts[agreement[0].client.address] += 1
            else:
                self._end_session(agreement)

    def leave(self, agreement: Agreement) -> None:
        """The agreement is over; its entry stays."""
        entry = self.agreements.pop(agreement)
        del entry.agreements[agreement]
        entry.greetings.pop(agreement, None)
        entry.services.pop(agreement, None)
        cookies = self.owners[agreement[0]]
        cookies.discard(agreement[1])
        if not cookies:
            del self.owners[agreement[0]]
        if agreement in self.sessions:
            self._end_session(agreement)

    def _end_session(self, agreement: Agreement) -> None:
        self.sessions.discard(agreement)
        _less(self.session_hosts, agreement[0].client.address)


def target(pinhole: Pinhole) -> tuple[Endpoint, str]:
    """What there can be only one pinhole for: an inside endpoint at an outside address."""
    return (pinhole.inside, pinhole.outside.address)


def _less(counts: Counter[T], key: T) -> None:
    counts[key] -= 1
    if not counts[key]:
        del counts[key]
