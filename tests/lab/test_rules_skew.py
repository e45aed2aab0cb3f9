"""The rules of flows that fail closed, of servers inside and of the daemon's own packets, in a real kernel.

Each test has a router of its own.
"""

import re
from collections.abc import Iterator

import pytest

from tests.lab.router import Router

ARGS = ("--lan", "lan", "--wan", "wan")


@pytest.fixture
def router() -> Iterator[Router]:
    with Router() as made:
        yield made


def test_own_packets_are_accepted_where_they_could_be_stopped_and_only_there(router: Router) -> None:
    router.load("legacy")
    router.rules("install", *ARGS)
    save = "iptables-legacy-save"
    accept = ["-m mark --mark 0x80000/0x80000 -j ACCEPT"]
    assert router.chain(save, "filter", "NFREAIM_OWN") == accept
    # On the way to a server on this router they come through lo, so nobody outside can forge the mark.
    assert router.chain(save, "filter", "INPUT")[0] == "-i lo -p tcp -j NFREAIM_OWN"
    assert router.chain(save, "filter", "OUTPUT") == []
    router.shell("iptables-legacy -P OUTPUT DROP")
    assert router.show()[0] == 3
    router.rules("install", *ARGS)
    assert router.chain(save, "filter", "OUTPUT") == ["-p tcp -j NFREAIM_OWN"]
    assert router.show()[0] == 0


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
    assert [re.sub("-m tcp ", "", rule) for rule in rules[-6:]] == [
        f"{skew} -j MARK --set-xmark 0x10000/0x10000",
        f"{skew} -j NFQUEUE --queue-num 5190",
        f"-p tcp {syn}-m set --match-set nfreaim_off {key} -j RETURN",
        "-p tcp --tcp-flags SYN SYN -m limit --limit 5000/sec --limit-burst 5000 "
        "-j NFQUEUE --queue-num 5190 --queue-bypass",
        "-p tcp --tcp-flags SYN SYN -j RETURN",
        "-j NFQUEUE --queue-num 5190 --queue-bypass",
    ]
    pinhole = [rule for rule in rules if "0x200000" in rule]
    assert pinhole == (rules[:1] if table == "mangle" else []), "a client may listen on 5190"


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


@pytest.mark.parametrize("table", ["raw", "mangle"])
@pytest.mark.parametrize("chain", ["NFREAIM", "NFREAIM_SERVER"])
def test_what_was_translated_is_never_queued_again(router: Router, table: str, chain: str) -> None:
    router.rules("install", *ARGS)
    rules = router.chain("iptables-legacy-save", table, chain)
    done = rules.index("-m mark --mark 0x40000/0x40000 -j RETURN")
    assert done < min(number for number, rule in enumerate(rules) if "NFQUEUE" in rule)
