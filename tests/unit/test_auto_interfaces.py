"""Interfaces that nobody named: what makes a machine a router, and what is said where it is none."""

from __future__ import annotations

import json
import subprocess
from dataclasses import replace
from ipaddress import IPv4Network
from pathlib import Path
from typing import Any

import pytest

from nfreaim import cli
from nfreaim.config import Config, parse
from nfreaim.errors import BackendError
from nfreaim.host.auto import auto_interfaces, served_interfaces
from nfreaim.host.auto.auto_interfaces import Interfaces, RouterFacts, Unclear, decide
from nfreaim.host.auto.masquerading import of_iptables
from nfreaim.host.check import doctor
from nfreaim.host.check.answer import Check
from nfreaim.host.rules import script
from tests.unit.router_stage import Stage

FILE = "/etc/nfreaim/nfreaim.toml"
NOTHING = Config()


def networks(*written: str) -> tuple[IPv4Network, ...]:
    return tuple(map(IPv4Network, written))


ROUTER = RouterFacts(
    forwarding=True,
    defaults=("eth0",),
    links={"eth0": networks("203.0.113.0/24"), "br-lan": networks("10.0.0.0/24")},
    rulesets=(of_iptables("-A POSTROUTING -o eth0 -j MASQUERADE"),),
)


def with_links(**links: tuple[IPv4Network, ...]) -> RouterFacts:
    """The router with more links; "_" in a name stands for "-"."""
    more = {name.replace("_", "-"): found for name, found in links.items()}
    return replace(ROUTER, links={**ROUTER.links, **more})


def test_a_router_is_served() -> None:
    assert decide(ROUTER) == Interfaces(("br-lan",), "eth0")
    more = with_links(vlan20=networks("192.168.20.0/24"), eth3=networks("172.16.0.0/24", "10.9.0.0/24"))
    assert decide(more) == Interfaces(("br-lan", "eth3", "vlan20"), "eth0")


def test_an_uplink_that_is_a_private_network_or_no_ethernet_is_one_all_the_same() -> None:
    double = {**ROUTER.links, "eth0": networks("192.168.1.0/24")}
    assert decide(replace(ROUTER, links=double)) == Interfaces(("br-lan",), "eth0")
    dialled = RouterFacts(
        True,
        ("ppp0",),
        {"br-lan": networks("10.0.0.0/24")},
        (of_iptables("-A POSTROUTING -o ppp+ -j MASQUERADE"),),
    )
    assert decide(dialled) == Interfaces(("br-lan",), "ppp0")


@pytest.mark.parametrize(
    "name",
    [
        "docker0",
        "br-0123456789ab",
        "virbr0",
        "veth12ab",
        "wg0",
        "podman1",
        "lxdbr0",
        "cni0",
        "tailscale0",
        "vnet3",
    ],
)
def test_networks_of_guests_and_vpns_are_none_of_a_lan(name: str) -> None:
    assert decide(with_links(**{name: networks("172.17.0.0/16")})) == decide(ROUTER)
    alone = replace(ROUTER, links={"eth0": networks("203.0.113.0/24"), name: networks("172.17.0.0/16")})
    assert isinstance(decide(alone), Unclear)


def test_a_link_with_a_public_network_or_without_masquerading_is_none_of_a_lan() -> None:
    assert decide(with_links(eth2=networks("198.51.100.0/24"))) == decide(ROUTER)
    assert decide(with_links(eth2=networks("10.1.0.0/24", "198.51.100.0/24"))) == decide(ROUTER)
    assert decide(with_links(eth2=networks("10.0.0.0/7"))) == decide(ROUTER)
    some = replace(
        with_links(eth2=networks("10.1.0.0/24")),
        rulesets=(of_iptables("-A POSTROUTING -s 10.0.0.0/24 -o eth0 -j MASQUERADE"),),
    )
    assert decide(some) == Interfaces(("br-lan",), "eth0")


@pytest.mark.parametrize("name", ["lan+", "büro", 'a"b', "a b", "a,b", "lan*"])
def test_a_name_that_no_setting_can_have_is_neither_served_nor_proposed(name: str) -> None:
    assert decide(with_links(**{name: networks("10.7.0.0/24")})) == decide(ROUTER)
    alone = replace(ROUTER, links={"eth0": networks("203.0.113.0/24"), name: networks("10.7.0.0/24")})
    uplink = replace(ROUTER, defaults=(name,), rulesets=(of_iptables("-A POSTROUTING -j MASQUERADE"),))
    for facts, lan, wan in ((alone, ["br-lan"], ["eth0"]), (uplink, ["br-lan"], ["eth0"])):
        found = decide(facts)
        assert isinstance(found, Unclear)
        assert f"the settings cannot have the name of {json.dumps(name)}" in found.why
        assert found.named() == (lan, wan)


@pytest.mark.parametrize(
    ("facts", "why", "lan", "wan"),
    [
        (replace(ROUTER, forwarding=False), "IPv4 forwarding is off", '["br-lan"]', '["eth0"]'),
        (replace(ROUTER, defaults=()), "there is no IPv4 default route", '["br-lan", "eth0"]', '["eth0"]'),
        (
            replace(with_links(eth1=networks("10.3.0.0/24")), defaults=("eth1", "eth0")),
            "there are several IPv4 default routes (by eth1, eth0)",
            '["br-lan"]',
            '["eth0"]',
        ),
        (
            replace(ROUTER, links={"eth0": networks("10.0.0.0/24")}),
            "no link but eth0 has a private network",
            '["br-lan"]',
            '["eth0"]',
        ),
        (
            replace(ROUTER, rulesets=()),
            "no rule masquerades 10.0.0.0/24 on br-lan on its way out by eth0",
            '["br-lan"]',
            '["eth0"]',
        ),
    ],
)
def test_otherwise_it_is_said_what_is_missing_and_what_to_write(
    facts: RouterFacts, why: str, lan: str, wan: str
) -> None:
    if "no IPv4 default" in why:
        facts = replace(facts, links={**facts.links, "eth0": networks("192.168.1.0/24")})
    found = decide(facts)
    assert isinstance(found, Unclear)
    told = found.told(FILE)
    assert why in told
    assert told.endswith(f"write into {FILE}: lan = {lan} and wan = {wan}")
    parse(f"lan = {lan}\nwan = {wan}\n", FILE)


def test_what_ip_prints_is_read() -> None:
    routes: list[dict[str, Any]] = [
        {"dst": "default", "gateway": "203.0.113.254", "dev": "eth0", "flags": []},
        {"dst": "10.0.0.0/24", "dev": "br-lan", "scope": "link"},
    ]
    assert auto_interfaces._defaults(routes) == ("eth0",)
    several = {"dst": "default", "nexthops": [{"dev": "eth0"}, {"dev": "eth1"}]}
    assert auto_interfaces._defaults([several]) == ("eth0", "eth1")
    twice = [{"dst": "default", "dev": "eth0", "metric": metric} for metric in (100, 200)]
    assert auto_interfaces._defaults(twice) == ("eth0",), "another metric is no other uplink"
    assert auto_interfaces._defaults([{"type": "blackhole", "dst": "default"}]) == ()

    def address(local: str, bits: int, scope: str = "global") -> dict[str, Any]:
        return {"family": "inet", "local": local, "prefixlen": bits, "scope": scope}

    listed: list[dict[str, Any]] = [
        {"ifname": "lo", "link_type": "loopback", "addr_info": [address("127.0.0.1", 8, "host")]},
        {
            "ifname": "br-lan",
            "link_type": "ether",
            "addr_info": [
                address("10.0.0.1", 24),
                {"family": "inet6", "local": "fd00::1", "prefixlen": 64, "scope": "global"},
            ],
        },
        {"ifname": "ppp0", "link_type": "ppp", "addr_info": [address("203.0.113.1", 32)]},
        {"ifname": "eth9", "link_type": "ether", "addr_info": [address("169.254.7.7", 16, "link")]},
        {"ifname": "eth8", "link_type": "ether", "addr_info": []},
    ]
    assert auto_interfaces._links(listed) == {"br-lan": networks("10.0.0.0/24")}


@pytest.fixture
def stage(monkeypatch: pytest.MonkeyPatch) -> Stage:
    return Stage(monkeypatch)


def test_what_is_named_counts_then_what_is_found_and_then_what_the_rules_have(stage: Stage) -> None:
    def seen(
        config: Config = NOTHING, rules_first: bool = False
    ) -> tuple[tuple[str, ...], tuple[str, ...], str]:
        named = served_interfaces.named(config, rules_first)
        return ((), (), named.why) if isinstance(named, Unclear) else (named.lan, named.wan, "")

    assert seen() == ((), (), "it is none")
    stage.rules = ("lan0", "wan0")
    assert seen() == (("lan0",), ("wan0",), "")
    stage.found = Interfaces(("br-lan",), "eth0")
    assert seen() == (("br-lan",), ("eth0",), "")
    assert seen(rules_first=True) == (("lan0",), ("wan0",), "")
    assert seen(Config(lan=("a",), wan=("b",))) == (("a",), ("b",), "")
    assert seen(Config(lan=("a",))) == (("a",), (), ""), "the rest is for whoever wrote the first half"


def test_what_would_be_served_now_is_told_to_a_daemon_that_serves(stage: Stage) -> None:
    assert served_interfaces.as_document(NOTHING) == {
        "named": False,
        "lan": [],
        "wan": [],
        "why": "it is none",
    }
    stage.found = Interfaces(("br-lan",), "eth0")
    stage.rules = ("lan0", "wan0")
    assert served_interfaces.as_document(NOTHING) == {
        "named": False,
        "lan": ["br-lan"],
        "wan": ["eth0"],
        "why": "",
    }
    assert served_interfaces.as_document(Config(wan=("b",))) == {"named": True}


def test_a_program_that_hangs_is_no_error_of_ours(monkeypatch: pytest.MonkeyPatch) -> None:
    def hang(words: list[str]) -> None:
        raise subprocess.TimeoutExpired(words, 60)

    monkeypatch.setattr(auto_interfaces, "json_from", hang)
    with pytest.raises(BackendError, match="whether this is a router cannot be seen"):
        auto_interfaces.look()


def test_rules_that_are_absent_name_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(script, "start", lambda words: None)
    monkeypatch.setattr(script, "shown", lambda asked: ("", False))
    assert served_interfaces._installed(Config()) is None


def test_check_looks_at_the_interfaces_that_the_service_takes(
    stage: Stage, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    looked: list[tuple[str, ...]] = []

    def see(config: Config) -> list[Check]:
        looked.append(config.lan)
        return []

    monkeypatch.setattr(doctor, "run_checks", see)
    settings = tmp_path / "nfreaim.toml"
    settings.write_text("")

    def checked(*words: str) -> str:
        assert cli.main(["check", "--config", str(settings), *words]) == 0
        return capsys.readouterr().out

    assert "hint nobody is served" in checked()
    stage.found = BackendError("cannot be seen")
    assert "none were found: cannot be seen; if this is a router, write" in checked()
    stage.found = Interfaces(("br-lan",), "eth0")
    assert "ok   interfaces that nobody named: br-lan towards clients, eth0 towards" in checked()
    assert checked("--lan", "a") == "\n"
    assert looked == [(), (), ("br-lan",), ("a",)]
