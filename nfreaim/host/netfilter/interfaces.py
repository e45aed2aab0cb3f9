"""Names of interfaces as the operator writes them: "br-lan", or "ppp+" for all whose names begin with "ppp".

That is the spelling of iptables, whose rules match by name. So they hold for interfaces that come later.
"""

from __future__ import annotations

import socket
from collections.abc import Iterable


def matches(written: str, name: str) -> bool:
    """Whether the interface *name* is meant."""
    return name.startswith(written[:-1]) if written.endswith("+") else name == written


def overlap(one: str, other: str) -> bool:
    """Whether both may mean the same interface."""
    return matches(one, other) or matches(other, one)


def is_named(name: str, written: Iterable[str]) -> bool:
    """Whether the interface *name* is one of those that are *written*."""
    return any(matches(each, name) for each in written)


def existing(written: Iterable[str]) -> list[str]:
    """The interfaces of this network namespace that are *written*, in that order."""
    names = sorted(name for _, name in socket.if_nameindex())
    return list(dict.fromkeys(name for each in written for name in names if matches(each, name)))


def is_own(address: str) -> bool:
    """Whether IPv4 *address* is one of this machine's own."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.bind((address, 0))
        except OSError:
            return False
    return True
