"""MSN's peers at the gate: their first bytes in every cut, and what does not begin so."""

from __future__ import annotations

import pytest

from nfreaim.helpers.msn.first_bytes import FILE, FTP, OBJECT, greetings
from tests.golden.msn import packets
from tests.unit.peer_link import LISTENER, Gate, Link

GOLDEN = packets()
FIRST = {
    **{(name, service): GOLDEN[name].before for name in ("D1", "D2") for service in (FILE, OBJECT)},
    ("D3", FTP): GOLDEN["D3"].before,
    ("another version", FTP): b"VER 1 MSNFTP\r\n",
    ("several versions", FTP): b"VER MSNFTP2 MSNFTP\r\n",
}
WRONG = {
    "tls": b"\x16\x03\x01\x02\0\x01\0\x01\xfc\x03\x03",
    "http": b"GET / HTTP/1.1\r\nHost: x\r\n\r\n",
    "ssh": b"SSH-2.0-OpenSSH_9.2\r\n",
    "a session": b"VER 1 MSNP18 CVR0\r\nCVR 2 and so on\r\n",
    "another length": b"\4\0\0\0foo\0\x31\0\0\0" + bytes(48),
    "without foo": b"\x30\0\0\0" + bytes(48),
}


def at_gate(service: str) -> Link:
    gate = Gate()
    gate.house.expecting[LISTENER] = greetings(service)
    link = Link(gate)
    link.handshake()
    return link


@pytest.mark.parametrize(("named", "first"), FIRST.items(), ids=[" ".join(named) for named in FIRST])
def test_peer_is_let_in_however_its_first_bytes_are_cut(named: tuple[str, str], first: bytes) -> None:
    cuts = [(), (4, 8, 12), *((cut,) for cut in range(1, len(first))), tuple(range(1, len(first)))]
    for cut in cuts:
        link = at_gate(named[1])
        for low, high in zip((0, *cut), (*cut, len(first)), strict=True):
            if low < high <= len(first):
                assert link.outside(low, first[low:high]).accept, cut
        assert link.received == first
        assert link.released
        assert not link.world.house.bad


@pytest.mark.parametrize("service", [FILE, OBJECT, FTP])
@pytest.mark.parametrize("first", WRONG.values(), ids=WRONG)
def test_stranger_is_reset_however_its_first_bytes_are_cut(first: bytes, service: str) -> None:
    for size in (1, 5, len(first)):
        link = at_gate(service)
        for low in range(0, len(first), size):
            link.outside(low, first[low : low + size])
            if link.world.house.bad:
                break
        assert len(link.world.house.bad) == 1
        assert not link.released
