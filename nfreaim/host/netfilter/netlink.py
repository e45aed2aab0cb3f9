"""Netlink to the kernel's netfilter subsystems: framing of messages, attributes, questions and answers.

This module packs and parses messages itself because packets wait for them: a question takes about 10 µs, and
400 µs through pyroute2's socket. Layouts: linux/netlink.h. The layouts of a subsystem are in the module that
asks it.
"""

from __future__ import annotations

import os
import socket
import struct
from collections.abc import Iterator
from typing import Final

NETFILTER: Final = 12
"""The netlink protocol, NETLINK_NETFILTER."""

REQUEST: Final = 0x001
ACKNOWLEDGE: Final = 0x004
DUMP: Final = 0x300

_NESTED: Final = 0x8000
NETWORK_ORDER: Final = 0x4000
_KIND: Final = 0x3FFF

_HEADER: Final = struct.Struct("=IHHII")  # length, type, flags, sequence number, port
_FAMILY: Final = struct.Struct("=BBH")  # struct nfgenmsg: address family, version, resource
_ATTRIBUTE: Final = struct.Struct("=HH")  # length, type
_ERROR, _DONE = 2, 3  # message types
_SEQUENCE_AT: Final = 8

HEADERS_SIZE: Final = _HEADER.size + _FAMILY.size
"""Bytes of a netfilter message before its attributes."""


class KernelRefusedError(OSError):
    """The kernel answered with an error number. Numbers above 4096 are defined by the subsystem."""

    def __init__(self, code: int) -> None:
        super().__init__(code, os.strerror(code))


class Netlink:
    """A socket for questions. *patience_s* bounds the wait for an answer, because packets wait meanwhile."""

    def __init__(self, patience_s: float = 1.0) -> None:
        self._socket = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, NETFILTER)
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

    def dump(self, question: bytearray) -> Iterator[bytes]:
        """The attributes of each message that answers *question*, a request for a dump. Raises OSError."""
        sequence = self._send(question)
        while True:
            for kind, number, body in _messages(self._socket.recv(65536)):
                if number != sequence:
                    continue
                if kind == _DONE:
                    return
                if kind == _ERROR:
                    raise KernelRefusedError(-int(struct.unpack_from("=i", body)[0]))
                yield body[_FAMILY.size :]

    def _send(self, question: bytearray) -> int:
        self._sequence = self._sequence + 1 & 0xFFFFFFFF
        struct.pack_into("=I", question, _SEQUENCE_AT, self._sequence)
        self._socket.send(question)
        return self._sequence


def message(kind: int, flags: int, attributes: bytes = b"", family: int = socket.AF_INET) -> bytearray:
    """A netfilter message of type *kind* (subsystem << 8 | command). ``Netlink`` sets its sequence number."""
    size = HEADERS_SIZE + len(attributes)
    return bytearray(_HEADER.pack(size, kind, flags, 0, 0) + _FAMILY.pack(family, 0, 0) + attributes)


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


def _messages(data: bytes) -> Iterator[tuple[int, int, bytes]]:
    """(type, sequence number, body) of each message in *data*."""
    at = 0
    while at + _HEADER.size <= len(data):
        length, kind, _, sequence, _ = _HEADER.unpack_from(data, at)
        yield kind, sequence, data[at + _HEADER.size : at + length]
        at += max(_HEADER.size, length + 3 & ~3)
