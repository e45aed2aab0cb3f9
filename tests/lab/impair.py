"""Loss, small segments and counters for a lab: what makes TCP work for its living, and shows how it did.

Offloads go off wherever packets are lost, else the kernel would lose a dozen segments at once; and half of
the loss is behind the hook, at the receiving host.
"""

from __future__ import annotations

import ctypes
import fcntl
import re
import socket
import struct
import sys

from tests.lab.net import BEHIND, CORE, LAN, WAN, Lab

_SIOCETHTOOL = 0x8946
_TX_CHECKSUM, _TSO, _GSO, _GRO = 0x17, 0x1F, 0x24, 0x2C  # linux/ethtool.h, ETHTOOL_S...
_PORT = "-p tcp -m multiport --ports 443,1864,5190,6667"


def offloads_off(lab: Lab) -> None:
    """No joined packets anywhere: what is sent is what is seen on each wire."""
    for node in ("inet", *WAN, *lab.hosts):
        lab.run(node, sys.executable, "-m", "tests.lab.impair")


def lose(lab: Lab, percent: float, router: str = "A") -> None:
    """Lose *percent* of the packets of control connections each way, half before, half behind the hooks.

    But not the handshake: nothing of ours depends on it, and who lost a SYN waits three seconds instead of
    0.2 for the ACK of what is lost later (RFC 6298 section 5.7), doubled each time.
    """
    offloads_off(lab)
    half = f"! --tcp-flags SYN SYN -m statistic --mode random --probability {percent / 200:.4f} -j DROP"
    lab.run(router, "iptables-legacy", *f"-t raw -I PREROUTING {_PORT} {half}".split())
    lab.run(router, "iptables-legacy", *f"-I INPUT {_PORT} {half}".split())
    for host in lab.hosts:
        lab.run(host, "iptables-legacy", *f"-t raw -I PREROUTING {_PORT} {half}".split())


def small_segments(lab: Lab, mss: int) -> None:
    """Every host announces this MSS."""
    for host in lab.hosts:
        gateway = LAN[BEHIND[host]] if host in BEHIND else CORE
        route = f"route replace default via {gateway} initcwnd 500 advmss {mss}"
        lab.run(host, "ip", *route.split())
        for line in lab.run(host, "ip", "route", "show", "scope", "link").stdout.splitlines():
            lab.run(host, "ip", "route", "replace", *line.split(), "advmss", str(mss))


def sack(lab: Lab, on: bool) -> None:
    """Selective acknowledgements on every host."""
    for node in (*lab.hosts, *WAN):
        lab.run(node, "sh", "-c", f"echo {int(on)} > /proc/sys/net/ipv4/tcp_sack")


def count_invalid(lab: Lab, router: str = "A") -> None:
    """From now on count what connection tracking calls INVALID."""
    _count(lab, router, "-I")


def count_no_longer(lab: Lab, router: str = "A") -> None:
    """Take the counters of ``count_invalid`` away."""
    _count(lab, router, "-D")


def _count(lab: Lab, router: str, how: str) -> None:
    for chain in ("PREROUTING", "OUTPUT"):
        rule = f"-t mangle {how} {chain} {_PORT} -m conntrack --ctstate INVALID"
        lab.run(router, "iptables-legacy", *rule.split())


def invalid(lab: Lab, router: str = "A") -> int:
    """How many there were."""
    saved = lab.run(router, "iptables-legacy-save", "-c", "-t", "mangle").stdout
    return sum(map(int, re.findall(r"^\[(\d+):\d+\] -A .* --ctstate INVALID", saved, re.MULTILINE)))


def lost(lab: Lab, router: str = "A") -> int:
    """How many packets were lost on purpose, at the router and at the hosts."""
    saved = lab.run(router, "iptables-legacy-save", "-c").stdout
    saved += "".join(lab.run(host, "iptables-legacy-save", "-c").stdout for host in lab.hosts)
    return sum(map(int, re.findall(r"^\[(\d+):\d+\] -A .* -m statistic ", saved, re.MULTILINE)))


def _off() -> None:
    """Switch the offloads of this namespace's interfaces off; some know only some of them."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as control:
        for _, name in socket.if_nameindex():
            for command in (_TX_CHECKSUM, _TSO, _GSO, _GRO):
                value = ctypes.create_string_buffer(struct.pack("=II", command, 0))
                request = struct.pack("16sP16x", name.encode(), ctypes.addressof(value))
                try:
                    fcntl.ioctl(control, _SIOCETHTOOL, request)
                except OSError:
                    continue


if __name__ == "__main__":
    _off()
