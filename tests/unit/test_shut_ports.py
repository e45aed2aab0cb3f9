"""ClosingFirewall and the ports of closed pinholes: what an operator forwards is never shut."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from typing import cast

import pytest

from nfreaim.core.address import Endpoint
from nfreaim.core.firewall.pinhole import Pinhole
from nfreaim.core.firewall.policy import Forward
from nfreaim.host.netfilter.kernel_sets import EndpointSet
from nfreaim.host.pinholes import closing, ipset_firewall, kernel_firewall
from nfreaim.host.pinholes.closing import ClosingFirewall
from nfreaim.marks import DEFAULT
from tests.unit.fakes import OUTSIDE
from tests.unit.pinhole_table import ALICE, A

PORT = 6891


class Kernel:
    """Stands for each object of the kernel that the firewall uses.

    shut  the set of shut ports
    dmz   another rule forwards whatever nobody else gets
    """

    def __init__(self, *_: object) -> None:
        self.shut: list[Endpoint] = []
        self.dmz = False

    def add(self, one: object) -> None:
        if isinstance(one, Endpoint):
            self.shut.append(one)

    def delete(self, one: object) -> None:
        if isinstance(one, Endpoint):
            with suppress(ValueError):
                self.shut.remove(one)

    def has(self, port: int) -> bool:
        return False

    def may_take(self, outside: Endpoint) -> bool:
        return self.dmz

    def set_forwards(self, forwards: Sequence[Forward]) -> None:
        pass


@pytest.fixture
def kernel(monkeypatch: pytest.MonkeyPatch) -> Kernel:
    made = Kernel()
    for module, name in (
        (ipset_firewall, "PinSet"),
        (ipset_firewall, "NatTable"),
        (kernel_firewall, "ForeignForwards"),
        (closing, "UnfinishedConnections"),
    ):
        monkeypatch.setattr(module, name, lambda *_: made)
    monkeypatch.setattr(kernel_firewall, "_taken", lambda outside: False)
    return made


def firewall(kernel: Kernel) -> ClosingFirewall:
    made = ipset_firewall.IpsetFirewall(lambda: 100.0)
    shut = cast(EndpointSet, kernel)
    return ClosingFirewall(
        made, shut, lambda: 100.0, DEFAULT, lambda inside: None, lambda protocol, service: True
    )


def closed(firewall: ClosingFirewall, port: int) -> Endpoint:
    outside = Endpoint(OUTSIDE, port)
    firewall.close(Pinhole(Endpoint("10.0.0.5", port), outside, ALICE, A, "a service", 700.0))
    return outside


def test_port_of_a_closed_pinhole_is_shut(kernel: Kernel) -> None:
    assert [closed(firewall(kernel), PORT)] == kernel.shut


def test_port_that_the_configuration_forwards_stays_open(kernel: Kernel) -> None:
    """Its host may have a pinhole there. When that closes, the forward is still the operator's."""
    made = firewall(kernel)
    made.set_forwards([Forward("10.0.0.5", range(PORT, PORT + 10))])
    closed(made, PORT)
    assert kernel.shut == []
    outside = closed(made, PORT + 10)
    assert kernel.shut == [outside]


def test_port_that_may_be_another_hosts_stays_open(kernel: Kernel) -> None:
    """A host in the LAN that has pinholes closed must not be able to shut the ports of a "DMZ host"."""
    kernel.dmz = True
    closed(firewall(kernel), PORT)
    assert kernel.shut == []
