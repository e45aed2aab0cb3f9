"""Pinholes: every rule about what may be opened, for whom, where and for how long.

A helper can open something by PinholeTable.open only, so that no protocol can forget a check. The table
decides; the firewall behind it carries out and remembers. No clock and no I/O here.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Set
from contextlib import suppress
from dataclasses import replace
from typing import Final

from nfreaim.core.address import Endpoint, FlowId
from nfreaim.core.firewall.index import AgreementKey, Entry, PinholeIndex, target
from nfreaim.core.firewall.pinhole import Firewall, Observer, Origin, Pinhole
from nfreaim.core.firewall.policy import OpeningRates, PinholePolicy
from nfreaim.core.greeting import Greeting
from nfreaim.core.helper import Expectation, Refused
from nfreaim.errors import BackendError

# At most as many peers of one pinhole are told apart, so that a flood fills neither memory nor log.
_PEERS: Final = 256

GreetingsOf = Callable[[str, str], tuple[Greeting, ...]]
"""What a peer may say first, by protocol and service."""


class PinholeTable:
    """All open pinholes, and the agreements they are kept for.

    firewall, observer  raise nothing but what they declare (see core.guarded)
    """

    def __init__(self, policy: PinholePolicy, firewall: Firewall, observer: Observer) -> None:
        self.policy = policy
        self._firewall = firewall
        self._observer = observer
        self._index = PinholeIndex()
        self._unremovable: dict[Endpoint, Pinhole] = {}
        self._rates = OpeningRates(policy)
        self._next_port = 0

    def __len__(self) -> int:
        return len(self._index.by_target)

    def __iter__(self) -> Iterator[Pinhole]:
        return iter([entry.pinhole for entry in self._index.by_target.values()])

    def flows(self) -> Set[FlowId]:
        """The flows that open pinholes were opened for."""
        return self._index.flows.keys()

    tended = flows
    """Those whose end the engine has to find out: all of them."""

    def has_standing(self) -> bool:
        """Whether any open pinhole is a standing one."""
        return bool(self._index.standing)

    def prepare(self, host: str) -> None:
        """A flow of the inside *host* is established: what all its pinholes need may be made ahead."""
        self._firewall.prepare(host)

    def open(self, flow: FlowId, expectation: Expectation, origin: Origin, now: float) -> Pinhole:
        """Open (or prolong) the pinhole for *expectation*. Raises Refused.

        The same flow and agreement again replaces what it asked for before.
        """
        agreement = (flow, expectation.agreement)
        entry = self._index.by_target.get((expectation.inside, origin.address))
        if entry is not None and self._expire_agreements(entry, now):
            entry = None
        self._check(expectation, origin.host)
        self._check_room(agreement, None if entry else expectation.inside.address)
        cap = self._check_cap(agreement, expectation) if expectation.standing else None
        if entry is None:
            wanted = self._new(agreement, expectation, origin, now)
        else:
            wanted = self._shared(entry, agreement, expectation, now, origin.protocol)
        try:
            if entry is None or wanted != entry.pinhole:
                self._firewall.open(wanted, None if entry is None else entry.pinhole)
        except BackendError as error:
            raise Refused(f"the firewall refused: {error}") from error
        superseded = self._index.by_agreement.get(agreement)
        if superseded is not None and superseded is not entry:
            self._end(superseded, agreement, "replaced by a new proposal")
        if entry is None:
            entry = Entry(wanted)
            self._index.add(entry)
            self._observer.opened(wanted)
        entry.pinhole = wanted
        entry.peers.clear()
        self._index.agree(agreement, entry, self._deadline(expectation, now), cap)
        entry.greetings[agreement] = expectation.greetings
        entry.purposes[agreement] = (origin.protocol, expectation.service)
        entry.after_flow[agreement] = expectation.after_flow
        return wanted

    def _deadline(self, wanted: Expectation, now: float) -> float:
        return math.inf if wanted.standing else now + self.policy.lifetime

    def _new(self, agreement: AgreementKey, wanted: Expectation, origin: Origin, now: float) -> Pinhole:
        """The pinhole for an inside endpoint that has none yet. Raises Refused."""
        outside = Endpoint(origin.address, self._free_port(wanted.inside, origin.address))
        self._rates.take(wanted.inside.address, now)
        return Pinhole(
            wanted.inside,
            outside,
            flow=agreement[0],
            agreement=wanted.agreement,
            service=wanted.service,
            deadline=self._deadline(wanted, now),
            peers=_peers(wanted),
            since=now,
            verify=bool(wanted.greetings),
            protocol=origin.protocol,
        )

    def _shared(
        self, entry: Entry, agreement: AgreementKey, wanted: Expectation, now: float, protocol: str
    ) -> Pinhole:
        """The pinhole of *entry* once *wanted* shares it."""
        pinhole = entry.pinhole
        if not wanted.standing and self._index.standing.keys() & (entry.agreements.keys() - {agreement}):
            return pinhole  # open for everybody already, and longer
        others = [until for other, until in entry.agreements.items() if other != agreement]
        peers = _peers(wanted)
        return replace(
            pinhole,
            flow=agreement[0],
            agreement=wanted.agreement,
            service=wanted.service,
            protocol=protocol,
            deadline=max([self._deadline(wanted, now), *others]),
            peers=() if others and peers != pinhole.peers else peers,
            # Of two services that share a port at most one begins with what the gate would look for.
            verify=bool(wanted.greetings) and (pinhole.verify or not others),
        )

    def insides(self) -> list[Endpoint]:
        """The inside endpoints that pinholes lead to."""
        return list(self._index.by_inside)

    def leads_to(self, inside: Endpoint) -> bool:
        """Whether a pinhole leads to *inside*: then a connection there is a peer's, not a client's."""
        return inside in self._index.by_inside

    def expected(self, inside: Endpoint) -> list[Greeting]:
        """What may be said first on a connection to *inside*: any greeting of any agreement will do."""
        entries = self._index.by_inside.get(inside, ())
        return [one for entry in entries for some in entry.greetings.values() for one in some]

    def inside_of(self, announced: Endpoint) -> Endpoint | None:
        """The inside endpoint that an announced one leads to."""
        if self.policy.announce == announced.address:
            entry = self._index.of_port(announced.port)
        else:
            entry = self._index.by_outside.get(announced)
        return entry.pinhole.inside if entry else None

    def close(self, flow: FlowId, agreement: bytes, reason: str) -> None:
        """End one agreement; the pinhole closes with its last one."""
        entry = self._index.by_agreement.get((flow, agreement))
        if entry is not None:
            self._end(entry, (flow, agreement), reason)

    def close_flow(self, flow: FlowId, reason: str, now: float | None = None) -> None:
        """*flow* is over at *now*: end its agreements, except those that may outlive it. None: end all."""
        for agreement in list(self._index.flows.get(flow, ())):
            entry = self._index.by_agreement[flow, agreement]
            grace = entry.after_flow.get((flow, agreement), 0.0)
            if now is None or not grace or entry.pinhole.standing:
                self.close(flow, agreement, reason)
            else:
                self._index.outlive((flow, agreement), now + grace)
                self._narrow(entry, replace(entry.pinhole, deadline=entry.deadline()))

    def close_all(self, reason: str) -> None:
        """Close everything, and try again what could not be closed before: there is no later call."""
        self._remove(list(self._index.by_target.values()), reason)
        self._retry()

    def accepted(self, flow: FlowId, agreement: bytes, now: float) -> None:
        """The peer accepted: from now on the accept grace runs."""
        key = (flow, agreement)
        entry = self._index.by_agreement.get(key)
        if entry is not None and key not in self._index.standing:
            entry.agreements[key] = min(now + self.policy.accept_grace, entry.agreements[key])
            self._narrow(entry, replace(entry.pinhole, deadline=entry.deadline()))

    def claimed(self, outside: Endpoint, peer: str, now: float) -> None:
        """*peer* has completed a connection or, where greetings are known, has sent one of them.

        When each agreement has its peer the grace begins, and no other address is let in any more.
        """
        entry = self._index.by_outside.get(outside)
        if entry is None or peer in entry.peers or len(entry.peers) >= _PEERS:
            return
        entry.peers[peer] = None
        self._observer.claimed(entry.pinhole, peer)
        if not self._expire_agreements(entry, now):
            self._start_grace(entry, now)

    def _start_grace(self, entry: Entry, now: float) -> None:
        """If each agreement of *entry* has its peer, let the grace begin and admit these peers only."""
        if len(entry.peers) < len(entry.agreements):
            return
        until = now + self.policy.claim_grace
        for agreement, deadline in entry.agreements.items():
            if agreement not in self._index.standing:
                entry.agreements[agreement] = min(deadline, until)
        if not entry.pinhole.standing:
            self._narrow(entry, replace(entry.pinhole, deadline=entry.deadline(), peers=tuple(entry.peers)))

    def expire(self, now: float) -> None:
        """Close what is past its deadline, retry what could not be closed before, keep the firewall up."""
        self._retry()
        for entry in list(self._index.by_target.values()):
            if not self._expire_agreements(entry, now):
                self._rename_entry(entry)
        self._firewall.upkeep()

    def _expire_agreements(self, entry: Entry, now: float) -> bool:
        """End the agreements that are past their deadlines; whether *entry* was closed with the last one."""
        if entry.deadline() <= now:
            self._remove([entry], "done" if entry.peers else "deadline")
            return True
        if len(entry.agreements) > 1:
            over = [key for key, until in entry.agreements.items() if until <= now]
            for agreement in over:
                self._index.end(agreement)
            if over:
                self._start_grace(entry, now)
        return False

    def adopt(
        self, alive: Callable[[FlowId], bool], now: float, greetings: GreetingsOf | None = None
    ) -> None:
        """Take over what an earlier daemon left in the kernel; close what has no living flow or deadline.

        greetings  of several agreements that share a pinhole, only one was kept

        Raises BackendError if the kernel cannot be read.
        """
        strays: list[tuple[Pinhole, str]] = []
        # Of several for one agreement the latest counts: the others are what could not be closed before.
        for pinhole in sorted(self._firewall.list(), key=lambda each: each.since, reverse=True):
            if reason := self._stray(pinhole, alive, now):
                strays.append((pinhole, reason))
                continue
            entry = Entry(pinhole)
            self._index.add(entry)
            agreement = (pinhole.flow, pinhole.agreement)
            cap, _ = self.policy.caps.get(pinhole.service, ("", 0))
            self._index.agree(agreement, entry, pinhole.deadline, cap if pinhole.standing else None)
            entry.purposes[agreement] = (pinhole.protocol, pinhole.service)
            if greetings is not None:
                entry.greetings[agreement] = greetings(pinhole.protocol, pinhole.service)
            self._observer.opened(pinhole)
        self._unremovable |= {pinhole.outside: pinhole for pinhole, _ in strays}
        self._retry()
        for pinhole, reason in strays:
            self._observer.closed(pinhole, reason)

    def _stray(self, pinhole: Pinhole, alive: Callable[[FlowId], bool], now: float) -> str | None:
        """Why a pinhole that was found in the kernel is not taken over, or None."""
        if not pinhole.standing and not now < pinhole.deadline <= now + self.policy.lifetime:
            return "deadline passed while no daemon ran"
        if not alive(pinhole.flow):
            return "control connection lost while no daemon ran"
        if self.policy.refuses(pinhole.service, pinhole.inside.address):
            return "switched off while no daemon ran"
        if not self.policy.leaves_free(pinhole.outside.port, pinhole.inside):
            return "a forward in the configuration has its port"
        if pinhole.outside in self._index.by_outside or target(pinhole) in self._index.by_target:
            return "duplicate"
        if (pinhole.flow, pinhole.agreement) in self._index.by_agreement:
            return "replaced before the restart"
        return None

    def reinstall(self) -> list[Pinhole]:
        """Put back what others took out of the kernel; returns it. Raises BackendError."""
        if not self._index.by_target:
            return []
        present = {(it.outside, it.inside, frozenset(it.peers)) for it in self._firewall.list()}
        missing = [it for it in self if (it.outside, it.inside, frozenset(it.peers)) not in present]
        for pinhole in missing:
            self._firewall.open(pinhole, None)
        return missing

    def _check(self, wanted: Expectation, host: str) -> None:
        policy = self.policy
        if wanted.inside.address != host:
            raise Refused(f"{wanted.inside.address} is not the address of the host that announces it")
        if reason := policy.refuses(wanted.service, wanted.inside.address):
            raise Refused(reason)
        if not 1024 <= wanted.inside.port <= 65535 or wanted.inside.port in policy.deny_ports:
            raise Refused(f"port {wanted.inside.port} is not one to open")

    def _check_room(self, agreement: AgreementKey, host: str | None) -> None:
        """The limits. *host*: where a new pinhole would lead to, or None if an open one is to be shared."""
        policy, index = self.policy, self._index
        known = index.by_agreement.get(agreement)
        if known is None and len(index.flows.get(agreement[0], ())) >= policy.per_flow:
            raise Refused(f"{policy.per_flow} agreements on one connection (per_flow)")
        if host is None:
            return
        # An agreement that moves gives its old pinhole up, unless others share it.
        moving = known if known is not None and len(known.agreements) == 1 else None
        from_host = moving is not None and moving.pinhole.inside.address == host
        if index.hosts[host] - from_host >= policy.per_host:
            raise Refused(f"{policy.per_host} pinholes to one host (per_host)")
        if len(self) - (moving is not None) + len(self._unremovable) >= policy.total:
            raise Refused(f"{policy.total} pinholes in all (total)")

    def _check_cap(self, agreement: AgreementKey, wanted: Expectation) -> str:
        """The name of the limit that counts this standing agreement; renewed, it counts once."""
        name, most = self.policy.caps.get(wanted.service, ("", 0))
        counted = (name, wanted.inside.address)
        others = self._index.standing_hosts[counted] - (self._index.standing.get(agreement) == counted)
        if name and others >= most:
            raise Refused(f"{others} session-long pinholes to one host ({name})")
        return name

    def _free_port(self, inside: Endpoint, address: str) -> int:
        """The announced port where it is free outside, else one of the configured range. Raises Refused."""
        if self._free(Endpoint(address, inside.port), inside):
            return inside.port
        ports = self.policy.ports
        for step in range(len(ports)):
            index = (self._next_port + step) % len(ports)
            if self._free(Endpoint(address, ports[index]), inside):
                self._next_port = index + 1
                return ports[index]
        raise Refused(f"no free outside port in {ports.start}-{ports.stop - 1}")

    def _free(self, outside: Endpoint, inside: Endpoint) -> bool:
        if outside in self._index.by_outside or outside in self._unremovable:
            return False
        # Where one address is announced for several, the port alone must say which pinhole is meant.
        if self.policy.announce is not None and self._index.of_port(outside.port) is not None:
            return False
        return self.policy.leaves_free(outside.port, inside) and not self._firewall.busy(outside)

    def _end(self, entry: Entry, agreement: AgreementKey, reason: str) -> None:
        if len(entry.agreements) == 1:
            self._remove([entry], reason)
            return
        self._index.end(agreement)
        self._rename_entry(entry)

    def _rename_entry(self, entry: Entry) -> None:
        """Rewrite the set entry after one of several agreements ended.

        It must name an agreement that still lives and carry the latest deadline that is left. Otherwise a
        restarted daemon would drop the pinhole, or keep it forever. On failure ``expire`` retries; a standing
        pinhole is closed instead, because its entry has no time-out.
        """
        pinhole, deadline = entry.pinhole, entry.deadline()
        if (pinhole.flow, pinhole.agreement) in entry.agreements and pinhole.deadline == deadline:
            return
        latest = max(entry.agreements, key=lambda each: entry.agreements[each])
        (flow, name), (protocol, service) = latest, entry.purposes[latest]
        named = replace(pinhole, flow=flow, agreement=name, service=service, protocol=protocol)
        self._narrow(entry, replace(named, deadline=deadline))
        if entry.pinhole.standing and not math.isinf(deadline):
            self._remove([entry], "its session is over, and the firewall will not give it a deadline")

    def _narrow(self, entry: Entry, wanted: Pinhole) -> None:
        """Let the kernel admit less of *entry*. If it refuses, ``expire`` closes the pinhole in time."""
        if wanted != entry.pinhole:
            with suppress(BackendError):
                self._firewall.open(wanted, entry.pinhole)
                entry.pinhole = wanted

    def _remove(self, entries: list[Entry], reason: str) -> None:
        """Close *entries*; what cannot be closed now is tried again at each ``expire``."""
        for entry in entries:
            self._index.remove(entry)
            why = reason
            try:
                self._firewall.close(entry.pinhole)
            except BackendError as error:
                self._unremovable[entry.pinhole.outside] = entry.pinhole
                why = f"{reason}; still in the kernel, will be tried again: {error}"
            self._observer.closed(entry.pinhole, why)

    def _retry(self) -> None:
        """Close what could not be closed before."""
        for outside, pinhole in list(self._unremovable.items()):
            with suppress(BackendError):
                self._firewall.close(pinhole)
                del self._unremovable[outside]


def _peers(wanted: Expectation) -> tuple[str, ...]:
    return () if wanted.peer is None else (wanted.peer,)
