"""Mappings: what the router in front maps to our outside endpoints, and for whom some are kept in reserve.

To ask that router takes longer than a packet may be held. So a few ports are mapped as long as somebody is
signed on (host.upstream), without a pinhole behind them, and a proposal takes one of these.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Set
from typing import Final

from nfreaim.core.address import Endpoint, FlowId
from nfreaim.core.firewall.pinhole import Pinhole

_MOST_CONNECTIONS: Final = 64  # that are remembered of one mapping


class Mappings:
    """The mappings that hold now; who asks the router in front writes them.

    told  the endpoint at the router in front, by the one of ours at which its connections arrive
    """

    def __init__(self) -> None:
        self.told: dict[Endpoint, Endpoint] = {}
        self._signed_on: dict[FlowId, str] = {}
        self._carrying: dict[Endpoint, list[FlowId]] = {}

    def reserve(self, flow: FlowId, address: str) -> None:
        """*flow* is established, and its host is known outside by our *address*: mappings there may be wanted
        until ``over``.
        """
        self._signed_on[flow] = address

    def over(self, flow: FlowId) -> None:
        """*flow* is over."""
        self._signed_on.pop(flow, None)

    def addresses(self) -> Set[str]:
        """Our addresses at which mappings may be wanted."""
        return frozenset(self._signed_on.values())

    def signed_on(self) -> Set[FlowId]:
        """For each of these addresses the flow that has been established for longest."""
        return set({address: flow for flow, address in reversed(self._signed_on.items())}.values())

    def free(self, address: str) -> Iterator[tuple[Endpoint, Endpoint]]:
        """Our endpoints at *address* that are mapped and carry nothing, each with the one that it is reached
        at.
        """
        mapped = self.told.items()
        return ((own, at) for own, at in mapped if own.address == address and own not in self._carrying)

    def used(self, pinhole: Pinhole, peer: Endpoint) -> None:
        """*peer* has completed a connection through *pinhole*. It goes on when that is closed, and some
        routers cut it with its mapping.
        """
        if pinhole.told is not None:
            connections = self._carrying.setdefault(pinhole.outside, [])
            connections.append(FlowId(peer, pinhole.inside))
            del connections[:-_MOST_CONNECTIONS]

    def carrying(self, carries: Callable[[FlowId], bool]) -> Set[Endpoint]:
        """Our endpoints one of whose connections *carries* says is open."""
        open_yet = {own: [one for one in all_ if carries(one)] for own, all_ in self._carrying.items()}
        self._carrying = {own: some for own, some in open_yet.items() if some}
        return self._carrying.keys()
