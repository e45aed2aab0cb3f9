"""Services at a port below 1024: only at hosts that the operator lists; outside, a port of the range."""

from __future__ import annotations

import pytest

from nfreaim.config import parse
from nfreaim.core.address import Endpoint, FlowId
from nfreaim.core.firewall.pinhole import Pinhole
from nfreaim.core.firewall.policy import LowPort
from nfreaim.core.helper import Refused
from tests.unit.fakes import OUTSIDE
from tests.unit.pinhole_table import ALICE, AMY, A, B, Table

WEB = {("web", 80): LowPort(frozenset({"10.0.0.5"}), "[protocol] web_hosts")}


def table(**policy: object) -> Table:
    return Table(low_ports=WEB, **policy)


def test_listed_host_gets_a_port_of_the_range() -> None:
    made = table()
    assert made.ask(A, 80, service="web").outside == Endpoint(OUTSIDE, 40000)
    assert made.ask(B, 80, service="web").outside == Endpoint(OUTSIDE, 40000)
    assert made.inside_of(Endpoint(OUTSIDE, 40000)) == Endpoint("10.0.0.5", 80)


def test_range_that_is_used_up_gives_no_port_below_1024() -> None:
    made = table(ports=range(40000, 40001))
    made.ask(A, 40000, service="web")
    with pytest.raises(Refused, match="no free outside port in 40000-40000"):
        made.ask(B, 80, service="web")


@pytest.mark.parametrize(
    ("service", "port", "flow", "said"),
    [
        ("web", 80, AMY, r"port 80 is not one to open unless \[protocol\] web_hosts lists 10\.0\.0\.6"),
        ("web", 81, ALICE, "port 81 is not one to open$"),
        ("web", 443, ALICE, "port 443 is not one to open$"),
        ("other", 80, ALICE, "port 80 is not one to open$"),
    ],
)
def test_everything_else_stays_shut(service: str, port: int, flow: FlowId, said: str) -> None:
    with pytest.raises(Refused, match=said):
        table().ask(A, port, service=service, flow=flow)


def test_denied_port_stays_shut_for_a_listed_host_too() -> None:
    with pytest.raises(Refused, match=r"port 80 is not one to open$"):
        table(deny_ports=frozenset({80})).ask(A, 80, service="web")


def test_without_the_gate_port_80_stays_shut() -> None:
    with pytest.raises(Refused, match="while verify_peers"):
        table(verify_peers=False).ask(A, 80, service="web")


@pytest.mark.parametrize(("listed", "kept"), [(WEB, True), ({}, False)])
def test_pinhole_of_an_earlier_daemon_goes_on_only_while_the_host_is_listed(
    listed: dict[tuple[str, int], LowPort], kept: bool
) -> None:
    made = Table(low_ports=listed)
    found = Pinhole(Endpoint("10.0.0.5", 80), Endpoint(OUTSIDE, 40000), ALICE, A, "web", 100.0)
    made.firewall.pinholes = [found]
    made.adopt(lambda flow: True, 50.0)
    made.consistent()
    assert list(made) == ([found] if kept else [])


@pytest.mark.parametrize(
    ("text", "opens"),
    [
        ('protocols = ["yahoo"]', set()),
        ('protocols = ["yahoo"]\n[yahoo]\nweb_hosts = []', set()),
        ('protocols = ["yahoo"]\n[yahoo]\nweb_hosts = ["10.0.0.5"]', {"10.0.0.5"}),
        ('protocols = ["oscar", "yahoo"]\n[yahoo]\nweb_hosts = ["10.0.0.6"]', {"10.0.0.6"}),
        ('protocols = ["yahoo"]\n[services]\nalso = ["yahoo-file"]', set()),
        ('protocols = ["oscar"]\n[yahoo]\nweb_hosts = ["10.0.0.5"]', set()),
    ],
)
def test_hosts_whose_web_server_may_be_reached(text: str, opens: set[str]) -> None:
    policy = parse(text, "file").pinholes
    hosts = ("10.0.0.5", "10.0.0.6")
    assert {host for host in hosts if not policy.refuses_port("yahoo-file", Endpoint(host, 80))} == opens
