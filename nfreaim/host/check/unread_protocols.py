"""Looks in connection tracking for what the inside hosts talk to now, and names what could be switched on.

What a protocol's servers usually listen on is all that is compared: no byte of a connection is read here.
"""

from __future__ import annotations

import json
import os
import socket
from collections.abc import Collection, Iterable, Iterator
from ipaddress import IPv4Address, IPv4Network
from typing import Final, NamedTuple

from nfreaim.config import Config
from nfreaim.core.helper import HelperSpec
from nfreaim.host.check.answer import Check, Checks
from nfreaim.host.check.commands import networks_of
from nfreaim.host.netfilter.interfaces import existing
from nfreaim.host.netfilter.netlink import DUMP, REQUEST, Netlink, attributes, message
from nfreaim.kernel_helpers import KERNEL_HELPERS
from nfreaim.protocols import known_protocols

_GET: Final = 0x0101  # IPCTNL_MSG_CT_GET of the subsystem of connection tracking
_ORIGINAL, _REPLY, _STATUS, _PROTOINFO = 1, 2, 3, 4
_IP, _PROTO = 1, 2  # in a tuple
_SOURCE, _NUMBER, _SOURCE_PORT = 1, 1, 2
_TCP, _TCP_STATE, _ESTABLISHED = 1, 1, b"\x03"
_SEEN_REPLY: Final = 1 << 1  # bit of CTA_STATUS
_TRANSPORTS: Final = {socket.IPPROTO_TCP: "tcp", socket.IPPROTO_UDP: "udp"}

_NAMED: Final = 3  # at most as many hosts in a line
_MOST: Final = 4096  # at most as many pairs of host and port are kept


class Talk(NamedTuple):
    """A connection that is answered: both ends as the inside sees them, and the server's port there."""

    transport: str
    client: str
    server: str
    port: int


def hints(config: Config) -> Checks:
    """A line for each protocol that inside hosts seem to speak and that is not read. Raises OSError."""
    if os.geteuid() != 0:
        return
    found = hosts_at([IPv4Network(text) for name in existing(config.lan) for text in networks_of(name)])
    yield from (Check("hint", text, remedy) for text, remedy in unread(config, found))


def talks(entries: Iterable[bytes]) -> Iterator[Talk]:
    """The connections among *entries*, each the attributes of one (linux/netfilter/nfnetlink_conntrack.h)."""
    for body in entries:
        entry = dict(attributes(body))
        tuples = [_nested(entry, which) for which in (_ORIGINAL, _REPLY)]
        protocols = [_nested(one, _PROTO) for one in tuples]
        transport = _TRANSPORTS.get(protocols[0].get(_NUMBER, b"\0")[0])
        sources = [_nested(one, _IP).get(_SOURCE, b"") for one in tuples]
        if transport is None or not all(len(source) == 4 for source in sources):
            continue
        state = _nested(_nested(entry, _PROTOINFO), _TCP).get(_TCP_STATE, _ESTABLISHED)
        if state == _ESTABLISHED and int.from_bytes(entry.get(_STATUS, b""), "big") & _SEEN_REPLY:
            port = int.from_bytes(protocols[1].get(_SOURCE_PORT, b""), "big")
            client, server = map(socket.inet_ntoa, sources)
            yield Talk(transport, client, server, port)


def _nested(entry: dict[int, bytes], kind: int) -> dict[int, bytes]:
    return dict(attributes(entry.get(kind, b"")))


Hosts = dict[tuple[str, int], set[str]]
"""The inside ends of connections by transport and the server's port."""


def hosts_at(inside: Collection[IPv4Network]) -> Hosts:
    """The hosts in these networks that have connections with the outside now. Raises OSError."""
    netlink = Netlink(patience_s=2.0)
    try:
        return hosts_by_port(talks(netlink.dump(message(_GET, REQUEST | DUMP))), inside)
    finally:
        netlink.close()


def hosts_by_port(found: Iterable[Talk], inside: Collection[IPv4Network]) -> Hosts:
    """The inside hosts that have connections with the outside, as client or as server."""
    hosts: Hosts = {}
    count = 0
    for talk in found:
        homes = [any(IPv4Address(end) in network for network in inside) for end in (talk.client, talk.server)]
        if sum(homes) != 1 or count >= _MOST:
            continue
        known = hosts.setdefault((talk.transport, talk.port), set())
        count += 1
        known.add(talk.client if homes[0] else talk.server)
    return hosts


def unread(config: Config, hosts: Hosts) -> Iterator[tuple[str, str]]:
    """What is spoken by *hosts*, and what to write into the configuration to have it read."""
    read = {port for ports in config.ports.values() for port in ports}
    for spec in known_protocols():
        for port in sorted({*spec.ports, *_own_ports(config, spec)} - read):
            if found := hosts.get(("tcp", port)):
                yield (
                    f"{_named(found)} to port {port}, which is usual for {spec.name}",
                    _remedy(config, spec, port),
                )
    assigned = {(one.transport, port) for one in config.kernel_helpers for port in one.ports}
    offered = [(name, about) for name, about in KERNEL_HELPERS.items() if about.offered]
    for name, transport, port in (
        (name, about.transport, port) for name, about in offered for port in about.ports
    ):
        found = hosts.get((transport, port), set())
        if found and (transport, port) not in assigned and not (transport == "tcp" and port in read):
            what = f"{_named(found)} to {transport} port {port}, which is usual for {name}"
            key = f'kernel_helpers = {{ "{name}" = [{port}] }}'
            yield what, f"{key} has the kernel read it; see docs/kernel-helpers.md first"


def _own_ports(config: Config, spec: HelperSpec) -> tuple[int, ...]:
    section = config.sections.get(spec.name)
    return section.ports if section else ()


def _remedy(config: Config, spec: HelperSpec, port: int) -> str:
    condition = f", {spec.condition}" if spec.condition else ""
    if spec.name in config.ports:
        return f"[{spec.name}] ports = {json.dumps([*config.ports[spec.name], port])} reads it{condition}"
    return f"protocols = {json.dumps([*config.ports, spec.name])} reads it{condition}"


def _named(hosts: Collection[str]) -> str:
    names = sorted(hosts, key=IPv4Address)
    more = f" and {len(names) - _NAMED} more" if len(names) > _NAMED else ""
    return f"{', '.join(names[:_NAMED])}{more} {'talks' if len(names) == 1 else 'talk'}"
