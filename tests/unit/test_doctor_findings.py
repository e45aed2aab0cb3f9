"""`nfreaim check`: what it concludes from links, forwards, rules of other programs, and traces. No root."""

from __future__ import annotations

from pathlib import Path

import pytest

from nfreaim.host.check import foreign_drops, link_settings, other_programs, repairs
from nfreaim.host.check.foreign_drops import Drop


def test_a_queue_of_another_program_before_ours_is_named() -> None:
    saved = """*raw
-A PREROUTING -i lan -p tcp -j NFQUEUE --queue-num 3
-A PREROUTING -i lan -p tcp -m multiport --dports 5190 -j NFREAIM
-A PREROUTING -i lan -p udp -j NFQUEUE --queue-num 4
-A NFREAIM -p tcp -j NFQUEUE --queue-num 5190 --queue-bypass
COMMIT
*filter
-A FORWARD -j NFQUEUE --queue-num 0
COMMIT
"""
    ((hook, what, rule),) = other_programs.before_ours(saved, (5190,))
    assert (hook, what) == ("raw PREROUTING", "connections to servers")
    assert rule.endswith("--queue-num 3")
    assert list(other_programs.before_ours(saved, (3, 5190))) == []


@pytest.mark.parametrize(
    ("rules", "name"),
    [
        (":ufw-before-forward - [0:0]", "ufw"),
        ("table inet firewalld {", "firewalld"),
        ("table inet fw4 {", "fw4 (OpenWrt)"),
        (":DOCKER - [0:0]", "Docker"),
        (":mwan3_hook - [0:0]", "mwan3"),
        (":MINIUPNPD - [0:0]", "miniupnpd"),
    ],
)
def test_programs_that_make_rules_are_known_by_their_chains(rules: str, name: str) -> None:
    assert [one for one, _ in other_programs.known(rules)] == [name]
    assert list(other_programs.known(":INPUT ACCEPT [0:0]\ntable inet mine {")) == []


@pytest.mark.parametrize(
    ("link", "keys"),
    [
        ({"mtu": 9000, "gso_ipv4_max_size": 65536, "gro_ipv4_max_size": 65536}, []),
        ({"mtu": 1500, "gso_ipv4_max_size": 65536, "gro_ipv4_max_size": 185000}, ["gro_ipv4_max_size"]),
        ({"mtu": 65540}, ["mtu"]),
        ({}, []),
    ],
)
def test_packets_that_the_queue_cannot_copy(link: dict[str, int], keys: list[str]) -> None:
    found = list(link_settings.too_large("eth0", link))
    assert [one.text.partition(" ")[0] for one in found] == keys
    assert all(one.remedy.startswith("ip link set dev eth0 ") for one in found)


def test_an_interface_that_cannot_tell_joins_nothing() -> None:
    assert not link_settings.lro_is_on("lo")
    assert not link_settings.lro_is_on("nosuchif0")


def test_a_trace_names_the_rule_and_the_policy_that_dropped() -> None:
    lines = [
        'trace id 1 inet r forward packet: iif "nfrtest-wan" oif "nfrtest-lan" ip saddr 192.0.2.6',
        "trace id 1 inet r forward rule tcp dport 1-9 drop (verdict drop)",
        "trace id 1 inet r forward rule ct state new accept (verdict accept)",
        "trace id 2 inet r forward rule tcp dport 1-9 drop (verdict drop)",
        "trace id 3 ip filter FORWARD verdict continue ",
        "trace id 3 ip filter FORWARD policy drop ",
        "trace id 4 ip nat PREROUTING policy accept ",
    ]
    assert foreign_drops.traced(lines) == [
        Drop("nftables", "inet r forward", "tcp dport 1-9 drop"),
        Drop("nftables", "ip filter FORWARD", "policy drop"),
    ]


def test_counters_name_rules_that_dropped_and_could_have_seen_the_test() -> None:
    saved = """*filter
:FORWARD DROP [{0}:600]
:INPUT ACCEPT [9:9]
[{0}:60] -A FORWARD -p tcp -m tcp --dport 1:9 -j DROP
[{0}:60] -A FORWARD -i eth0 -j DROP
[{0}:60] -A FORWARD -i nfr+ -j REJECT --reject-with icmp-port-unreachable
[{0}:60] -A FORWARD -p tcp -j ACCEPT
[3:60] -A FORWARD -p udp -j DROP
COMMIT
"""
    before, now = (foreign_drops.counted(saved.format(count)) for count in (1, 2))
    assert [str(one) for one in foreign_drops.grown(before, now)] == [
        "iptables-legacy filter: -P FORWARD DROP",
        "iptables-legacy filter: -A FORWARD -p tcp -m tcp --dport 1:9 -j DROP",
        "iptables-legacy filter: -A FORWARD -i nfr+ -j REJECT --reject-with icmp-port-unreachable",
    ]


def test_a_self_test_needs_no_program_of_iptables(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(words: list[str]) -> None:
        raise FileNotFoundError(words[0])

    monkeypatch.setattr(foreign_drops, "which", lambda program: None)
    monkeypatch.setattr(foreign_drops, "run", missing)
    watch = foreign_drops.ForeignDrops()
    assert watch.found() == []
    watch.close()


def test_modules_are_remembered_once_and_only_where_there_is_a_place(tmp_path: Path) -> None:
    file = tmp_path / "modules-load.d" / "nfreaim.conf"
    assert not repairs.remember(["ip_tables"], file)
    assert not file.exists()
    file.parent.mkdir()
    assert repairs.remember(["ip_tables"], file)
    assert repairs.remember(["nfnetlink_queue", "ip_tables"], file)
    assert not repairs.remember(["ip_tables"], file)
    assert file.read_text().splitlines()[1:] == ["ip_tables", "nfnetlink_queue"]
