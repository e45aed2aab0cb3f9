"""The MSN helper where the server is inside: what it relays, and which servers it names."""

from __future__ import annotations

import pytest

from nfreaim.core.address import Endpoint
from tests.unit.msn_session import (
    LISTENS,
    NEIGHBOUR,
    OUTSIDE,
    MsnNat,
    Session,
    accept,
    heard,
    listening,
    msg,
    p2p,
    slp,
)


def home(**more: object) -> MsnNat:
    nat = MsnNat(
        server_inside=True, inside=Endpoint("10.0.0.9", 1863), outside=Endpoint("203.0.113.20", 4000)
    )
    for name, value in more.items():
        setattr(nat, name, value)
    return nat


def test_server_at_home_relays_what_its_clients_inside_announce() -> None:
    session = Session(home()).on_sb()
    assert session.hear(heard(p2p(listening(NEIGHBOUR)))) == heard(p2p(listening(OUTSIDE)))
    assert session.hear(heard(accept(NEIGHBOUR))) == heard(accept(OUTSIDE))
    assert [one.inside for one in session.nat.expected] == [
        Endpoint(NEIGHBOUR, 44397),
        Endpoint(NEIGHBOUR, 6891),
    ]
    assert not any(one.needs_session for one in session.nat.expected)


@pytest.mark.parametrize("address", ["203.0.113.20", OUTSIDE, "198.51.100.7"])
def test_server_at_home_opens_nothing_for_others(address: str) -> None:
    session = Session(home()).on_sb()
    for payload in (p2p(listening(address)), accept(address)):
        assert session.hear(heard(payload)) == heard(payload)
    assert session.nat.expected == []


def test_client_outside_of_a_server_at_home_opens_nothing() -> None:
    session = Session(home()).on_sb()
    for payload in (p2p(listening(NEIGHBOUR)), accept(NEIGHBOUR)):
        assert session.say(msg(payload)) == msg(payload)
    assert session.nat.expected == []


@pytest.mark.parametrize(
    ("line", "leaves"),
    [
        (b"XFR 14 SB 10.0.0.9:1864 CKI t U x 1\r\n", b"XFR 14 SB 203.0.113.1:11864 CKI t U x 1\r\n"),
        (b"RNG 17 10.0.0.9:1864 CKI t b@x b U x 1\r\n", b"RNG 17 203.0.113.1:11864 CKI t b@x b U x 1\r\n"),
        (b"XFR 3 NS 10.0.0.9:1863 0 1.2.3.4:5\r\n", b"XFR 3 NS 203.0.113.1:1863 0 1.2.3.4:5\r\n"),
        (b"XFR 3 NS home.test:1864 U D\r\n", b"XFR 3 NS 203.0.113.1:11864 U D\r\n"),
        (b"XFR 14 SB 10.0.0.9:1999 CKI t\r\n", b""),  # nobody forwards that port
        (b"XFR 14 SB 198.51.100.7:1864 CKI t\r\n", b""),
        (b"XFR 14 SB other.test:1864 CKI t\r\n", b""),
        (b"XFR 14 SB 10.0.0.9 CKI t\r\n", b""),
        (b"XFR 14\r\n", b""),
        (b"RNG 17\r\n", b""),
        (b"UBX x@lab.test 25\r\nRNG 1 10.0.0.9:1864 CKI\r\n", b""),  # a payload
    ],
)
def test_server_at_home_names_what_its_clients_reach(line: bytes, leaves: bytes) -> None:
    nat = home(forwards={Endpoint("10.0.0.9", 1864): 11864}, home=frozenset({"home.test"}))
    session = Session(nat).on_ns()
    assert session.hear(line) == (leaves or line)
    for cut in range(1, len(line)):
        assert Session(home(forwards=nat.forwards, home=nat.home)).on_ns().hear(line, cut) == (leaves or line)
    assert Session(home(forwards=nat.forwards, home=nat.home)).on_ns().hear(line, *range(1, len(line))) == (
        leaves or line
    )


def test_of_several_private_addresses_the_one_that_is_a_host_of_ours_is_meant() -> None:
    def message(addresses: bytes, ports: bytes) -> bytes:
        lines = b"IPv4External-Addrs: " + addresses, b"IPv4External-Port: " + ports
        return heard(p2p(slp(*LISTENS, *lines)))

    session = Session(home()).on_sb()
    assert session.hear(message(b"10.9.9.9 10.0.0.6", b"7000 6891")) == message(
        b"10.9.9.9 203.0.113.1", b"7000 6891"
    )
    assert [one.inside for one in session.nat.expected] == [Endpoint(NEIGHBOUR, 6891)]
    strangers = message(b"10.9.9.9 10.8.8.8", b"7000 6891")
    assert session.hear(strangers) == strangers
    assert session.reasons()[-1] == "10.8.8.8 is not a host of the inside networks"
