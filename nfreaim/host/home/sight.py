"""Sight: whether connections between two inside hosts pass this router, by routes, neighbours and bridges.

A connection that would pass and is not in connection tracking does not exist. Of one that would not pass (two
hosts of one network, unless a bridge of this router joins them and shows its frames to iptables) nothing is
known. Files of /proc and /sys tell everything; *root* is "/".
"""

from __future__ import annotations

import socket
import struct
from pathlib import Path
from typing import Final

_UP, _COMPLETE = 0x1, 0x2  # flags of a route, of a neighbour
_ENTRY: Final = struct.Struct("=6sBB4xB3x")  # MAC, port, is local, age, high byte of the port
_STRICT: Final = 1  # rp_filter; 2 is loose


class Sight:
    """Raises OSError and ValueError, if the files are missing or have another form."""

    def __init__(self, root: Path = Path("/")) -> None:
        self._root = root

    def passes(self, one: str, other: str) -> bool:
        """Whether connections between these two inside addresses pass this router, and are seen.

        True also if it is not known at which port of a bridge one of them is, because then it is silent.
        """
        interface = self._interface(one)
        if interface != self._interface(other):
            return True
        return self._shows_frames(interface) and not self._at_one_port(interface, one, other)

    def cannot_imitate(self, host: str, forger: str) -> bool:
        """Whether packets that *forger* sends in the name of *host* are dropped: they are in different
        networks, and the router takes packets from *forger*'s only if that is the way back."""
        ours = self._interface(forger)
        return self._interface(host) != ours and self._reverse_path_is_checked(ours)

    def _interface(self, address: str) -> str:
        """The interface of the route to *address*, "" without one."""
        number, best, found = _number(address), (-1, 0), ""
        for row in self._table("proc/net/route"):
            network, mask, flags, metric = int(row[1], 16), int(row[7], 16), int(row[3], 16), int(row[6])
            longer = bin(mask).count("1"), -metric
            if flags & _UP and number & mask == network and longer > best:
                best, found = longer, row[0]
        return found

    def _shows_frames(self, interface: str) -> bool:
        """Whether *interface* is a bridge whose frames pass iptables."""
        switches = (
            f"sys/class/net/{interface}/bridge/nf_call_iptables",
            "proc/sys/net/bridge/bridge-nf-call-iptables",
        )
        is_bridge = (self._root / f"sys/class/net/{interface}/bridge").is_dir()
        return is_bridge and any(self._number_in(path) for path in switches)

    def _at_one_port(self, bridge: str, one: str, other: str) -> bool:
        """Whether both are known to be behind one port of the bridge: a switch joins them before it."""
        hardware = {row[0]: row[3] for row in self._table("proc/net/arp") if int(row[2], 16) & _COMPLETE}
        data = (self._root / f"sys/class/net/{bridge}/brforward").read_bytes()
        whole = len(data) - len(data) % _ENTRY.size
        ports = {mac: high << 8 | low for mac, low, _, high in _ENTRY.iter_unpack(data[:whole])}
        first, second = (
            ports.get(bytes.fromhex(hardware.get(each, "").replace(":", ""))) for each in (one, other)
        )
        return first is not None and first == second

    def _reverse_path_is_checked(self, interface: str) -> bool:
        found = [self._number_in(f"proc/sys/net/ipv4/conf/{name}/rp_filter") for name in ("all", interface)]
        return max(found) == _STRICT

    def _table(self, path: str) -> list[list[str]]:
        return [line.split() for line in (self._root / path).read_text().splitlines()[1:] if line.strip()]

    def _number_in(self, path: str) -> int:
        try:
            return int((self._root / path).read_text())
        except FileNotFoundError:
            return 0


def _number(address: str) -> int:
    """An IPv4 address as the kernel writes it in its table of routes."""
    return int(struct.unpack("=I", socket.inet_aton(address))[0])
