"""Checks of check_senders: where senders are compared, where that proves nothing, and whom it would refuse.

A packet from the LAN is believed if its frame came from where the router sends packets for its address (see
host/netfilter/neighbours.py). So the router's own tables tell beforehand where that cannot be so.
"""

from __future__ import annotations

import ipaddress
import json
import os
import time
from collections import defaultdict
from collections.abc import Iterable
from pathlib import Path
from typing import Final

from nfreaim.config import Config
from nfreaim.core.backend import Sender
from nfreaim.host.check.answer import Check, Checks
from nfreaim.host.check.commands import interface_exists, json_from
from nfreaim.host.netfilter.interfaces import existing, is_named, overlap
from nfreaim.host.netfilter.neighbours import Neighbours, has_addresses
from nfreaim.host.report.status import fetch

_SHARED: Final = ("00:00:5e:00:01:", "00:00:0c:07:ac:", "00:00:0c:9f:f", "00:07:b4:")
"""Hardware addresses of a group of routers: VRRP and CARP (RFC 5798, section 7.3), HSRP, HSRP 2, GLBP."""
_LIMIT: Final = Path("/proc/sys/net/ipv4/neigh/default/gc_thresh3")
_NEARLY: Final = 0.9
_MOST_NAMED: Final = 3


def senders(config: Config) -> Checks:
    """What check_senders does on each inside interface. Raises OSError and BackendError."""
    named = config.check_senders
    if named is False:
        text = "senders are compared on no interface: another LAN host can speak for a host that is silent"
        yield Check("warn", text, f"write check_senders = true in {config.file}")
        return
    if not isinstance(named, bool):
        yield from _names(named, config)
    compared = 0
    for name in existing(config.lan):
        if named is not True and not is_named(name, named):
            text = f"senders are not compared on {name}: another host there can speak for one that is silent"
            yield Check("warn", text, f"add {json.dumps(name)} to check_senders in {config.file}")
        elif not has_addresses(name):
            yield Check(
                "warn",
                f"senders cannot be compared on {name}, whose packets have no hardware addresses: the "
                "handshake is the only proof there",
                f"sysctl -w net.ipv4.conf.{name}.rp_filter=1, and let each peer of a tunnel have its own "
                "addresses only (WireGuard: AllowedIPs)",
            )
        else:
            compared += 1
            yield from _compared(name, _narrowed(name, config))
    if compared:
        yield from _full()
        yield from _met(config)


def _names(named: Iterable[str], config: Config) -> Checks:
    """Names in check_senders that stand for no inside interface."""
    for name in named:
        if any(overlap(name, lan) for lan in config.lan):
            continue
        text, put = f"check_senders names {name}, which is no inside interface", f"one of {list(config.lan)}"
        if not interface_exists(name):
            text = f"check_senders names {name}, which does not exist"
        elif (bridge := Path(f"/sys/class/net/{name}/master")).exists():
            put = json.dumps(os.path.basename(bridge.resolve()))
            text = f"check_senders names {name}, a port of {put}: packets are routed to the latter"
        yield Check("warn", text, f"write {put} instead in {config.file}")


def _narrowed(name: str, config: Config) -> str:
    """The setting that leaves *name* out."""
    named = config.lan if isinstance(config.check_senders, bool) else config.check_senders
    others = [other for other in named if other != name]
    return f"write check_senders = {json.dumps(others) if others else 'false'} in {config.file}"


def _compared(name: str, narrowed: str) -> Checks:
    """What can be said of an interface where senders are compared; *narrowed*: what to write if it is not to
    be one.
    """
    known = _neighbours(name)
    yield Check("ok", f"senders are compared on {name}: {len(known)} hosts are known there")
    yield from _routed_elsewhere(name, known, narrowed)
    yield from _shared_addresses(name, known)
    yield from _routers(name, known, narrowed)


def _neighbours(name: str) -> dict[str, str]:
    """Hardware address by IPv4 address of the hosts that are known on *name*, sorted: the kernel lists them
    by a hash that is another one after each boot.
    """
    entries = json_from(["ip", "-4", "-j", "neigh", "show", "dev", name])
    bad = {"FAILED", "INCOMPLETE", "NOARP"}
    return {
        entry["dst"]: entry["lladdr"]
        for entry in sorted(entries, key=lambda entry: ipaddress.ip_address(entry["dst"]))
        if len(entry.get("lladdr", "")) == 17 and not bad & set(entry.get("state", ()))
    }


def _routed_elsewhere(name: str, known: dict[str, str], narrowed: str) -> Checks:
    """Hosts of *name* whose packets would be taken for forged, because the route to them leads elsewhere."""
    asked = Neighbours(time.monotonic)
    try:
        wrong = [
            host
            for host, hardware in known.items()
            if asked.sent(host, bytes.fromhex(hardware.replace(":", ""))) is not Sender.HOST
        ]
    finally:
        asked.close()
    found = defaultdict[str, list[str]](list)
    for host in dict.fromkeys([*wrong, *_samples(name)]):
        for route in json_from(["ip", "-4", "-j", "route", "get", host]):
            if route.get("dev") != name and route.get("type") != "local":
                found[route.get("dev", "nowhere")].append(host)
    for other, hosts in found.items():
        yield Check(
            "warn",
            f"packets of {_some(hosts)} that come in by {name} are taken for forged, and nothing is opened "
            f"for them: the router's answers go out by {other}",
            f"let the route lead to {name} (ip route get {hosts[0]}), or join both links by a bridge; if it "
            f"is as it should be, {narrowed}",
        )


def _samples(name: str) -> Iterable[str]:
    """An address of each network that is connected to *name*, none of the router's own."""
    for entry in json_from(["ip", "-4", "-j", "address", "show", "dev", name]):
        for info in entry.get("addr_info", ()):
            own = ipaddress.ip_interface(f"{info['local']}/{info['prefixlen']}")
            if own.network.num_addresses > 2 and "peer" not in info and "address" not in info:
                yield str(next(host for host in own.network.hosts() if host != own.ip))


def _shared_addresses(name: str, known: dict[str, str]) -> Checks:
    by_hardware = defaultdict[str, list[str]](list)
    for host, hardware in known.items():
        by_hardware[hardware].append(host)
    for hardware, hosts in by_hardware.items():
        if len(hosts) > 1:
            yield Check(
                "warn",
                f"{_some(hosts)} have one hardware address on {name}, {hardware}: they are not told apart "
                "(a machine with several addresses, a repeater or proxy ARP)",
                f"none is needed if it is one machine; else let the machine with {hardware} bridge, or drop "
                "what has a forged source",
            )


def _routers(name: str, known: dict[str, str], narrowed: str) -> Checks:
    """Other routers on *name*, by the networks behind them."""
    behind = defaultdict[str, list[str]](list)
    for route in json_from(["ip", "-4", "-j", "route", "show", "dev", name]):
        hop = route.get("gateway") or route.get("via", {}).get("host")
        if hop:
            behind[hop].append(route["dst"])
    for hop, networks in behind.items():
        hardware = known.get(hop, "")
        if hardware.startswith(_SHARED):
            yield Check(
                "warn",
                f"{hop}, the router to {_some(networks)} on {name}, has a hardware address that routers "
                f"share ({hardware}): what it sends from its own one is taken for forged",
                f"let that router send from the shared address, too (keepalived: use_vmac); or {narrowed}",
            )
        else:
            yield Check(
                "warn",
                f"hosts of {_some(networks)} are behind {hop} on {name}: they are not told apart",
                f"let {hop} drop what has a forged source (Linux: rp_filter=1); if packets of those hosts "
                f"come in another way, {narrowed}",
            )


def _full() -> Checks:
    """Whether the kernel's table of neighbours has room: who is not in it gets nothing opened."""
    if not _LIMIT.exists():  # only the first network namespace has it
        return
    limit = int(_LIMIT.read_text())
    count = len(json_from(["ip", "-4", "-j", "neigh", "show"]))
    if count >= _NEARLY * limit:
        yield Check(
            "warn",
            f"{count} of {limit} neighbours are known: for hosts that find no room nothing is opened",
            f"sysctl -w net.ipv4.neigh.default.gc_thresh3={limit * 4}",
        )


def _met(config: Config) -> Checks:
    """What the daemon has met since its start, if one runs."""
    document = fetch(config.status_socket) or {}
    if met := document.get("counters", {}).get("strange_senders", 0):
        yield Check(
            "warn",
            f"{met} times since the daemon's start a packet from the LAN came from another machine than the "
            "router sends packets for its address to",
            "the log names the addresses; if that is as it should be on one interface, leave that out of "
            f"check_senders in {config.file}",
        )


def _some(names: list[str]) -> str:
    more = len(names) - _MOST_NAMED
    return ", ".join(names[:_MOST_NAMED]) + (f" and {more} more" if more > 0 else "")
