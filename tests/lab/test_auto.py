"""Interfaces that nobody named: a router of any firewall is served, and what is none opens nothing."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from nfreaim.host.auto.set_up_watch import TAKE_OVER
from tests.lab.kernel_sets import MARKS
from tests.lab.net import CORE, Daemon, Lab, Variant
from tests.lab.router import Router
from tests.lab.scene import Scene, eventually
from tests.lab.standin import Transfer

NFREAIM = (sys.executable, "-m", "nfreaim")


def start_unnamed(lab: Lab, settings: Path) -> Daemon:
    """The daemon as its unit starts it."""
    log = lab.log_file("auto")
    words = (*NFREAIM, "run", "--auto", "--config", str(settings))
    return Daemon(lab.spawn("A", *words, log=log, environment={"PYTHONUNBUFFERED": "1"}), log)


@pytest.mark.parametrize("variant", ["legacy", "nft", "native-nft"])
def test_a_router_is_served_that_nobody_described(variant: Variant) -> None:
    with Lab(variant) as lab:
        settings = lab.dir / "nfreaim.toml"
        native = 'native_accept = ["inet router forward"]\n'  # which drops what nobody has accepted
        settings.write_text(native if variant == "native-nft" else "")
        before = lab.firewall_rules("A")
        made = Scene(lab)
        made.daemons["A"] = start_unnamed(lab, settings)
        made.daemon.wait_ready()
        alice, bob = made.clients(made.server(), ("alice", "alice"), ("bob", "bob"))
        assert Transfer(alice, bob, "file").outcome().first_attempt, made.daemon.log_text()
        assert made.daemon.stop() == 0
        installed = lab.firewall_rules("A")
        assert MARKS in installed, "the rules stay for the next daemon"
        for words in (("install", "--auto", "--config", str(settings)), ("remove",)):
            lab.run("A", *NFREAIM, "rules", *words)
        assert lab.firewall_rules("A") == before


@pytest.fixture
def router() -> Iterator[Router]:
    with Router() as made:
        made.shell(
            "ip route add default via 203.0.113.9; iptables-nft -t nat -A POSTROUTING -o wan -j MASQUERADE"
        )
        yield made


def said(router: Router, settings: Path) -> str:
    """What the rules' unit says, which installs nothing, and ends well."""
    before = router.state()
    done = router.on("router", *NFREAIM, "rules", "install", "--auto", "--config", str(settings))
    assert router.state() == before
    return done.stderr


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ("echo 0 >/proc/sys/net/ipv4/ip_forward", "IPv4 forwarding is off"),
        ("ip route del default", "there is no IPv4 default route in the main table"),
        (
            "ip route del default; ip route add default via 203.0.113.9 table 7; ip rule add table 7",
            "there is no IPv4 default route in the main table",
        ),
        (  # IPv6 alone
            "ip -4 address flush dev wan; ip -6 address add 2001:db8::1/64 dev wan nodad;"
            " ip -6 route add default via 2001:db8::9 dev wan",
            "there is no IPv4 default route in the main table",
        ),
        (
            "ip link set lan down; ip link set lan name lan+; ip link set lan+ up",
            'the settings cannot have the name of "lan+"',
        ),
        ("ip route add default via 10.0.0.9 metric 9", "there are several IPv4 default routes (by wan, lan)"),
        ("iptables-nft -t nat -F", "no rule masquerades 10.0.0.0/24 on lan on its way out by wan"),
        ("ip address add 198.51.100.1/24 dev lan", "no link but wan has a private network"),
        ("ip link set lan down; ip link set lan name wg0; ip link set wg0 up", "no link but wan has"),
        (
            "iptables-nft -t nat -F; iptables-legacy -t nat -A POSTROUTING -s 172.17.0.0/16 ! -o docker0"
            " -j MASQUERADE",
            "no rule masquerades",
        ),
    ],
)
def test_what_is_no_router_gets_no_rules_and_is_told_what_to_write(
    router: Router, tmp_path: Path, change: str, why: str
) -> None:
    settings = tmp_path / "nfreaim.toml"
    settings.write_text("")
    router.shell(change)
    told = said(router, settings)
    assert why in told
    assert f"write into {settings}: lan = [" in told


def test_several_default_routes_by_one_interface_are_one(router: Router, tmp_path: Path) -> None:
    settings = tmp_path / "nfreaim.toml"
    settings.write_text("")
    router.shell("ip route add default via 203.0.113.77 metric 50")
    words = ("rules", "install", "--auto", "--config", str(settings))
    assert "nobody is served" not in router.on("router", *NFREAIM, *words).stderr
    status, shown = router.show()
    assert status == 0
    assert "-i lan " in shown or "--lan lan" in shown


def test_a_daemon_that_waits_begins_when_it_becomes_a_router_or_is_told_the_interfaces(
    tmp_path: Path,
) -> None:
    with Lab() as lab:
        settings = tmp_path / "nfreaim.toml"
        settings.write_text("")
        lab.run("A", "sh", "-c", "echo 0 >/proc/sys/net/ipv4/ip_forward")
        before = lab.firewall_rules("A")
        daemon = start_unnamed(lab, settings)
        daemon.wait_log("nobody is served")
        assert "IPv4 forwarding is off" in daemon.log_text()
        assert lab.firewall_rules("A") == before
        lab.run("A", "sh", "-c", "echo 1 >/proc/sys/net/ipv4/ip_forward")
        daemon.wait_log("ready: serving queue")
        assert daemon.stop() == 0
        lab.run("A", *NFREAIM, "rules", "remove")
        lab.run("A", "sh", "-c", "echo 0 >/proc/sys/net/ipv4/ip_forward")
        daemon = start_unnamed(lab, settings)
        daemon.wait_log("nobody is served")
        settings.write_text('lan = ["lan"]\nwan = ["wan"]\n')
        daemon.wait_log("ready: serving queue")
        assert daemon.stop() == 0


def test_a_restart_goes_on_with_the_interfaces_of_the_rules(tmp_path: Path) -> None:
    with Lab() as lab:
        settings = tmp_path / "nfreaim.toml"
        settings.write_text("")
        lab.run("A", *NFREAIM, "rules", "install", "--auto", "--config", str(settings))
        lab.run("A", "ip", "route", "del", "default")  # the uplink is down
        before = lab.firewall_rules("A")
        daemon = start_unnamed(lab, settings)
        daemon.wait_log("ready: serving queue")
        assert daemon.stop() == 0
        lab.run("A", *NFREAIM, "rules", "install", "--auto", "--config", str(settings))
        assert lab.firewall_rules("A") == before


GUESTS = "ip link add guest type bridge && ip address add 10.9.0.1/24 dev guest && ip link set guest up"


@pytest.mark.parametrize("variant", ["legacy", "native-nft"])
def test_a_change_of_the_set_up_is_told_once_and_the_remedy_takes_it_over(variant: Variant) -> None:
    with Lab(variant) as lab:
        settings, socket = lab.dir / "nfreaim.toml", lab.dir / "status"
        settings.write_text(f'status_socket = "{socket}"\n')
        named = ("--config", str(settings))
        daemon = start_unnamed(lab, settings)
        daemon.wait_ready()

        def interfaces() -> dict[str, Any]:
            document = json.loads(lab.run("A", *NFREAIM, "status", "--json", *named).stdout)
            found: dict[str, Any] = document["interfaces"]
            return found

        assert interfaces() == {"lan": ["lan"], "wan": ["wan"], "changed": ""}
        lab.run("A", "sh", "-ec", GUESTS)
        for _ in range(2):  # the operator need not wait for the next look
            lab.run("A", *NFREAIM, "reload", *named)
            told = eventually(lambda: interfaces()["changed"])
        assert "shows guest, lan towards clients and wan towards the Internet, served are lan towards" in told
        assert told.endswith(f"remedy: {TAKE_OVER}")
        assert told in lab.run("A", *NFREAIM, "status", *named).stdout
        lab.run("A", *NFREAIM, "rules", "install", "--auto", *named)
        eventually(lambda: interfaces()["lan"] == ["guest", "lan"])
        assert daemon.log_text().count(told) == 1
        assert daemon.stop() == 0
        daemon = start_unnamed(lab, settings)
        daemon.wait_ready()
        assert interfaces() == {"lan": ["guest", "lan"], "wan": ["wan"], "changed": ""}

        lab.run("A", "sh", "-c", "echo 0 >/proc/sys/net/ipv4/ip_forward")
        lab.run("A", *NFREAIM, "reload", *named)
        daemon.wait_log("IPv4 forwarding is off")
        line = next(line for line in daemon.log_text().splitlines() if "forwarding is off" in line)
        assert f'write into {settings}: lan = ["guest", "lan"] and wan = ["wan"]' in line
        lab.run("A", "sh", "-c", "echo 1 >/proc/sys/net/ipv4/ip_forward")
        lab.run("A", *NFREAIM, "reload", *named)
        daemon.wait_log("shows the interfaces that are served again")
        eventually(lambda: not interfaces()["changed"])
        assert daemon.stop() == 0


RENAMED = (
    "ip link set wan down && ip link set wan name up0 && ip link set up0 up"
    " && ip route replace default via {core}"
    " && iptables-legacy -t nat -A POSTROUTING -o up0 -j MASQUERADE"
    " && ip link set lan down && ip link set lan name office && ip link set office up"
    " && iptables-legacy -I FORWARD -i office -j ACCEPT"
)


def test_renamed_interfaces_are_served_after_the_remedy() -> None:
    with Lab("legacy") as lab:
        settings = lab.dir / "nfreaim.toml"
        settings.write_text(f'status_socket = "{lab.dir / "status"}"\n')
        named = ("--config", str(settings))
        made = Scene(lab)
        made.daemons["A"] = start_unnamed(lab, settings)
        made.daemon.wait_ready()
        lab.run("A", "sh", "-ec", RENAMED.format(core=CORE))
        lab.run("A", *NFREAIM, "reload", *named)
        made.daemon.wait_log("shows office towards clients and up0 towards the Internet, served are lan")
        lab.run("A", *NFREAIM, "rules", "install", "--auto", *named)  # the remedy, whose units do this
        assert made.daemon.stop() == 0
        made.daemons["A"] = start_unnamed(lab, settings)
        made.daemon.wait_ready()
        alice, bob = made.clients(made.server(), ("alice", "alice"), ("bob", "bob"))
        assert Transfer(alice, bob, "file").outcome().first_attempt, made.daemon.log_text()
        assert made.daemon.stop() == 0
