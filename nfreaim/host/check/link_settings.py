"""Checks of links: reverse path filters, packets too large for the queue, and packets joined by the card."""

from __future__ import annotations

import fcntl
import socket
import struct
from collections.abc import Iterable
from ctypes import addressof, c_char
from pathlib import Path
from typing import Any, Final

from nfreaim.host.check.answer import Check, Checks
from nfreaim.host.check.commands import json_from
from nfreaim.host.netfilter.interfaces import existing

COPIED: Final = 0xFFFF
"""Bytes that the queue copies of a packet, see host.netfilter.packet_queue; a longer one passes unread."""

_SIZES: Final = ("mtu", "gso_ipv4_max_size", "gro_ipv4_max_size")
_CONF: Final = Path("/proc/sys/net/ipv4/conf")
_SIOCETHTOOL: Final = 0x8946  # linux/sockios.h
_GET_FLAGS: Final = 0x25  # ETHTOOL_GFLAGS, linux/ethtool.h
_LRO: Final = 1 << 15  # ETH_FLAG_LRO


def reverse_path(wan: Iterable[str], conf: Path = _CONF) -> Checks:
    """A strict uplink that does not have the default route gets nothing from most of the Internet."""
    uplinks = existing(wan)
    routes = json_from(["ip", "-4", "-j", "route", "show", "default"])
    leading = {hop.get("dev") for route in routes for hop in [route, *route.get("nexthops", ())]}
    for name in uplinks:
        strict = max(_number(conf / one / "rp_filter") for one in ("all", name)) == 1
        if strict and leading and name not in leading:
            yield Check(
                "warn",
                f"rp_filter is strict on {name}, which has no default route: what comes from peers there is"
                " dropped",
                f"sysctl -w net.ipv4.conf.{name}.rp_filter=2, and keep it in /etc/sysctl.d",
            )


def _number(file: Path) -> int:
    return int(file.read_text()) if file.exists() else 0


def sizes(interfaces: Iterable[str]) -> Checks:
    """Packets that the queue cannot copy as a whole: of jumbo links, or joined by BIG TCP."""
    for name in existing(interfaces):
        (link,) = json_from(["ip", "-d", "-j", "link", "show", "dev", name])
        yield from too_large(name, link)


def too_large(name: str, link: dict[str, Any]) -> Checks:
    """*link* is what `ip -d -j link` tells of the interface *name*."""
    for key in _SIZES:
        if link.get(key, 0) > COPIED + 1:
            setting = "mtu" if key == "mtu" else key
            yield Check(
                "warn",
                f"{key} of {name} is {link[key]}, and the queue copies {COPIED} bytes: larger packets are not"
                " read",
                f"ip link set dev {name} {setting} {COPIED if key == 'mtu' else COPIED + 1}",
            )


def joined(interfaces: Iterable[str]) -> Checks:
    """LRO joins packets in a way that cannot be undone, so joined ones cannot be forwarded; GRO can."""
    for name in existing(interfaces):
        if lro_is_on(name):
            yield Check(
                "warn",
                f"LRO is on at {name}: packets that it joins may be too large to be forwarded",
                f"ethtool -K {name} lro off",
            )


def lro_is_on(name: str) -> bool:
    """Whether the card joins packets. An interface that cannot tell does not."""
    value = bytearray(struct.pack("=II", _GET_FLAGS, 0))
    place = (c_char * len(value)).from_buffer(value)
    request = struct.pack("16sP16x", name.encode(), addressof(place))
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as asked:
        try:
            fcntl.ioctl(asked, _SIOCETHTOOL, request)
        except OSError:
            return False
    return bool(struct.unpack("=II", value)[1] & _LRO)
