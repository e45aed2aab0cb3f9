"""Whether a ruleset certainly masquerades a network: as all kinds of firewalls write it, or do not."""

from __future__ import annotations

import json
from ipaddress import IPv4Network
from typing import Any

import pytest

from nfreaim.host.auto.masquerading import Way, of_iptables, of_nftables

HOME = Way("br-lan", IPv4Network("10.0.0.0/24"), "eth0")
UFW = "-s 10.0.0.0/24 -o eth0 -j MASQUERADE"


def saved(*rules: str) -> str:
    """What iptables-save prints; a rule without a chain is of POSTROUTING."""
    lines = [rule if rule.startswith("-A ") else f"-A POSTROUTING {rule}" for rule in rules]
    return "\n".join(["*nat", ":POSTROUTING ACCEPT [0:0]", *lines, "COMMIT"])


@pytest.mark.parametrize(
    "rules",
    [
        ["-o eth0 -j MASQUERADE"],
        ["-j MASQUERADE"],
        [UFW],
        ["-s 10.0.0.0/8 ! -o br-lan -j MASQUERADE --random"],
        ["-s 10.0.0.0/16 ! -d 10.0.0.0/16 -j MASQUERADE"],
        ["-o eth+ -j SNAT --to-source 203.0.113.1"],
        ['-o eth0 -m comment --comment "out -j ACCEPT" -j MASQUERADE'],
        ["-o eth0 -m policy --dir out --pol none -j MASQUERADE"],
        ["-p tcp -o eth0 -j MASQUERADE --to-ports 1024-65535"],
        ["-j OUT", "-A OUT -o eth0 -g MORE", "-A MORE -j LOG", "-A MORE -j MASQUERADE"],
        ["-d 10.0.0.0/8 -j RETURN", UFW],
        ["-m policy --dir out --pol ipsec -j ACCEPT", UFW],
    ],
)
def test_iptables_masquerades(rules: list[str]) -> None:
    assert of_iptables(saved(*rules)).masquerades(HOME)


@pytest.mark.parametrize(
    "rules",
    [
        [],
        ["-o eth1 -j MASQUERADE"],
        ["! -o eth0 -j MASQUERADE"],
        ["-s 172.17.0.0/16 ! -o docker0 -j MASQUERADE"],  # Docker's, on what is no router otherwise
        ["-s 192.168.122.0/24 ! -d 192.168.122.0/24 -j MASQUERADE"],  # libvirt's
        ["-s 10.0.0.0/25 -o eth0 -j MASQUERADE"],
        ["-s 10.0.0.5/32 -o eth0 -j MASQUERADE"],
        ["-d 198.51.100.0/24 -o eth0 -j MASQUERADE"],
        ["-p udp -o eth0 -j MASQUERADE"],
        ["-o eth0 -m mark --mark 0x1 -j MASQUERADE"],
        ["-o eth0 -m set --match-set lan src -j MASQUERADE"],
        ["-s 10.0.0.0/24 -j ACCEPT", UFW],
        ["-j OUT", "-A OUT -s 10.0.0.0/24 -j DROP", "-A OUT -j MASQUERADE"],
        ["-g OUT", "-A OUT -j RETURN", UFW],
        ["-A PREROUTING -j MASQUERADE"],
        ["-A OUT -j MASQUERADE"],
        ["-j OUT", "-A OUT -j OUT"],
        ['-o eth0 --comment "open'],
    ],
)
def test_iptables_does_not_certainly_masquerade(rules: list[str]) -> None:
    assert not of_iptables(saved(*rules)).masquerades(HOME)


def meta(key: str, value: Any, operator: str = "==") -> dict[str, Any]:
    return {"match": {"op": operator, "left": {"meta": {"key": key}}, "right": value}}


def field(name: str, value: Any, operator: str = "==") -> dict[str, Any]:
    return {"match": {"op": operator, "left": {"payload": {"protocol": "ip", "field": name}}, "right": value}}


def net(address: str, bits: int) -> dict[str, Any]:
    return {"prefix": {"addr": address, "len": bits}}


def document(*rules: list[dict[str, Any]], family: str = "inet", **chains: list[list[dict[str, Any]]]) -> str:
    """A ruleset with one chain of type nat at postrouting, and further chains."""
    table = {"family": family, "table": "t"}
    base = {"chain": {**table, "name": "post", "type": "nat", "hook": "postrouting", "policy": "accept"}}
    objects: list[dict[str, Any]] = [{"metainfo": {}}, {"table": {"family": family, "name": "t"}}, base]
    for name, own in {"post": list(rules), **chains}.items():
        if name != "post":
            objects.append({"chain": {**table, "name": name}})
        objects += [{"rule": {**table, "chain": name, "expr": expressions}} for expressions in own]
    return json.dumps({"nftables": objects})


MASQUERADE: dict[str, Any] = {"masquerade": None}
OUT = meta("oifname", "eth0")


@pytest.mark.parametrize(
    "text",
    [
        document([OUT, MASQUERADE]),
        document([OUT, {"counter": {"packets": 0, "bytes": 0}}, MASQUERADE]),
        document([meta("oifname", {"set": ["ppp0", "eth0"]}), {"snat": {"addr": "203.0.113.1"}}]),
        document([meta("oifname", "eth*"), MASQUERADE]),
        document([field("saddr", net("10.0.0.0", 8)), field("daddr", net("10.0.0.0", 8), "!="), MASQUERADE]),
        document([field("saddr", {"range": ["10.0.0.0", "10.0.1.255"]}), MASQUERADE]),
        # firewalld
        document(
            [{"jump": {"target": "zones"}}],
            zones=[[OUT, {"goto": {"target": "public"}}], [{"goto": {"target": "other"}}]],
            public=[[meta("nfproto", "ipv4"), meta("oifname", "lo", "!="), MASQUERADE]],
        ),
        # fw4
        document(
            [OUT, {"jump": {"target": "srcnat_wan"}}], srcnat_wan=[[meta("nfproto", "ipv4"), MASQUERADE]]
        ),
        document(
            [
                {
                    "vmap": {
                        "key": {"meta": {"key": "oifname"}},
                        "data": {"set": [["wg0", {"accept": None}], ["eth0", {"jump": {"target": "out"}}]]},
                    }
                }
            ],
            out=[[MASQUERADE]],
        ),
        document([meta("iifname", "br-lan"), MASQUERADE], family="ip"),
    ],
)
def test_nftables_masquerades(text: str) -> None:
    assert of_nftables(text).masquerades(HOME)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{}",
        '{"nftables": [{"rule": 3}]}',
        document(),
        document([meta("oifname", "eth1"), MASQUERADE]),
        document([OUT, field("saddr", net("172.17.0.0", 16)), MASQUERADE]),
        document([OUT, field("saddr", "@lans"), MASQUERADE]),
        document([OUT, field("daddr", net("198.51.100.0", 24)), MASQUERADE]),
        document([OUT, meta("l4proto", "udp"), MASQUERADE]),
        document([OUT, meta("mark", 7), MASQUERADE]),
        document([OUT, {"xt": {"type": "target", "name": "MASQUERADE"}}]),
        document([field("saddr", net("10.0.0.0", 24)), {"accept": None}], [OUT, MASQUERADE]),
        document([OUT, MASQUERADE], family="ip6"),
        document(other=[[OUT, MASQUERADE]]),
        document(
            [{"vmap": {"key": {"meta": {"key": "oifname"}}, "data": "@verdicts"}}],
            [meta("mark", 1), MASQUERADE],
        ),
    ],
)
def test_nftables_does_not_certainly_masquerade(text: str) -> None:
    assert not of_nftables(text).masquerades(HOME)
