"""PCP and NAT-PMP: what is sent, which answers count, and what follows from them. The router is a socket."""

from __future__ import annotations

import socket
import struct
import threading
from collections.abc import Callable, Iterator

import pytest

from nfreaim.core.address import Endpoint
from nfreaim.host.upstream import port_control
from nfreaim.host.upstream.gateway import NoMapping
from nfreaim.host.upstream.port_control import PORT, PortControl

OWN, NONCE = "127.0.0.1", bytes(range(12))
TOLD = Endpoint("8.8.4.1", 41234)
V4 = bytes(10) + b"\xff\xff"
Answers = Callable[[bytes], list[bytes]]


def pcp(request: bytes, result: int = 0, lifetime: int = 600, epoch: int = 1000) -> bytes:
    """PCP's answer to a MAP request: header (RFC 6887, section 7.2) and MAP (section 11.1)."""
    head = struct.pack(">BBBBII12x", 2, 0x81, 0, result, lifetime, epoch)
    mapping = request[24:42] + struct.pack(">H", TOLD.port) + V4 + socket.inet_aton(TOLD.address)
    return head + mapping


def nat_pmp(request: bytes, result: int = 0, epoch: int = 1000) -> bytes:
    """NAT-PMP's answer to whatever it is asked (RFC 6886, sections 3.2, 3.3 and 3.5)."""
    version, opcode = request[:2]
    if version != 0:
        return struct.pack(">BBHI", 0, 0x80 | opcode, 1, epoch)
    if opcode == 0:
        return struct.pack(">BBHI", 0, 128, result, epoch) + socket.inet_aton(TOLD.address)
    _, internal, _, lifetime = struct.unpack(">4sHHI", request)
    return struct.pack(">BBHIHHI", 0, 130, result, epoch, internal, TOLD.port, lifetime)


class Box:
    """A router on the loopback network."""

    def __init__(self, address: str) -> None:
        self.address, self.requests = address, list[bytes]()
        self.answers: Answers = lambda request: [pcp(request)]
        self.socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.socket.bind((address, PORT))
        self.thread = threading.Thread(target=self._serve)
        self.thread.start()

    def _serve(self) -> None:
        while (got := self.socket.recvfrom(2000))[0] != b"end":
            self.requests.append(got[0])
            for answer in self.answers(got[0]):
                self.socket.sendto(answer, got[1])

    def close(self) -> None:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as end:
            end.sendto(b"end", (self.address, PORT))
        self.thread.join()
        self.socket.close()

    def client(self) -> PortControl:
        return PortControl(OWN, self.address, NONCE)


@pytest.fixture
def box(worker_id: str) -> Iterator[Box]:
    made = Box(f"127.53.51.{2 + int(worker_id.removeprefix('gw') if worker_id != 'master' else 0)}")
    try:
        yield made
    finally:
        made.close()


@pytest.fixture
def hasty(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(port_control, "_WAITS_S", (0.05, 0.05))


def test_a_pcp_request_has_the_layout_of_the_rfc(box: Box) -> None:
    assert box.client().map(40000, 40000) == (TOLD, 600)
    own = V4 + socket.inet_aton(OWN)
    head = struct.pack(">BBHI", 2, 1, 0, 600) + own
    assert box.requests == [head + NONCE + b"\x06\0\0\0" + struct.pack(">HH", 40000, 40000) + V4 + bytes(4)]


def test_a_mapping_is_given_back_with_lifetime_zero_and_the_same_nonce(box: Box) -> None:
    box.client().unmap(40000, TOLD.port)
    request = box.requests[0]
    assert request[4:8] == bytes(4)
    assert request[24:36] == NONCE
    assert struct.unpack(">HH", request[40:44]) == (40000, TOLD.port)


def test_a_router_that_refuses_version_two_is_asked_by_nat_pmp(box: Box) -> None:
    box.answers = lambda request: [nat_pmp(request)]
    client = box.client()
    assert client.map(40000, 40000) == (TOLD, 600)
    assert client.protocol == "NAT-PMP"
    assert box.requests[1] == struct.pack(">BBHHHI", 0, 2, 0, 40000, 40000, 600)
    assert box.requests[2] == b"\0\0"
    client.unmap(40000, TOLD.port)
    assert box.requests[3:] == [struct.pack(">BBHHHI", 0, 2, 0, 40000, 0, 0)], (
        "no external port, RFC 6886, 3.4"
    )


def test_a_router_that_is_silent_to_version_two_is_asked_by_nat_pmp(box: Box, hasty: None) -> None:
    box.answers = lambda request: [nat_pmp(request)] if request[0] == 0 else []
    client = box.client()
    assert client.map(40000, 40000).told == TOLD
    box.requests.clear()
    client.map(40001, 40001)
    assert {request[0] for request in box.requests} == {0}, "it is asked by PCP once"


def test_answers_to_other_requests_do_not_count(box: Box) -> None:
    def answers(request: bytes) -> list[bytes]:
        other_nonce = request[:24] + bytes(12) + request[36:]
        other_port = request[:40] + b"\x9c\x41" + request[42:]
        junk = [b"", b"\2", request, request[:30], bytes([2, 0x81]) + bytes(30)]
        return [*junk, pcp(other_nonce, 2), pcp(other_port, 2), pcp(request)]

    box.answers = answers
    assert box.client().map(40000, 40000).told == TOLD


def test_a_refusal_is_said_in_words(box: Box) -> None:
    box.answers = lambda request: [pcp(request, result=2)]
    with pytest.raises(NoMapping, match=r"it refuses: it does not allow it \(result 2\)"):
        box.client().map(40000, 40000)
    box.answers = lambda request: [pcp(request, result=99)]
    with pytest.raises(NoMapping, match="for a reason of its own"):
        box.client().map(40000, 40000)
    box.answers = lambda request: [nat_pmp(request, result=4)]
    with pytest.raises(NoMapping, match="no resources"):
        box.client().map(40000, 40000)


def test_a_clock_that_goes_back_tells_of_a_restart(box: Box) -> None:
    client = box.client()
    client.map(40000, 40000)
    client.map(40001, 40001)
    assert not client.forgot
    box.answers = lambda request: [pcp(request, epoch=3)]
    client.map(40002, 40002)
    assert client.forgot
    client.map(40003, 40003)
    assert not client.forgot, "once"


def test_silence_and_a_closed_port_are_told_apart(box: Box, hasty: None) -> None:
    box.answers = lambda request: []
    with pytest.raises(NoMapping, match="it answers neither PCP nor NAT-PMP"):
        box.client().map(40000, 40000)
    assert not port_control.answers(OWN, box.address)
    with pytest.raises(NoMapping, match="it serves neither PCP nor NAT-PMP"):
        PortControl(OWN, "127.53.50.1", NONCE).map(40000, 40000)
    with pytest.raises(NoMapping, match=r"cannot be asked from 192\.0\.2\.7"):
        PortControl("192.0.2.7", box.address, NONCE).map(40000, 40000)


def test_the_outside_address_is_told_without_a_mapping_by_nat_pmp_alone(box: Box, hasty: None) -> None:
    box.answers = lambda request: [nat_pmp(request)]
    assert box.client().outside() == TOLD.address
    assert port_control.answers(OWN, box.address)
    box.answers = lambda request: [struct.pack(">BBBBI16x", 2, 0x80 | request[1], 0, 1, 0)]
    assert box.client().outside() is None
    assert port_control.answers(OWN, box.address)
    assert {request[1] for request in box.requests} == {0}
