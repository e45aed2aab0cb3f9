"""The peer gate with the requests for a file of Yahoo! Messenger, in every cut."""

from __future__ import annotations

import pytest

from nfreaim.helpers.yahoo.web_request import requests_of
from tests.unit.peer_link import LISTENER, Gate, Link

PATH = b"/Messenger.alice1.file.txt"
REQUEST = b"%s " + PATH + b" HTTP/1.1\r\nHost: 203.0.113.1:40000\r\n\r\n"


def link(path: bytes = PATH) -> Link:
    gate = Gate()
    gate.house.expecting[LISTENER] = requests_of(path)
    return Link(gate).handshake()


@pytest.mark.parametrize("method", [b"GET", b"HEAD"])
def test_request_for_the_offered_file_gets_through_in_every_cut(method: bytes) -> None:
    request = REQUEST % method
    for cut in range(1, len(request)):
        peer = link()
        assert peer.outside(0, request[:cut]).accept
        assert peer.outside(cut, request[cut:]).accept
        assert peer.released
        assert peer.received == request
    peer = link()
    for at in range(len(request)):
        assert peer.outside(at, request[at : at + 1]).accept
    assert peer.released


@pytest.mark.parametrize(
    "request_line",
    [
        b"GET / HTTP/1.1\r\n\r\n",
        b"GET /index.html HTTP/1.1\r\n\r\n",
        b"GET " + PATH + b".exe HTTP/1.1\r\n\r\n",
        b"GET " + PATH[:-1] + b" HTTP/1.1\r\n\r\n",
        b"GET /" + PATH + b" HTTP/1.1\r\n\r\n",
        b"GET  " + PATH + b" HTTP/1.1\r\n\r\n",
        b"PUT " + PATH + b" HTTP/1.1\r\n\r\n",
        b"\x16\x03\x01\x00\xf8\x01",
        b"SSH-2.0-x\r\n",
    ],
)
def test_any_other_is_reset_before_the_host_has_got_a_whole_line(request_line: bytes) -> None:
    for size in (1, 5, len(request_line)):
        peer = link()
        for at in range(0, len(request_line), size):
            peer.outside(at, request_line[at : at + size])
            if peer.reset_inside:
                break
        assert peer.reset_inside
        assert not peer.released
        assert b"\r\n" not in peer.received


def test_longest_path_keeps_little_in_the_gate() -> None:
    peer = link(PATH + b"x" * 5000)
    request = b"GET " + PATH + b"x" * 5000 + b" HTTP/1.1\r\n\r\n"
    peer.outside(0, request[:1400])
    assert peer.released
    (kept,) = peer.world.gate._others.values()
    assert len(kept.read) <= 205
