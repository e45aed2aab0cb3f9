"""What tests/lab/test_firewalls.py lets happen on a router, with either firewall: what both have to do alike.

``python -m tests.lab.firewalls_on_router NAME`` runs one of the functions below in the router's namespace;
NFREAIM_FIREWALL in the environment says which rules are installed.
"""

from __future__ import annotations

import math
import re
import subprocess
import sys
import time
from dataclasses import replace
from ipaddress import IPv4Network

from nfreaim.core.address import Endpoint, FlowId
from nfreaim.core.backend import Followed
from nfreaim.core.firewall.pinhole import Pinhole
from nfreaim.core.firewall.policy import Forward
from nfreaim.host.netfilter.firewall_kind import FirewallKind, KernelSets, firewall_kind
from nfreaim.host.netfilter.kernel_sets import FlowEntry
from nfreaim.host.netfilter.names import (
    LAN_SET,
    MOST_SHUT,
    OFFLOAD_SET,
    SERVER_SET,
    SETS,
    SHUT_SET,
    SKEW_SET,
)
from nfreaim.host.netfilter.queue_control import LinuxQueueControl
from nfreaim.host.pinholes import leases
from nfreaim.host.pinholes.chosen_firewall import kernel_firewall
from nfreaim.host.pinholes.kernel_firewall import KernelFirewall
from tests.lab.on_router import FLOW, OUTSIDE, by_port, now, pinhole, refused


def firewall() -> KernelFirewall:
    return kernel_firewall(now)


def flows_come_and_go() -> None:
    flows = KernelSets().flows(OFFLOAD_SET)
    entry = FlowEntry(FLOW.client, FLOW.server.address)
    for _ in range(2):
        flows.add(FLOW)
        assert flows.entries() == [entry]
        assert flows.has(FLOW)
        assert flows.has(entry)
    assert not flows.has(FlowId(FLOW.server, FLOW.client))
    for _ in range(2):
        flows.delete(FLOW)
        assert flows.entries() == []
        assert not flows.has(FLOW)
    for port in range(2000):
        flows.add(FlowId(Endpoint("10.0.0.5", 1024 + port), FLOW.server))
    assert len(flows.entries()) == 2000
    flows.flush()
    assert flows.entries() == []
    flows.close()


def a_set_that_is_missing_says_so() -> None:
    sets = KernelSets()
    flows = sets.flows("nfreaim_nobodys")
    assert not flows.has(FLOW)
    for work in (flows.add, flows.delete):
        assert "are the rules installed?" in refused(work, FLOW)
    for other in (flows.entries, flows.flush, sets.endpoints("nfreaim_nobodys").entries):
        assert "are the rules installed?" in refused(other)
    networks = sets.networks("nfreaim_nobodys")
    assert "are the rules installed?" in refused(networks.networks)
    assert "are the rules installed?" in refused(networks.covers, "10.0.0.5")
    presence = sets.presence()
    assert not presence.of("nfreaim_nobodys")
    assert all(presence.of(name) for name in SETS)


def followed_servers_keep_client_protocol_and_time() -> None:
    servers = KernelSets().followed(SERVER_SET)
    one, other = (Followed(Endpoint("203.0.113.9", 4443), f"10.0.0.{host}", "irc") for host in (5, 6))
    servers.add(one, 100)
    servers.add(other, 180)
    servers.add(one, 20)
    found = dict(servers.entries())
    assert found.keys() == {one, other}
    assert 18 <= found[one] <= 20
    assert 178 <= found[other] <= 180
    for _ in range(2):
        servers.delete(other)
    assert [followed for followed, _ in servers.entries()] == [one]
    control = LinuxQueueControl(now, KernelSets())
    assert [followed for followed, _ in control.load()] == [one]
    control.queue_server(other)
    servers.delete(one)
    servers.delete(other)
    assert set(control.put_back()) == {one, other}
    assert control.put_back() == []
    assert {followed for followed, _ in servers.entries()} == {one, other}


def endpoints_are_bounded() -> None:
    shut = KernelSets().endpoints(SHUT_SET)
    some = [Endpoint(OUTSIDE, 2000 + number) for number in range(MOST_SHUT)]
    for each in some:
        shut.add(each)
    shut.add(some[0])
    assert set(shut.entries()) == set(some)
    assert SHUT_SET in refused(_fill, Endpoint(OUTSIDE, 30000))
    shut.delete(some[0])
    shut.delete(some[0])
    assert some[0] not in shut.entries()


def _fill(first: Endpoint) -> None:
    """ipset takes some more than it promises."""
    shut = KernelSets().endpoints(SHUT_SET)
    for number in range(1024):
        shut.add(first._replace(port=first.port + number))


def networks_in_one_another_keep_their_edges() -> None:
    inside = KernelSets().networks(LAN_SET)
    assert inside.networks() == {IPv4Network("10.0.0.0/24")}
    nested = ("10.0.0.0/24", "10.0.0.0/8", "10.0.1.0/24", "192.168.0.0/16", "172.16.5.5/32")
    wanted = {*map(IPv4Network, nested)}
    for _ in range(2):
        for network in wanted:
            inside.add(network)
        assert inside.networks() == wanted
    for address in ("10.0.0.5", "10.255.255.255", "192.168.0.0", "172.16.5.5"):
        assert inside.covers(address), address
    for address in ("9.255.255.255", "11.0.0.0", "192.167.255.255", "192.169.0.0", "172.16.5.4", "0.0.0.0"):
        assert not inside.covers(address), address
    assert {it for it in ("10.0.0.255", "10.0.1.0", "10.0.2.0", "172.16.5.5") if inside.is_edge(it)} == {
        "10.0.0.255",
        "10.0.1.0",
    }
    for _ in range(2):
        inside.remove(IPv4Network("10.0.0.0/8"))
    assert inside.networks() == wanted - {IPv4Network("10.0.0.0/8")}
    for network in wanted:
        inside.remove(network)
    assert not inside.filled()
    assert not inside.covers("10.0.0.5")


def pinholes_read_back_as_written() -> None:
    pins = firewall()
    everybody, one, two = pinhole(5190), pinhole(5191, "203.0.113.20"), pinhole(5192, "1.2.3.4", "5.6.7.8")
    far = Endpoint("255.255.255.255", 65535)
    longest = replace(
        pinhole(5193),
        service="f" * 32,
        agreement=b"12345678",
        flow=FlowId(far, far),
        verify=True,
        deadline=math.inf,
    )
    told = Endpoint("198.51.100.99", 5195)
    moved = replace(pinhole(5194), outside=Endpoint(OUTSIDE, 40000), unverified="tls", told=told)
    pinholes = [everybody, one, two, longest, moved]
    for each in pinholes:
        pins.open(each, None)
    assert by_port(pins.list()) == by_port(pinholes)
    again = firewall()
    assert by_port(again.list()) == by_port(pinholes)
    assert again.behind(moved.outside) == moved.inside
    assert all(20 <= each.deadline - now() <= 26 for each in again.left())
    narrow = replace(everybody, peers=("9.9.9.9",))
    pins.open(narrow, everybody)
    wide = replace(one, peers=())
    pins.open(wide, one)
    fewer = replace(two, peers=("5.6.7.8",), deadline=now() + 10)
    pins.open(fewer, two)
    found = {each.outside: each for each in pins.list()}
    assert found[narrow.outside] == narrow
    assert found[wide.outside] == wide
    assert found[fewer.outside].peers == ("5.6.7.8",)
    assert {each.verify for each in found.values()} == {False, True}
    for each in [narrow, wide, fewer, longest, moved, narrow]:  # one of them is gone already
        pins.close(each)
    assert pins.list() == []
    assert pins.behind(moved.outside) is None


def what_cannot_be_changed_stays_as_it_was() -> None:
    pins = firewall()
    first = pinhole(5190)
    pins.open(first, None)
    impossible = replace(first, peers=("1.2.3.4",), service="x" * 300)  # more than a comment may have
    refused(pins.open, impossible, first)
    assert pins.list() == [first]
    refused(pins.open, replace(pinhole(5191), service="x" * 300), None)
    assert pins.list() == [first]


def forwards_are_replaced_as_a_whole() -> None:
    pins = firewall()
    one = Forward("10.0.0.6", range(6000, 6011))
    others = [one, Forward("10.0.0.5", range(65535, 65536)), Forward("10.0.0.9", range(6011, 6012))]
    pins.set_forwards(others)
    assert pins.forwards() == others
    pins.set_forwards([one])
    assert firewall().forwards() == [one]
    pins.open(pinhole(5190), None)
    pins.clear()
    assert pins.forwards() == []


def short_time_outs_are_renewed_and_nothing_else_changes() -> None:
    pins = firewall()
    standing = replace(pinhole(5190), deadline=math.inf, verify=True)
    long, brief = pinhole(5191, "203.0.113.20", "203.0.113.21"), pinhole(5192, lasting=3.2)
    for each in (standing, long, brief):
        pins.open(each, None)
    leases.RENEW_AFTER_S = 1.0  # type: ignore[misc]
    for _ in range(6):
        assert pins.renew([each for each in (standing, long, brief) if each.deadline > now()]) == []
        assert all(22 <= it.deadline - now() <= 26 for it in pins.left() if it.outside != brief.outside)
        time.sleep(0.8)
    assert by_port(pins.list()) == [standing, long], "the deadline of one is over"
    pins.close(standing)
    assert pins.renew([long]) == []
    assert pins.list() == [long], "what was closed is not renewed"


def what_nobody_renews_ends_by_itself() -> None:
    """As after the daemon's death, and after a pause of its that is no damage of somebody else's."""
    leases.LEASE_S = 2  # type: ignore[misc]
    pins = firewall()
    standing = replace(pinhole(5190), deadline=math.inf)
    pins.open(standing, None)
    time.sleep(3.2)
    assert pins.list() == []
    assert pins.renew([standing]) == []
    assert pins.list() == [standing]


def what_others_removed_is_told() -> None:
    pins = firewall()
    others = [replace(pinhole(6000 + number), deadline=math.inf, verify=True) for number in range(100)]
    one = pinhole(5190, "203.0.113.20")
    for each in (one, *others):
        pins.open(each, None)
    leases.RENEW_AFTER_S = -1.0  # type: ignore[misc]
    firewall().close(one)
    assert pins.renew([one, *others]) == [one]
    assert pins.renew([one, *others]) == []
    empty()
    assert set(pins.renew([one, *others])) == {one, *others}
    assert by_port(pins.list()) == [one, *others]


def empty() -> None:
    """As another program does."""
    if firewall_kind() is FirewallKind.LEGACY:
        words = "ipset flush nfreaim_pin"
    else:
        words = "nft flush map ip nfreaim nfreaim_pin; nft flush map ip nfreaim nfreaim_any"
    subprocess.run(["sh", "-ec", words], check=True, timeout=10)


def what_was_saved_can_be_loaded_again() -> None:
    """Of nftables: an operator saves the ruleset, and one line that nft cannot read loses the whole of it."""
    pins = firewall()
    long = replace(pinhole(5191, "203.0.113.20"), service="f" * 32, deadline=math.inf, unverified="tls")
    for each in (pinhole(5190), long):
        pins.open(each, None)
    pins.set_forwards([Forward("10.0.0.6", range(6000, 6011))])
    text = subprocess.run(["nft", "list", "ruleset"], capture_output=True, text=True, check=True).stdout
    # Where the kernel lacks nft's queue statement, the table has a target of iptables, which nft cannot read.
    text = re.sub(r"counter packets \d+ bytes \d+ (?:xt target|# xt_|queue).*", "accept", text)
    assert "nfreaim_any" in text
    subprocess.run(["nft", "-f", "-"], input=f"flush ruleset\n{text}", text=True, check=True)
    assert {each.outside for each in firewall().list()} == {Endpoint(OUTSIDE, 5190)}
    assert len(KernelSets().networks(LAN_SET).networks()) == 1


def edited_connections_are_protected() -> None:
    """As the flow store uses the set: an entry is renewed, and put back."""
    skewed = KernelSets().flows(SKEW_SET)
    skewed.add(FLOW)
    skewed.add(FLOW)
    assert KernelSets().flows(SKEW_SET).entries() == [FlowEntry(FLOW.client, FLOW.server.address)]


def a_thousand_are_renewed_in_slices() -> None:
    pins = firewall()
    opened = [_numbered(number) for number in range(1024)]
    began = time.perf_counter()
    for each in opened:
        pins.open(each, None)
    print(f"{(time.perf_counter() - began) / 1024 * 1e6:.0f} µs to open one")
    leases.RENEW_AFTER_S = 1.0  # type: ignore[misc]
    time.sleep(3.0)
    took = []
    for _ in range(4):
        assert max(it.deadline for it in pins.left()) <= now() + 25.5
        began = time.perf_counter()
        assert pins.renew(opened) == []
        took.append((time.perf_counter() - began) * 1000)
    left = pins.left()
    assert len(left) == 1024
    assert min(it.deadline for it in left) >= now() + 20, "each was renewed once"
    print("milliseconds of each renewal:", *(f"{one:.1f}" for one in took))


def _numbered(number: int) -> Pinhole:
    inside = Endpoint(f"10.0.0.{5 + number // 32}", 20000 + number)
    return replace(pinhole(5190), inside=inside, outside=Endpoint(OUTSIDE, 20000 + number), deadline=math.inf)


if __name__ == "__main__":
    globals()[sys.argv[1]](*sys.argv[2:])
