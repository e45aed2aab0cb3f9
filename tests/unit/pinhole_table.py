"""A pinhole table with its fakes, and names for what the tests of it say again and again."""

from __future__ import annotations

from collections import Counter

from nfreaim.core.address import Endpoint, FlowId
from nfreaim.core.firewall.pinhole import Origin, Pinhole
from nfreaim.core.firewall.policy import PinholePolicy
from nfreaim.core.firewall.table import PinholeTable
from nfreaim.core.guarded import GuardedFirewall, GuardedObserver
from nfreaim.core.helper import Expectation
from tests.unit.fakes import OUTSIDE, FakeFirewall, FakeWatcher

SERVER = Endpoint("203.0.113.9", 5190)
ALICE = FlowId(Endpoint("10.0.0.5", 40123), SERVER)
AMY = FlowId(Endpoint("10.0.0.6", 40123), SERVER)
A, B, C = b"COOKIE-A", b"COOKIE-B", b"COOKIE-C"


def capped(most: int) -> dict[str, tuple[str, int]]:
    """PinholePolicy.caps: so many standing pinholes for a host."""
    return {"icq-direct": ("icq_per_host", most)}


class Table(PinholeTable):
    """A table with its fakes at hand; it begins at second 0."""

    def __init__(self, **policy: object) -> None:
        self.firewall, self.watcher = FakeFirewall(), FakeWatcher()
        policy.setdefault("caps", capped(4))
        super().__init__(
            PinholePolicy(**policy),  # type: ignore[arg-type]
            GuardedFirewall(self.firewall),
            GuardedObserver(self.watcher),
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
    ) -> Pinhole:
        inside = Endpoint(flow.client.address, port)
        expectation = Expectation(cookie, service, inside, peer)
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
        assert live.standing_hosts == Counter(live.standing.values())
        assert {port for port, known in live._by_port.items() if known} == {p.outside.port for p in pinholes}
        assert all(entry.pinhole.deadline == entry.deadline() for entry in live.by_target.values())

    @property
    def ends(self) -> list[str]:
        return [reason for _, reason in self.watcher.closes]
