"""Checks of other programs' forwards: they come first, and take ports from pinholes and forwards of ours."""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from ipaddress import IPv4Address, IPv4Network
from typing import Final

from nfreaim.core.firewall.policy import Forward, PinholePolicy
from nfreaim.host.check.answer import Check, Checks
from nfreaim.host.check.commands import networks_of
from nfreaim.host.netfilter.interfaces import existing, is_named
from nfreaim.host.pinholes.foreign_forwards import ForeignForward, foreign_forwards

_MANY: Final = 1024  # ports of one rule: hardly meant for one service


def ports(policy: PinholePolicy, lan: Sequence[str], file: str) -> Checks:
    """Of rules of this network namespace. *file* has the settings."""
    if os.geteuid() == 0:
        found = [one for one in foreign_forwards() if not is_named(one.interface, lan)]
        yield from taken(policy, found, file)


def taken(policy: PinholePolicy, found: Sequence[ForeignForward], file: str) -> Checks:
    """What the forwards *found* take."""
    for forward in policy.forwards:
        lost = [port for port in forward.ports if any(port in one.ports for one in found)]
        if lost:
            text = f"forward {forward}: another rule forwards port {lost[0]}, and comes first"
            yield Check("FAIL", text, f"take the port out of that rule, or of [[forward]] in {file}")
    chosen = [*policy.ports]
    lost = [port for port in chosen if any(port in one.ports for one in found)]
    if len(lost) == len(chosen):
        text = f"other rules forward every port that pinholes may choose ({chosen[0]}-{chosen[-1]})"
        yield Check(
            "FAIL", text, f"set ports in [pinholes] of {file} to others, or take ports out of these rules"
        )
    elif lost:
        text = f"other rules forward {len(lost)} of the {len(chosen)} ports that pinholes may choose"
        yield Check("warn", f"{text}, from {lost[0]} on", f"set ports in [pinholes] of {file} to others")
    for one in found:
        if len(one.ports) >= _MANY:
            text = f"another rule forwards ports {one.ports[0]}-{one.ports[-1]}: pinholes cannot be there"
            yield Check(
                "FAIL", text, "forward only the ports that the service needs, or use [[forward]] instead"
            )
        elif not one.ports:
            text = "another rule forwards all ports, as far as can be read: then pinholes get nothing"
            yield Check("warn", text, "name in that rule the ports that it is for")


def hosts(forwards: Iterable[Forward], lan: Sequence[str], file: str) -> Checks:
    """Whether forwards lead to hosts that are inside."""
    inside = [network for name in existing(lan) for network in networks_of(name)]
    for forward in forwards:
        if inside and not is_inside(forward.host, inside):
            text = (
                f"forward {forward}: {forward.host} is in none of the inside networks ({', '.join(inside)})"
            )
            yield Check("warn", text, f"write the address of a host of yours in [[forward]] of {file}")


def is_inside(address: str, networks: Iterable[str]) -> bool:
    """Whether the IPv4 *address* is in one of *networks*."""
    return any(IPv4Address(address) in IPv4Network(network) for network in networks)
