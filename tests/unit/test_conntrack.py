"""Questions to connection tracking when the answer is late, or none comes. A socket pair is the kernel."""

from __future__ import annotations

import errno
import socket
import struct
from collections.abc import Iterator

import pytest

pytest.importorskip("pyroute2")

from nfreaim.core.address import Endpoint, FlowId
from nfreaim.errors import BackendError
from nfreaim.host.netfilter.conntrack import LinuxConntrack, _question
from nfreaim.host.netfilter.conntrack_events import Connection, connection_of
from nfreaim.host.netfilter.ipset import NetworkSet
from nfreaim.host.netfilter.names import LAN_SET

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


@pytest.mark.parametrize("first", [b"", struct.pack("=HHI", 8, 8, 0x200000)], ids=["tuple", "mark"])
def test_event_that_begins_with_something_else_is_read_all_the_same(first: bytes) -> None:
    """By another kernel, or by pyroute2, whose order and flags need not be the kernel's."""
    whole = _question(FLOW)
    event = whole[:20] + first + whole[20:]
    event = struct.pack("=I", len(event)) + event[4:]
    assert connection_of(event) == Connection(FLOW.server, FLOW.client.address)


def test_event_that_names_no_ends_is_nobodys() -> None:
    assert connection_of(struct.pack("=IHHII", 20, 0x0100, 0, 0, 0) + bytes(4)) is None
