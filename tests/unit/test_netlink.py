"""Framing of netlink messages. A socket pair is the kernel."""

from __future__ import annotations

import errno
import socket
import struct
from collections.abc import Iterator

import pytest

from nfreaim.host.netfilter import netlink
from nfreaim.host.netfilter.netlink import KernelRefusedError, Netlink

HEADER = struct.Struct("=IHHII")
KIND = 6 << 8 | 7


@pytest.fixture
def asked() -> Iterator[tuple[Netlink, socket.socket]]:
    """Somebody who asks, and who is asked."""
    asking = Netlink()
    asking.close()
    asking._socket, kernel = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
    asking._socket.settimeout(1.0)
    with kernel:
        yield asking, kernel
    asking.close()


def answer(kind: int, sequence: int, body: bytes) -> bytes:
    return HEADER.pack(HEADER.size + len(body), kind, 2, sequence, 0) + body + bytes(-len(body) % 4)


def test_a_question_gets_the_next_number_and_the_length_it_has() -> None:
    question = netlink.message(KIND, netlink.REQUEST, netlink.attribute(1, b"\x07"))
    length, kind, flags, *_ = HEADER.unpack_from(question)
    assert (length, kind, flags) == (len(question), KIND, 1)
    assert question[HEADER.size :] == bytes([socket.AF_INET, 0, 0, 0]) + b"\x05\0\x01\0\x07\0\0\0"


def test_an_attribute_is_padded_and_comes_back_without_its_flags() -> None:
    inner = netlink.attribute(1 | netlink.NETWORK_ORDER, b"abcd") + netlink.attribute(2, b"e")
    (found,) = netlink.attributes(netlink.nest(7, inner))
    assert found[0] == 7
    assert list(netlink.attributes(found[1])) == [(1, b"abcd"), (2, b"e")]
    assert list(netlink.attributes(b"\0\0\x01\0" * 3)) == [(1, b"")] * 3, "a length of nothing ends"


def test_an_error_is_told_from_an_acknowledgement_and_from_data() -> None:
    assert netlink.error_of(answer(2, 1, struct.pack("=i", -errno.EPERM))) == errno.EPERM
    assert netlink.error_of(answer(2, 1, bytes(4))) == 0
    assert netlink.error_of(answer(KIND, 1, bytes(4))) is None


def test_a_dump_is_read_over_several_datagrams_to_its_end_and_no_further(
    asked: tuple[Netlink, socket.socket],
) -> None:
    asking, kernel = asked
    parts = [netlink.attribute(1, text) for text in (b"one", b"two", b"three")]
    kernel.send(answer(KIND, 99, bytes(4) + netlink.attribute(1, b"of an earlier question")))
    kernel.send(answer(KIND, 1, bytes(4) + parts[0]) + answer(KIND, 1, bytes(4) + parts[1]))
    kernel.send(answer(KIND, 1, bytes(4) + parts[2]) + answer(3, 1, bytes(4)))
    found = list(asking.dump(netlink.message(KIND, netlink.REQUEST | netlink.DUMP)))
    assert [list(netlink.attributes(each)) for each in found] == [
        [(1, b"one")],
        [(1, b"two")],
        [(1, b"three")],
    ]


def test_a_dump_that_is_refused_says_so(asked: tuple[Netlink, socket.socket]) -> None:
    asking, kernel = asked
    kernel.send(answer(2, 1, struct.pack("=i", -errno.ENOENT)))
    with pytest.raises(KernelRefusedError) as refusal:
        list(asking.dump(netlink.message(KIND, netlink.REQUEST | netlink.DUMP)))
    assert refusal.value.errno == errno.ENOENT
