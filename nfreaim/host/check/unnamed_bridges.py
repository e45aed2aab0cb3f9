"""Networks of containers and virtual machines that are behind this router and that no --lan names.

Docker, Podman, LXC, libvirt and their kind give their guests a bridge of this machine, or a pair of veth
interfaces for each. What goes through it is read only if the rules name that interface as they name a LAN.
"""

from __future__ import annotations

import os
import re
import shlex
from collections.abc import Collection, Iterable, Iterator
from dataclasses import replace
from ipaddress import IPv4Address, IPv4Network
from pathlib import Path
from typing import Any, Final, NamedTuple

from nfreaim.config import Config
from nfreaim.core.address import Endpoint
from nfreaim.core.reach import is_private
from nfreaim.host.check.answer import Check, Checks
from nfreaim.host.check.commands import json_from
from nfreaim.host.check.unread_protocols import Hosts, hosts_at
from nfreaim.host.home.forward_reader import read_now
from nfreaim.host.netfilter.interfaces import is_named, overlap
from nfreaim.host.rules.script import Settings

_KINDS: Final = ("bridge", "veth")
_DOCKERS: Final = re.compile("br-[0-9a-f]{12}")  # its own networks, one bridge each
_GONE: Final = ("FAILED", "INCOMPLETE")  # states of a neighbour that does not answer


class Bridge(NamedTuple):
    """An interface of this machine with guests behind it, and their networks."""

    name: str
    networks: tuple[IPv4Network, ...]

    def has(self, address: str) -> bool:
        """Whether *address* is in one of the networks."""
        return any(IPv4Address(address) in network for network in self.networks)


def bridges(config: Config) -> Checks:
    """A line for each bridge whose guests are not served. Raises OSError and BackendError."""
    if os.geteuid() != 0:
        return
    listed = json_from(["ip", "-d", "-j", "-4", "address", "show", "up"])
    found = [one for one in unnamed(listed, [*config.lan, *config.wan]) if _forwards(one.name)]
    if not found:
        return
    hosts = hosts_at([network for one in found for network in one.networks])
    servers = [(forward.port, forward.inside) for forward in read_now()]
    for one in found:
        yield from about(one, config, hosts, servers, _has_neighbours(one.name))


def unnamed(listed: Iterable[dict[str, Any]], named: Collection[str]) -> Iterator[Bridge]:
    """The bridges with private networks among the interfaces *listed* by ip, but for those *named*."""
    for one in listed:
        kind = one.get("linkinfo", {}).get("info_kind")
        if kind not in _KINDS or "master" in one or is_named(one["ifname"], named):
            continue
        networks = [
            IPv4Network(f"{address['local']}/{address['prefixlen']}", strict=False)
            for address in one["addr_info"]
            if address["scope"] == "global" and is_private(address["local"])
        ]
        if networks:
            yield Bridge(one["ifname"], tuple(networks))


def about(
    bridge: Bridge,
    config: Config,
    hosts: Hosts,
    servers: Iterable[tuple[int, Endpoint]],
    has_neighbours: bool,
) -> Checks:
    """What is said of *bridge*. Where nobody has spoken yet and no port leads, nothing is.

    hosts    who has connections now, by the server's port
    servers  where ports are forwarded to: outside port, and inside endpoint
    """
    read = {port for ports in config.ports.values() for port in ports}
    networks = ", ".join(map(str, bridge.networks))
    remedy = _remedy(bridge.name, config)
    clients = [
        (port, host) for port in sorted(read) for host in hosts.get(("tcp", port), ()) if bridge.has(host)
    ]
    there = [inside for port, inside in servers if {port, inside.port} & read and bridge.has(inside.address)]
    if clients:
        port, host = min(clients)
        text = f"{host} on {bridge.name} has a connection to a server on port {port}, which is not read"
        yield Check("warn", f"{text}: no --lan names {bridge.name}", remedy)
    elif there:
        text = f"a rule forwards a port to {min(there)} on {bridge.name}, and its connections are not read"
        yield Check("warn", f"{text}: no --lan names {bridge.name}", remedy)
    elif has_neighbours:
        text = f"hosts on {bridge.name} ({networks}) are not served: no --lan names it"
        yield Check("hint", text, f"if a client or a server is among them, {remedy}")


def _remedy(name: str, config: Config) -> str:
    """What names the interface; Docker's networks have names that change, so all of them are named."""
    pattern = (
        "br-+" if _DOCKERS.fullmatch(name) and not any(overlap("br-+", wan) for wan in config.wan) else name
    )
    words = Settings.of(replace(config, lan=(*config.lan, pattern))).words()
    return f"nfreaim rules install {shlex.join(words)}, and `lan` in {config.file}, if set, the same"


def _forwards(name: str) -> bool:
    """Whether the router forwards what comes in there."""
    return Path(f"/proc/sys/net/ipv4/conf/{name}/forwarding").read_text().strip() == "1"


def _has_neighbours(name: str) -> bool:
    """Whether anybody there has spoken with this router."""
    listed = json_from(["ip", "-4", "-j", "neighbour", "show", "dev", name])
    return any("lladdr" in one and not {*one.get("state", ())} & {*_GONE} for one in listed)
