"""Gateway: the router in front, and what it is asked for in whatever protocol it speaks.

It is the next hop of the default route of one of our outside addresses. No other device in that network is
asked, and none is listened to.
"""

from __future__ import annotations

import json
import subprocess
from collections.abc import Sequence
from typing import Any, Final, NamedTuple, Protocol

from nfreaim.core.address import Endpoint
from nfreaim.core.reach import unreachable
from nfreaim.host.netfilter.interfaces import is_named

LIFETIME_S: Final = 600
"""For so long a mapping is asked for, so it ends soon after a daemon that could not give it back."""

_SOMEWHERE: Final = "1.1.1.1"  # an address of the Internet; nothing is sent to it
_TIMEOUT_S: Final = 5.0


class NoMapping(Exception):
    """The router in front did not do what it was asked for; the text says why."""


class Mapped(NamedTuple):
    """What the router in front has granted: where the mapping is reached, and for how many seconds."""

    told: Endpoint
    seconds: float


class Gateway(Protocol):
    """The router in front, which maps TCP ports to one outside address of ours.

    forgot  whether its last answer shows that it has restarted, and so lost all mappings
    """

    forgot: bool

    @property
    def protocol(self) -> str:
        """What it speaks, for the log."""

    def outside(self) -> str | None:
        """Its own outside address, if it can tell that without a mapping. Raises NoMapping."""

    def map(self, port: int, suggested: int) -> Mapped:
        """Have it map a port to our *port*, if possible the *suggested* one; again: renew it.

        Raises NoMapping.
        """

    def unmap(self, port: int, told: int) -> None:
        """End the mapping of its port *told* to our *port*; an absent one is no error. Raises NoMapping."""


def in_front_of(own: str) -> str:
    """The address of the router in front of our outside address *own*. Raises NoMapping."""
    words = ("route", "get", _SOMEWHERE, "from", own)
    try:
        gateway = _told_by_ip(*words)[0].get("gateway")
    except (OSError, subprocess.SubprocessError, ValueError, LookupError) as error:
        raise NoMapping(f"no route leads from {own} to the Internet (ip {' '.join(words)})") from error
    if not isinstance(gateway, str):
        raise NoMapping(f"the default route of {own} names no router (ip {' '.join(words)})")
    return gateway


def hidden_addresses(wan: Sequence[str]) -> list[str]:
    """Our addresses on the interfaces *wan* that peers on the Internet cannot reach. Without `ip` none."""
    try:
        links = _told_by_ip("address", "show")
    except (OSError, subprocess.SubprocessError, ValueError):
        return []
    found = [
        info.get("local")
        for link in links
        if is_named(link.get("ifname", ""), wan)
        for info in link.get("addr_info", ())
    ]
    return sorted({address for address in found if address and unreachable(address) is not None})


def _told_by_ip(*words: str) -> Any:
    """What `ip` tells. Raises OSError, subprocess.SubprocessError, ValueError."""
    command = ["ip", "-4", "-j", *words]
    done = subprocess.run(
        command, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=_TIMEOUT_S, check=True
    )
    return json.loads(done.stdout or "[]")
