"""Netlink to the kernel: framing of messages, attributes, questions and answers, for its netfilter subsystems
and for its routes and neighbours.

This module packs and parses messages itself because packets wait for them: a question takes about 10 µs, and
400 µs through pyroute2's socket. Layouts: linux/netlink.h. The layouts of a subsystem are in the module that
asks it.
"""

from __future__ import annotations

import errno
import os
import socket
import struct
from collections.abc import Iterator, Sequence
from typing import Final

NETFILTER: Final = 12
"""The netlink protocol, NETLINK_NETFILTER."""

ROUTE: Final = 0
"""The netlink protocol, NETLINK_ROUTE: links, addresses, routes and neighbours."""

REQUEST: Final = 0x001
ACKNOWLEDGE: Final = 0x004
DUMP: Final = 0x300

_NESTED: Final = 0x8000
NETWORK_ORDER: Final = 0x4000
_KIND: Final = 0x3FFF

_HEADER: Final = struct.Struct("=IHHII")  # length, type, flags, sequence number, port
# struct nfgenmsg: address family, version, resource; of a batch the resource is the subsystem
_FAMILY: Final = struct.Struct("!BBH")
_ATTRIBUTE: Final = struct.Struct("=HH")  # length, type
_ERROR, _DONE = 2, 3  # message types
_FLAGS_AT, _SEQUENCE_AT = 6, 8
_BATCH_BEGIN, _BATCH_END = 16, 17  # NFNL_MSG_BATCH_BEGIN, NFNL_MSG_BATCH_END
_INTERRUPTED: Final = 0x10  # NLM_F_DUMP_INTR

HEADERS_SIZE: Final = _HEADER.size + _FAMILY.size
"""Bytes of a netfilter message before its attributes."""


class KernelRefusedError(OSError):
    """The kernel answered with an error number. Numbers above 4096 are defined by the subsystem."""

    def __init__(self, code: int) -> None:
        super().__init__(code, os.strerror(code))


class DumpInterruptedError(OSError):
    """What was dumped changed meanwhile, so the answer may lack or repeat entries."""


class Netlink:
    """A socket for questions. *patience_s* bounds the wait for an answer, because packets wait meanwhile."""

    def __init__(self, patience_s: float = 1.0, protocol: int = NETFILTER) -> None:
        self._socket = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, protocol)
        self._socket.settimeout(patience_s)
        self._sequence = 0

    def close(self) -> None:
        """Close the socket."""
        self._socket.close()

    def ask(self, question: bytearray) -> bytes:
        """Send *question*, whose sequence number is set here; returns the kernel's answer. Raises OSError.

        A message with another number answers an earlier question that timed out, and is skipped.
        """
        sequence = self._send(question)
        while True:
            answer = self._socket.recv(65536)
            if _HEADER.unpack_from(answer)[3] == sequence:
                return answer

    def ask_all(self, questions: Sequence[bytearray]) -> list[int]:
        """Send *questions*, which ask for no acknowledgement, by one system call.

        Returns the error number of each, or 0. At most some dozens, because all errors wait in the socket's
        buffer. Raises OSError.
        """
        numbers = [self._number(question) for question in questions]
        struct.pack_into("=H", questions[-1], _FLAGS_AT, REQUEST | ACKNOWLEDGE)
        self._socket.send(b"".join(questions))
        codes = dict.fromkeys(numbers, 0)
        last = 0
        while last != numbers[-1]:  # the kernel answers in order, and only errors but for the last
            answer = self._socket.recv(65536)
            last = _HEADER.unpack_from(answer)[3]
            if last in codes:
                codes[last] = error_of(answer) or 0
        return list(codes.values())

    def transact(self, subsystem: int, questions: Sequence[bytearray]) -> list[int]:
        """Send *questions*, messages to a *subsystem* that changes all or nothing, as one transaction.

        Returns the error number of each, or 0; only if all are 0, the kernel has made the changes. All
        errors wait in the socket's buffer, so at most some hundreds. Raises OSError, also if the kernel
        refuses the transaction as a whole.
        """
        begin = framed(_BATCH_BEGIN, REQUEST, _FAMILY.pack(socket.AF_UNSPEC, 0, subsystem))
        end = framed(_BATCH_END, REQUEST, _FAMILY.pack(socket.AF_UNSPEC, 0, subsystem))
        whole = self._number(begin)
        codes = {self._number(question): 0 for question in questions}
        flags = struct.unpack_from("=H", questions[-1], _FLAGS_AT)[0]
        struct.pack_into("=H", questions[-1], _FLAGS_AT, flags | ACKNOWLEDGE)
        last = next(reversed(codes))
        self._number(end)
        self._socket.send(b"".join((begin, *questions, end)))
        while True:
            answer = self._socket.recv(65536)
            number, code = _HEADER.unpack_from(answer)[3], error_of(answer) or 0
            if number == whole and code:
                raise KernelRefusedError(code)
            if number in codes:
                codes[number] = code
            if number == last:
                return list(codes.values())

    def set_option(self, level: int, option: int) -> None:
        """Switch a socket option on. Raises OSError."""
        self._socket.setsockopt(level, option, 1)

    def dump(self, question: bytearray, whole: bool = False) -> Iterator[bytes]:
        """The attributes of each netfilter message that answers *question*, a request for a dump.

        whole  raise DumpInterruptedError if a change in the kernel came in between

        Raises OSError.
        """
        return (body[_FAMILY.size :] for body in self.bodies(question, whole))

    def bodies(self, question: bytearray, whole: bool = False) -> Iterator[bytes]:
        """What stands behind the header of each message that answers *question*, a request for a dump.

        *whole* and errors as in ``dump``.
        """
        sequence = self._send(question)
        interrupted = False
        while True:
            for kind, flags, number, body in messages(self._socket.recv(65536)):
                if number != sequence:
                    continue
                interrupted |= bool(flags & _INTERRUPTED)
                if kind == _DONE:
                    if whole and interrupted:
                        raise DumpInterruptedError(errno.EINTR, "it changed while it was read")
                    return
                if kind == _ERROR:
                    raise KernelRefusedError(-int(struct.unpack_from("=i", body)[0]))
                yield body

    def _send(self, question: bytearray) -> int:
        sequence = self._number(question)
        self._socket.send(question)
        return sequence

    def _number(self, question: bytearray) -> int:
        """Give *question* the next sequence number, and return that."""
        self._sequence = self._sequence + 1 & 0xFFFFFFFF
        struct.pack_into("=I", question, _SEQUENCE_AT, self._sequence)
        return self._sequence


def message(kind: int, flags: int, attributes: bytes = b"", family: int = socket.AF_INET) -> bytearray:
    """A netfilter message of type *kind* (subsystem << 8 | command). ``Netlink`` sets its sequence number."""
    return framed(kind, flags, _FAMILY.pack(family, 0, 0) + attributes)


def framed(kind: int, flags: int, body: bytes) -> bytearray:
    """A message of type *kind* with this *body*: a header of the subsystem's own, and attributes."""
    return bytearray(_HEADER.pack(_HEADER.size + len(body), kind, flags, 0, 0) + body)


def body_of(answer: bytes) -> bytes:
    """What stands behind the netlink header of *answer*, a single message."""
    return answer[_HEADER.size : _HEADER.unpack_from(answer)[0]]


def error_of(answer: bytes) -> int | None:
    """The error number in *answer*, 0 for an acknowledgement; None if the answer is data."""
    if _HEADER.unpack_from(answer)[1] != _ERROR:
        return None
    return -int(struct.unpack_from("=i", answer, _HEADER.size)[0])


def attribute(kind: int, data: bytes) -> bytes:
    """An attribute, padded to four bytes."""
    return _ATTRIBUTE.pack(_ATTRIBUTE.size + len(data), kind) + data + bytes(-len(data) % 4)


def nest(kind: int, data: bytes) -> bytes:
    """An attribute that holds the attributes *data*."""
    return attribute(kind | _NESTED, data)


def attributes(data: bytes) -> Iterator[tuple[int, bytes]]:
    """(type without flags, value) of each attribute in *data*."""
    at = 0
    while at + _ATTRIBUTE.size <= len(data):
        length, kind = _ATTRIBUTE.unpack_from(data, at)
        yield kind & _KIND, data[at + _ATTRIBUTE.size : at + length]
        at += max(_ATTRIBUTE.size, length + 3 & ~3)


def messages(data: bytes) -> Iterator[tuple[int, int, int, bytes]]:
    """(type, flags, sequence number, body) of each message in *data*."""
    at = 0
    while at + _HEADER.size <= len(data):
        length, kind, flags, sequence, _ = _HEADER.unpack_from(data, at)
        yield kind, flags, sequence, data[at + _HEADER.size : at + length]
        at += max(_HEADER.size, length + 3 & ~3)
