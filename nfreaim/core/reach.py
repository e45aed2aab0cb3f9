"""Reach: which address peers outside are told, so that their connections arrive here.

All that names an address of the router asks here: proposals, redirects of servers on our side and what these
relay. The operator's ``outside_address`` holds for all of them. Without it the outside address of the flow is
told, unless its range shows that nobody on the Internet can connect to it. Then the address of the router in
front is told, if that maps ports for us (``upstream``), or else nothing, because a peer would wait for a
connection that cannot come about.
"""

from __future__ import annotations

from functools import lru_cache
from ipaddress import IPv4Address, IPv4Network
from typing import Final

from nfreaim.core.address import Endpoint, is_address
from nfreaim.core.helper import Refused

_PRIVATE: Final = {  # RFC 1918, RFC 6598, RFC 3927, RFC 1122
    IPv4Network("10.0.0.0/8"): "private",
    IPv4Network("172.16.0.0/12"): "private",
    IPv4Network("192.168.0.0/16"): "private",
    IPv4Network("100.64.0.0/10"): "carrier-grade NAT",
    IPv4Network("169.254.0.0/16"): "link-local",
    IPv4Network("127.0.0.0/8"): "loopback",
}
# Others of IANA's registry of special-purpose addresses (RFC 6890) that no route of the Internet leads to.
# The documentation networks are not here: examples and test networks use them like public ones.
_UNROUTED: Final = {
    IPv4Network("0.0.0.0/8"): "no address of a host",
    IPv4Network("192.0.0.0/24"): "DS-Lite or 464XLAT",
    IPv4Network("198.18.0.0/15"): "for benchmarks",
    IPv4Network("224.0.0.0/4"): "multicast",
    IPv4Network("240.0.0.0/4"): "reserved",
}
_NO_FORWARDS: Final = frozenset({"DS-Lite or 464XLAT", "carrier-grade NAT"})
"""Kinds behind a translator of the provider, which forwards no port for a customer unless he is asked."""


@lru_cache(256)
def unreachable(address: str) -> str | None:
    """The kind of range that hides IPv4 *address* from peers on the Internet, or None. Raises ValueError."""
    value = IPv4Address(address)
    return next((kind for network, kind in (_PRIVATE | _UNROUTED).items() if value in network), None)


def is_private(address: str) -> bool:
    """Whether IPv4 *address* belongs to a network that is somebody's own. Raises ValueError."""
    value = IPv4Address(address)
    return any(value in network for network in _PRIVATE)


def remedy(kind: str) -> str:
    """What the operator of a router can do whose outside address is of this *kind*."""
    if kind in _NO_FORWARDS:
        return (
            "ask the provider for a public IPv4 address or for ports of one; set outside_address to an"
            ' address from which ports are forwarded here, if there is one, or upstream = "auto" if the'
            " provider's router speaks PCP"
        )
    return (
        "have the router in front forward every port here, and set outside_address to its public address or"
        ' name; or set upstream = "auto" if it serves UPnP, PCP or NAT-PMP'
    )


class Reach:
    """The answer of one process.

    named    the operator's ``outside_address``: an address, the name of a host, or None
    asks     whether the router in front is asked for mappings (``upstream``)
    address  the address that is told for all flows: *named*, or what that name stands for now. None: each
             flow's own, or nothing as long as it is not known what the name stands for
    in_front  for each outside address of ours at which the router in front has mapped ports: the address
             that these are reached at
    """

    __slots__ = ("address", "asks", "in_front", "named")

    def __init__(self, named: str | None, asks: bool = False) -> None:
        self.named = named
        self.asks = asks
        self.address = None if named is None or not is_address(named) else named
        self.in_front: dict[str, str] = {}

    def told(self, own: str, peer: str | None = None) -> str:
        """The address to tell where a flow's outside address is *own*. Raises Refused, with the remedy.

        peer  the only one who is told, by the address that he has here: who is in a private network himself,
              and came to *own*, can reach that
        """
        if self.address is not None:
            return self.address
        if self.named is not None:
            raise Refused(f"outside_address {self.named} is a name that could not be resolved yet")
        kind = self._hidden(own, peer)
        if kind is None:
            return own
        if own in self.in_front:
            return self.in_front[own]
        if self.asks:
            raise Refused(
                f"peers cannot reach outside address {own} ({kind}), and the router in front has mapped no"
                " port (yet); remedy: see what the log says of upstream"
            )
        raise Refused(f"peers cannot reach outside address {own} ({kind}); remedy: {remedy(kind)}")

    def needs_mapping(self, own: str, peer: str | None = None) -> bool:
        """Whether peers reach a port of *own* only where the router in front maps it. *peer*: as above."""
        return self.asks and self._hidden(own, peer) is not None

    def is_ours(self, address: str) -> bool:
        """Whether *address* is told instead of a flow's own."""
        return address == self.address or address in self.in_front.values()

    @staticmethod
    def _hidden(own: str, peer: str | None) -> str | None:
        """What hides *own* from who is told of it, or None."""
        return None if peer is not None and is_private(peer) else unreachable(own)

    def fits(self, widths: tuple[int, int] | None, outside: Endpoint) -> bool:
        """Whether a pinhole at *outside*, or mapped there, is announced by texts of these lengths, if they
        matter.
        """
        address = self.address or outside.address
        return widths in (None, (len(address), len(str(outside.port))))
