"""PinholeIndex: the open pinholes, and the agreements they are kept for, by every key that is asked for.

It counts instead of searching: a question about a new pinhole must not cost more because others are open.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import TypeVar

from nfreaim.core.address import Endpoint, FlowId
from nfreaim.core.firewall.pinhole import Pinhole
from nfreaim.core.greeting import Greeting

T = TypeVar("T")

AgreementKey = tuple[FlowId, bytes]
"""A flow, and the protocol's own name for one agreement in it."""


@dataclass(slots=True, eq=False)
class Entry:
    """An open pinhole with the agreements that share it: a client may use one port for all its peers.

    agreements  when each of them ends
    peers       the addresses that have claimed it, in this order
    greetings   what the peer of each agreement may say first
    purposes    the protocol and service of each of them
    after_flow  how long each of them may outlive its flow, in seconds
    """

    pinhole: Pinhole
    agreements: dict[AgreementKey, float] = field(default_factory=dict)
    peers: dict[str, None] = field(default_factory=dict)
    greetings: dict[AgreementKey, tuple[Greeting, ...]] = field(default_factory=dict)
    purposes: dict[AgreementKey, tuple[str, str]] = field(default_factory=dict)
    after_flow: dict[AgreementKey, float] = field(default_factory=dict)

    def deadline(self) -> float:
        """When the last of its agreements ends."""
        return max(self.agreements.values())


class PinholeIndex:
    """All entries. Empty keys are removed.

    by_target      by inside endpoint and outside address, which there can be only one pinhole for
    by_outside     by outside endpoint
    by_agreement   an agreement has one entry at a time
    by_inside      by inside endpoint
    flows          the agreements of each flow that is not over
    hosts          how many pinholes lead to each inside address
    standing       the agreements that stand as long as their flow; for each, the limit that counts it (see
                   HelperSpec.caps) and the inside address
    standing_hosts how many of them there are for each limit and inside address
    """

    def __init__(self) -> None:
        self.by_target: dict[tuple[Endpoint, str], Entry] = {}
        self.by_outside: dict[Endpoint, Entry] = {}
        self.by_agreement: dict[AgreementKey, Entry] = {}
        self.by_inside: dict[Endpoint, list[Entry]] = {}
        self.flows: dict[FlowId, set[bytes]] = {}
        self.hosts: Counter[str] = Counter()
        self.standing: dict[AgreementKey, tuple[str, str]] = {}
        self.standing_hosts: Counter[tuple[str, str]] = Counter()
        self._by_port: dict[int, list[Entry]] = {}

    def of_port(self, port: int) -> Entry | None:
        """The first entry with that outside port, at whatever address."""
        entries = self._by_port.get(port)
        return entries[0] if entries else None

    def add(self, entry: Entry) -> None:
        """One more entry, which has no agreement yet."""
        pinhole = entry.pinhole
        self.by_target[target(pinhole)] = self.by_outside[pinhole.outside] = entry
        self._by_port.setdefault(pinhole.outside.port, []).append(entry)
        self.hosts[pinhole.inside.address] += 1
        self.by_inside.setdefault(pinhole.inside, []).append(entry)

    def remove(self, entry: Entry) -> None:
        """Take the entry out, with all its agreements."""
        for agreement in list(entry.agreements):
            self.end(agreement)
        pinhole = entry.pinhole
        del self.by_target[target(pinhole)], self.by_outside[pinhole.outside]
        _take_out(self._by_port, pinhole.outside.port, entry)
        _take_out(self.by_inside, pinhole.inside, entry)
        _one_less(self.hosts, pinhole.inside.address)

    def agree(self, agreement: AgreementKey, entry: Entry, deadline: float, cap: str | None) -> None:
        """Keep *entry* for *agreement* until *deadline*.

        cap  the limit that counts a standing agreement ("": none does); None: it is no standing one
        """
        entry.agreements[agreement] = deadline
        self.by_agreement[agreement] = entry
        self.flows.setdefault(agreement[0], set()).add(agreement[1])
        self._end_standing(agreement)
        if cap is not None:
            counted = self.standing[agreement] = (cap, entry.pinhole.inside.address)
            self.standing_hosts[counted] += 1

    def end(self, agreement: AgreementKey) -> None:
        """The agreement is over; its entry stays."""
        entry = self.by_agreement.pop(agreement)
        del entry.agreements[agreement]
        entry.greetings.pop(agreement, None)
        entry.purposes.pop(agreement, None)
        entry.after_flow.pop(agreement, None)
        self._detach(agreement)
        self._end_standing(agreement)

    def outlive(self, agreement: AgreementKey, until: float) -> None:
        """The flow of *agreement* is over; the agreement itself goes on until *until* at most."""
        entry = self.by_agreement[agreement]
        entry.agreements[agreement] = min(entry.agreements[agreement], until)
        self._detach(agreement)

    def _detach(self, agreement: AgreementKey) -> None:
        names = self.flows.get(agreement[0], set())
        names.discard(agreement[1])
        if not names:
            self.flows.pop(agreement[0], None)

    def _end_standing(self, agreement: AgreementKey) -> None:
        counted = self.standing.pop(agreement, None)
        if counted is not None:
            _one_less(self.standing_hosts, counted)


def target(pinhole: Pinhole) -> tuple[Endpoint, str]:
    """What there can be only one pinhole for: an inside endpoint at an outside address."""
    return (pinhole.inside, pinhole.outside.address)


def _take_out(table: dict[T, list[Entry]], key: T, entry: Entry) -> None:
    entries = table[key]
    entries.remove(entry)
    if not entries:
        del table[key]


def _one_less(counts: Counter[T], key: T) -> None:
    counts[key] -= 1
    if not counts[key]:
        del counts[key]
