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


def test_a_transaction_tells_the_error_of_each_question(asked: tuple[Netlink, socket.socket]) -> None:
    asking, kernel = asked
    for number, code in ((2, errno.ENOENT), (4, 0)):  # 1 is the beginning, 3 is no error and not asked about
        kernel.send(answer(2, number, struct.pack("=i", -code)))
    questions = [netlink.message(10 << 8 | 12, netlink.REQUEST | flags) for flags in (0x400, 0, 0x600)]
    assert asking.transact(10, questions) == [errno.ENOENT, 0, 0]
    sent = kernel.recv(65536)
    kinds = [(kind, flags, number) for kind, flags, number, _ in netlink.messages(sent)]
    assert kinds == [(16, 1, 1), (2572, 0x401, 2), (2572, 1, 3), (2572, 0x605, 4), (17, 1, 5)]
    assert sent[16:20] == sent[-4:] == b"\0\0\0\x0a", "the subsystem, in network order"


def test_a_transaction_that_is_refused_as_a_whole_is_an_error(asked: tuple[Netlink, socket.socket]) -> None:
    asking, kernel = asked
    kernel.send(answer(2, 1, struct.pack("=i", -errno.EPERM)))
    with pytest.raises(KernelRefusedError, match="not permitted"):
        asking.transact(10, [netlink.message(10 << 8 | 12, netlink.REQUEST)])


def test_a_dump_during_which_something_changed_is_told_at_its_end(
    asked: tuple[Netlink, socket.socket],
) -> None:
    """Not before: a second dump by the same socket is refused while one is under way."""
    asking, kernel = asked
    changed = bytearray(answer(KIND, 1, bytes(4)))
    struct.pack_into("=H", changed, 6, 2 | 0x10)
    for _ in range(2):
        kernel.send(bytes(changed))
        kernel.send(answer(3, 1, bytes(4)))
    question = netlink.message(KIND, netlink.REQUEST | netlink.DUMP)
    with pytest.raises(netlink.DumpInterruptedError):
        list(asking.dump(question, whole=True))
    asking._sequence = 0
    assert len(list(asking.dump(question))) == 1
