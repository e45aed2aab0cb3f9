"""Room: whether one more pinhole keeps the limits, where it is opened, and which other one gives way."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable
from dataclasses import replace
from typing import Final, NamedTuple

from nfreaim.core.address import Endpoint
from nfreaim.core.firewall.fairness import ByMachine, Machines, giving_way
from nfreaim.core.firewall.index import AgreementKey, Entry, PinholeIndex
from nfreaim.core.firewall.mapping import Mappings
from nfreaim.core.firewall.pinhole import Firewall, Origin, Pinhole
from nfreaim.core.firewall.policy import PinholePolicy
from nfreaim.core.firewall.reserved import Reserved
from nfreaim.core.helper import Expectation, Refused

_LOWEST: Final = 1024  # those below belong to the router's own services
# Of one flow: a client publishes one endpoint, but a server inside tells a client of all its contacts.
_MOST_STANDING: Final = 64


def check(wanted: Expectation, host: str, policy: PinholePolicy, verifies: bool) -> Expectation:
    """What *policy* says, whatever is open: only *host* may be named. Raises Refused.

    verifies  first bytes can be looked at; the expectation that is returned has no greetings if they are not
    """
    if wanted.inside.address != host:
        raise Refused(f"{wanted.inside.address} is not the address of the host that announces it")
    if reason := policy.refuses(wanted.service, wanted.inside.address):
        raise Refused(reason)
    if reason := policy.refuses_port(wanted.service, wanted.inside, verifies):
        raise Refused(reason)
    return wanted if verifies and policy.verify_peers else replace(wanted, greetings=())


class Place(NamedTuple):
    """Where a pinhole can be opened: its outside endpoint; the one of the router in front that is mapped to
    it, if that counts; the entry that has to give way.
    """

    outside: Endpoint
    told: Endpoint | None
    victim: Entry | None

    def pinhole(
        self, agreement: AgreementKey, wanted: Expectation, protocol: str, deadline: float, now: float
    ) -> Pinhole:
        """The pinhole that is opened here."""
        return Pinhole(
            wanted.inside,
            self.outside,
            flow=agreement[0],
            agreement=wanted.agreement,
            service=wanted.service,
            deadline=deadline,
            peers=wanted.peers,
            since=now,
            verify=bool(wanted.greetings),
            protocol=protocol,
            unverified=wanted.unverified,
            told=self.told,
        )


class Room:
    """Opens and closes nothing.

    index        the open pinholes
    unremovable  outside endpoints of those that could not be closed: they count as well
    reserved     ports that messages on their way name: others get them only where a pinhole gives way
    mappings     of the router in front
    """

    def __init__(
        self,
        policy: PinholePolicy,
        firewall: Firewall,
        index: PinholeIndex,
        unremovable: Collection[Endpoint],
        mappings: Mappings,
        machines: Machines,
    ) -> None:
        self._mappings = mappings
        self.policy, self._firewall, self._index = policy, firewall, index
        self._unremovable = unremovable
        self._machines, self._by_machine = machines, ByMachine(machines)
        self._next_port = 0
        self.reserved = Reserved(policy)

    def obey(self, policy: PinholePolicy) -> None:
        """From now on *policy* counts."""
        self.policy = self.reserved.policy = policy

    def check(self, agreement: AgreementKey, wanted: Expectation, new: bool) -> None:
        """The limits of a flow and of a host. *new*: no open pinhole is to be shared. Raises Refused."""
        policy = self.policy
        if self.flow_is_full(agreement, wanted.standing):
            if wanted.standing:
                raise Refused(f"{_MOST_STANDING} published endpoints on one connection")
            raise Refused(f"{policy.per_flow} agreements on one connection (per_flow)")
        if new and self.host_is_full(agreement, wanted.inside.address):
            raise Refused(f"{policy.per_host} pinholes to one host (per_host)")

    def flow_is_full(self, agreement: AgreementKey, standing: bool) -> bool:
        """Whether its flow has as many others of its kind as it may have.

        Those that stand are counted apart: they are there all the time, and no transfer waits for one.
        """
        index, flow = self._index, agreement[0]
        if agreement in index.by_agreement:
            return False
        alike = sum(((flow, name) in index.standing) is standing for name in index.flows.get(flow, ()))
        return alike >= (_MOST_STANDING if standing else self.policy.per_flow)

    def host_is_full(self, agreement: AgreementKey, host: str) -> bool:
        """Whether as many pinholes lead to *host* as may, without the one that *agreement* gives up."""
        moving = self._moving(agreement)
        from_host = moving is not None and moving.pinhole.inside.address == host
        return self._index.hosts[host] - from_host >= self.policy.per_host

    def cap(self, agreement: AgreementKey, wanted: Expectation, entry: Entry | None) -> str:
        """The name of the limit that counts this standing agreement; renewed, it counts once.

        entry  the open pinhole that it will share: a pinhole counts once, however many were told of it

        Raises Refused.
        """
        name, most = self.policy.caps.get(wanted.service, ("", 0))
        counted = (name, wanted.inside.address)
        index = self._index
        if entry is not None and index.stands(entry, counted, agreement):
            return name
        others, own = index.standing_hosts[counted], index.by_agreement.get(agreement)
        if own is not None and index.standing.get(agreement) == counted:
            others -= not index.stands(own, counted, agreement)
        if name and others >= most:
            raise Refused(f"{others} session-long pinholes to one host ({name})")
        return name

    def full(self, agreement: AgreementKey) -> bool:
        """Whether one more pinhole, for *agreement*, would be more than there may be in all."""
        moves = self._moving(agreement) is not None
        return len(self._index.by_target) + len(self._unremovable) - moves >= self.policy.total

    def place(self, agreement: AgreementKey, wanted: Expectation, origin: Origin, now: float) -> Place:
        """Where a pinhole for *wanted* can be opened at the address of *origin*.

        The port is the announced one where that is free, above 1023 and reaches this router, else one of the
        configured ranges. Where the router in front has to map it, it is one of those that are mapped.
        Raises Refused.
        """
        inside, address = wanted.inside, origin.address
        if origin.mapped:
            outside, told = self._mapped(wanted, address, now)
            return Place(outside, told, self._making_room(agreement, inside.address, now))
        found, victim = self._free_port(inside, address, now), None
        if found is None:
            # A small range of ports is soon used up, so it takes more than one pinhole more to lose one.
            lead = max(2, self.policy.per_host // 2)
            victim = self._giving_way(lambda: self._in_the_way(inside, address), inside.address, now, lead)
            if victim is None:
                ports = self.policy.ports
                raise Refused(f"no free outside port in {ports[0]}-{ports[-1]}")
            found = Endpoint(address, victim.pinhole.outside.port)
        else:
            victim = self._making_room(agreement, inside.address, now)
        return Place(found, None, victim)

    def spare(self, address: str, but: Collection[Endpoint]) -> Endpoint | None:
        """An outside endpoint at *address*, none of *but*, that the router in front may map to anybody."""
        nobody = Endpoint("", 0)
        found = (Endpoint(address, port) for port in self.policy.ports)
        return next((one for one in found if one not in but and self._free(one, nobody)), None)

    def _mapped(self, wanted: Expectation, address: str, now: float) -> tuple[Endpoint, Endpoint]:
        """One of the mapped endpoints at *address* that is free, and where it is reached. Raises Refused."""
        mapped = list(self._mappings.free(address))
        free = [one for one in mapped if self._unclaimed(one[0], wanted.inside, now)]
        if not free:
            raise Refused(
                f"the router in front has mapped {len(mapped)} ports to {address}, and all are in use"
                if mapped
                else f"the router in front has mapped no port to {address} (yet); see the log"
            )
        fitting = (
            one for one in free if wanted.widths in (None, (len(one[1].address), len(str(one[1].port))))
        )
        return next(fitting, free[0])

    def _making_room(self, agreement: AgreementKey, host: str, now: float) -> Entry | None:
        """The entry that gives way to one more pinhole, for *host*; None: there is room. Raises Refused."""
        if not self.full(agreement):
            return None
        victim = self._giving_way(self._index.by_target.values, host, now)
        if victim is None:
            raise Refused(f"{self.policy.total} pinholes in all (total); no host has two more than this one")
        return victim

    def taken(self, host: str, now: float) -> None:
        """A pinhole was opened for *host*. Its machine is known now: later it may not answer any more."""
        if 2 * len(self._index.by_target) >= self.policy.total:
            self._machines.of(host, now)

    def has(self, agreement: AgreementKey, outside: Endpoint, inside: Endpoint) -> bool:
        """Whether a pinhole from *outside* to *inside* fits now."""
        return self._free(outside, inside) and not self.full(agreement)

    def _moving(self, agreement: AgreementKey) -> Entry | None:
        """The pinhole that *agreement* gives up when it moves: its own, unless others share it."""
        known = self._index.by_agreement.get(agreement)
        return known if known is not None and len(known.agreements) == 1 else None

    def _giving_way(
        self, entries: Callable[[], Iterable[Entry]], host: str, now: float, lead: int = 2
    ) -> Entry | None:
        held, most = self._by_machine.of(self._index.hosts, self._index.changes, now)
        mine = held[self._machines.of(host, now)]
        if most - mine < lead:  # whatever the entries are
            return None
        return giving_way(entries(), held, mine, lambda address: self._machines.of(address, now), lead)

    def _free_port(self, inside: Endpoint, address: str, now: float) -> Endpoint | None:
        own = inside.port >= _LOWEST and self.policy.arrives(inside.port)
        if own and self._unclaimed(Endpoint(address, inside.port), inside, now):
            return Endpoint(address, inside.port)
        ports = self.policy.ports
        for step in range(len(ports)):
            index = (self._next_port + step) % len(ports)
            if self._unclaimed(Endpoint(address, ports[index]), inside, now):
                self._next_port = index + 1
                return Endpoint(address, ports[index])
        return None

    def _in_the_way(self, inside: Endpoint, address: str) -> list[Entry]:
        """The pinholes without which a port would be free for *inside*."""
        policy = self.policy
        ports = [port for port in (inside.port, *policy.ports) if policy.leaves_free(port, inside)]
        ports = [port for port in ports if policy.arrives(port)]
        if self.policy.announce is not None:
            found = [self._index.of_port(port) for port in ports]
        else:
            found = [self._index.by_outside.get(Endpoint(address, port)) for port in ports]
        return [entry for entry in found if entry is not None]

    def _unclaimed(self, outside: Endpoint, inside: Endpoint, now: float) -> bool:
        return self.reserved.free_for(outside, inside.address, now) and self._free(outside, inside)

    def _free(self, outside: Endpoint, inside: Endpoint) -> bool:
        if outside in self._index.by_outside or outside in self._unremovable:
            return False
        # Where one address is announced for several, the port alone must say which pinhole is meant.
        if self.policy.announce is not None and self._index.of_port(outside.port) is not None:
            return False
        if not self.policy.leaves_free(outside.port, inside):
            return False
        # A client on this router listens there itself.
        taken = self._firewall.forwarded if outside == inside else self._firewall.busy
        return not taken(outside)
