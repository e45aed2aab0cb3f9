"""Pinholes: every rule about what may be opened, for whom, where and for how long.

No helper can open anything but through PinholeTable.open, so that no protocol can forget a check. The
table decides; the firewall behind it only carries out and remembers. No clock and no I/O here.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Set
from contextlib import suppress
from dataclasses import replace
from typing import Final

from nfreaim.core.address import Endpoint, FlowId
from nfreaim.core.firewall.index import Agreement, Entry, PinholeIndex, target
from nfreaim.core.firewall.pinhole import Firewall as Firewall
from nfreaim.core.firewall.pinhole import Observer as Observer
from nfreaim.core.firewall.pinhole import Pinhole as Pinhole
from nfreaim.core.firewall.policy import DENIED_PORTS as DENIED_PORTS
from nfreaim.core.firewall.policy import Forward as Forward
from nfreaim.core.firewall.policy import PinholePolicy as PinholePolicy
from nfreaim.core.firewall.policy import RateLimit
from nfreaim.core.greeting import Greeting
from nfreaim.core.guarded import GuardedFirewall, GuardedObserver
from nfreaim.core.helper import Expectation, Refused
from nfreaim.errors import BackendError

# So many peers of one pinhole are told apart: a flood of connections fills neither memory nor log.
_PEERS: Final = 256


class PinholeTable:
    """All live pinholes. Keyed by inside endpoint and outside address; agreements by flow and cookie."""

    def __init__(self, policy: PinholePolicy, firewall: Firewall, observer: Observer) -> None:
        self.policy = policy
        self._firewall = GuardedFirewall(firewall)
        self._observer = GuardedObserver(observer)
        self._live = PinholeIndex()
        self._undead: dict[Endpoint, Pinhole] = {}
        self._host_rate, self._rate = RateLimit(policy.rate_per_host), RateLimit(policy.rate_total)
        self._next_port = 0

    def __len__(self) -> int:
        return len(self._live.places)

    def __iter__(self) -> Iterator[Pinhole]:
        return iter([entry.pinhole for entry in self._live.places.values()])

    def owners(self) -> Set[FlowId]:
        """The flows that live pinholes were opened for."""
        return self._live.owners.keys()

    def tended(self) -> Set[FlowId]:
        """Those whose end the engine has to find out: all of them."""
        return self.owners()

    def sessions(self) -> bool:
        """Whether any pinhole is open for a whole session."""
        return bool(self._live.sessions)

    def prepare(self, host: str) -> None:
        """The inside *host* has signed on: what is the same for all its pinholes may be done ahead."""
        self._firewall.prepare(host)

    def open(self, owner: FlowId, expectation: Expectation, host: str, address: str, now: float) -> Pinhole:
        """Open (or prolong) the pinhole for *expectation* at outside *address*. Raises Refused.

        *host* is the only inside address that *owner* may name.

        The same flow and cookie again is the same agreement: it replaces what it asked for before.
        """
        agreement = (owner, expectation.cookie)
        entry = self._live.places.get((expectation.inside, address))
        if entry is not None and self._lapsed(entry, now):
            entry = None
        self._check(expectation, host)
        self._check_room(agreement, None if entry else expectation.inside.address)
        if expectation.session:
            self._check_sessions(agreement, expectation.inside.address)
        deadline = math.inf if expectation.session else now + self.policy.lifetime
        peers = () if expectation.peer is None else (expectation.peer,)
        if entry is None:
            outside = Endpoint(address, self._free_port(expectation.inside, address))
            self._check_rate(expectation.inside.address, now)
            wanted = Pinhole(
                expectation.inside,
                outside,
                owner,
                expectation.cookie,
                expectation.service,
                deadline,
                peers,
                now,
                expectation.verify,
            )
        elif not expectation.session and self._live.sessions & (entry.agreements.keys() - {agreement}):
            wanted = entry.pinhole  # open for everybody already, and longer
        else:
            others = [until for other, until in entry.agreements.items() if other != agreement]
            wanted = replace(
                entry.pinhole,
                owner=owner,
                cookie=expectation.cookie,
                service=expectation.service,
                deadline=max([deadline, *others]),
                peers=() if others and peers != entry.pinhole.peers else peers,
                # Of two services that share a port at most one begins with what the gate would look for.
                verify=expectation.verify and (entry.pinhole.verify or not others),
            )
        try:
            if entry is None or wanted != entry.pinhole:
                self._firewall.put(wanted, None if entry is None else entry.pinhole)
        except BackendError as error:
            raise Refused(f"the firewall refused: {error}") from error
        superseded = self._live.agreements.get(agreement)
        if superseded is not None and superseded is not entry:
            self._end(superseded, agreement, "replaced by a new proposal")
        if entry is None:
            entry = Entry(wanted)
            self._live.add(entry)
            self._observer.opened(wanted)
        entry.pinhole = wanted
        entry.peers.clear()
        self._live.agree(agreement, entry, deadline, expectation.session)
        entry.greetings[agreement] = expectation.greetings
        entry.services[agreement] = expectation.service
        return wanted

    def insides(self) -> list[Endpoint]:
        """Where pinholes lead."""
        return list(self._live.insides)

    def leads_to(self, inside: Endpoint) -> bool:
        """Whether a pinhole leads to *inside*: who connects there is a peer, not a client."""
        return inside in self._live.insides

    def expected(self, inside: Endpoint) -> list[Greeting]:
        """What may be said first on a connection to *inside*: any greeting of any agreement will do."""
        entries = self._live.insides.get(inside, ())
        return [one for entry in entries for some in entry.greetings.values() for one in some]

    def inside_of(self, announced: Endpoint) -> Endpoint | None:
        """The inside endpoint that an announced one leads to."""
        if self.policy.announce == announced.address:
            entry = self._live.of_port(announced.port)
        else:
            entry = self._live.outside.get(announced)
        return entry.pinhole.inside if entry else None

    def close(self, owner: FlowId, cookie: bytes, reason: str) -> None:
        """End one agreement; the pinhole goes with its last one."""
        entry = self._live.agreements.get((owner, cookie))
        if entry is not None:
            self._end(entry, (owner, cookie), reason)

    def close_owner(self, owner: FlowId, reason: str) -> None:
        """End every agreement of one flow."""
        for cookie in list(self._live.owners.get(owner, ())):
            self.close(owner, cookie, reason)

    def close_all(self, reason: str) -> None:
        """Close everything, also what could not be closed before: nobody tries again later."""
        self._remove(list(self._live.places.values()), reason)
        self._retry()

    def agreed(self, owner: FlowId, cookie: bytes, now: float) -> None:
        """The peer accepted: what is left is the accept grace."""
        entry = self._live.agreements.get((owner, cookie))
        if entry is not None and (owner, cookie) not in self._live.sessions:
            until = now + self.policy.accept_grace
            entry.agreements[owner, cookie] = min(until, entry.agreements[owner, cookie])
            self._tell(entry, replace(entry.pinhole, deadline=entry.deadline()))

    def claimed(self, outside: Endpoint, peer: str, now: float) -> None:
        """*peer* has made a whole connection, or has shown in its first bytes that it is the one expected.

        When each agreement has its peer the grace begins, and nobody else is let in any more.
        """
        entry = self._live.outside.get(outside)
        if entry is None or peer in entry.peers or len(entry.peers) >= _PEERS:
            return
        entry.peers[peer] = None
        self._observer.claimed(entry.pinhole, peer)
        if not self._lapsed(entry, now):
            self._settle(entry, now)

    def _settle(self, entry: Entry, now: float) -> None:
        """Once each agreement of *entry* has its peer the grace begins, and nobody else is let in."""
        if len(entry.peers) < len(entry.agreements):
            return
        until = now + self.policy.claim_grace
        for agreement, deadline in entry.agreements.items():
            if agreement not in self._live.sessions:
                entry.agreements[agreement] = min(deadline, until)
        if not entry.pinhole.session:
            self._tell(entry, replace(entry.pinhole, deadline=entry.deadline(), peers=tuple(entry.peers)))

    def expire(self, now: float) -> None:
        """Close what is past its deadline, retry what could not be closed before, keep the firewall up."""
        self._retry()
        for entry in list(self._live.places.values()):
            if not self._lapsed(entry, now):
                self._hand_on(entry)
        self._firewall.upkeep()

    def _lapsed(self, entry: Entry, now: float) -> bool:
        """End the agreements that are past their deadlines; whether *entry* has been closed with the last."""
        if entry.deadline() <= now:
            self._remove([entry], "done" if entry.peers else "deadline")
            return True
        if len(entry.agreements) > 1:
            over = [key for key, until in entry.agreements.items() if until <= now]
            for agreement in over:
                self._live.leave(agreement)
            if over:
                self._settle(entry, now)
        return False

    def adopt(
        self,
        alive: Callable[[FlowId], bool],
        now: float,
        greetings: Callable[[str], tuple[Greeting, ...]] | None = None,
    ) -> None:
        """Take over what an earlier life left in the kernel; what has no living owner or deadline goes.

        *greetings* says what the peers of a service say first: of several agreements only one was kept.
        Raises BackendError if the kernel cannot be read.
        """
        strays: list[tuple[Pinhole, str]] = []
        # Of several with one name the latest counts: the others are what could not be closed before.
        for pinhole in sorted(self._firewall.list(), key=lambda each: each.since, reverse=True):
            if not pinhole.session and not now < pinhole.deadline <= now + self.policy.lifetime:
                strays.append((pinhole, "deadline passed while no daemon ran"))
            elif not alive(pinhole.owner):
                strays.append((pinhole, "control connection lost while no daemon ran"))
            elif self.policy.refuses(pinhole.service, pinhole.inside.address):
                strays.append((pinhole, "switched off while no daemon ran"))
            elif not self.policy.leaves_free(pinhole.outside.port, pinhole.inside):
                strays.append((pinhole, "a forward in the configuration has its port"))
            elif pinhole.outside in self._live.outside or target(pinhole) in self._live.places:
                strays.append((pinhole, "duplicate"))
            elif (pinhole.owner, pinhole.cookie) in self._live.agreements:
                strays.append((pinhole, "replaced before the restart"))
            else:
                entry = Entry(pinhole)
                self._live.add(entry)
                agreement = (pinhole.owner, pinhole.cookie)
                self._live.agree(agreement, entry, pinhole.deadline, pinhole.session)
                entry.services[agreement] = pinhole.service
                if greetings is not None:
                    entry.greetings[agreement] = greetings(pinhole.service)
                self._observer.opened(pinhole)
        self._undead |= {pinhole.outside: pinhole for pinhole, _ in strays}
        self._retry()
        for pinhole, reason in strays:
            self._observer.closed(pinhole, reason)

    def reinstall(self) -> list[Pinhole]:
        """Put back what somebody else took out of the kernel; returns it. Raises BackendError."""
        if not self._live.places:
            return []
        present = {(it.outside, it.inside, frozenset(it.peers)) for it in self._firewall.list()}
        missing = [it for it in self if (it.outside, it.inside, frozenset(it.peers)) not in present]
        for pinhole in missing:
            self._firewall.put(pinhole, None)
        return missing

    def _check(self, wanted: Expectation, host: str) -> None:
        policy = self.policy
        if wanted.inside.address != host:
            raise Refused(f"{wanted.inside.address} is not the address of the host that announces it")
        if reason := policy.refuses(wanted.service, wanted.inside.address):
            raise Refused(reason)
        if not 1024 <= wanted.inside.port <= 65535 or wanted.inside.port in policy.deny_ports:
            raise Refused(f"port {wanted.inside.port} is not one to open")

    def _check_room(self, agreement: Agreement, host: str | None) -> None:
        """The caps. *host* is where a new pinhole would lead to, or None if a live one is to be shared."""
        policy, live = self.policy, self._live
        known = live.agreements.get(agreement)
        if known is None and len(live.owners.get(agreement[0], ())) >= policy.per_flow:
            raise Refused(f"{policy.per_flow} agreements on one connection (per_flow)")
        if host is None:
            return
        # An agreement that moves gives its old pinhole up, unless others share it.
        moving = known if known is not None and len(known.agreements) == 1 else None
        from_host = moving is not None and moving.pinhole.inside.address == host
        if live.hosts[host] - from_host >= policy.per_host:
            raise Refused(f"{policy.per_host} pinholes to one host (per_host)")
        if len(self) - (moving is not None) + len(self._undead) >= policy.total:
            raise Refused(f"{policy.total} pinholes in all (total)")

    def _check_sessions(self, agreement: Agreement, host: str) -> None:
        """The cap on what stays open for a whole session; an agreement that is renewed counts once."""
        others = self._live.session_hosts[host] - (agreement in self._live.sessions)
        if others >= self.policy.sessions_per_host:
            raise Refused(f"{others} session-long pinholes to one host (icq_per_host)")

    def _check_rate(self, host: str, now: float) -> None:
        """One more opening. What the firewall refuses afterwards counts all the same."""
        for rate, key, what in (
            (self._host_rate, host, "pinholes a minute to one host (rate_per_host)"),
            (self._rate, "", "pinholes a minute in all (rate_total)"),
        ):
            if not rate.allows(key, now):
                raise Refused(f"{rate.size} {what}")
        self._host_rate.take(host, now)
        self._rate.take("", now)

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
        if outside in self._live.outside or outside in self._undead:
            return False
        # Where one address is announced for several, the port alone must say which pinhole is meant.
        if self.policy.announce is not None and self._live.of_port(outside.port) is not None:
            return False
        return self.policy.leaves_free(outside.port, inside) and not self._firewall.busy(outside)

    def _end(self, entry: Entry, agreement: Agreement, reason: str) -> None:
        if len(entry.agreements) == 1:
            self._remove([entry], reason)
            return
        self._live.leave(agreement)
        self._hand_on(entry)

    def _hand_on(self, entry: Entry) -> None:
        """The kernel must know an agreement that lives, and no later end than there is, or a crash ends the
        pinhole too early or makes it everlasting. If it will not, ``expire`` asks again; but a session's
        pinhole, which would stay, is closed."""
        pinhole, deadline = entry.pinhole, entry.deadline()
        if (pinhole.owner, pinhole.cookie) in entry.agreements and pinhole.deadline == deadline:
            return
        agreement = max(entry.agreements, key=lambda each: entry.agreements[each])
        (owner, cookie), service = agreement, entry.services[agreement]
        wanted = replace(pinhole, owner=owner, cookie=cookie, service=service, deadline=deadline)
        self._tell(entry, wanted)
        if entry.pinhole.session and not math.isinf(deadline):
            self._remove([entry], "its session is over, and the firewall will not give it a deadline")

    def _tell(self, entry: Entry, wanted: Pinhole) -> None:
        """Let the kernel admit less of *entry*. If it will not, ``expire`` closes the pinhole in time."""
        if wanted != entry.pinhole:
            with suppress(BackendError):
                self._firewall.put(wanted, entry.pinhole)
                entry.pinhole = wanted

    def _remove(self, entries: list[Entry], reason: str) -> None:
        """Close *entries*; what cannot be closed now is tried again at each ``expire``."""
        for entry in entries:
            self._live.remove(entry)
            why = reason
            try:
                self._firewall.drop(entry.pinhole)
            except BackendError as error:
                self._undead[entry.pinhole.outside] = entry.pinhole
                why = f"{reason}; still in the kernel, will be tried again: {error}"
            self._observer.closed(entry.pinhole, why)

    def _retry(self) -> None:
        """Close what could not be closed before."""
        for outside, pinhole in list(self._undead.items()):
            with suppress(BackendError):
                self._firewall.drop(pinhole)
                del self._undead[outside]
