"""A LAN that is a VLAN, and a PPP uplink that comes after the daemon, goes, and comes back."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.lab.net import SERVER, WAN, Lab
from tests.lab.scene import eventually
from tests.vm import installation
from tests.vm.router import SLOW, Router, conversation, offers

pytestmark = pytest.mark.timeout(8 * SLOW)
INTERNET = "203.0.113.0/24"
ENV = Path("/etc/nfreaim/rules.env")
VLAN = f"""
ip link add link br-lan name br-lan.20 type vlan id 20
ip address add 10.0.20.1/24 dev br-lan.20
ip link set br-lan.20 up
ip -n vm-alice address flush dev eth0
ip -n vm-alice link add link eth0 name eth0.20 type vlan id 20
ip -n vm-alice address add 10.0.20.5/24 dev eth0.20
ip -n vm-alice link set eth0.20 up
ip -n vm-alice route add default via 10.0.20.1
# The provider hands bob's packets on to its customer.
ip netns exec vm-server sysctl -qw net.ipv4.ip_forward=1
ip -n vm-bob route add {WAN["A"]} via {SERVER}
ip link set eth0 down
"""
FAR = f"ip netns exec vm-server pppd notty nodetach noauth local nodefaultroute {SERVER}:{WAN['A']}"
NEAR = (
    "pppd",
    "pty",
    FAR,
    "nodetach",
    "noauth",
    "local",
    "nodefaultroute",
    f"{WAN['A']}:{SERVER}",
    "unit",
    "0",
)


@contextmanager
def uplink(router: Lab) -> Iterator[None]:
    """The PPP connection, as long as the context is open."""
    pppd = router.spawn("A", *NEAR, log=router.log_file("pppd"))
    try:
        eventually(lambda: _works("ip", "route", "replace", INTERNET, "dev", "ppp0"), SLOW)
        eventually(lambda: _works("ip", "-n", "vm-server", "route", "get", WAN["A"], "oif", "ppp0"), SLOW)
        assert pppd.poll() is None, "pppd has ended"
        yield
    finally:
        pppd.terminate()
        pppd.wait(SLOW)


def _works(*words: str) -> bool:
    return subprocess.run(words, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL).returncode == 0


@pytest.fixture
def router() -> Iterator[Lab]:
    """Served on the VLAN and towards PPP. The network is as it was only after another boot."""
    before = ENV.read_text()
    with Router() as made:
        ENV.write_text('NFREAIM_ARGS="--lan br-lan.20 --wan ppp+"\n')
        try:
            installation.run("sh", "-ec", VLAN)
            installation.run("systemctl", "reload-or-restart", "nfreaim-rules")
            installation.run("systemctl", "restart", "nfreaim")
            yield made
        finally:
            ENV.write_text(before)


def test_a_vlan_is_served_over_ppp_whenever_that_is_there(router: Lab) -> None:
    for _ in range(2):
        with uplink(router), conversation(router) as (alice, bob):
            offers(alice, bob)
