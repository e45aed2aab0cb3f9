"""Checks of the kernel where the rules are a table of nftables: what that needs, tried in a new namespace."""

from __future__ import annotations

import ctypes
import os
from collections.abc import Callable, Iterable, Iterator
from typing import Final

from nfreaim.errors import BackendError
from nfreaim.host.check.answer import Check, Checks
from nfreaim.host.netfilter import compat_queue
from nfreaim.host.netfilter.libnftables import Nftables
from nfreaim.host.netfilter.names import NFT_TABLE
from nfreaim.host.netfilter.netlink import Netlink
from nfreaim.host.netfilter.nft_messages import OWNER, SUBSYSTEM, new_table

_CLONE_NEWNET: Final = 0x40000000

# What the rules use, by name; each as the inside of a table.
FEATURES: Final = {
    "sets with time-outs": "set s { type ipv4_addr . inet_service . ipv4_addr; flags timeout; timeout 9s; }",
    "sets of networks": "set s { type ipv4_addr; flags interval; auto-merge; elements = { 10.0.0.0/8 } }",
    "sets of interfaces": 'set s { type ifname; flags interval; elements = { "ppp*" } }',
    "sets that rules fill": "set s { type ipv4_addr; size 9; flags dynamic,timeout; timeout 9s; }\n"
    "chain c { update @s { ip daddr limit rate over 9/second }; }",
    "ct expression": "chain c { ct state new ct mark set ct mark | 0x1; }",
    "meta expression": "chain c { meta l4proto tcp iifname lan meta mark set meta mark | 0x1; }",
    "fib expression": "chain c { fib daddr type local return; }",
    "limit expression": "chain c { limit rate 9/second burst 9 packets return; }",
    "notrack": "chain c { type filter hook output priority raw; notrack; }",
    "dnat by a map": "map m { type ipv4_addr . inet_service : ipv4_addr . inet_service; flags timeout; }\n"
    "chain c { type nat hook prerouting priority dstnat; dnat ip to ip daddr . tcp dport map @m; }",
    "dnat by ports": "map m { type inet_service : ipv4_addr; flags interval; }\n"
    "chain c { type nat hook prerouting priority dstnat; dnat to tcp dport map @m; }",
}
_QUEUE: Final = "chain c { queue num 1 bypass; }"
_MODULES: Final = "load or build its module (nft_*, CONFIG_NFT_*)"
_RELOAD: Final = (
    "the kernel has no tables with an owner: connections whose lengths were changed are not guarded while"
    " another program reloads nftables (`flush ruleset`)"
)


def features() -> Checks:
    """Try each in a new network namespace, which ends with the process in it."""
    if os.geteuid() != 0:
        return
    try:
        nft = Nftables()
    except BackendError:
        return  # a check of its own says so
    try:
        lacking = in_new_namespace(lambda: _lacking(nft))
    except OSError as error:
        yield Check("warn", f"kernel features not probed: {error}", "needs CAP_SYS_ADMIN")
        return
    for name in lacking:
        if name == _RELOAD:
            yield Check("warn", name, "Linux 5.12 or later, or have the firewall replace its own tables only")
        else:
            yield Check("FAIL", f"the kernel's nftables has no {name}", _MODULES)
    if not lacking:
        yield Check("ok", f"kernel features: {', '.join((*FEATURES, 'queue', 'tables with an owner'))}")


def in_new_namespace(work: Callable[[], Iterable[str]]) -> list[str]:
    """What *work* gives in a network namespace of its own, in a process that ends with it. Raises OSError."""
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        status = 1
        try:
            if ctypes.CDLL(None, use_errno=True).unshare(_CLONE_NEWNET) == 0:
                os.write(writing, "\n".join(work()).encode())
                status = 0
        finally:
            os._exit(status)
    os.close(writing)
    with os.fdopen(reading) as answer:
        text = answer.read()
    if os.waitpid(child, 0)[1] != 0:
        raise OSError("no network namespace of its own")
    return text.splitlines()


def _lacking(nft: Nftables) -> Iterator[str]:
    for name, inside in FEATURES.items():
        if not _takes(nft, inside):
            yield name
    if not _takes(nft, _QUEUE) and not _queues_by_target(nft):
        yield "queue expression (nft_queue), and not the target NFQUEUE (nft_compat, xt_NFQUEUE) either"
    netlink = Netlink()
    if any(netlink.transact(SUBSYSTEM, [new_table("probe_owner", OWNER)])):
        yield _RELOAD


def _takes(nft: Nftables, inside: str) -> bool:
    try:
        nft.run(f"table ip probe {{\n{inside}\n}}\n")
        nft.run("delete table ip probe\n")
    except BackendError:
        return False
    return True


def _queues_by_target(nft: Nftables) -> bool:
    try:
        nft.run(f"table ip {NFT_TABLE} {{\nchain c {{ }}\n}}\n")
        compat_queue.replace([compat_queue.QueueRule("c", 1)])
    except BackendError:
        return False
    return True
