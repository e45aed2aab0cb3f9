"""Runs on a router with legacy rules: both firewalls go through the same random changes and list the same.

The maps of rules/nfreaim.nft are made beside those rules. Nothing else of that file is loaded.
"""

from __future__ import annotations

import re
import subprocess
from dataclasses import replace
from pathlib import Path

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from nfreaim.core.address import Endpoint
from nfreaim.core.firewall.pinhole import Pinhole
from nfreaim.host.netfilter.firewall_kind import FirewallKind
from nfreaim.host.pinholes.chosen_firewall import kernel_firewall
from nfreaim.host.pinholes.kernel_firewall import KernelFirewall
from tests.lab.on_router import now, pinhole

RULES = Path(__file__).resolve().parents[2] / "rules" / "nfreaim.nft"
PEERS = st.sets(st.sampled_from(["203.0.113.20", "198.51.100.7", "0.0.0.1", "255.255.255.254"]), max_size=3)
PORTS = st.integers(5190, 5194)


def by_outside(pinholes: list[Pinhole]) -> list[Pinhole]:
    return sorted(pinholes, key=lambda pinhole: pinhole.outside)


def make_maps() -> None:
    """Those of the rules' text that pinholes are in."""
    made = re.findall(
        r"^    (?:map|set) nfreaim_(?:pin|any|peer|open|verify) \{(?:[^{}]|\n)*\}", RULES.read_text(), re.M
    )
    assert len(made) == 5
    text = "table ip nfreaim {\n" + "\n".join(made) + "\n}\n"
    subprocess.run(["nft", "-f", "-"], input=text, text=True, check=True, timeout=10)


class Both(RuleBasedStateMachine):
    """The clock runs ahead of the kernel's, which lets no time-out end."""

    def __init__(self) -> None:
        super().__init__()
        self.ahead = 0.0
        self.open: dict[Endpoint, Pinhole] = {}
        self.restart()

    @rule()
    def restart(self) -> None:
        self.both: list[KernelFirewall] = [kernel_firewall(self.clock, kind=kind) for kind in FirewallKind]

    @rule(port=PORTS, peers=PEERS, verify=st.booleans(), other_port=st.booleans(), told=st.booleans())
    def change(self, port: int, peers: set[str], verify: bool, other_port: bool, told: bool) -> None:
        """Open a pinhole, or let others in than before."""
        made = pinhole(port, *sorted(peers))
        outside = made.outside._replace(port=port + 1000) if other_port else made.outside
        earlier = self.open.get(outside)
        made = replace(made, outside=outside, told=made.inside if told else None)
        made = replace(made, verify=verify if earlier is None else earlier.verify)
        for each in self.both:
            each.open(made, earlier)
        self.open[outside] = made

    @precondition(lambda self: self.open)
    @rule(data=st.data(), twice=st.booleans())
    def close(self, data: st.DataObject, twice: bool) -> None:
        pinhole = data.draw(st.sampled_from([*self.open.values()]))
        for each in self.both * (1 + twice):
            each.close(pinhole)
        del self.open[pinhole.outside]

    @rule(seconds=st.floats(0, 30))
    def renew(self, seconds: float) -> None:
        self.ahead += seconds
        told = [each.renew([*self.open.values()]) for each in self.both]
        assert told == [[], []]

    @precondition(lambda self: self.open)
    @rule(data=st.data())
    def lose(self, data: st.DataObject) -> None:
        """Another program removes a pinhole, and the daemon notices."""
        lost = data.draw(st.sampled_from([*self.open.values()]))
        for kind in FirewallKind:
            kernel_firewall(self.clock, kind=kind).close(lost)
        self.ahead += 10.0
        told = [each.renew([*self.open.values()]) for each in self.both]
        assert told == [[lost], [lost]]

    @invariant()
    def same(self) -> None:
        found = [by_outside(each.list()) for each in self.both]
        assert found[0] == found[1] == by_outside([*self.open.values()])
        behind = [{outside: each.behind(outside) for outside in self.open} for each in self.both]
        assert behind[0] == behind[1] == {outside: it.inside for outside, it in self.open.items()}
        ends = [{it.outside: it.deadline for it in each.left()} for each in self.both]
        assert all(abs(ends[0][outside] - ends[1][outside]) <= 1.1 for outside in self.open)

    def clock(self) -> float:
        return now() + self.ahead

    def teardown(self) -> None:
        for each in self.both:
            for left in self.open.values():
                each.close(left)
            each.close_sockets()


if __name__ == "__main__":
    make_maps()
    slow = [HealthCheck.too_slow]
    chosen = settings(max_examples=8, stateful_step_count=20, deadline=None, suppress_health_check=slow)
    run_state_machine_as_test(Both, settings=chosen)
