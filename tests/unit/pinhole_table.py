"""A pinhole table with its fakes, and names for what the tests of it say again and again."""

from __future__ import annotations

from collections import Counter
from typing import Any

from nfreaim.core.address import Endpoint, FlowId
from nfreaim.core.firewall.carrying import Connections
from nfreaim.core.firewall.fairness import MachineOf
from nfreaim.core.firewall.pinhole import Origin, Pinhole
from nfreaim.core.firewall.policy import PinholePolicy
from nfreaim.core.firewall.table import PinholeTable
from nfreaim.core.greeting import Field, Greeting
from nfreaim.core.guarded import GuardedFirewall, GuardedObserver
from nfreaim.core.helper import Expectation
from tests.unit.fake_firewall import FakeFirewall
from tests.unit.fake_watcher import FakeWatcher
from tests.unit.fakes import OUTSIDE

SERVER = Endpoint("203.0.113.9", 5190)
ALICE = FlowId(Endpoint("10.0.0.5", 40123), SERVER)
AMY = FlowId(Endpoint("10.0.0.6", 40123), SERVER)
A, B, C = b"COOKIE-A", b"COOKIE-B", b"COOKIE-C"
OFT = ((Field(0, frozenset({b"OFT2"})),),)
ODC = ((Field(0, frozenset({b"ODC2"})),),)


def capped(most: int) -> dict[str, tuple[str, int]]:
    """PinholePolicy.caps: so many standing pinholes for a host."""
    return {"icq-direct": ("icq_per_host", most)}


class Table(PinholeTable):
    """A table with its fakes at hand; it begins at second 0."""

    def __init__(self, **policy: Any) -> None:
        machine: MachineOf = policy.pop("machine", str)
        connections: Connections | None = policy.pop("connections", None)
        self.firewall, self.watcher = FakeFirewall(), FakeWatcher()
        policy.setdefault("caps", capped(4))
        super().__init__(
            PinholePolicy(**policy),
            GuardedFirewall(self.firewall),
            GuardedObserver(self.watcher),
            machine,
            connections,
        )

    def ask(
        self,
        cookie: bytes = A,
        port: int = 5190,
        flow: FlowId = ALICE,
        now: float = 0.0,
        address: str = OUTSIDE,
        peer: str | None = None,
        service: str = "send-file",
        greetings: tuple[Greeting, ...] = OFT,
    ) -> Pinhole:
        inside = Endpoint(flow.client.address, port)
        expectation = Expectation(cookie, service, inside, peer, greetings=greetings)
        pinhole = self.open(flow, expectation, Origin("oscar", flow.client.address, address), now)
        self.consistent()
        return pinhole

    def consistent(self) -> None:
        """The kernel holds what the table says, no more and no less, and nothing is counted twice."""
        live, pinholes = self._index, list(self)
        if not self._unremovable:
            assert set(self.firewall.pinholes) == set(pinholes)
        assert len(live.by_outside) == len(live.by_target) == len(self)
        agreements = [key for entry in live.by_target.values() for key in entry.agreements]
        assert sorted(agreements) == sorted(live.by_agreement)
        assert sorted(agreements) == sorted(
            (flow, name) for flow, all_ in live.flows.items() for name in all_
        )
        assert live.hosts == Counter(pinhole.inside.address for pinhole in pinholes)
        insides = {inside: len(entries) for inside, entries in live.by_inside.items()}
        assert insides == Counter(pinhole.inside for pinhole in pinholes)
        kept = {(live.by_agreement[key].pinhole.inside, limit) for key, limit in live.standing.items()}
        assert live.standing_hosts == Counter(limit for _, limit in kept)
        assert {port for port, known in live._by_port.items() if known} == {p.outside.port for p in pinholes}
        assert all(entry.pinhole.deadline == entry.deadline() for entry in live.by_target.values())

    @property
    def ends(self) -> list[str]:
        return [reason for _, reason in self.watcher.closes]
