"""The static rules in a real kernel: what they add, what they leave alone, and that nothing remains of them.

Each test has a router of its own.
"""

import re
from collections.abc import Iterator

import pytest

from tests.lab import kernel_sets
from tests.lab.router import SCRIPT, Router

ARGS = ("--lan", "lan", "--wan", "wan")
TEXT = "it reads iptables' text; test_nft_rules.py has the table of nftables"
OWN = "-p tcp -m owner --gid-owner 28262 --suppl-groups"
OSCAR = '-m comment --comment "nfreaim oscar"'


@pytest.fixture
def router() -> Iterator[Router]:
    with Router() as made:
        yield made


# --- what is there afterwards ---


@pytest.mark.parametrize("variants", [(), ("legacy",), ("nft",), ("legacy", "nft"), ("native-nft",)])
def test_second_install_changes_nothing_and_remove_leaves_no_trace(
    router: Router, variants: tuple[str, ...]
) -> None:
    router.load(*variants)
    before = router.state()
    router.rules("install", *ARGS)
    once = router.state()
    assert once != before
    router.rules("install", *ARGS)
    assert router.state() == once
    router.rules("remove")
    assert router.state() == before
    router.rules("remove")
    assert router.state() == before


@pytest.mark.parametrize("variants", [(), ("legacy",), ("nft",), ("legacy", "nft")])
def test_accept_stands_first_in_every_firewall_in_use_and_in_no_other(
    router: Router, variants: tuple[str, ...]
) -> None:
    router.load(*variants)
    router.rules("install", *ARGS)
    accept = ["-m connmark --mark 0x2000000/0x2000000 -m conntrack --ctstate DNAT -j ACCEPT"]
    for variant in ("legacy", "nft"):
        save = f"iptables-{variant}-save"
        if variant in variants:
            assert router.chain(save, "filter", "FORWARD")[0] == "-j NFREAIM"
            assert router.chain(save, "filter", "NFREAIM") == accept
        else:
            assert "NFREAIM" not in router.on("router", save, "-t", "filter").stdout
    assert router.show()[0] == 0


@kernel_sets.legacy_only("on nftables the table is what is asked for")
def test_no_nft_table_is_made_where_none_was(router: Router) -> None:
    router.load("legacy")
    router.rules("install", *ARGS)
    assert router.shell("nft list ruleset") == ""


def test_native_table_called_filter_is_left_alone(router: Router) -> None:
    router.shell(
        "nft 'table ip filter { chain FORWARD { type filter hook forward priority 0; policy drop; }; }'"
    )
    router.shell("nft add rule ip filter FORWARD ct state vmap { invalid : drop, established : accept }")
    before = router.shell("nft list table ip filter")
    router.rules("install", *ARGS)
    assert router.shell("nft list table ip filter") == before


@kernel_sets.legacy_only(TEXT)
def test_queue_jumps_come_after_rules_of_others_and_sort_themselves_out_again(router: Router) -> None:
    router.shell("iptables-legacy -t raw -A PREROUTING -p udp -j ACCEPT")
    router.rules("install", *ARGS, "--port", "443", "--port", "5190")
    router.shell("iptables-legacy -t raw -A PREROUTING -p icmp -j ACCEPT")
    router.shell("iptables-legacy -t mangle -A POSTROUTING -p icmp -j ACCEPT")
    clamp = "-p tcp -m tcp --tcp-flags SYN,RST SYN -j TCPMSS --clamp-mss-to-pmtu"
    router.shell(f"iptables-legacy -t mangle -A FORWARD {clamp}")
    router.shell("iptables-legacy -t nat -A PREROUTING -i wan -p tcp --dport 80 -j DNAT --to 10.0.0.9")
    router.rules("install", *ARGS, "--port", "443", "--port", "5190")
    save = "iptables-legacy-save"
    last = "-i lan -p tcp -m multiport --dports 443,5190 -j NFREAIM"
    assert router.chain(save, "raw", "PREROUTING") == [
        "-p udp -j ACCEPT",
        "-p icmp -j ACCEPT",
        last,
        "-i lan -p tcp -m set --match-set nfreaim_srv dst,dst,src -j NFREAIM",
        "-i lan -p tcp -m multiport --sports 443,5190 -j NFREAIM_SERVER",
    ]
    assert router.chain(save, "mangle", "PREROUTING") == [
        "-i wan -p tcp -m tcp --tcp-flags FIN,SYN,RST,ACK SYN"
        " -m set --match-set nfreaim_shut dst,dst -j NFREAIM_ENTRY",
        "-i wan -p tcp -m connmark --mark 0x2000000/0xa000000 -j NFREAIM_ENTRY",
        "-p tcp -m connmark --mark 0x2000000/0x2000000 -m mark --mark 0x2000000/0x2000000"
        " -j NFREAIM_RESTORED",
    ]
    assert router.chain(save, "mangle", "FORWARD") == [
        clamp,
        "-p tcp -m connmark --mark 0x6000000/0x6000000 -j NFREAIM_GATE",
    ]
    assert router.chain(save, "mangle", "POSTROUTING") == [
        "-p tcp -m mark --mark 0x10000000/0x10000000 -m connmark --mark 0x6000000/0x6000000"
        " -j NFREAIM_VERIFIED",
        "-p icmp -j ACCEPT",
        f"{OWN} -j NFREAIM_OWN",
        "-o lan -p tcp -m multiport --sports 443,5190 -j NFREAIM",
        "-o lan -p tcp -m set --match-set nfreaim_srv src,src,dst -j NFREAIM",
        "-o lan -p tcp -m multiport --dports 443,5190 -j NFREAIM_SERVER",
    ]
    assert router.chain(save, "raw", "OUTPUT") == [
        f"{OWN} -j NFREAIM_OWN",
        "-o wan -p tcp -m multiport --sports 443,5190 -j NFREAIM_SERVER",
    ]
    assert router.chain(save, "mangle", "INPUT") == [
        "-i wan -p tcp -m multiport --dports 443,5190 -j NFREAIM_SERVER"
    ]
    nat = router.chain(save, "nat", "PREROUTING")
    assert nat[1:] == ["-i wan -p tcp -j NFREAIM"]
    assert "--dport 80" in nat[0]


@kernel_sets.legacy_only(TEXT)
def test_new_arguments_replace_the_old_ones(router: Router) -> None:
    router.rules("install", *ARGS, "--port", "443", "--queue", "7")
    router.rules("install", *ARGS, "--lan", "lan2", "--queue", "8")
    save = "iptables-legacy-save"
    assert [
        re.findall(r"-i (\S+) .* (\S+) -j (\S+)", rule)[0] for rule in router.chain(save, "raw", "PREROUTING")
    ] == [
        (lan, match, chain)
        for lan in ("lan", "lan2")
        for match, chain in (("5190", "NFREAIM"), ("dst,dst,src", "NFREAIM"), ("5190", "NFREAIM_SERVER"))
    ]
    for table in ("raw", "mangle"):
        for chain in ("NFREAIM", "NFREAIM_SERVER"):
            rules = router.chain(save, table, chain)
            assert rules[-1].endswith("-j NFQUEUE --queue-num 40 --queue-bypass")
            assert [rule for rule in rules if rule.endswith("--queue-num 8")], "nothing fails closed"
    foreign, *gate = router.chain(save, "mangle", "NFREAIM_GATE")
    assert foreign == "-m mark --mark 0x10000000/0x10000000 -j MARK --set-xmark 0x0/0x10000000"
    *spared, _, _, _, _, _ = gate
    assert [rule.rpartition(" ")[2] for rule in spared] == ["RETURN", "RETURN"]
    assert all("--ctdir ORIGINAL -m bpf" in rule for rule in spared)
    queued = "-j NFQUEUE --queue-num 72 --queue-bypass"
    assert [rule.endswith(queued) for rule in gate] == [False, False, False, False, True, False, True]
    assert gate[-1] == queued
    assert router.chain(save, "mangle", "NFREAIM_VERIFIED") == [
        "-j CONNMARK --set-xmark 0x0/0x4000000",
        "-j MARK --set-xmark 0x0/0x10000000",
    ]


def test_accept_leaves_a_firewall_that_went_out_of_use(router: Router) -> None:
    router.load("legacy", "nft")
    router.rules("install", *ARGS)
    router.shell(
        "iptables-legacy -P FORWARD ACCEPT; iptables-nft -F FORWARD; iptables-nft -F INPUT;"
        "iptables-nft -P FORWARD ACCEPT; iptables-nft -P INPUT ACCEPT"
    )
    router.rules("install", *ARGS)
    assert "NFREAIM" not in router.on("router", "iptables-nft-save").stdout
    assert router.chain("iptables-legacy-save", "filter", "FORWARD")[0] == "-j NFREAIM"


def test_firewall_that_was_loaded_again_is_reported_and_repaired(router: Router) -> None:
    router.load("nft")
    router.rules("install", *ARGS)
    router.load("nft")  # as its service does on restart: without us in it
    status, text = router.show()
    assert status == 3
    assert "not installed: iptables-nft-filter" in text
    router.rules("install", *ARGS)
    assert router.show()[0] == 0


# --- what belongs to others, and to the daemon ---


@kernel_sets.legacy_only(TEXT)
def test_pinholes_and_offloaded_flows_survive_a_second_install(router: Router) -> None:
    router.rules("install", *ARGS)
    router.shell(
        "iptables-legacy -t nat -N NFREAIM_D07; iptables-legacy -t nat -A NFREAIM -j NFREAIM_D07;"
        "iptables-legacy -t nat -A NFREAIM_D07 -p tcp -m set --match-set nfreaim_pin dst,dst,src"
        " ! --update-counters --bytes-eq 77 -j DNAT --to 10.0.0.9;"
        "ipset add nfreaim_pin 203.0.113.1,tcp:4443,0.0.0.0/1 timeout 0 bytes 77;"
        "ipset add nfreaim_off 10.0.0.9,tcp:4000,203.0.113.9"
    )
    before = router.chain("iptables-legacy-save", "nat", "NFREAIM")
    router.rules("install", *ARGS, "--port", "443")
    assert router.chain("iptables-legacy-save", "nat", "NFREAIM") == before
    shown = router.show()[1]
    for part in (
        "10.0.0.9,tcp:4000,203.0.113.9",
        "nfreaim_pin 203.0.113.1,tcp:4443,0.0.0.0/1 timeout 0",
        "-A NFREAIM_D07 -p tcp ",
    ):
        assert part in shown
    router.rules("remove")
    assert "NFREAIM" not in router.state()


@kernel_sets.legacy_only(TEXT)
def test_nat_chain_reads_the_set_of_pinholes_and_never_counts(router: Router) -> None:
    router.rules("install", *ARGS)
    match = "--match-set nfreaim_pin dst,dst,src ! --update-counters"
    whole = [
        f"-m set ! {match} -j RETURN",
        "-j CONNMARK --set-xmark 0x3000000/0x3000000",
        f"-m set {match} --packets-eq 1 -j CONNMARK --set-xmark 0x4000000/0x4000000",
    ]
    assert router.chain("iptables-legacy-save", "nat", "NFREAIM") == whole
    router.shell("iptables-legacy -t nat -F NFREAIM")
    status, text = router.show()
    assert status == 3
    assert "not installed: nat" in text
    router.rules("install", *ARGS)
    assert router.chain("iptables-legacy-save", "nat", "NFREAIM") == whole


def test_inside_networks_are_connected_and_static_ones_without_the_default_route(router: Router) -> None:
    router.shell(
        "ip route add 10.7.0.0/16 via 10.0.0.7; ip route add 10.8.0.8 via 10.0.0.7;"
        "ip route add default via 10.0.0.254"
    )
    router.rules("install", *ARGS)
    members = [line.split()[1] for line in router.show()[1].splitlines() if line.startswith("nfreaim_lan")]
    assert sorted(members) == ["10.0.0.0/24", "10.7.0.0/16", "10.8.0.8"]
    router.shell("ip route del 10.7.0.0/16")
    router.rules("install", *ARGS)
    assert "10.7.0.0/16" not in router.show()[1]


def test_two_routers_do_not_disturb_each_other(router: Router) -> None:
    with Router() as other:
        router.rules("install", *ARGS)
        mine = router.state()
        other.rules("install", *ARGS, "--port", "443")
        other.rules("remove")
        assert router.state() == mine


def test_installs_at_the_same_time_add_up_to_one(router: Router) -> None:
    router.rules("install", *ARGS)
    once = router.state()
    router.rules("remove")
    router.shell(f"for n in 1 2 3 4 5 6 7 8; do {SCRIPT} install {' '.join(ARGS)} & done; wait")
    assert router.state() == once


# --- half installed, half equipped ---


@kernel_sets.legacy_only(TEXT)
@pytest.mark.parametrize(
    "damage",
    [
        f"iptables-legacy -t raw -D PREROUTING -i lan -p tcp {OSCAR} -m multiport --dports 5190 -j NFREAIM",
        "iptables-legacy -t nat -F; iptables-legacy -t nat -X NFREAIM",
        "iptables-legacy -t raw -F; iptables-legacy -t mangle -F; ipset destroy nfreaim_off",
        "iptables-nft -F FORWARD",
        "iptables-nft -F; iptables-nft -X",
        "iptables-legacy -t mangle -A FORWARD -p udp -g NFREAIM; ipset create nfreaim_lan_new hash:net",
        f"iptables-legacy -t raw -A PREROUTING -i lan -p tcp {OSCAR} -m multiport --dports 5190 -j NFREAIM",
    ],
)
@pytest.mark.parametrize("first", ["remove", "install"])
def test_half_installed_rules_are_completed_or_removed(router: Router, damage: str, first: str) -> None:
    before = router.state()
    router.load("nft")
    router.rules("install", *ARGS)
    whole = router.state()
    router.shell(damage)
    if first == "install" and " -g " not in damage:
        router.rules("install", *ARGS)
        if " -F" not in damage or "NFREAIM" in damage:
            assert router.state() == whole
        assert router.show()[0] == 0
    router.rules("remove")
    router.shell("iptables-nft -P INPUT ACCEPT; iptables-nft -P FORWARD ACCEPT; iptables-nft -F")
    router.shell("iptables-nft -t nat -F")
    assert router.state() == before


def test_remove_finds_our_chain_in_a_table_that_iptables_no_longer_reads(router: Router) -> None:
    router.load("nft")
    router.rules("install", *ARGS)
    router.shell("nft add rule ip filter FORWARD ct state vmap { invalid : drop, established : accept }")
    router.rules("remove")
    left = router.shell("nft list ruleset")
    assert "NFREAIM" not in left
    assert "vmap" in left
