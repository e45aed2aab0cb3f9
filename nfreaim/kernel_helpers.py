"""The kernel's own helpers, which the rules may assign: their names, and the key of the configuration.

nfreaim does not read what such a helper reads. The names are those of ``iptables -j CT --helper``, that is
the ``name`` of ``struct nf_conntrack_helper`` in the kernel's net/netfilter/nf_conntrack_*.c; each is tied to
one transport there, but for ``sip``. That one is assigned over UDP alone: over TCP it grows a full segment
behind the routing decision, which is then dropped again and again, so the connection stands still.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from ipaddress import IPv4Address
from typing import Any, Final, NamedTuple

from nfreaim.errors import ConfigError
from nfreaim.protocols import MOST_PORTS, Ports, known


@dataclass(frozen=True, slots=True)
class KernelHelper:
    """A helper of the kernel.

    transport  "tcp" or "udp"
    ports      of its servers, usually
    modules    of the kernel that have it; the second one edits addresses, and is absent where none are edited
    offered    whether `nfreaim check` names it where hosts talk to its usual ports
    """

    transport: str
    ports: tuple[int, ...]
    modules: tuple[str, ...]
    offered: bool = True


KERNEL_HELPERS: Final[Mapping[str, KernelHelper]] = {
    "sip": KernelHelper("udp", (5060,), ("nf_conntrack_sip", "nf_nat_sip")),
    "ftp": KernelHelper("tcp", (21,), ("nf_conntrack_ftp", "nf_nat_ftp")),
    "Q.931": KernelHelper("tcp", (1720,), ("nf_conntrack_h323", "nf_nat_h323")),
    "RAS": KernelHelper("udp", (1719,), ("nf_conntrack_h323", "nf_nat_h323")),
    "pptp": KernelHelper("tcp", (1723,), ("nf_conntrack_pptp", "nf_nat_pptp")),
    "irc": KernelHelper("tcp", (6667,), ("nf_conntrack_irc", "nf_nat_irc"), offered=False),
    "tftp": KernelHelper("udp", (69,), ("nf_conntrack_tftp", "nf_nat_tftp")),
    "amanda": KernelHelper("udp", (10080,), ("nf_conntrack_amanda", "nf_nat_amanda"), offered=False),
    "sane": KernelHelper("tcp", (6566,), ("nf_conntrack_sane",), offered=False),
    "snmp": KernelHelper("udp", (161,), ("nf_conntrack_snmp", "nf_nat_snmp_basic"), offered=False),
    "netbios-ns": KernelHelper("udp", (137,), ("nf_conntrack_netbios_ns",), offered=False),
}


class Assignment(NamedTuple):
    """One rule's worth: a helper for connections from the LAN to these ports.

    server  the only server, or "" for any
    """

    name: str
    transport: str
    ports: tuple[int, ...]
    server: str = ""

    def __str__(self) -> str:
        """As an option of nfreaim-rules, and as `read` reads it."""
        server = f"@{self.server}" if self.server else ""
        return f"{self.name}:{self.transport}:{','.join(map(str, self.ports))}{server}"

    @property
    def shown(self) -> str:
        """In words, for a line of the log or of `nfreaim check`."""
        text = f"{self.name} ({self.transport} {', '.join(map(str, self.ports))}"
        return f"{text} of {self.server})" if self.server else f"{text})"


Assignments = tuple[Assignment, ...]

ALLOWED: Final = (
    'a table of helpers of the kernel, each with a list of ports or "SERVER:PORT", such as '
    '{ sip = [5060], ftp = [21, "203.0.113.9:2121"] }; known are '
    + ", ".join(KERNEL_HELPERS)
    + "; sip is assigned over UDP only"
)
"""The values of the key, in words."""


def assignments(value: Any) -> Assignments:
    """The value of the key ``kernel_helpers``. Raises ValueError."""
    if not isinstance(value, dict):
        raise ValueError
    found: list[Assignment] = []
    for name, places in value.items():
        if name not in KERNEL_HELPERS or not isinstance(places, list) or not places:
            raise ValueError
        ports: dict[str, set[int]] = {}
        for server, port in map(_place, places):
            ports.setdefault(server, set()).add(port)
        for server, numbers in ports.items():
            if len(numbers) > MOST_PORTS:
                raise ValueError
            found.append(Assignment(name, KERNEL_HELPERS[name].transport, tuple(sorted(numbers)), server))
    return tuple(sorted(found))


def _place(value: Any) -> tuple[str, int]:
    """Server, or "", and port of one element."""
    server = ""
    if isinstance(value, str):
        server, colon, text = value.rpartition(":")
        server = str(IPv4Address(server)) if colon else ""
        if not re.fullmatch("[0-9]{1,5}", text):
            raise ValueError
        value = int(text)
    if type(value) is not int or not 0 < value < 65536:
        raise ValueError
    return server, value


def check(wanted: Iterable[Assignment], ports: Ports) -> None:
    """Raise ConfigError if a port would have two readers: two helpers, or one and a protocol of *ports*."""
    read = {port: name for name, numbers in ports.items() for port in numbers}
    taken: dict[tuple[str, int], Assignment] = {}
    for one in wanted:
        for port in one.ports:
            if one.transport == "tcp" and port in read:
                raise ConfigError(
                    f"kernel_helpers: port {port} of {one.name} is one of protocol {read[port]}, which "
                    "nfreaim reads itself; leave one of the two out"
                )
            other = taken.setdefault((one.transport, port), one)
            if other.name != one.name:
                raise ConfigError(
                    f"kernel_helpers: {one.transport} port {port} is given to {other.name} and {one.name}"
                )


def has_own_helper(name: str) -> bool:
    """Whether nfreaim can read this protocol itself."""
    try:
        return known(name) is not None
    except ConfigError:
        return False


_WRITTEN: Final = re.compile(
    r"-A PREROUTING (?:-d (?P<server>[0-9.]+)(?:/32)? )?-i (?P<interface>\S+) -p (?P<transport>tcp|udp) "
    r'-m comment --comment "\S+ helper=(?P<name>[^\s"]+)" -m multiport '
    r"--dports (?P<ports>[0-9,]+) -j (?P<chain>\S+)"
)


def installed(shown: str, chain: str) -> Assignments:
    """What the rules assign that nfreaim-rules *shown*, by their jumps to *chain*.

    A helper that the kernel does not have is among them: its jump is there, and leads past no rule of it.
    """
    rules = [found for found in map(_WRITTEN.search, shown.splitlines()) if found and found["chain"] == chain]
    return tuple(
        sorted(
            {
                Assignment(
                    rule["name"],
                    rule["transport"],
                    tuple(sorted(map(int, rule["ports"].split(",")))),
                    rule["server"] or "",
                )
                for rule in rules
            }
        )
    )
