"""Checks of what peers outside can reach: the addresses that they are told, and the ports behind these."""

from __future__ import annotations

import os
import re
from collections.abc import Collection, Iterator, Sequence
from typing import Final

from nfreaim.core.address import is_address
from nfreaim.core.firewall.policy import PinholePolicy
from nfreaim.core.reach import remedy, unreachable
from nfreaim.host.check.answer import Check, Checks
from nfreaim.host.check.commands import json_from, run, which
from nfreaim.host.check.in_front import hidden
from nfreaim.host.netfilter.interfaces import existing
from nfreaim.host.outside_name import Resolve, resolve, usable

_NAT: Final = (("iptables-legacy-save", "-t", "nat"), ("iptables-nft-save", "-t", "nat"))
_NATIVE: Final = ("nft", "list", "ruleset")
# --to-source 198.51.100.66, --to-source 198.51.100.64-198.51.100.79; nft says snat to, snat ip to
_TRANSLATED: Final = re.compile(r"(?:--to-source|\bsnat (?:ip )?to) ([0-9.]+)")


def outside(wan: Sequence[str], policy: PinholePolicy, ask: Resolve = resolve) -> Checks:
    """What peers are told, and whether it leads here as far as addresses tell."""
    told = policy.announce
    if told is not None and not is_address(told):
        try:
            yield Check("ok", f"outside_address {told} stands for {usable(ask(told), None)}")
        except OSError as error:
            yield Check(
                "warn",
                f"outside_address {told} cannot be resolved: {error}; nothing is announced until it can",
                f"see what `getent ahostsv4 {told}` says on this router",
            )
    elif told is not None and (kind := unreachable(told)):
        yield Check(
            "warn", f"outside_address {told} is {kind}: peers on the Internet cannot reach it", remedy(kind)
        )
    for name in existing(wan):
        addresses = _addresses("dev", name)
        if not addresses:
            yield Check("warn", f"{name} has no IPv4 address (yet)", "bring the uplink up")
        for address in addresses:
            yield _told(f"outside address {address} on {name}", address, policy)
    own = set(_addresses())
    for address in sorted(set(_translated_to()) - own):
        what = f"outside address {address}, which connections leave with and no interface has"
        yield _told(what, address, policy)
    yield from _ports(policy)


def _told(what: str, address: str, policy: PinholePolicy) -> Check:
    kind = unreachable(address)
    if policy.announce is not None:
        return Check("ok", f"{what}: peers are told outside_address {policy.announce}")
    if kind is None:
        return Check("ok", what)
    return hidden(what, address, kind, policy.upstream)


def _ports(policy: PinholePolicy) -> Checks:
    if not policy.strict:
        return
    yield Check("ok", f"no outside port is used but {len(policy.ports)} (ports and strict in [pinholes])")
    for forward in policy.forwards:
        if lost := [port for port in forward.ports if not policy.arrives(port)]:
            yield Check(
                "warn",
                f"forward {forward}: port {lost[0]} is none of ports in [pinholes], so nothing arrives there",
                "choose ports of the forward among them",
            )


def _addresses(*which_ones: str) -> list[str]:
    entries = json_from(["ip", "-4", "-j", "address", "show", *which_ones])
    return [info["local"] for entry in entries for info in entry.get("addr_info", ()) if "local" in info]


def _translated_to() -> Iterator[str]:
    """The first address of each source NAT rule."""
    if os.geteuid() != 0:
        return
    for words in (*_NAT, _NATIVE):
        if which(words[0]) is not None:
            yield from translated(run(words).stdout.splitlines())


def translated(rules: Collection[str]) -> list[str]:
    """The first address of each source NAT rule among *rules*, as the programs print them."""
    return [found[1] for rule in rules if (found := _TRANSLATED.search(rule))]
