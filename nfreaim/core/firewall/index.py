"""PinholeIndex: the open pinholes, and the agreements they are kept for, by every key that is asked for.

It counts instead of searching: a question about a new pinhole must not cost more because others are open.
"""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import dataclass, field, replace
from typing import Final, TypeVar

from nfreaim.core.address import Endpoint, FlowId
from nfreaim.core.firewall.pinhole import Pinhole
from nfreaim.core.greeting import Greeting
from nfreaim.core.helper import Expectation, Refused

T = TypeVar("T")

MOST_ADMITTED: Final = 64
"""One pinhole is for so many addresses, each of which is an entry of the kernel's set, or for any."""

AgreementKey = tuple[FlowId, bytes]
"""A flow, and the protocol's own name for one agreement in it."""

Target = tuple[Endpoint, str, bool, bool]
"""An inside endpoint, an outside address, whether peers are verified, and whether the router in front maps
its port.

A peer that must say something cannot be told from one that need not. So services of both kinds at one port of
a host have a pinhole each: sharing one, the former would be let in unverified, or the latter refused.
"""


@dataclass(slots=True, eq=False)
class Entry:
    """An open pinhole with the agreements that share it: a client may use one port for all its peers.

    agreements  when each of them ends
    peers       the addresses that have claimed it, in this order
    greetings   what the peer of each agreement may say first
    purposes    the protocol and service of each of them
    after_flow  how long each of them may outlive its flow, in seconds
    sessions    of those that need one: protocol and inside host
    admits      the only addresses that may connect because of each of them; empty: any
    came        the peers' ends of connections through it, and when connection tracking was asked for each of
                them; infinity: it carries nothing any more (see carrying.py)
    """

    pinhole: Pinhole
    agreements: dict[AgreementKey, float] = field(default_factory=dict)
    peers: dict[str, None] = field(default_factory=dict)
    greetings: dict[AgreementKey, tuple[Greeting, ...]] = field(default_factory=dict)
    purposes: dict[AgreementKey, tuple[str, str]] = field(default_factory=dict)
    after_flow: dict[AgreementKey, float] = field(default_factory=dict)
    sessions: dict[AgreementKey, tuple[str, str]] = field(default_factory=dict)
    admits: dict[AgreementKey, tuple[str, ...]] = field(default_factory=dict)
    came: dict[Endpoint, float] = field(default_factory=dict)

    def note(self, agreement: AgreementKey, wanted: Expectation, protocol: str) -> None:
        """Remember what *agreement* asks for."""
        self.greetings[agreement] = wanted.greetings
        self.purposes[agreement] = (protocol, wanted.service)
        self.after_flow[agreement] = wanted.after_flow
        self.admits[agreement] = wanted.peers
        if wanted.needs_session:
            self.sessions[agreement] = protocol, wanted.inside.address

    def admitted(self, agreement: AgreementKey | None = None, peers: tuple[str, ...] = ()) -> tuple[str, ...]:
        """Who may connect because of its agreements, of which *agreement* admits *peers*; empty: anybody.

        Raises Refused if these are too many addresses.
        """
        found = [self.admits.get(other, ()) for other in self.agreements if other != agreement]
        found += [peers] if agreement is not None else []
        union = tuple(dict.fromkeys(peer for each in found for peer in each)) if all(found) else ()
        if len(union) > MOST_ADMITTED:
            raise Refused(f"{MOST_ADMITTED} addresses that one port is open for")
        return union

    def shared(self, agreement: AgreementKey, wanted: Expectation, until: float, protocol: str) -> Pinhole:
        """The pinhole once *wanted* shares it, until *until* at least. Raises Refused."""
        pinhole = self.pinhole
        peers = self.admitted(agreement, wanted.peers)
        others = [until for other, until in self.agreements.items() if other != agreement]
        standing = [self.agreements.get(agreement, 0.0)] if wanted.standing else others
        if any(map(math.isinf, standing)):
            return replace(pinhole, peers=peers)  # open already, and for longer
        return replace(
            pinhole,
            flow=agreement[0],
            agreement=wanted.agreement,
            service=wanted.service,
            protocol=protocol,
            deadline=max([until, *others]),
            peers=peers,
            unverified=wanted.unverified or (pinhole.unverified if others else ""),
        )

    def renamed(self) -> Pinhole:
        """The pinhole once it names an agreement that lives, the latest deadline that is left, and, if it
        stands, who is still admitted."""
        pinhole, deadline = self.pinhole, self.deadline()
        peers = self.admitted() if pinhole.standing else pinhole.peers
        same = (pinhole.deadline, pinhole.peers) == (deadline, peers)
        if same and (pinhole.flow, pinhole.agreement) in self.agreements:
            return pinhole
        latest = max(self.agreements, key=lambda each: self.agreements[each])
        (flow, name), (protocol, service) = latest, self.purposes[latest]
        named = replace(pinhole, flow=flow, agreement=name, service=service, protocol=protocol, peers=peers)
        return replace(named, deadline=deadline)

    def deadline(self) -> float:
        """When the last of its agreements ends."""
        return max(self.agreements.values())


class PinholeIndex:
    """All entries. Empty keys are removed.

    by_target      by what there can be only one pinhole for, see ``target``
    by_outside     by outside endpoint
    by_told        by the endpoint of the router in front that is mapped to it, if one is
    by_agreement   an agreement has one entry at a time
    by_inside      by inside endpoint
    flows          the agreements of each flow that is not over
    hosts          how many pinholes lead to each inside address
    of_host        these pinholes
    standing       the agreements that stand as long as their flow; for each, the limit that counts it (see
                   HelperSpec.caps) and the inside address
    standing_hosts how many pinholes these keep, for each limit and inside address
    changes        how often an entry was added or removed
    """

    def __init__(self) -> None:
        self.by_target: dict[Target, Entry] = {}
        self.by_outside: dict[Endpoint, Entry] = {}
        self.by_told: dict[Endpoint, Entry] = {}
        self.by_agreement: dict[AgreementKey, Entry] = {}
        self.by_inside: dict[Endpoint, list[Entry]] = {}
        self.flows: dict[FlowId, set[bytes]] = {}
        self.hosts: Counter[str] = Counter()
        self.of_host: dict[str, list[Entry]] = {}
        self.standing: dict[AgreementKey, tuple[str, str]] = {}
        self.standing_hosts: Counter[tuple[str, str]] = Counter()
        self.changes = 0
        self._by_port: dict[int, list[Entry]] = {}

    def of_port(self, port: int) -> Entry | None:
        """The first entry with that outside port, at whatever address."""
        entries = self._by_port.get(port)
        return entries[0] if entries else None

    def announced(self, endpoint: Endpoint, by_port: bool) -> Entry | None:
        """The entry that peers know by *endpoint*; *by_port*: by its port, because all share that address."""
        if by_port:
            return self.of_port(endpoint.port)
        return self.by_outside.get(endpoint) or self.by_told.get(endpoint)

    def add(self, entry: Entry) -> None:
        """One more entry, which has no agreement yet."""
        pinhole = entry.pinhole
        self.by_target[target(pinhole)] = self.by_outside[pinhole.outside] = entry
        if pinhole.told is not None:
            self.by_told[pinhole.told] = entry
        self._by_port.setdefault(pinhole.outside.port, []).append(entry)
        self.hosts[pinhole.inside.address] += 1
        self.of_host.setdefault(pinhole.inside.address, []).append(entry)
        self.changes += 1
        self.by_inside.setdefault(pinhole.inside, []).append(entry)

    def retarget(self, entry: Entry, pinhole: Pinhole) -> None:
        """The entry's pinhole is *pinhole* now, with the same endpoints; its peers need not be verified."""
        del self.by_target[target(entry.pinhole)]
        entry.pinhole = pinhole
        entry.greetings = dict.fromkeys(entry.greetings, ())
        self.by_target[target(pinhole)] = entry

    def remove(self, entry: Entry) -> None:
        """Take the entry out, with all its agreements."""
        for agreement in list(entry.agreements):
            self.end(agreement)
        pinhole = entry.pinhole
        del self.by_target[target(pinhole)], self.by_outside[pinhole.outside]
        if pinhole.told is not None:
            self.by_told.pop(pinhole.told, None)
        _take_out(self._by_port, pinhole.outside.port, entry)
        _take_out(self.by_inside, pinhole.inside, entry)
        _take_out(self.of_host, pinhole.inside.address, entry)
        _one_less(self.hosts, pinhole.inside.address)
        self.changes += 1

    def agree(self, agreement: AgreementKey, entry: Entry, deadline: float, cap: str | None) -> None:
        """Keep *entry* for *agreement* until *deadline*.

        cap  the limit that counts a standing agreement ("": none does); None: it is no standing one
        """
        entry.agreements[agreement] = deadline
        self.by_agreement[agreement] = entry
        self.flows.setdefault(agreement[0], set()).add(agreement[1])
        self._end_standing(agreement, entry)
        if cap is not None:
            counted = (cap, entry.pinhole.inside.address)
            self.standing_hosts[counted] += not self.stands(entry, counted, agreement)
            self.standing[agreement] = counted

    def end(self, agreement: AgreementKey) -> None:
        """The agreement is over; its entry stays."""
        entry = self.by_agreement.pop(agreement)
        del entry.agreements[agreement]
        entry.greetings.pop(agreement, None)
        entry.purposes.pop(agreement, None)
        entry.after_flow.pop(agreement, None)
        entry.sessions.pop(agreement, None)
        entry.admits.pop(agreement, None)
        if entry.came:  # one of them was its peer's; the one that ended, if one has
            del entry.came[max(entry.came, key=lambda peer: entry.came[peer])]
        self._detach(agreement)
        self._end_standing(agreement, entry)

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

    def stands(self, entry: Entry, counted: tuple[str, str], but: AgreementKey) -> bool:
        """Whether another agreement than *but* counts *entry* for that limit and host."""
        return any(self.standing.get(other) == counted for other in entry.agreements if other != but)

    def _end_standing(self, agreement: AgreementKey, entry: Entry) -> None:
        counted = self.standing.pop(agreement, None)
        if counted is not None and not self.stands(entry, counted, agreement):
            _one_less(self.standing_hosts, counted)


def target(pinhole: Pinhole) -> Target:
    """What there can be only one pinhole for."""
    return (pinhole.inside, pinhole.outside.address, pinhole.verify, pinhole.told is not None)


def _take_out(table: dict[T, list[Entry]], key: T, entry: Entry) -> None:
    entries = table[key]
    entries.remove(entry)
    if not entries:
        del table[key]


def _one_less(counts: Counter[T], key: T) -> None:
    counts[key] -= 1
    if not counts[key]:
        del counts[key]
