"""ToldTable: a PinholeTable that also tells what helpers ask of it, whether a pinhole comes of it or not."""

from __future__ import annotations

from collections.abc import Callable

from nfreaim.core.address import Endpoint, FlowId
from nfreaim.core.firewall.pinhole import Firewall, Observer, Origin, Pinhole
from nfreaim.core.firewall.policy import PinholePolicy
from nfreaim.core.firewall.table import PinholeTable
from nfreaim.core.helper import Expectation
from nfreaim.replay.outcome import Kind

Tell = Callable[[Kind, FlowId, bytes, str, Endpoint | None], None]
"""Takes the parts of a Step behind its frame: kind, flow, agreement, reason, outside endpoint."""


class ToldTable(PinholeTable):
    """See the head of this module; *tell* is told."""

    def __init__(self, policy: PinholePolicy, firewall: Firewall, observer: Observer, tell: Tell) -> None:
        super().__init__(policy, firewall, observer)
        self._tell = tell

    def open(self, flow: FlowId, expectation: Expectation, origin: Origin, now: float) -> Pinhole:
        """See PinholeTable."""
        pinhole = super().open(flow, expectation, origin, now)
        self._tell("expected", flow, expectation.agreement, "", pinhole.outside)
        return pinhole

    def offered(self, flow: FlowId, expectation: Expectation, now: float) -> None:
        """See PinholeTable."""
        super().offered(flow, expectation, now)
        self._tell("expected", flow, expectation.agreement, "", None)

    def accepted(self, flow: FlowId, agreement: bytes, now: float) -> None:
        """See PinholeTable."""
        super().accepted(flow, agreement, now)
        self._tell("accepted", flow, agreement, "", None)

    def close(self, flow: FlowId, agreement: bytes, reason: str) -> None:
        """See PinholeTable."""
        super().close(flow, agreement, reason)
        self._tell("ended", flow, agreement, reason, None)

    def close_flow(self, flow: FlowId, reason: str, now: float | None = None) -> None:
        """See PinholeTable."""
        super().close_flow(flow, reason, now)
        self._tell("over", flow, b"", reason, None)
