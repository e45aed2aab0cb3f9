"""Pinholes: every rule about what may be opened, for whom, where and for how long.

No helper can open anything but through PinholeTable.open, so that no protocol can forget a check. The
table decides; the firewall behind it only carries out and remembers. No clock and no I/O here.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Final, Protocol

from nfreaim.core.flow import Endpoint, Owner
from nfreaim.core.helper import Expectation, Refused
from nfreaim.core.policy import DENIED_PORTS as DENIED_PORTS
from nfreaim.core.policy import Forward as Forward
from nfreaim.core.policy import PinholePolicy as PinholePolicy
from nfreaim.core.seams import SafeFirewall, SafeObserver
from nfreaim.errors import BackendError

# So many peers of one pinhole are told apart: forged SYNs, a source each, fill neither memory nor log.
_PEERS: Final = 256


@dataclass(frozen=True, slots=True)
class Pinhole:
    """One outside endpoint that leads to one inside endpoint until *deadline* (the engine's clock, seconds).

    owner, cookie, service say why it is there (see Expectation); of several agreements, the latest one, but
    one for the whole session before any other. Its deadline is infinity: the end of its control connection.
    peer is the only outside address it admits, or None. since is when it was opened.
    """

    inside: Endpoint
    outside: Endpoint
    owner: Owner
    cookie: bytes
    service: str
    deadline: float
    peer: str | None = None
    since: float = 0.0

    @property
    def session(self) -> bool:
        """It stays for as long as its control connection does, and any number of peers may use it."""
        return math.isinf(self.deadline)


class Firewall(Protocol):
    """What the table needs of a firewall, and all it can do to it."""

    def commit(self, add: Sequence[Pinhole], remove: Sequence[Pinhole]) -> None:
        """Make and unmake pinholes, all or nothing; an absent one is gone already. Raises BackendError."""

    def list(self) -> list[Pinhole]:
        """The pinholes that are in the kernel, ours of an earlier life included. Raises BackendError."""

    def busy(self, outside: Endpoint) -> bool:
        """Whether something else on the router answers at *outside*."""


class Observer(Protocol):
    """Who is told of each pinhole's life."""

    def opened(self, pinhole: Pinhole) -> None: ...

    def claimed(self, pinhole: Pinhole, peer: str) -> None: ...

    def closed(self, pinhole: Pinhole, reason: str) -> None: ...


@dataclass(slots=True)
class _Entry:
    """A live pinhole with the agreements that share it: a client may use one port for all its peers."""

    pinhole: Pinhole
    agreements: dict[tuple[Owner, bytes], float] = field(default_factory=dict)
    peers: set[str] = field(default_factory=set)

    def deadline(self) -> float:
        return max(self.agreements.values())


class PinholeTable:
    """All live pinholes. Keyed by inside endpoint and outside address; agreements by flow and cookie."""

    def __init__(self, policy: PinholePolicy, firewall: Firewall, observer: Observer) -> None:
        self.policy = policy
        self._firewall = SafeFirewall(firewall)
        self._observer = SafeObserver(observer)
        self._entries: dict[tuple[Endpoint, str], _Entry] = {}
        self._outside: dict[Endpoint, _Entry] = {}
        self._agreements: dict[tuple[Owner, bytes], _Entry] = {}
        self._sessions: set[tuple[Owner, bytes]] = set()
        self._undead: list[Pinhole] = []
        self._next_port = 0

    def __len__(self) -> int:
        return len(self._entries)

    def __iter__(self) -> Iterator[Pinhole]:
        return iter([entry.pinhole for entry in self._entries.values()])

    def owners(self) -> set[Owner]:
        """The flows that live pinholes were opened for."""
        return {owner for owner, _ in self._agreements}

    def sessions(self) -> bool:
        """Whether any pinhole is open for a whole session."""
        return bool(self._sessions)

    def open(self, owner: Owner, expectation: Expectation, host: str, address: str, now: float) -> Pinhole:
        """Open (or prolong) the pinhole for *expectation* at outside *address*. Raises Refused.

        *host* is the only inside address that *owner* may name.

        The same flow and cookie again is the same agreement: it replaces what it asked for before.
        """
        agreement = (owner, expectation.cookie)
        entry = self._entries.get((expectation.inside, address))
        self._check(expectation, host)
        self._check_room(agreement, None if entry else expectation.inside.address)
        if expectation.session:
            self._check_sessions(agreement, expectation.inside.address)
        deadline = math.inf if expectation.session else now + self.policy.lifetime
        if entry is None:
            wanted = Pinhole(
                expectation.inside,
                Endpoint(address, self._free_port(expectation.inside, address)),
                owner,
                expectation.cookie,
                expectation.service,
                deadline,
                expectation.peer,
                now,
            )
        elif not expectation.session and self._sessions & (entry.agreements.keys() - {agreement}):
            wanted = entry.pinhole  # open for everybody already, and longer
        else:
            others = [until for other, until in entry.agreements.items() if other != agreement]
            wanted = replace(
                entry.pinhole,
                owner=owner,
                cookie=expectation.cookie,
                service=expectation.service,
                deadline=max([deadline, *others]),
                peer=None if others and expectation.peer != entry.pinhole.peer else expectation.peer,
            )
        try:
            if entry is None or wanted != entry.pinhole:
                self._firewall.commit([wanted], [] if entry is None else [entry.pinhole])
        except BackendError as error:
            raise Refused(f"the firewall refused: {error}") from error
        superseded = self._agreements.get(agreement)
        if superseded is not None and superseded is not entry:
            self._end(superseded, agreement, "replaced by a new proposal")
        if entry is None:
            entry = _Entry(wanted)
            self._entries[_place(wanted)] = entry
            self._outside[wanted.outside] = entry
            self._observer.opened(wanted)
        entry.pinhole = wanted
        entry.agreements[agreement] = deadline
        entry.peers.clear()
        self._agreements[agreement] = entry
        if expectation.session:
            self._sessions.add(agreement)
        else:
            self._sessions.discard(agreement)
        return wanted

    def leads_to(self, inside: Endpoint) -> bool:
        """Whether a pinhole leads to *inside*: who connects there is a peer, not a client."""
        return any(place == inside for place, _ in self._entries)

    def inside_of(self, announced: Endpoint) -> Endpoint | None:
        """The inside endpoint that an announced one leads to."""
        if self.policy.announce == announced.address:
            entry = self._of_port(announced.port)
        else:
            entry = self._outside.get(announced)
        return entry.pinhole.inside if entry else None

    def close(self, owner: Owner, cookie: bytes, reason: str) -> None:
        """End one agreement; the pinhole goes with its last one."""
        entry = self._agreements.get((owner, cookie))
        if entry is not None:
            self._end(entry, (owner, cookie), reason)

    def close_owner(self, owner: Owner, reason: str) -> None:
        """End every agreement of one flow."""
        for agreement in [key for key in self._agreements if key[0] == owner]:
            self._end(self._agreements[agreement], agreement, reason)

    def close_all(self, reason: str) -> None:
        """Close everything, in one commit."""
        self._remove(list(self._entries.values()), reason)

    def agreed(self, owner: Owner, cookie: bytes, now: float) -> None:
        """The peer accepted: what is left is the accept grace."""
        entry = self._agreements.get((owner, cookie))
        if entry is not None and (owner, cookie) not in self._sessions:
            until = now + self.policy.accept_grace
            entry.agreements[owner, cookie] = min(until, entry.agreements[owner, cookie])

    def claimed(self, outside: Endpoint, peer: str, now: float) -> None:
        """A connection from *peer* went through. When each agreement has its peer, the grace begins."""
        entry = self._outside.get(outside)
        if entry is None or peer in entry.peers or len(entry.peers) >= _PEERS:
            return
        entry.peers.add(peer)
        self._observer.claimed(entry.pinhole, peer)
        if len(entry.peers) >= len(entry.agreements):
            until = now + self.policy.claim_grace
            for agreement, deadline in entry.agreements.items():
                if agreement not in self._sessions:
                    entry.agreements[agreement] = min(deadline, until)

    def expire(self, now: float) -> None:
        """Close what is past its deadline, in one commit, and retry what could not be removed before."""
        if self._undead:
            self._remove([], "")
        over: list[tuple[_Entry, str]] = []
        for entry in self._entries.values():
            if entry.deadline() <= now:
                over.append((entry, "done" if entry.peers else "deadline"))
            else:
                for agreement in [key for key, until in entry.agreements.items() if until <= now]:
                    del entry.agreements[agreement], self._agreements[agreement]
        for reason in ("done", "deadline"):
            entries = [entry for entry, why in over if why == reason]
            if entries:
                self._remove(entries, reason)

    def adopt(self, alive: Callable[[Owner], bool], now: float) -> None:
        """Take over what an earlier life left in the kernel; what has no living owner or deadline goes.

        Raises BackendError if the kernel cannot be read.
        """
        strays: list[tuple[Pinhole, str]] = []
        for pinhole in self._firewall.list():
            if not pinhole.session and not now < pinhole.deadline <= now + self.policy.lifetime:
                strays.append((pinhole, "deadline passed while no daemon ran"))
            elif not alive(pinhole.owner):
                strays.append((pinhole, "control connection lost while no daemon ran"))
            elif self.policy.refuses(pinhole.service, pinhole.inside.address):
                strays.append((pinhole, "switched off while no daemon ran"))
            elif not self.policy.leaves_free(pinhole.outside.port, pinhole.inside):
                strays.append((pinhole, "a forward in the configuration has its port"))
            elif pinhole.outside in self._outside or _place(pinhole) in self._entries:
                strays.append((pinhole, "duplicate"))
            else:
                agreement = (pinhole.owner, pinhole.cookie)
                entry = _Entry(pinhole, {agreement: pinhole.deadline})
                self._entries[_place(pinhole)] = entry
                self._outside[pinhole.outside] = entry
                self._agreements[agreement] = entry
                if pinhole.session:
                    self._sessions.add(agreement)
                self._observer.opened(pinhole)
        self._undead += [pinhole for pinhole, _ in strays]
        self._remove([], "")
        for pinhole, reason in strays:
            self._observer.closed(pinhole, reason)

    def reinstall(self) -> list[Pinhole]:
        """Put back what somebody else took out of the kernel; returns it. Raises BackendError."""
        if not self._entries:
            return []
        present = {(pinhole.outside, pinhole.inside, pinhole.peer) for pinhole in self._firewall.list()}
        missing = [it for it in self if (it.outside, it.inside, it.peer) not in present]
        if missing:
            self._firewall.commit(missing, [])
        return missing

    def _check(self, wanted: Expectation, host: str) -> None:
        policy = self.policy
        if wanted.inside.address != host:
            raise Refused(f"{wanted.inside.address} is not the address of the host that announces it")
        if reason := policy.refuses(wanted.service, wanted.inside.address):
            raise Refused(reason)
        if not 1024 <= wanted.inside.port <= 65535 or wanted.inside.port in policy.deny_ports:
            raise Refused(f"port {wanted.inside.port} is not one to open")

    def _check_room(self, agreement: tuple[Owner, bytes], host: str | None) -> None:
        """The caps. *host* is where a new pinhole would lead to, or None if a live one is to be shared."""
        policy, known = self.policy, self._agreements.get(agreement)
        if known is None and sum(key[0] == agreement[0] for key in self._agreements) >= policy.per_flow:
            raise Refused(f"{policy.per_flow} agreements on one connection (per_flow)")
        if host is None:
            return
        # An agreement that moves gives its old pinhole up, unless others share it.
        moving = known if known is not None and len(known.agreements) == 1 else None
        staying = [entry.pinhole for entry in self._entries.values() if entry is not moving]
        if sum(pinhole.inside.address == host for pinhole in staying) >= policy.per_host:
            raise Refused(f"{policy.per_host} pinholes to one host (per_host)")
        if len(staying) + len(self._undead) >= policy.total:
            raise Refused(f"{policy.total} pinholes in all (total)")

    def _check_sessions(self, agreement: tuple[Owner, bytes], host: str) -> None:
        """The cap on what stays open for a whole session; an agreement that is renewed counts once."""
        others = sum(key != agreement and key[0].client.address == host for key in self._sessions)
        if others >= self.policy.sessions_per_host:
            raise Refused(f"{others} session-long pinholes to one host (icq_per_host)")

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
        if not self.policy.leaves_free(outside.port, inside):
            return False
        undead = any(pinhole.outside == outside for pinhole in self._undead)
        # Where one address is announced for several, the port alone must say which pinhole is meant.
        taken = self.policy.announce is not None and self._of_port(outside.port) is not None
        return not (undead or taken or outside in self._outside or self._firewall.busy(outside))

    def _of_port(self, port: int) -> _Entry | None:
        return next((entry for outside, entry in self._outside.items() if outside.port == port), None)

    def _end(self, entry: _Entry, agreement: tuple[Owner, bytes], reason: str) -> None:
        if len(entry.agreements) == 1:
            self._remove([entry], reason)
            return
        del entry.agreements[agreement], self._agreements[agreement]
        self._sessions.discard(agreement)
        if entry.pinhole.session and not math.isinf(entry.deadline()):
            self._shorten(entry, reason)

    def _shorten(self, entry: _Entry, reason: str) -> None:
        """The session is over and others share its pinhole: the rule must say so, or a crash makes it
        everlasting. A pinhole that cannot be told is closed."""
        (owner, cookie), deadline = max(entry.agreements.items(), key=lambda item: item[1])
        wanted = replace(entry.pinhole, owner=owner, cookie=cookie, deadline=deadline)
        try:
            self._firewall.commit([wanted], [entry.pinhole])
        except BackendError:
            self._remove([entry], reason)
        else:
            entry.pinhole = wanted

    def _remove(self, entries: list[_Entry], reason: str) -> None:
        """Close *entries* in one commit; what cannot be removed now is tried again at each ``expire``."""
        doomed = self._undead + [entry.pinhole for entry in entries]
        if not doomed:
            return
        for entry in entries:
            for agreement in entry.agreements:
                del self._agreements[agreement]
                self._sessions.discard(agreement)
            del self._entries[_place(entry.pinhole)]
            del self._outside[entry.pinhole.outside]
        try:
            self._firewall.commit([], doomed)
            self._undead = []
        except BackendError as error:
            self._undead = doomed
            reason = f"{reason}; still in the kernel, will be tried again: {error}"
        for entry in entries:
            self._observer.closed(entry.pinhole, reason)


def _place(pinhole: Pinhole) -> tuple[Endpoint, str]:
    """What there can be only one pinhole for: an inside endpoint at an outside address."""
    return (pinhole.inside, pinhole.outside.address)
