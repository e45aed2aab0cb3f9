"""Pinholes: every rule about what may be opened, for whom, where and for how long.

A helper can open something by PinholeTable.open only, so that no protocol can forget a check. The table
decides; the firewall behind it carries out and remembers. No clock and no I/O here.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Set
from contextlib import suppress
from dataclasses import replace
from typing import Final

from nfreaim.core.address import Endpoint, FlowId
from nfreaim.core.firewall.carrying import OVER, Carrying, Connections, NoConnections, came
from nfreaim.core.firewall.fairness import MachineOf, Machines, OpeningRates
from nfreaim.core.firewall.index import AgreementKey, Entry, PinholeIndex
from nfreaim.core.firewall.leftovers import put_back, stray, take_over, unwanted
from nfreaim.core.firewall.mapping import Mappings
from nfreaim.core.firewall.offered import Offered
from nfreaim.core.firewall.pinhole import Firewall, Observer, Origin, Pinhole
from nfreaim.core.firewall.policy import PinholePolicy
from nfreaim.core.firewall.room import Room, check
from nfreaim.core.firewall.signed_on import Sessions
from nfreaim.core.firewall.ungated import UNVERIFIABLE, let_in_unverified
from nfreaim.core.greeting import Greeting, GreetingsOf
from nfreaim.core.helper import UNFIT, Expectation, Refused
from nfreaim.core.reach import Reach
from nfreaim.errors import BackendError

# At most as many peers of one pinhole are told apart, so that a flood fills neither memory nor log.
_PEERS: Final = 256


class PinholeTable:
    """All open pinholes, and the agreements they are kept for.

    firewall, observer  raise nothing but what they declare (see core.guarded)
    machine             asked only when half of what there is has been taken
    reach               which address is announced for all of them, or that it is each one's own
    connections         asked only at a limit
    gave_way            how many pinholes were closed so that another host could have one
    """

    def __init__(
        self,
        policy: PinholePolicy,
        firewall: Firewall,
        observer: Observer,
        machine: MachineOf = str,
        connections: Connections | None = None,
    ) -> None:
        self.policy = policy
        self.reach = Reach(policy.announce, policy.upstream != "off")
        self.mappings = Mappings()
        self.reserve, self.gave_way, self._verifies = self.mappings.reserve, 0, True
        self._firewall, self._observer = firewall, observer
        self._index = PinholeIndex()
        self._unremovable: dict[Endpoint, Pinhole] = {}
        self._removed: list[Pinhole] = []  # by others, since the last ``reinstall``
        self._sessions, self._offered = Sessions(), Offered(policy)
        self._carrying = Carrying(self._index, connections or NoConnections())
        machines = Machines(machine)
        self._rates = OpeningRates(policy, machines)
        self._room = Room(policy, firewall, self._index, self._unremovable, self.mappings, machines)
        self.spare = self._room.spare

    def __len__(self) -> int:
        return len(self._index.by_target)

    def __iter__(self) -> Iterator[Pinhole]:
        return iter([entry.pinhole for entry in self._index.by_target.values()])

    def flows(self) -> Set[FlowId]:
        """The flows that open pinholes were opened for."""
        return self._index.flows.keys()

    def tended(self) -> Set[FlowId]:
        """Flows whose end the engine has to find out: these, and what pinholes or mappings depend on."""
        return self._index.flows.keys() | self._sessions.needed() | self.mappings.signed_on()

    def has_standing(self) -> bool:
        """Whether any open pinhole is a standing one."""
        return bool(self._index.standing)

    def prepare(self, host: str) -> None:
        """A flow of the inside *host* is established: what all its pinholes need may be made ahead."""
        self._firewall.prepare(host)

    def verify(self, verifies: bool) -> None:
        """Whether first bytes can be looked at. If they no longer can, new peers are admitted without."""
        self._verifies = verifies
        if not verifies:
            self._remove(let_in_unverified(self._index, self._firewall, self.policy), UNVERIFIABLE)

    def open(self, flow: FlowId, expectation: Expectation, origin: Origin, now: float) -> Pinhole:
        """Open (or prolong) the pinhole for *expectation*. Raises Refused.

        The same flow and agreement again replaces what it asked for before.
        """
        agreement = (flow, expectation.agreement)
        expectation = check(expectation, origin.host, self.policy, self._verifies)
        place = expectation.inside, origin.address, bool(expectation.greetings), origin.mapped
        entry = self._index.by_target.get(place)
        if entry is not None and self._expire_agreements(entry, now):
            entry = None
        self._end_what_is_over(agreement, expectation, entry is None, now)
        entry = self._index.by_target.get(place)
        if entry is not None and not self.reach.fits(expectation.widths, entry.pinhole.reached):
            raise Refused(UNFIT)
        self._room.check(agreement, expectation, entry is None)
        cap = self._room.cap(agreement, expectation, entry) if expectation.standing else None
        until = self.policy.deadline(expectation.standing, now)
        if entry is None:
            wanted = self._new(agreement, expectation, origin, now)
        else:
            wanted = entry.shared(agreement, expectation, until, origin.protocol)
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
            self._room.taken(wanted.inside.address, now)
            self._observer.opened(wanted)
        entry.pinhole = wanted
        entry.peers.clear()
        self._index.agree(agreement, entry, until, cap)
        entry.note(agreement, expectation, origin.protocol)
        self._offered.forget(agreement, expectation.inside.address)
        self._room.reserved.announced(wanted.inside.address, wanted.outside, now)
        return wanted

    def _end_what_is_over(self, agreement: AgreementKey, wanted: Expectation, new: bool, now: float) -> None:
        """If limits leave no room for *wanted*, end what is over."""
        if not wanted.standing and self._room.flow_is_full(agreement, standing=False):
            over = self._carrying.over_in_flow(agreement[0], now)
            if over is not None:
                entry = self._index.by_agreement[over]
                self._offered.over(over, entry)
                self._end(entry, over, OVER)
        if new and self._room.host_is_full(agreement, wanted.inside.address):
            done = self._carrying.over_at_host(wanted.inside.address, now)
            self._remove([done] if done is not None else [], OVER)

    def offered(self, flow: FlowId, expectation: Expectation, now: float) -> None:
        """What *expectation* says was offered by a message of *flow*, which leaves as it came. Its peer may
        come through a pinhole of another message."""
        entry = self._index.by_agreement.get((flow, expectation.agreement))
        if entry is None or entry.pinhole.inside != expectation.inside:
            self._offered.left(flow, expectation, now)
            self._room.reserved.announced(expectation.inside.address, expectation.inside, now)

    def _new(self, agreement: AgreementKey, wanted: Expectation, origin: Origin, now: float) -> Pinhole:
        """The pinhole for an inside endpoint that has none yet. Raises Refused."""
        if wanted.announced is not None and self._firewall.forwarded(wanted.announced):
            raise Refused(f"another rule forwards {wanted.announced} already")
        place = self._room.place(agreement, wanted, origin, now)
        if not self.reach.fits(wanted.widths, place.told or place.outside):
            raise Refused(UNFIT)
        self._rates.take(wanted.inside.address, now)
        if place.victim is not None:
            self._give_way(place.victim, wanted.inside.address)
            if not self._room.has(agreement, place.outside, wanted.inside):
                raise Refused("no room, because another pinhole cannot be closed")
        deadline = self.policy.deadline(wanted.standing, now)
        return place.pinhole(agreement, wanted, origin.protocol, deadline, now)

    def insides(self) -> list[Endpoint]:
        """The inside endpoints that pinholes lead to."""
        return list(self._index.by_inside)

    def leads_to(self, inside: Endpoint) -> bool:
        """Whether a pinhole leads to *inside*: then a connection there is a peer's, not a client's."""
        return inside in self._index.by_inside

    def expected(self, inside: Endpoint) -> list[Greeting]:
        """What may be said first on a connection to *inside*: any greeting of any agreement will do, and any
        of what its host has offered there otherwise."""
        entries = self._index.by_inside.get(inside, ())
        found = [one for entry in entries for some in entry.greetings.values() for one in some]
        return found + self._offered.greetings(inside) if found else found

    def inside_of(self, announced: Endpoint, reader: FlowId | None = None) -> Endpoint | None:
        """The inside endpoint that an announced one leads to, unless it is *reader* alone that announced it:
        a client has to name to others what they can reach."""
        entry = self._index.announced(announced, by_port=self.reach.address == announced.address)
        if entry is None or all(flow == reader for flow, _ in entry.agreements):
            return None
        return entry.pinhole.inside

    def close(self, flow: FlowId, agreement: bytes, reason: str) -> None:
        """End one agreement; the pinhole closes with its last one."""
        entry = self._index.by_agreement.get((flow, agreement))
        self._offered.forget((flow, agreement), flow.client.address)
        if entry is not None:
            self._end(entry, (flow, agreement), reason)

    def signed_on(self, flow: FlowId, protocol: str, host: str) -> None:
        """*flow* is a session of the inside *host*, until ``close_flow`` says that it is over."""
        self._sessions.add(flow, (protocol, host))

    def close_flow(self, flow: FlowId, reason: str, now: float | None = None) -> None:
        """*flow* is over at *now*: end its agreements, except those that may outlive it. None: end all."""
        self._offered.forget_flow(flow)
        self.mappings.over(flow)
        for key in self._sessions.over(flow):
            self.close(*key, "its host has signed off")
        for agreement in list(self._index.flows.get(flow, ())):
            key = flow, agreement
            entry = self._index.by_agreement.get(key)
            if entry is None:
                continue  # the end of another agreement closed the pinhole that both shared
            grace = entry.after_flow.get(key, 0.0)
            session = entry.sessions.get(key)
            lonely = session is not None and not self._sessions.any(session)
            if now is None or not grace or lonely or entry.pinhole.standing:
                self.close(flow, agreement, reason)
                continue
            self._index.outlive(key, now + grace)
            if session is not None:
                self._sessions.depend(key, session, now + grace)
            self._narrow(entry, replace(entry.pinhole, deadline=entry.deadline()))

    def close_taken(self, taken: Callable[[Endpoint], bool], reason: str) -> None:
        """Close the pinholes whose outside endpoint is *taken*: somebody else gets what comes for it."""
        self._remove([one for one in self._index.by_target.values() if taken(one.pinhole.outside)], reason)

    def obey(self, policy: PinholePolicy) -> None:
        """From now on *policy* counts, for what is open as well; what is announced stays as it is."""
        self.policy = self._offered.policy = policy
        self._room.obey(policy)
        self._rates.obey(policy)
        for entry, agreement, reason in unwanted(self._index, policy, self._verifies):
            self._end(entry, agreement, f"the configuration was changed: {reason}")

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

    def claimed(self, outside: Endpoint, peer: str, now: float, port: int = 0) -> None:
        """*peer* has completed a connection from *port* or, where greetings are known, has sent one of them.

        When each agreement has its peer the grace begins, and no other address is let in any more.
        """
        entry = self._index.by_outside.get(outside)
        if entry is None:
            return
        came(entry, Endpoint(peer, port))
        self.mappings.used(entry.pinhole, Endpoint(peer, port))
        if peer in entry.peers or len(entry.peers) >= _PEERS:
            return
        entry.peers[peer] = None
        self._observer.claimed(entry.pinhole, peer)
        if not self._expire_agreements(entry, now):
            self._start_grace(entry, now)

    def _start_grace(self, entry: Entry, now: float) -> None:
        """If each agreement of *entry* has its peer, let the grace begin and admit these peers only."""
        if len(entry.peers) < self._offered.awaited(entry):
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
        self._sessions.expire(now)
        self._offered.expire(now)
        self._room.reserved.expire(now)
        for entry in list(self._index.by_target.values()):
            if not self._expire_agreements(entry, now):
                self._rename_entry(entry)
        with suppress(BackendError):  # the next call tries again, and ``reinstall`` tells of it
            self._removed = self._renew()
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

        Raises BackendError if the kernel cannot be read.
        """
        strays: list[tuple[Pinhole, str]] = []
        # Of several for one agreement the latest counts: the others are what could not be closed before.
        for pinhole in sorted(self._firewall.list(), key=lambda each: each.since, reverse=True):
            if reason := stray(pinhole, self._index, self.policy, alive, now):
                strays.append((pinhole, reason))
                continue
            take_over(pinhole, self._index, self.policy, greetings)
            if greetings is not None and pinhole.verify:
                self._offered.found(pinhole, greetings, now)
            self._observer.opened(pinhole)
        self._unremovable |= {pinhole.outside: pinhole for pinhole, _ in strays}
        self._retry()
        for pinhole, reason in strays:
            self._observer.closed(pinhole, reason)

    def reinstall(self, now: float) -> list[Pinhole]:
        """Put back what others took out of the kernel; returns it. Raises BackendError.

        What the kernel itself closed is no damage, and stays closed: a pinhole about at its deadline, which
        ``expire`` is about to close. One that was not renewed in time is opened again, and not returned.
        """
        if not self._index.by_target:
            return []
        return [*self._renew(), *put_back(self, self._firewall, now)]

    def _renew(self) -> list[Pinhole]:
        """Have the kernel keep the pinholes; returns those that others had removed. Raises BackendError."""
        removed = [*self._removed, *self._firewall.renew(list(self))]
        self._removed = []
        return removed

    def _give_way(self, victim: Entry, host: str) -> None:
        self.gave_way += 1
        self._remove([victim], f"gave way to {host}, which has fewer")

    def _end(self, entry: Entry, agreement: AgreementKey, reason: str) -> None:
        if len(entry.agreements) == 1:
            self._remove([entry], reason)
            return
        self._index.end(agreement)
        self._rename_entry(entry)

    def _rename_entry(self, entry: Entry) -> None:
        """Rewrite the set entry after one of several agreements ended: it must name one that lives, and the
        latest deadline. Otherwise a restarted daemon would drop the pinhole, or keep it forever.

        On failure ``expire`` retries; a standing pinhole is closed, because its entry says: no deadline.
        """
        wanted = entry.renamed()
        self._narrow(entry, wanted)
        if entry.pinhole.standing and not wanted.standing:
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
