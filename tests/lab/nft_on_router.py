"""What tests/lab/test_nft_table.py does with tables of nftables on a router, as on_router.py does it."""

from __future__ import annotations

import select
import subprocess
import sys

import netfilterqueue
import pytest

from nfreaim.core.address import Endpoint
from nfreaim.errors import BackendError
from nfreaim.host.netfilter import nft_generation
from nfreaim.host.netfilter.kernel_sets import FlowEntry
from nfreaim.host.netfilter.names import GUARD_TABLE, NFT_TABLE
from nfreaim.host.netfilter.nft_events import Changes, NftEvents
from nfreaim.host.netfilter.nft_guard import SkewGuard
from nfreaim.host.netfilter.nft_image import Tables

TABLE = """
table ip nfreaim {
    comment "which has all that rules are made of"
    ct helper ftp { type "ftp" protocol tcp; l3proto ip; }
    set lan { type ifname; flags interval; elements = { "lan", "ppp*" }; }
    set wan { type ifname; flags interval; elements = { "wan" }; }
    set networks { type ipv4_addr; flags interval; auto-merge; elements = { 10.0.0.0/8, 192.168.0.0/16 }; }
    set nfreaim_skew { type ipv4_addr . inet_service . ipv4_addr; flags timeout; timeout 5d; }
    set calls { type ipv4_addr; size 65536; flags dynamic,timeout; timeout 10s; }
    map nfreaim_pin { type ipv4_addr . inet_service : ipv4_addr . inet_service; flags timeout; size 1024; }
    chain raw {
        type filter hook prerouting priority raw + 1; policy accept;
        iifname @lan ct state established,related return comment "known"
        tcp dport { 5190, 6660-6669 } ip saddr vmap { 10.0.0.1 : drop, 10.0.0.2 : jump more }
    }
    chain forward {
        type filter hook forward priority 0; policy drop;
        ct state vmap { invalid : drop, established : accept, related : accept }
        ip saddr @networks ct helper set "ftp" counter accept
    }
    chain nat {
        type nat hook prerouting priority dstnat + 1; policy accept;
        ct mark set ct mark & 0xf0ffffff | 0x03000000
        dnat ip to ip daddr . tcp dport map @nfreaim_pin
    }
    chain more {
        fib daddr type local meta mark set meta mark | 0x10000000 return
        tcp flags & (syn | ack) == syn update @calls { ip daddr limit rate over 4000/second } drop
        limit rate 500/second burst 500 packets counter accept
    }
}
"""
FLOW = FlowEntry(Endpoint("10.0.0.9", 4000), "203.0.113.9")


def nft(text: str) -> str:
    return subprocess.run(
        ["nft", "-f", "-"], input=text, text=True, capture_output=True, check=True, timeout=30
    ).stdout


def listed() -> str:
    return nft("list ruleset")


def own(name: str) -> bool:
    return not name.startswith("nfreaim_")


def deleted_table_is_made_again_as_it_was() -> None:
    nft(TABLE)
    tables = Tables()
    before, image = listed(), tables.image(NFT_TABLE, own)
    assert image is not None
    nft("flush ruleset")
    assert tables.image(NFT_TABLE, own) is None
    tables.make(image)
    assert listed() == before
    now = tables.image(NFT_TABLE, own)
    assert now is not None
    assert image.changed(now) == []
    assert image.handle != now.handle
    tables.make(image, now)  # of the one that is there
    assert listed() == before
    tables.close()


def each_damage_is_named() -> None:
    nft(TABLE)
    tables = Tables()
    image = tables.image(NFT_TABLE, own)
    assert image is not None
    for damage, named in (
        ("add element ip nfreaim nfreaim_pin { 1.2.3.4 . 5 timeout 5s : 10.0.0.1 . 5 }", []),
        ("add element ip nfreaim calls { 1.2.3.4 timeout 5s }", []),
        ("add rule ip nfreaim more drop", ["chain more: rules changed"]),
        ("flush chain ip nfreaim nat", ["chain nat: rules missing"]),
        ("add chain ip nfreaim theirs", ["chain theirs added"]),
        ("delete element ip nfreaim networks { 10.0.0.0/8 }", ["set networks: elements changed"]),
        ("add chain ip nfreaim forward { policy accept; }", ["chain forward changed"]),
        ("flush chain ip nfreaim nat; delete map ip nfreaim nfreaim_pin", ["set nfreaim_pin missing"]),
    ):
        nft(damage)
        now = tables.image(NFT_TABLE, own)
        assert now is not None
        assert set(named) <= set(image.changed(now)), (damage, image.changed(now))
        assert bool(named) == bool(image.changed(now)), damage
        kept = "nfreaim_pin missing" not in str(named)
        nft("add element ip nfreaim nfreaim_pin { 1.2.3.4 . 6 : 10.0.0.1 . 6 }" if kept else "")
        tables.make(image, now)
        assert ("1.2.3.4 . 6" in listed()) is kept, "what the daemon has put into the sets stays"
        now = tables.image(NFT_TABLE, own)
        assert now is not None
        assert image.changed(now) == []
    tables.close()


def refused_transaction_changes_nothing() -> None:
    nft(TABLE)
    tables = Tables()
    image = tables.image(NFT_TABLE, own)
    assert image is not None
    before = listed()
    broken = type(image)(**{**vars(image), "chains": {}})
    with pytest.raises(BackendError, match="refused"):
        tables.make(broken)
    assert listed() == before
    tables.close()


def changes_are_announced_and_those_of_elements_not() -> None:
    nft(TABLE)
    events = NftEvents(NFT_TABLE, GUARD_TABLE)
    for change, told in (
        ("add element ip nfreaim networks { 172.16.0.0/12 }", Changes(ours=False, others=False)),
        ("flush set ip nfreaim networks", Changes(ours=False, others=False)),
        ("add table inet theirs", Changes(ours=False, others=True)),
        ("add table ip6 nfreaim", Changes(ours=False, others=True)),
        ("add table ip nfreaim_guard7", Changes(ours=False, others=False)),
        ("add chain ip nfreaim theirs", Changes(ours=True, others=False)),
        ("flush chain ip nfreaim nat", Changes(ours=True, others=False)),
        ("flush ruleset", Changes(ours=True, others=True)),
    ):
        nft(change)
        assert events.read() == told, change
    events.close()


def more_announcements_than_fit_count_as_a_change_of_all() -> None:
    events = NftEvents(NFT_TABLE, GUARD_TABLE)
    rules = "".join(f"ip saddr 10.{number // 250}.{number % 250}.0/24 drop\n" for number in range(20000))
    nft(f"table ip theirs {{\n chain one {{\n{rules} }}\n }}\n")
    assert events.read() == Changes(ours=True, others=True)
    assert events.read() == Changes(ours=False, others=False)
    nft("add table ip nfreaim")
    assert events.read() == Changes(ours=True, others=False)
    events.close()


def guard_outlives_a_reload_and_ends_with_its_process() -> None:
    nft(TABLE)
    guard = SkewGuard(0x10000000)
    assert GUARD_TABLE not in listed()
    guard.add([FLOW])
    nft(f"flush ruleset\n{TABLE}")
    assert FLOW in guard.flows
    assert "10.0.0.9 . 4000 . 203.0.113.9" in listed()
    assert listed().count('"ppp*"') == 2
    nft("flush ruleset\n" + TABLE.replace(', "ppp*"', ""))
    guard.follow()
    assert '"ppp*"' not in listed()
    guard.delete([FLOW])
    assert "10.0.0.9" not in listed()
    guard.add([FLOW])
    guard.close()
    assert GUARD_TABLE not in listed()


def changes_of_others_are_counted_and_those_of_our_processes_not() -> None:
    nft(TABLE)
    numbers = [nft_generation.generation()]
    nft("add table ip theirs")
    numbers.append(nft_generation.generation())
    assert len({*numbers, None}) == 3
    guard = SkewGuard(1)
    nft_generation.leave_own_changes_out()
    begun = nft_generation.generation()
    for number in range(1000):
        guard.add([FLOW._replace(client=Endpoint("10.0.0.9", number))])
    assert nft_generation.generation() == begun
    nft("add set ip theirs s { type ipv4_addr; }")  # by a child that has ended
    counted = nft_generation.generation()
    assert counted is not None
    assert begun is not None
    assert counted >= begun + 1
    assert nft_generation.generation() == counted
    words = [sys.executable, "-m", "tests.lab.nft_on_router", "guard_what_stdin_tells"]
    with subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as worker:
        assert worker.stdin is not None
        assert worker.stdout is not None
        for number in range(3):
            print(number, file=worker.stdin, flush=True)
            worker.stdout.readline()
            assert nft_generation.generation() == counted
        worker.stdin.close()


def guard_what_stdin_tells() -> None:
    guard = SkewGuard(1)
    for line in sys.stdin:
        guard.add([FLOW._replace(client=Endpoint("10.0.0.9", int(line)))])
        print("done", flush=True)


def packet_that_waits_while_a_chain_is_made_is_queued_once(client: str) -> None:
    nft("add element ip nfreaim nfreaim_skew { 10.0.0.9 . 4000 . 203.0.113.9 }")
    seen: list[int] = []

    def serve(packet: netfilterqueue.Packet) -> None:
        seen.append(packet.get_mark())
        if len(seen) == 1:  # one that comes before ours, and moves ours on by one
            nft("add table ip theirs\nadd chain ip theirs c { type filter hook prerouting priority -400; }")
        packet.accept()

    queue = netfilterqueue.NetfilterQueue()
    queue.bind(5190, serve)
    connect = "import socket as s; c = s.socket(); c.bind(('10.0.0.9', 4000)); c.settimeout(0.6); "
    connect += "c.connect_ex(('203.0.113.9', 5190))"
    calling = subprocess.Popen(["ip", "netns", "exec", client, sys.executable, "-c", connect])
    while calling.poll() is None:
        if select.select([queue.get_fd()], [], [], 0.1)[0]:
            queue.run(block=False)
    queue.unbind()
    assert seen == [0x10000000, 0x10000000], "SYN and answer"


if __name__ == "__main__":
    globals()[sys.argv[1]](*sys.argv[2:])
