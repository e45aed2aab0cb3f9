"""Elements of nftables: their bytes, comments, and the intervals that networks become.

The bytes are those that nft 1.0.6 sends, and the kernel takes, for the same elements.
"""

from __future__ import annotations

from ipaddress import IPv4Address, IPv4Network
from typing import Final

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from nfreaim.core.address import Endpoint
from nfreaim.errors import BackendError
from nfreaim.host.netfilter import nft_elements
from nfreaim.host.netfilter.netlink import attributes
from nfreaim.host.netfilter.nft_elements import (
    LONGEST_COMMENT,
    Element,
    adding,
    address_in,
    deleting,
    emptying,
    endpoint_in,
    packed_address,
    packed_endpoint,
)
from nfreaim.host.netfilter.nft_sets import network_elements, network_texts, networks_in

OUTSIDE, INSIDE = Endpoint("203.0.113.1", 5190), Endpoint("10.0.0.5", 5190)

# add element ip nfreaim nfreaim_any { 203.0.113.1 . 5190 timeout 25s comment "abc" : 10.0.0.5 . 5190 }
ADDED: Final = bytes.fromhex(
    "3c000180 0c000400 00000000000061a8 10000180 0c000100cb00710114460000 10000280 0c0001000a00000514460000"
    "0a00060000046162630000 00"
)
# delete element ip nfreaim nfreaim_any { 203.0.113.1 . 5190 }
DELETED: Final = bytes.fromhex("14000180 10000180 0c000100cb00710114460000")
# add element ip nfreaim nfreaim_lan { 10.0.0.0/24 }, without the end of the interval before it
INTERVAL: Final = bytes.fromhex(
    "10000180 0c000180080001000a000000 18000180 0800030000000001 0c000180080001000a000100"
)


def attributes_of(elements: bytes) -> list[list[tuple[int, bytes]]]:
    """The attributes of each element, whose order is free."""
    return [sorted(attributes(element)) for _, element in attributes(elements)]


def test_an_element_of_a_map_has_the_bytes_that_the_kernel_takes() -> None:
    element = Element(packed_endpoint(OUTSIDE), packed_endpoint(INSIDE), 25.0, "abc")
    change = adding("nfreaim_any", [element])
    assert (change.command, change.flags, change.name) == (12, 0x400, "nfreaim_any")
    assert attributes_of(change.elements) == attributes_of(ADDED)
    assert adding("nfreaim_any", [element], exclusive=True).flags == 0x600


def test_a_deletion_names_keys_only_and_without_any_empties_the_set() -> None:
    element = Element(packed_endpoint(OUTSIDE), packed_endpoint(INSIDE), 25.0, "abc")
    assert deleting("nfreaim_any", [element]) == (14, 0, "nfreaim_any", DELETED)
    assert emptying("nfreaim_any") == (14, 0, "nfreaim_any", b"")


def test_an_interval_is_two_elements() -> None:
    elements = [Element(packed_address("10.0.0.0")), Element(packed_address("10.0.1.0"), end=True)]
    change = adding("nfreaim_lan", elements)
    assert attributes_of(change.elements) == attributes_of(INTERVAL)


@pytest.mark.parametrize("size", [0, 1, 126, 127, 128, LONGEST_COMMENT])
def test_a_comment_comes_back_and_nft_shows_none_that_it_cannot_read(size: int) -> None:
    element = Element(b"\1\2\3\4", comment="x" * size)
    packed = adding("one", [element]).elements
    assert nft_elements._elements_in(nft_elements._of_set("one", packed)) == [element]
    data = dict(attributes_of(packed)[0]).get(6, b"")
    assert not data if not size else data[0] == (0 if size <= 127 else 0xE1)


def test_a_comment_that_the_kernel_cannot_hold_is_refused_before_it_is_asked() -> None:
    with pytest.raises(BackendError, match="too long"):
        adding("one", [Element(b"\1\2\3\4", comment="x" * (LONGEST_COMMENT + 1))])


def test_a_comment_among_other_user_data_is_found() -> None:
    assert nft_elements._comment_in(b"\1\4\0\0\0\1\0\4abc\0") == "abc"
    assert nft_elements._comment_in(b"\1\4\0\0\0\1") == ""
    assert nft_elements._comment_in(b"\0") == nft_elements._comment_in(b"") == ""


def test_fields_of_keys_are_told_apart() -> None:
    key = packed_endpoint(OUTSIDE) + packed_address("198.51.100.7")
    assert len(key) == 12
    assert endpoint_in(key) == OUTSIDE
    assert address_in(key, 2) == "198.51.100.7"


@pytest.mark.parametrize(
    ("networks", "intervals"),
    [
        (["10.0.0.0/24"], ["10.0.0.0 nfreaim nets=24", "10.0.1.0 end"]),
        (
            ["10.0.0.0/24", "10.0.1.0/24"],
            ["10.0.0.0 nfreaim nets=24", "10.0.1.0 end", "10.0.1.0 nfreaim nets=24", "10.0.2.0 end"],
        ),
        (
            ["10.0.0.0/8", "10.0.0.0/24"],
            ["10.0.0.0 nfreaim nets=8,24", "10.0.1.0 end", "10.0.1.0 nfreaim nets=8", "11.0.0.0 end"],
        ),
        (["255.255.255.0/24"], ["255.255.255.0 nfreaim nets=24"]),
        ([], []),
    ],
)
def test_networks_become_intervals_that_do_not_overlap(networks: list[str], intervals: list[str]) -> None:
    elements = network_elements(map(IPv4Network, networks))
    assert [f"{address_in(one.key)} {'end' if one.end else one.comment}" for one in elements] == intervals


def test_networks_as_nft_reads_them() -> None:
    assert network_texts(map(IPv4Network, ("10.0.0.0/8", "10.0.0.0/24", "255.0.0.0/8"))) == [
        '10.0.0.0-10.0.0.255 comment "nfreaim nets=8,24"',
        '10.0.1.0-10.255.255.255 comment "nfreaim nets=8"',
        '255.0.0.0-255.255.255.255 comment "nfreaim nets=8"',
    ]


@settings(deadline=None)
@given(
    st.sets(
        st.builds(
            lambda a, p: IPv4Network((a, p), strict=False), st.integers(0, 2**32 - 1), st.integers(0, 32)
        )
    )
)
def test_networks_come_back_as_they_were_and_are_covered(networks: set[IPv4Network]) -> None:
    elements = network_elements(networks)
    assert networks_in(elements) == networks
    for network in networks:
        for address in (network[0], network[-1]):
            assert _covered(elements, address)
    for address in (
        IPv4Address(0),
        IPv4Address(2**32 - 1),
        *(IPv4Address((int(it[-1]) + 1) % 2**32) for it in networks),
    ):
        assert _covered(elements, address) == any(address in network for network in networks)


def test_intervals_without_a_comment_of_ours_are_the_networks_that_they_are_made_of() -> None:
    elements = [
        Element(packed_address("10.0.0.0"), comment="nfreaim of another"),
        Element(packed_address("10.0.3.0"), end=True),
        Element(packed_address("255.255.255.0")),
    ]
    assert networks_in(elements) == {
        *map(IPv4Network, ("10.0.0.0/23", "10.0.2.0/24", "255.255.255.0/24")),
    }


def _covered(elements: list[Element], address: IPv4Address) -> bool:
    """As the kernel looks an address up: the last border that is not behind it begins an interval."""
    key = address.packed
    before = [each for each in elements if each.key <= key]
    nearest = [each for each in before if each.key == max(one.key for one in before)]
    return any(not each.end for each in nearest)
