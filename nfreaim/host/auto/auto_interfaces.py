"""The interfaces to serve where nobody named any: found in this machine's own set-up, or nobody is served.

A machine counts as a router if it forwards, has one IPv4 default route, and translates what comes from a
private network on a link of its own. Programs that run containers, virtual machines and VPNs set up the same
for their guests, so networks of theirs do not count.
"""

from __future__ import annotations

import json
import re
import subprocess
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from ipaddress import IPv4Network
from pathlib import Path
from typing import Any, Final, NamedTuple

from nfreaim.config_values import interface
from nfreaim.core.reach import is_private
from nfreaim.errors import BackendError
from nfreaim.host.auto.masquerading import Ruleset, Way, of_iptables, of_nftables
from nfreaim.host.check.commands import json_from, run, which

_FORWARDING: Final = Path("/proc/sys/net/ipv4/ip_forward")
_LEGACY_TABLES: Final = Path("/proc/net/ip_tables_names")

# Of Docker, Podman, libvirt, LXC, LXD, Incus, Kubernetes, VMware, VirtualBox; WireGuard, Tailscale, ZeroTier,
# and interfaces that belong to a program.
_GUESTS: Final = re.compile(
    r"br-[0-9a-f]{12}$"
    r"|(?:docker|podman|virbr|vnet|veth|lxcbr|lxdbr|incusbr|cni|flannel|cali|cilium|kube|vmnet|vboxnet)"
    r"|(?:wg|tailscale|zt|tun|tap)"
)
_LINK_TYPE: Final = "ether"  # a link with hosts, as opposed to tunnels and PPP


class Interfaces(NamedTuple):
    """To serve: those towards the inside clients, and the one towards the Internet."""

    lan: tuple[str, ...]
    wan: str


class Unclear(NamedTuple):
    """Why nobody is served, and what may be written into the configuration instead."""

    why: str
    lan: tuple[str, ...] = ()
    wan: str = ""

    def told(self, file: str) -> str:
        """In one line, with the two lines to write."""
        lan, wan = map(json.dumps, self.named())
        return (
            f"nobody is served, because no interfaces are named and none were found: {self.why}; if this is a"
            f" router, write into {file}: lan = {lan} and wan = {wan}"
        )

    def named(self) -> tuple[list[str], list[str]]:
        """What may be written as lan and wan: names that were found, and examples in place of others."""
        return [*self.lan] or ["br-lan"], [self.wan or "eth0"]


@dataclass(frozen=True)
class RouterFacts:
    """What a decision needs.

    forwarding  whether IPv4 packets are forwarded
    defaults    the interfaces of the IPv4 default routes of the main table, each once
    links       the networks of each interface that is up and has hosts on its link
    rulesets    the chains of type nat of each firewall in use
    """

    forwarding: bool
    defaults: tuple[str, ...]
    links: Mapping[str, tuple[IPv4Network, ...]]
    rulesets: tuple[Ruleset, ...] = ()

    def masquerades(self, lan: str, network: IPv4Network, wan: str) -> bool:
        """Whether connections from *network* leave by *wan* with an address of this machine."""
        return any(one.masquerades(Way(lan, network, wan)) for one in self.rulesets)


def decide(facts: RouterFacts) -> Interfaces | Unclear:
    """The interfaces to serve, or why there are none."""
    wan = facts.defaults[0] if facts.defaults else ""
    private = {
        name: networks for name, networks in facts.links.items() if name != wan and _is_lan(name, networks)
    }
    odd = [name for name in (wan, *sorted(private)) if name and not _can_be_written(name)]
    private = {name: networks for name, networks in private.items() if name not in odd}
    inside = tuple(sorted(private))
    if not facts.forwarding:
        return Unclear("IPv4 forwarding is off (net.ipv4.ip_forward)", inside, "" if wan in odd else wan)
    if not wan:
        return Unclear("there is no IPv4 default route in the main table", inside)
    if len(facts.defaults) > 1:
        return Unclear(f"there are several IPv4 default routes (by {', '.join(facts.defaults)})", inside)
    if wan in odd or (odd and not inside):
        why = (
            f"the settings cannot have the name of {json.dumps(odd[0])}: have letters, digits and . _ - there"
        )
        return Unclear(why, inside, "" if wan in odd else wan)
    if not inside:
        return Unclear(f"no link but {wan} has a private network, of guests and VPNs apart", (), wan)
    served = tuple(
        name for name in inside if all(facts.masquerades(name, network, wan) for network in private[name])
    )
    if not served:
        networks = ", ".join(f"{network} on {name}" for name in inside for network in private[name])
        return Unclear(f"no rule masquerades {networks} on its way out by {wan}", inside, wan)
    return Interfaces(served, wan)


def look() -> Interfaces | Unclear:
    """Decide for this network namespace. Programs are started only if the kernel's files leave it open.

    Raises BackendError if the machine does not tell.
    """
    try:
        forwarding = _FORWARDING.read_text().strip() == "1"
        defaults = _defaults(json_from(["ip", "-4", "-j", "route", "show", "table", "main"]))
        links = _links(json_from(["ip", "-j", "address", "show", "up"]))
        open_yet = forwarding and len(defaults) == 1
        return decide(RouterFacts(forwarding, defaults, links, _rulesets() if open_yet else ()))
    except (OSError, ValueError, KeyError, TypeError, subprocess.SubprocessError) as error:
        raise BackendError(f"whether this is a router cannot be seen: {error}") from error


def _can_be_written(name: str) -> bool:
    """Whether settings and rules can have the name: "+" at its end would mean all that begin so."""
    try:
        return interface(name) == name and not name.endswith("+")
    except ValueError:
        return False


def _is_lan(name: str, networks: Iterable[IPv4Network]) -> bool:
    return bool(networks) and not _GUESTS.match(name) and all(_is_private(network) for network in networks)


def _is_private(network: IPv4Network) -> bool:
    return is_private(str(network[0])) and is_private(str(network[-1]))


def _defaults(routes: Iterable[dict[str, Any]]) -> tuple[str, ...]:
    """The interfaces of the default routes that `ip -j route` lists; several routes may have the same one."""
    hops = [
        hop
        for route in routes
        if route["dst"] == "default" and route.get("type", "unicast") == "unicast"
        for hop in route.get("nexthops") or [route]
    ]
    return tuple(dict.fromkeys(hop["dev"] for hop in hops))


def _links(listed: Iterable[dict[str, Any]]) -> dict[str, tuple[IPv4Network, ...]]:
    """The networks of each link with hosts that `ip -j address` lists."""
    found = {}
    for one in listed:
        networks = [
            IPv4Network(f"{address['local']}/{address['prefixlen']}", strict=False)
            for address in one.get("addr_info", ())
            if (address["family"], address.get("scope")) == ("inet", "global") and address["prefixlen"] < 32
        ]
        if networks and one.get("link_type") == _LINK_TYPE:
            found[one["ifname"]] = tuple(networks)
    return found


def _rulesets() -> tuple[Ruleset, ...]:
    """Of a legacy table only if there is one, because to read it would make it."""
    found = []
    if _LEGACY_TABLES.exists() and "nat" in _LEGACY_TABLES.read_text().split():
        found.append(of_iptables(_printed("iptables-legacy-save", "-t", "nat")))
    ruleset = _printed("nft", "-j", "list", "ruleset")
    found.append(of_nftables(ruleset))
    if '"POSTROUTING"' in ruleset:
        found.append(of_iptables(_printed("iptables-nft-save", "-t", "nat")))
    return tuple(found)


def _printed(*words: str) -> str:
    """What a program prints; nothing if it is not installed, or fails."""
    path = which(words[0])
    if path is None:
        return ""
    done = run([path, *words[1:]])
    return done.stdout if done.returncode == 0 else ""
