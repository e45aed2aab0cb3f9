"""PortControl: asks a router for mappings by PCP (RFC 6887) or by its predecessor NAT-PMP (RFC 6886).

Both are a datagram to port 5351 of the router and one back. A router that knows NAT-PMP alone answers PCP's
version by its own (RFC 6887, appendix A), and one that does not answer is asked in both. All numbers are big
endian. There is no kept library for Python that speaks PCP.
"""

from __future__ import annotations

import ipaddress
import socket
import struct
import time
from collections.abc import Callable
from typing import Final

from nfreaim.core.address import Endpoint
from nfreaim.host.upstream.gateway import LIFETIME_S, Mapped, NoMapping

_Fits = Callable[[bytes], bool]

PORT: Final = 5351  # RFC 6887, section 19.1; RFC 6886, section 3.1
NONCE_SIZE: Final = 12

_TCP: Final = 6
_ANSWER: Final = 0x80  # bit of the opcode: R in RFC 6887, section 7.2; 128 in RFC 6886, section 3.5
# RFC 6886, section 3.1, has these intervals double up to nine times. The router in front is one hop away, so
# half as many tell whether it answers.
_WAITS_S: Final = (0.25, 0.5, 1.0, 2.0)
_LARGEST: Final = 1100  # bytes of a PCP message, RFC 6887, section 7

# PCP: version, opcode, reserved, lifetime in seconds, our address (RFC 6887, section 7.1), and of MAP: nonce,
# protocol, reserved, internal port, external port, external address (section 11.1).
_REQUEST: Final = struct.Struct(">BBxxI16s12sB3xHH16s")
# The same of the answer: version, opcode, reserved, result, lifetime, epoch, reserved (section 7.2); MAP's
# part is alike.
_ANSWERED: Final = struct.Struct(">BBxBII12x12sB3xHH16s")
_PCP, _ANNOUNCE, _MAP, _UNSUPP_VERSION = 2, 0, 1, 1
_PCP_HEAD: Final = 24  # bytes of an answer up to MAP's part
_RESULTS: Final = {  # RFC 6887, section 7.4
    1: "it speaks another version",
    2: "it does not allow it",
    3: "it finds the request malformed",
    4: "it knows no mappings",
    7: "it has trouble with its own network",
    8: "it has no resources",
    9: "it knows no TCP",
    10: "we have as many as it allows",
    11: "it cannot give that port",
    12: "our address is translated on the way to it",
    13: "it forwards for too many peers",
}

# NAT-PMP: version, opcode, result, epoch in seconds (RFC 6886, sections 3.2 and 3.3).
_HEAD: Final = struct.Struct(">BBHI")
_ADDRESS: Final = struct.Struct(">BBHI4s")  # external address
_PMP_MAP: Final = struct.Struct(">BBxxHHI")  # internal port, external port, lifetime
_PMP_MAPPED: Final = struct.Struct(">BBHIHHI")  # the same behind the epoch
_NAT_PMP, _ASK_ADDRESS, _MAP_TCP = 0, 0, 2
_PMP_RESULTS: Final = {  # RFC 6886, section 3.5
    1: "it speaks another version",
    2: "it does not allow it",
    3: "it has trouble with its own network",
    4: "it has no resources",
    5: "it knows no mappings",
}


class Silent(NoMapping):
    """Nothing answers."""


class _OtherVersion(NoMapping):
    """It does not speak the version that it was asked in."""


def answers(own: str, gateway: str) -> bool:
    """Whether the router at *gateway* speaks PCP or NAT-PMP with *own*. It is asked for no mapping.

    Raises NoMapping if it cannot be asked.
    """
    request = _REQUEST.pack(_PCP, _ANNOUNCE, 0, _as_ipv6(own), b"", 0, 0, 0, b"")[:_PCP_HEAD]
    try:
        _exchange(own, gateway, request, lambda data: len(data) >= _HEAD.size and data[1] & _ANSWER != 0)
    except Silent:
        return False
    return True


class PortControl:
    """gateway.Gateway for the outside address *own*, which the router at *gateway* is asked for.

    nonce  proves to a PCP router that a mapping is ours, also after a restart (RFC 6887, section 11.2)
    """

    def __init__(self, own: str, gateway: str, nonce: bytes) -> None:
        self.forgot = False
        self._own, self._gateway, self._nonce = own, gateway, nonce
        self._pmp = False
        self._epoch: tuple[int, float] | None = None

    @property
    def protocol(self) -> str:
        """What it turned out to speak."""
        return "NAT-PMP" if self._pmp else "PCP"

    def outside(self) -> str | None:
        try:
            return self._outside()
        except _OtherVersion:  # PCP has no such question
            return None

    def map(self, port: int, suggested: int) -> Mapped:
        return self._ask(port, suggested, LIFETIME_S)

    def unmap(self, port: int, told: int) -> None:
        self._ask(port, 0 if self._pmp else told, 0)

    def _ask(self, port: int, external: int, seconds: int) -> Mapped:
        if not self._pmp:
            try:
                return self._by_pcp(port, external, seconds)
            except _OtherVersion:
                pass
            except Silent:
                if self._epoch is not None:  # it has answered PCP before
                    raise
            self._pmp = True
        try:
            return self._by_pmp(port, external, seconds)
        except NoMapping:
            self._pmp = self._epoch is not None
            raise

    def _by_pcp(self, port: int, external: int, seconds: int) -> Mapped:
        ours = (self._nonce, _TCP, port)
        request = _REQUEST.pack(
            *(_PCP, _MAP, seconds, _as_ipv6(self._own), *ours, external, _as_ipv6("0.0.0.0"))
        )
        answer = _exchange(self._own, self._gateway, request, lambda data: _is_pcp_answer(data, ours))
        if answer[0] == _NAT_PMP or answer[3] == _UNSUPP_VERSION:
            raise _OtherVersion
        if len(answer) < _ANSWERED.size:
            raise NoMapping(_reason(answer[3], _RESULTS))
        _, _, result, lifetime, epoch, _, _, _, told_port, told = _ANSWERED.unpack_from(answer)
        if result:
            raise NoMapping(_reason(result, _RESULTS))
        self._note(epoch)
        address = ipaddress.IPv6Address(told).ipv4_mapped
        if address is None:
            raise NoMapping("it maps an IPv6 address")
        return Mapped(Endpoint(str(address), told_port), lifetime)

    def _by_pmp(self, port: int, external: int, seconds: int) -> Mapped:
        request = _PMP_MAP.pack(_NAT_PMP, _MAP_TCP, port, external, seconds)
        answer = _exchange(
            self._own,
            self._gateway,
            request,
            lambda data: _is_pmp_answer(data, _MAP_TCP, _PMP_MAPPED.size, port),
        )
        _, _, result, epoch, _, told_port, lifetime = _PMP_MAPPED.unpack_from(answer)
        if result:
            raise NoMapping(_reason(result, _PMP_RESULTS))
        self._note(epoch)
        if not seconds:
            return Mapped(Endpoint("", 0), 0)
        return Mapped(Endpoint(self._outside(), told_port), lifetime)

    def _outside(self) -> str:
        request = bytes([_NAT_PMP, _ASK_ADDRESS])
        answer = _exchange(self._own, self._gateway, request, _is_address_answer)
        if answer[0] != _NAT_PMP:
            raise _OtherVersion
        _, _, result, _, told = _ADDRESS.unpack_from(answer)
        if result:
            raise NoMapping(_reason(result, _PMP_RESULTS))
        return str(ipaddress.IPv4Address(told))

    def _note(self, epoch: int) -> None:
        """Compare the router's clock with ours: RFC 6887, section 8.5; RFC 6886, section 3.6."""
        now = time.monotonic()
        if self._epoch is not None:
            earlier, when = self._epoch
            self.forgot = epoch + 2 < earlier + (now - when) * 7 / 8
        self._epoch = epoch, now


def _exchange(own: str, gateway: str, request: bytes, fits: _Fits) -> bytes:
    """The first answer that *fits*. Raises NoMapping."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as end:
        try:
            end.bind((own, 0))
            end.connect((gateway, PORT))  # so answers of others are not received
            for wait in _WAITS_S:
                end.send(request)
                until = time.monotonic() + wait
                while (left := until - time.monotonic()) > 0:
                    end.settimeout(left)
                    try:
                        answer = end.recv(_LARGEST)
                    except TimeoutError:
                        break
                    if fits(answer):
                        return answer
        except ConnectionRefusedError as error:
            raise Silent("it serves neither PCP nor NAT-PMP") from error
        except OSError as error:
            raise NoMapping(f"it cannot be asked from {own}: {error.strerror}") from error
    raise Silent("it answers neither PCP nor NAT-PMP")


def _is_pcp_answer(data: bytes, ours: tuple[bytes, int, int]) -> bool:
    """Whether *data* answers a PCP request about *ours*, or says in NAT-PMP that PCP is not known."""
    if len(data) >= _HEAD.size and data[0] == _NAT_PMP:
        return data[1] & _ANSWER != 0
    if len(data) < _ANSWERED.size:
        return len(data) >= _PCP_HEAD and data[:2] == bytes([_PCP, _ANSWER | _MAP]) and data[3] != 0
    version, opcode, *_, nonce, protocol, port, _, _ = _ANSWERED.unpack_from(data)
    return (version, opcode) == (_PCP, _ANSWER | _MAP) and (nonce, protocol, port) == ours


def _is_pmp_answer(data: bytes, opcode: int, size: int, port: int | None = None) -> bool:
    """Whether *data* is NAT-PMP's answer to *opcode*, of *size* bytes and about our *port*."""
    if len(data) < size or data[:2] != bytes([_NAT_PMP, _ANSWER | opcode]):
        return False
    return port is None or int.from_bytes(data[8:10], "big") == port


def _is_address_answer(data: bytes) -> bool:
    """The same of its answer to the question for its address, or PCP's, which does not know the question."""
    other = len(data) >= _PCP_HEAD and data[0] == _PCP and data[1] & _ANSWER != 0
    return other or _is_pmp_answer(data, _ASK_ADDRESS, _ADDRESS.size)


def _as_ipv6(address: str) -> bytes:
    """An IPv4 address as PCP has it: ::ffff:a.b.c.d (RFC 6887, section 5)."""
    return bytes(10) + b"\xff\xff" + socket.inet_aton(address)


def _reason(result: int, known: dict[int, str]) -> str:
    return f"it refuses: {known.get(result, 'for a reason of its own')} (result {result})"
