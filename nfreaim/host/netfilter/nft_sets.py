"""The sets of host.netfilter.kernel_sets as sets of our nftables table."""

from __future__ import annotations

from collections.abc import Iterable
from ipaddress import IPv4Address, IPv4Network, summarize_address_range
from itertools import pairwise
from typing import Final

from nfreaim.core.address import Endpoint, FlowId
from nfreaim.core.backend import Followed
from nfreaim.host.netfilter.kernel_sets import FlowEntry, is_edge_of
from nfreaim.host.netfilter.names import COMMENT
from nfreaim.host.netfilter.nft_elements import (
    Element,
    NftElements,
    adding,
    address_in,
    emptying,
    endpoint_in,
    packed_address,
    packed_endpoint,
    rewrite,
)
from nfreaim.old_spellings import DEFAULT_PROTOCOL

_BEHIND_ALL: Final = 1 << 32  # the first address behind the last one


class _Set:
    """One set, through a netlink socket of its own."""

    def __init__(self, name: str) -> None:
        self.name = name
        self._elements = NftElements()

    def close(self) -> None:
        """Close the socket."""
        self._elements.close()

    def flush(self) -> None:
        """Empty the set. Raises BackendError."""
        self._elements.commit([emptying(self.name)])

    def _add(self, element: Element) -> None:
        rewrite(self._elements, [(self.name, element)])

    def _delete(self, key: bytes) -> None:
        rewrite(self._elements, (), [(self.name, Element(key))])


class FlowSet(_Set):
    """See kernel_sets.FlowSet."""

    def add(self, flow: FlowId | FlowEntry) -> None:
        self._add(Element(_flow(flow)))

    def delete(self, flow: FlowId | FlowEntry) -> None:
        self._delete(_flow(flow))

    def has(self, flow: FlowId | FlowEntry) -> bool:
        return self._elements.get(self.name, _flow(flow)) is not None

    def entries(self) -> list[FlowEntry]:
        return [
            FlowEntry(endpoint_in(each.key), address_in(each.key, 2))
            for each in self._elements.dump(self.name)
        ]


class FollowedSet(_Set):
    """See kernel_sets.FollowedSet."""

    def add(self, followed: Followed, seconds: int) -> None:
        comment = f"{COMMENT} {followed.protocol}"
        self._add(Element(_followed(followed), seconds=seconds, comment=comment))

    def delete(self, followed: Followed) -> None:
        self._delete(_followed(followed))

    def entries(self) -> list[tuple[Followed, float]]:
        return [
            (
                Followed(endpoint_in(each.key), address_in(each.key, 2), _protocol_in(each.comment)),
                each.seconds or 0.0,
            )
            for each in self._elements.dump(self.name)
        ]


class EndpointSet(_Set):
    """See kernel_sets.EndpointSet."""

    def add(self, endpoint: Endpoint) -> None:
        self._add(Element(packed_endpoint(endpoint)))

    def delete(self, endpoint: Endpoint) -> None:
        self._delete(packed_endpoint(endpoint))

    def entries(self) -> list[Endpoint]:
        return [endpoint_in(each.key) for each in self._elements.dump(self.name)]


class NetworkSet(_Set):
    """See kernel_sets.NetworkSet; ``network_elements`` says what is in the kernel."""

    def filled(self) -> bool:
        return bool(self._elements.dump(self.name))

    def covers(self, address: str) -> bool:
        found = self._elements.get(self.name, packed_address(address))
        if found is None and not self._elements.exists(self.name):
            self.flush()  # which says what is missing
        return found is not None and not found.end

    def networks(self) -> set[IPv4Network]:
        return networks_in(self._elements.dump(self.name))

    def replace(self, networks: Iterable[IPv4Network]) -> None:
        """Have exactly these *networks*, from one moment to the next. Raises BackendError."""
        elements = network_elements(networks)
        self._elements.commit(
            [emptying(self.name), *([adding(self.name, elements, exclusive=True)] if elements else [])]
        )

    def add(self, network: IPv4Network) -> None:
        there = self.networks()
        if network not in there:
            self.replace(there | {network})

    def remove(self, network: IPv4Network) -> None:
        there = self.networks()
        if network in there:
            self.replace(there - {network})

    def is_edge(self, address: str) -> bool:
        pairs = ((int(one.network_address), one.prefixlen) for one in self.networks())
        return is_edge_of(pairs, address)


class SetPresence:
    """See kernel_sets.SetPresence."""

    def __init__(self) -> None:
        self._elements = NftElements()

    def close(self) -> None:
        self._elements.close()

    def of(self, name: str) -> bool:
        return self._elements.exists(name)


def network_elements(networks: Iterable[IPv4Network]) -> list[Element]:
    """The elements of a set of intervals that covers *networks*, in the order of their addresses.

    Intervals of a set may not overlap, and networks may. So each interval ends where a network begins or
    ends, and its comment has the prefix lengths of all networks that it is in: "nfreaim nets=8,24".
    """
    networks = set(networks)
    starts = {int(one.network_address) for one in networks}
    ends = {int(one.broadcast_address) + 1 for one in networks}
    borders = sorted(starts | ends)
    found: list[Element] = []
    for start, end in pairwise(borders):
        there = sorted(one.prefixlen for one in networks if IPv4Address(start) in one)
        if there:
            comment = f"{COMMENT} nets={','.join(map(str, there))}"
            found.append(Element(start.to_bytes(4, "big"), comment=comment))
            if end < _BEHIND_ALL:
                found.append(Element(end.to_bytes(4, "big"), end=True))
    return found


def network_texts(networks: Iterable[IPv4Network]) -> list[str]:
    """The same elements as nft reads them."""
    elements = network_elements(networks)
    found = []
    for number, each in enumerate(elements):
        if not each.end:
            behind = [int.from_bytes(one.key, "big") for one in elements[number + 1 : number + 2]]
            last = IPv4Address((behind or [_BEHIND_ALL])[0] - 1)
            found.append(f'{address_in(each.key)}-{last} comment "{each.comment}"')
    return found


def networks_in(elements: Iterable[Element]) -> set[IPv4Network]:
    """The networks of these elements. Of an interval without a comment of ours: those that make it up."""
    found: set[IPv4Network] = set()
    ends = sorted(int.from_bytes(each.key, "big") for each in elements if each.end)
    for each in elements:
        if each.end:
            continue
        start = int.from_bytes(each.key, "big")
        head, _, lengths = each.comment.partition(f"{COMMENT} nets=")
        if lengths and not head:
            found |= {IPv4Network((start, int(one)), strict=False) for one in lengths.split(",")}
        else:
            end = next((one for one in ends if one > start), _BEHIND_ALL)
            found |= set(summarize_address_range(IPv4Address(start), IPv4Address(end - 1)))
    return found


def _flow(flow: FlowId | FlowEntry) -> bytes:
    client, server = flow
    return packed_endpoint(client) + packed_address(server if isinstance(server, str) else server.address)


def _followed(followed: Followed) -> bytes:
    return packed_endpoint(followed.server) + packed_address(followed.client)


def _protocol_in(comment: str) -> str:
    words = comment.split()
    return words[1] if len(words) == 2 and words[0] == COMMENT else DEFAULT_PROTOCOL
