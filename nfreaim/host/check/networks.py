"""Checks of interfaces and addresses: whether they exist, and whether peers can reach the outside address."""

from __future__ import annotations

import ipaddress
from collections.abc import Sequence

from nfreaim.core.address import UNREACHABLE
from nfreaim.host.check.answer import Check, Checks
from nfreaim.host.check.commands import interface_exists, json_from, networks_of


def interfaces(lan: Sequence[str], wan: Sequence[str]) -> Checks:
    for option, names in (("--lan", lan), ("--wan", wan)):
        if not names:
            yield Check(
                "FAIL", f"no {option} interface named", f"{option} IF, or `{option[2:]}` in the configuration"
            )
        for name in names:
            if not interface_exists(name):
                yield Check(
                    "FAIL", f"interface {name} does not exist", "see ip link; correct the name or bring it up"
                )
    for name in filter(interface_exists, lan):
        networks = sorted(networks_of(name))
        if networks:
            yield Check("ok", f"inside networks on {name}: {', '.join(networks)}")
        else:
            yield Check("FAIL", f"{name} has no IPv4 network", f"ip address add ADDRESS/LENGTH dev {name}")
    for name in filter(interface_exists, wan):
        yield from _outside(name)


def _outside(name: str) -> Checks:
    entries = json_from(["ip", "-4", "-j", "address", "show", "dev", name])
    found = [info["local"] for entry in entries for info in entry.get("addr_info", ()) if "local" in info]
    if not found:
        yield Check("warn", f"{name} has no IPv4 address (yet)", "bring the uplink up")
    for text in found:
        kind = unreachable(text)
        if kind is None:
            yield Check("ok", f"outside address {text} on {name}")
        else:
            yield Check(
                "warn",
                f"outside address {text} on {name} is {kind}: double NAT, peers cannot connect to it",
                "let the router in front forward every port here, or ask the provider for a public address",
            )


def unreachable(address: str) -> str | None:
    """The kind of range that hides IPv4 *address* from peers on the Internet, or None. Raises ValueError."""
    value = ipaddress.IPv4Address(address)
    return next((kind for network, kind in UNREACHABLE.items() if value in network), None)
