"""Somebody with an account who knows the cookie of an agreement, and is no party to it, changes nothing."""

from __future__ import annotations

import time

import pytest

from tests.lab.scene import eventually, opened, scene
from tests.lab.standin import Client
from tests.oscar import rendezvous as rdv
from tests.oscar.icbm import DECLINED, ICBM_RDV, client_error, icbm_to_server
from tests.oscar.rendezvous import Rendezvous
from tests.oscar.tlv import Tlv, tlv
from tests.oscar.values import ip4, u16

SECOND = [
    (rdv.SEQUENCE, u16(2)),
    (rdv.RDV_IP, ip4("198.51.100.7")),
    (rdv.REQUESTER_IP, ip4("198.51.100.7")),
    (rdv.PORT, u16(4443)),
]


def interfere(stranger: Client, cookie: str, to: str, propose: bool = False) -> None:
    """Cancel, accept, decline and, if *propose*, counter-propose in the cookie of others."""
    raw = bytes.fromhex(cookie)
    kinds: list[tuple[int, list[Tlv]]] = [(rdv.CANCEL, []), (rdv.ACCEPT, [])]
    for kind, fields in kinds + ([(rdv.PROPOSE, SECOND)] if propose else []):
        block = Rendezvous(kind, raw, rdv.SEND_FILE, fields).encode()
        body = icbm_to_server(raw, 2, to, tlv(ICBM_RDV, block))
        stranger.call("send_snac", family=4, subtype=6, body=body.hex())
    body = client_error(raw, to, DECLINED)
    stranger.call("send_snac", family=4, subtype=0x0B, body=body.hex())


@pytest.mark.parametrize("who", ["carol", "amy"])
def test_a_stranger_ends_no_agreement_of_others(who: str) -> None:
    with scene() as made:
        alice, bob, stranger = made.clients(
            made.server(), ("alice", "Alice 1", 5200), ("bob", "Bobby"), (who, "Stranger")
        )
        for client in (alice, bob, stranger):  # or they would negotiate with the stranger, too
            client.call("policy", action="ignore")
        transfer = opened(made, alice, bob, 5200)
        before = made.pinholes()
        interfere(stranger, transfer.cookie, "Alice 1", propose=True)
        interfere(stranger, transfer.cookie, "Bobby", propose=True)
        alice.call("keep_alive")
        time.sleep(1.0)
        assert made.pinholes() == before
        bob.call("decline", to="aLICE1", cookie=transfer.cookie)
        eventually(lambda: not made.pinholes())
        assert "declined" in made.daemon.log_text()


def test_a_transfer_goes_through_in_spite_of_a_stranger() -> None:
    with scene() as made:
        alice, bob, stranger = made.clients(
            made.server(), ("alice", "Alice", 5200), ("bob", "Bobby"), ("carol", "Carol")
        )
        bob.call("policy", action="accept", delay=1.5)
        transfer = opened(made, alice, bob, 5200)
        interfere(stranger, transfer.cookie, "Alice")
        interfere(stranger, transfer.cookie, "Bobby")
        outcome = transfer.outcome()
        assert outcome.first_attempt, outcome
