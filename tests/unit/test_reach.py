"""What peers outside can reach, and that all who name an address of the router say the same."""

from __future__ import annotations

import pytest

from nfreaim.core.address import Endpoint
from nfreaim.core.firewall.policy import PinholePolicy
from nfreaim.core.helper import Refused
from nfreaim.core.reach import Reach, is_private, unreachable
from tests.script_helper import offer
from tests.unit.fakes import OUTSIDE, Router, Wire
from tests.unit.offers import EDITED, PROPOSAL
from tests.unit.wires import HomeWire

BEHIND = "192.168.178.2"  # of a router behind another one
AT_HOME = b"server 10.0.0.9:5190\n"


@pytest.mark.parametrize(
    ("address", "kind"),
    [
        ("10.1.2.3", "private"),
        ("172.31.255.255", "private"),
        ("172.32.0.0", None),
        ("192.168.0.1", "private"),
        ("100.64.0.1", "carrier-grade NAT"),
        ("100.128.0.1", None),
        ("169.254.9.9", "link-local"),
        ("127.0.1.1", "loopback"),
        ("192.0.0.1", "DS-Lite or 464XLAT"),
        ("192.0.0.255", "DS-Lite or 464XLAT"),
        ("192.0.1.0", None),
        ("0.0.0.0", "no address of a host"),
        ("198.17.255.255", None),
        ("198.18.0.1", "for benchmarks"),
        ("198.19.255.255", "for benchmarks"),
        ("198.20.0.0", None),
        ("224.0.0.1", "multicast"),
        ("240.0.0.1", "reserved"),
        ("255.255.255.255", "reserved"),
        ("192.0.2.1", None),
        ("198.51.100.1", None),
        ("203.0.113.1", None),
        ("8.8.8.8", None),
    ],
)
def test_addresses_that_peers_cannot_reach_are_known_by_their_kind(address: str, kind: str | None) -> None:
    assert unreachable(address) == kind


def test_an_address_of_no_network_at_home_is_not_private() -> None:
    assert [is_private(one) for one in ("10.0.0.1", "100.64.0.1", "192.0.0.4", "0.0.0.0", "8.8.8.8")] == [
        True,
        True,
        False,
        False,
        False,
    ]


@pytest.mark.parametrize(
    ("own", "remedy"),
    [
        (BEHIND, "have the router in front forward every port here"),
        ("192.0.0.2", "ask the provider for a public IPv4 address"),
        ("100.64.0.2", "ask the provider for a public IPv4 address"),
        ("198.18.0.2", "have the router in front"),
    ],
)
def test_what_nobody_reaches_is_refused_with_the_remedy(own: str, remedy: str) -> None:
    with pytest.raises(Refused, match=f"peers cannot reach outside address {own} .*; remedy: {remedy}"):
        Reach(None).told(own)
    assert Reach(OUTSIDE).told(own) == OUTSIDE


def test_a_client_in_the_network_between_is_told_the_address_it_came_to() -> None:
    assert Reach(None).told(BEHIND, "192.168.178.20") == BEHIND
    assert Reach(OUTSIDE).told(BEHIND, "192.168.178.20") == OUTSIDE
    with pytest.raises(Refused):
        Reach(None).told(BEHIND, "203.0.113.20")


def test_a_name_is_told_by_its_address_once_that_is_known() -> None:
    reach = Reach("home.example")
    with pytest.raises(Refused, match=r"home\.example is a name that could not be resolved"):
        reach.told(OUTSIDE)
    reach.address = "198.51.100.7"
    assert reach.told(BEHIND) == "198.51.100.7"


def double_nat(announce: str | None) -> Router:
    router = Router(policy=PinholePolicy(announce=announce))
    router.kernel.outside = BEHIND
    router.kernel.reached_at = Endpoint(BEHIND, 5190)
    return router


def test_behind_another_router_everything_that_is_told_names_the_address_of_that_one() -> None:
    assert Wire(double_nat(OUTSIDE)).sign_on().client(PROPOSAL) == EDITED
    wire = HomeWire(double_nat(OUTSIDE)).begun()
    assert wire.told(AT_HOME) == b"server %s:5190\n" % OUTSIDE.encode()
    assert wire.told(PROPOSAL) == EDITED
    assert [str(one.outside) for one in wire.router.pinholes] == [f"{BEHIND}:5190"]


def test_behind_another_router_without_its_address_nothing_is_told() -> None:
    wire = Wire(double_nat(None)).sign_on()
    assert wire.client(PROPOSAL) == PROPOSAL
    home = HomeWire(double_nat(None)).begun()
    assert home.told(PROPOSAL) == PROPOSAL
    for one in (wire, home):
        assert f"peers cannot reach outside address {BEHIND}" in one.router.watcher.reports[-1].reason
        assert not len(one.router.pinholes)


def test_other_servers_at_home_are_told_at_the_address_of_the_router_in_front() -> None:
    wire = HomeWire(double_nat(OUTSIDE)).begun()
    nat, kernel = wire.stored.nat, wire.router.kernel
    assert nat is not None
    kernel.forwards[Endpoint("10.0.0.9", 1864)] = 11864
    assert nat.outside_of(Endpoint("10.0.0.9", 1864)) == Endpoint(OUTSIDE, 11864)
    with pytest.raises(Refused, match=f"no rule forwards a port of {BEHIND}"):
        nat.outside_of(Endpoint("10.0.0.8", 1864))


def test_who_may_speak_for_whom_is_asked_with_the_endpoint_of_this_router() -> None:
    router = double_nat(OUTSIDE)
    asked: list[Endpoint] = []
    router.kernel.why_not = lambda flow, reached, host: asked.append(reached)  # type: ignore[method-assign]
    HomeWire(router).begun().told(PROPOSAL)
    assert asked == [Endpoint(BEHIND, 5190)]


def test_a_name_whose_address_changes_is_followed_by_all() -> None:
    router = double_nat("home.example")
    wire = Wire(router).sign_on()
    assert wire.client(PROPOSAL) == PROPOSAL
    for number, address in enumerate(("198.51.100.7", "198.51.100.8")):
        router.pinholes.reach.address = address
        told = Endpoint(address, 5190)
        assert wire.client(offer(b"%07d" % number)) == offer(b"%07d" % number, at=told)
        assert router.pinholes.inside_of(told) == Endpoint("10.0.0.5", 5190)
        assert wire.stored.nat is not None
        assert wire.stored.nat.is_ours(address)
    assert router.pinholes.inside_of(Endpoint("198.51.100.7", 5190)) is None
