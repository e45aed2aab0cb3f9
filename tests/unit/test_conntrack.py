"""Questions to connection tracking when the answer is late, or none comes. A socket pair is the kernel."""

from __future__ import annotations

import errno
import socket
import struct
from collections.abc import Iterator
from ipaddress import IPv4Network

import pytest

pytest.importorskip("pyroute2")

from nfreaim.core.address import Endpoint, FlowId
from nfreaim.errors import BackendError
from nfreaim.host.netfilter.conntrack import LinuxConntrack, _question
from nfreaim.host.netfilter.conntrack_events import Ends, ends_of
from nfreaim.host.netfilter.ipset import NetworkSet
from nfreaim.host.netfilter.names import LAN_SET
from nfreaim.host.netfilter.netlink import NETWORK_ORDER, attribute, nest
from nfreaim.host.netfilter.zones import Zones, zones_in

FLOW = FlowId(Endpoint("10.0.0.5", 40123), Endpoint("203.0.113.9", 5190))
_ERROR = 2  # type of a netlink message that has an errno


@pytest.fixture
def asked() -> Iterator[tuple[LinuxConntrack, socket.socket]]:
    """Somebody who asks, and who is asked."""
    inside = NetworkSet(LAN_SET)
    conntrack = LinuxConntrack(inside, {})
    netlink = conntrack._netlink
    patience = netlink._socket.gettimeout()
    netlink.close()
    netlink._socket, kernel = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
    netlink._socket.settimeout(patience and patience / 20)
    with kernel:
        yield conntrack, kernel
    conntrack.close()
    inside.close()


def refusal(sequence: int, code: int) -> bytes:
    """The kernel's answer to the question of this number: 16 bytes of header, then an errno."""
    return struct.pack("=IHHIIi", 36, _ERROR, 0, sequence, 0, -code) + bytes(16)


def test_kernel_that_never_answers_is_a_refusal_and_not_the_end_of_all_packets(
    asked: tuple[LinuxConntrack, socket.socket],
) -> None:
    conntrack, _ = asked
    with pytest.raises(BackendError, match="timed out"):
        conntrack.state(FLOW)


def test_answer_that_comes_too_late_is_not_taken_for_that_to_the_next_question(
    asked: tuple[LinuxConntrack, socket.socket],
) -> None:
    conntrack, kernel = asked
    with pytest.raises(BackendError, match="timed out"):
        conntrack.state(FLOW)
    (first,) = struct.unpack_from("=8xI", kernel.recv(4096))
    kernel.send(refusal(first, errno.EPERM))
    for ahead in (1, 2):  # both ways round
        kernel.send(refusal(first + ahead, errno.ENOENT))
    assert conntrack.state(FLOW) is None


@pytest.mark.parametrize(
    ("said", "state"),
    [
        (nest(4, nest(1, attribute(1, b"\3") + attribute(4, b"\0\0"))), 3),
        (
            nest(2, bytes(8))
            + attribute(3, bytes(4))
            + nest(4, nest(1, attribute(2, b"\7") + attribute(1, b"\7"))),
            7,
        ),
        (nest(4, nest(3, attribute(1, b"\3"))), 0),
        (b"", 0),
    ],
    ids=["alone", "behind others", "of another protocol", "none"],
)
def test_the_state_is_read_wherever_it_stands(
    asked: tuple[LinuxConntrack, socket.socket], said: bytes, state: int
) -> None:
    conntrack, kernel = asked
    kernel.send(struct.pack("=IHHII", 20 + len(said), 0x0100, 0, 1, 0) + bytes(4) + said)
    assert conntrack.state(FLOW) == state


@pytest.mark.parametrize("networks", [["10.0.0.0/24"], ["192.0.2.4/31", "10.9.0.1/32", "172.16.0.0/12"]])
def test_the_ends_of_networks_are_no_hosts(networks: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    known = [IPv4Network(one) for one in networks]
    entries = []
    for network in known:
        named = attribute(1 | NETWORK_ORDER, network.network_address.packed)
        length = {3: bytes([network.prefixlen])} if network.prefixlen < 32 else {}
        entries.append({1: named, **length})
    inside = NetworkSet(LAN_SET)
    monkeypatch.setattr(inside, "_dump", lambda: iter(entries))
    assert inside.networks() == set(known)
    for network in known:
        for address in {
            network[0],
            network[-1],
            network[0] + 1,
            network[-1] - 1,
            network[0] - 1,
            network[-1] + 1,
        }:
            edge = any(address in (one[0], one[-1]) for one in known if one.prefixlen < 31)
            assert inside.is_edge(str(address)) is edge
    inside.close()


@pytest.mark.parametrize("first", [b"", struct.pack("=HHI", 8, 8, 0x200000)], ids=["tuple", "mark"])
def test_event_that_begins_with_something_else_is_read_all_the_same(first: bytes) -> None:
    """By another kernel, or by pyroute2, whose order and flags need not be the kernel's."""
    whole = _question(FLOW)
    event = whole[:20] + first + whole[20:]
    event = struct.pack("=I", len(event)) + event[4:]
    assert ends_of(event) == Ends(FLOW.server, FLOW.client)


def test_event_that_names_no_ends_is_nobodys() -> None:
    assert ends_of(struct.pack("=IHHII", 20, 0x0100, 0, 0, 0) + bytes(4)) is None


def test_event_names_the_ports_of_both_ends() -> None:
    whole = _question(FLOW)
    assert ends_of(whole) == Ends(FLOW.server, FLOW.client)
    event = whole[:20] + struct.pack("=HHI", 8, 8, 0x200000) + whole[20:]
    assert ends_of(struct.pack("=I", len(event)) + event[4:]) == Ends(FLOW.server, FLOW.client)


def test_zones_are_read_from_entries_of_either_kind() -> None:
    ends = struct.pack("=HHHxx", 6, 2, 4000) + struct.pack("=HHHxx", 6, 3, 5190)
    whole = struct.pack("=HH2sxx", 6, 18, b"\0\7")
    directed = struct.pack("=HH2sxx", 6, 3, b"\1\2")
    assert zones_in(ends) == []
    assert zones_in(ends + struct.pack("=HH", 52, 0x8002) + ends + whole) == [7]
    assert zones_in(ends + directed + struct.pack("=HH", 52, 0x8002) + ends) == [0x102]


def test_searches_for_zones_are_few(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each reads all entries, and a packet waits meanwhile; anybody can send what nobody knows."""
    now = [100.0]
    zones = Zones(lambda: now[0])
    dumps: list[float] = []

    def dump(question: bytearray) -> list[bytes]:
        dumps.append(now[0])
        now[0] += 0.1
        return [struct.pack("=HH2sxx", 6, 18, b"\0\7")]

    monkeypatch.setattr(zones._netlink, "dump", dump)
    assert zones.search() == (7,)
    assert zones.known == (0, 7)
    for _ in range(10_000):
        assert zones.search() == ()
        now[0] += 0.1
    zones.close()
    assert 10 < len(dumps) <= 3 + 1000 / 50
