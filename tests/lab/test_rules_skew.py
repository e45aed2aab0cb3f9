"""The rules of flows that fail closed, of servers inside and of the daemon's own packets, in a real kernel.

Each test has a router of its own.
"""

import re
from collections.abc import Iterator

import pytest

from tests.lab import kernel_sets
from tests.lab.router import Router

ARGS = ("--lan", "lan", "--wan", "wan")
TEXT = "it reads iptables' text; test_nft_rules.py has the table of nftables"


@pytest.fixture
def router() -> Iterator[Router]:
    with Router() as made:
        yield made


def test_own_packets_are_accepted_where_they_could_be_stopped_and_only_there(router: Router) -> None:
    router.load("legacy")
    router.rules("install", *ARGS)
    save = "iptables-legacy-save"
    assert router.chain(save, "filter", "NFREAIM_OWN") == ["-j ACCEPT"]
    # On the way to a server on this router they come through lo, so nobody outside can send them.
    arrive = "-i lo -p tcp -m addrtype ! --src-type LOCAL -m conntrack --ctstate UNTRACKED -j NFREAIM_OWN"
    assert router.chain(save, "filter", "INPUT")[0] == arrive
    assert router.chain(save, "filter", "OUTPUT") == []
    router.shell("iptables-legacy -P OUTPUT DROP")
    assert router.show()[0] == 3
    router.rules("install", *ARGS)
    assert router.chain(save, "filter", "OUTPUT") == [
        "-p tcp -m owner --gid-owner 28262 --suppl-groups -j NFREAIM_OWN"
    ]
    assert router.show()[0] == 0


@kernel_sets.legacy_only(TEXT)
@pytest.mark.parametrize("table", ["raw", "mangle"])
@pytest.mark.parametrize("chain", ["NFREAIM", "NFREAIM_SERVER"])
def test_skewed_flows_are_queued_without_bypass_before_all_others(
    router: Router, table: str, chain: str
) -> None:
    router.rules("install", *ARGS)
    rules = router.chain("iptables-legacy-save", table, chain)
    client_first = (table == "raw") == (chain == "NFREAIM")
    key = "src,src,dst" if client_first else "dst,dst,src"
    skew = f"-m set --match-set nfreaim_skew {key}"
    syn = "! --tcp-flags FIN,SYN,RST,ACK SYN " if client_first else ""
    # A SYN of the client, where it is seen, may begin a new connection of an offloaded one's endpoints.
    pinhole = "-m connmark --mark 0x2000000/0x2000000 -m conntrack --ctstate DNAT -j RETURN"
    assert rules.count(pinhole) == (table == "mangle"), "a client may listen on 5190"
    first = next(number for number, rule in enumerate(rules) if "NFQUEUE" in rule)
    assert [re.sub("-m tcp ", "", rule) for rule in rules[first:]] == [
        f"{skew} -j NFQUEUE --queue-num 5190",
        *([pinhole] if table == "mangle" else []),
        f"-p tcp {syn}-m set --match-set nfreaim_off {key} -j RETURN",
        f"-p tcp ! --tcp-flags SYN SYN -m set --match-set nfreaim_flow {key} "
        "-j NFQUEUE --queue-num 5190 --queue-bypass",
        "-p tcp --tcp-flags SYN SYN -m limit --limit 5000/sec --limit-burst 5000 "
        "-j NFQUEUE --queue-num 5222 --queue-bypass",
        "-p tcp ! --tcp-flags SYN SYN -m limit --limit 1000/sec --limit-burst 1000 "
        "-j NFQUEUE --queue-num 5222 --queue-bypass",
    ]


@kernel_sets.legacy_only(TEXT)
def test_remove_refuses_while_connections_depend_on_the_daemon(router: Router) -> None:
    before = router.state()
    router.rules("install", *ARGS)
    installed = router.state()
    router.shell("ipset add nfreaim_skew 203.0.113.9,tcp:4000,10.0.0.9")
    assert "203.0.113.9,tcp:4000,10.0.0.9" in router.fails("remove")
    router.rules("install", *ARGS)  # a new install keeps them, too
    assert "nfreaim_skew 203.0.113.9,tcp:4000,10.0.0.9" in router.show()[1]
    router.shell("ipset del nfreaim_skew 203.0.113.9,tcp:4000,10.0.0.9")
    assert router.state() == installed
    router.shell("ipset add nfreaim_skew 203.0.113.9,tcp:4000,10.0.0.9")
    router.rules("remove", "--force")
    assert router.state() == before


@kernel_sets.legacy_only(TEXT)
@pytest.mark.parametrize("chain", ["NFREAIM", "NFREAIM_SERVER"])
def test_what_was_here_before_is_never_queued_again(router: Router, chain: str) -> None:
    """Only in raw, before connection tracking, a packet that has an entry has been here before."""
    router.rules("install", *ARGS)
    rules = router.chain("iptables-legacy-save", "raw", chain)
    assert rules[0] == "-i lan -m conntrack --ctproto 6 -j RETURN"


@kernel_sets.legacy_only(TEXT)
def test_no_packet_has_a_mark_of_ours_when_it_is_routed(router: Router) -> None:
    router.load("legacy", "nft")
    router.rules("install", *ARGS)
    saved = router.shell("iptables-legacy-save; iptables-nft-save").splitlines()
    marking = [line for line in saved if "-j MARK " in line and not line.startswith("-A NFREAIM_")]
    assert not marking, "no chain but ours"
    changes = [line for line in saved if "-j MARK " in line]
    assert changes
    assert all("--set-xmark 0x0/" in line for line in changes), "ours are only taken off"


@kernel_sets.legacy_only(TEXT)
def test_other_masks_are_in_every_rule_and_replace_those_of_an_earlier_installation(router: Router) -> None:
    router.load("legacy")
    router.rules("install", *ARGS)
    usual = router.state()
    router.rules("install", *ARGS, "--mark-mask", "0x40", "--connmark-mask", "0xff00")
    saved = router.state()
    assert not [line for line in saved.splitlines() if re.search(r"mark .*0x(?:[0-9a-f]0{6,7}\b)", line)]
    assert router.show()[0] == 0
    router.rules("install", *ARGS)
    assert router.state() == usual
