"""FakeWatcher: remembers what it is told."""

from __future__ import annotations

from dataclasses import dataclass, field

from nfreaim.core.address import FlowId
from nfreaim.core.firewall.pinhole import Pinhole
from nfreaim.core.helper import Report


@dataclass
class FakeWatcher:
    """Writes down what it is told."""

    opens: list[Pinhole] = field(default_factory=list)
    claims: list[tuple[Pinhole, str]] = field(default_factory=list)
    closes: list[tuple[Pinhole, str]] = field(default_factory=list)
    reports: list[Report] = field(default_factory=list)

    def opened(self, pinhole: Pinhole) -> None:
        self.opens.append(pinhole)

    def claimed(self, pinhole: Pinhole, peer: str) -> None:
        self.claims.append((pinhole, peer))

    def closed(self, pinhole: Pinhole, reason: str) -> None:
        self.closes.append((pinhole, reason))

    def reported(self, flow: FlowId, protocol: str, report: Report) -> None:
        self.reports.append(report)
