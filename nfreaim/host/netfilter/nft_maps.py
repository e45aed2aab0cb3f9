"""The maps of our nftables table: pinholes by outside endpoint and peer, and the configuration's forwards.

The kernel prolongs no element before Linux 6.12: the one that is there stays as it is when it is added again.
So it is deleted and added again in one transaction, on every kernel. Packets meet the old element or the new
one. That is true of maps without intervals only: until Linux 6.17 one with intervals of several fields shows
neither for a moment, and a change of it costs the square of its size (200 ms for 64 of 1,000 elements). So
pinholes are in two maps, without intervals: one for named peers, one for everybody.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Final, NamedTuple

from nfreaim.core.address import Endpoint
from nfreaim.core.firewall.policy import Forward
from nfreaim.host.netfilter.names import (
    ANY_SET,
    COMMENT,
    FORWARD_SET,
    OPEN_SET,
    PEER_SET,
    PIN_SET,
    VERIFY_SET,
)
from nfreaim.host.netfilter.nft_elements import (
    Element,
    Key,
    Named,
    NftElements,
    adding,
    address_in,
    emptying,
    endpoint_in,
    key_of,
    packed_address,
    packed_endpoint,
    rewrite,
)

# Each has up to six messages in a transaction, and the answers to all have to fit into the socket's buffer.
_RENEWED_AT_ONCE: Final = 24
_ALL: Final = (PIN_SET, ANY_SET, PEER_SET, OPEN_SET, VERIFY_SET)
_LAST_PORT: Final = 65535


class PinElement(NamedTuple):
    """An element of one of the maps of pinholes: *peer* may connect to *outside*, and gets to *inside*.

    peer     "" for everybody
    seconds  until the kernel removes the element
    verify   the first bytes of the connection have to be verified: the set of these has *outside*
    comment  see Element
    """

    outside: Endpoint
    peer: str
    inside: Endpoint
    seconds: float = 0.0
    verify: bool = False
    comment: str = ""


class PinMaps:
    """The maps of pinholes, the sets of the same keys, and the set of those that have to be verified."""

    def __init__(self) -> None:
        self._elements = NftElements()

    def close(self) -> None:
        """Close the socket."""
        self._elements.close()

    def change(self, wanted: Sequence[PinElement], unwanted: Sequence[PinElement] = ()) -> None:
        """Write *wanted* and delete those of *unwanted* that are not among them, by one transaction.

        Raises BackendError; then nothing was changed.
        """
        new, old = _elements_of(wanted), _elements_of(unwanted)
        lost = [each for key, each in old.items() if key not in new]
        rewrite(self._elements, [*new.values()], lost, self._there([*wanted, *unwanted]))

    def _there(self, pins: Sequence[PinElement]) -> set[Key]:
        """The keys of those of *pins* that the maps have. The sets are asked for none, to save time: all
        elements of a pinhole are written together, and end together."""
        parts = [list(_of_pin(each)) for each in pins]
        asked = {key_of(own[0]): own for own in parts}
        found = (own for own in asked.values() if self._elements.get(own[0][0], own[0][1].key) is not None)
        return {key_of(one) for own in found for one in own}

    def renew(self, wanted: Sequence[PinElement]) -> list[PinElement]:
        """Write *wanted* again, some by each transaction. Returns those that were not there.

        Raises BackendError; then those behind the refused ones may not have been written.
        """
        absent: list[PinElement] = []
        there: set[Key] | None = None  # unknown; then all of them are, as a rule
        for start in range(0, len(wanted), _RENEWED_AT_ONCE):
            some = wanted[start : start + _RENEWED_AT_ONCE]
            parts = _elements_of(some)
            guess = parts.keys() if there is None else parts.keys() & there
            gone = {key_of(each) for each in rewrite(self._elements, [*parts.values()], (), guess)}
            absent += [each for each in some if not gone.isdisjoint(_elements_of([each]))]
            if gone and there is None:
                there = {(name, each.key, False) for name in _ALL for each in self._elements.dump(name)}
        return absent

    def entries(self) -> list[PinElement]:
        """The elements of both maps. Raises BackendError."""
        verified = {each.key for each in self._elements.dump(VERIFY_SET)}
        return [
            PinElement(
                outside=endpoint_in(each.key),
                peer=address_in(each.key, 2) if name == PIN_SET else "",
                inside=endpoint_in(each.data),
                seconds=each.seconds or 0.0,
                verify=each.key[:8] in verified,
                comment=each.comment,
            )
            for name in (PIN_SET, ANY_SET)
            for each in self._elements.dump(name)
        ]


class ForwardMap:
    """The map of the configuration's forwards: from ranges of outside ports to inside hosts."""

    def __init__(self) -> None:
        self._elements = NftElements()

    def close(self) -> None:
        """Close the socket."""
        self._elements.close()

    def replace(self, forwards: Sequence[Forward]) -> None:
        """Have exactly these *forwards*, from one moment to the next. Raises BackendError."""
        elements: list[Element] = []
        for number, one in enumerate(forwards):
            comment = f"{COMMENT} forward={number}"
            elements.append(Element(_port(one.ports[0]), packed_address(one.host), comment=comment))
            if one.ports[-1] < _LAST_PORT:
                elements.append(Element(_port(one.ports[-1] + 1), end=True))
        new = [adding(FORWARD_SET, elements, exclusive=True)] if elements else []
        self._elements.commit([emptying(FORWARD_SET), *new])

    def entries(self) -> list[Forward]:
        """The forwards in the map, in the order in which they were given. Raises BackendError."""
        elements = self._elements.dump(FORWARD_SET)
        ends = sorted(int.from_bytes(each.key, "big") for each in elements if each.end)
        found: list[tuple[str, Forward]] = []
        for each in elements:
            if not each.end:
                low = int.from_bytes(each.key, "big")
                behind = next((one for one in ends if one > low), _LAST_PORT + 1)
                found.append((each.comment, Forward(address_in(each.data), range(low, behind))))
        return [forward for _, forward in sorted(found, key=lambda one: _number_in(one[0]))]


def _elements_of(pins: Iterable[PinElement]) -> dict[Key, Named]:
    """The elements of maps and sets that make up *pins*, by their keys."""
    found: dict[Key, Named] = {}
    for each in pins:
        for one in _of_pin(each):
            found[key_of(one)] = one
    return found


def _of_pin(pin: PinElement) -> Iterator[Named]:
    outside = packed_endpoint(pin.outside)
    in_map, in_set = (PIN_SET, PEER_SET) if pin.peer else (ANY_SET, OPEN_SET)
    key = outside + packed_address(pin.peer) if pin.peer else outside
    yield in_map, Element(key, packed_endpoint(pin.inside), pin.seconds, pin.comment)
    yield in_set, Element(key, seconds=pin.seconds)
    if pin.verify:
        yield VERIFY_SET, Element(outside, seconds=pin.seconds)


def _port(number: int) -> bytes:
    return number.to_bytes(2, "big")


def _number_in(comment: str) -> int:
    number = comment.removeprefix(f"{COMMENT} forward=")
    return int(number) if number.isdecimal() else 0
