"""Where a proposal may be cut, and what must become of it all the same."""

from __future__ import annotations

from typing import Any

from tests.lab.net import ADDRESS
from tests.lab.scene import announced
from tests.lab.standin import Client, Transfer
from tests.oscar import rendezvous as rdv
from tests.oscar.flap import flap
from tests.oscar.profiles import PROFILES, Offer
from tests.oscar.snac import Snac
from tests.oscar.values import ip4

OUTSIDE = "203.0.113.1"


def frame(to: str, profile: str = "libpurple") -> bytes:
    """The FLAP of a proposal, as long as the real one and with the same bytes around the addresses."""
    offer = Offer(b"1234567\0", rdv.DIRECT_IM, ADDRESS["alice"], 5190)
    return flap(2, 0, Snac(4, 6, PROFILES[profile].proposal(to, offer), 1).encode())


def cuts_of(to: str, profile: str) -> dict[str, dict[str, Any]]:
    """Where to cut, by what is hit."""
    whole = frame(to, profile)
    address = whole.index(ip4(ADDRESS["alice"]))
    again = whole.index(ip4(ADDRESS["alice"]), address + 4)
    port = whole.index(b"\x00\x05\x00\x02\x14\x46") + 4
    every = list(range(1, len(whole), 7))
    return {
        "inside the first address": {"cuts": [address + 1]},
        "inside the second address": {"cuts": [again + 3]},
        "between the bytes of the port": {"cuts": [port + 1]},
        "in the header": {"cuts": [3]},
        "behind the last address": {"cuts": [port + 2, len(whole) - 1]},
        "with small pauses": {"cuts": [3, 12, address - 2, address + 2, again + 2, port + 1], "pause": 0.002},
        "every seven bytes": {"cuts": every},
        "byte by byte": {"name": "bytes"},
    }


def check_edited(transfer: Transfer, other: Client) -> None:
    outcome = transfer.outcome()
    assert outcome.first_attempt, outcome
    block = announced(other, transfer.cookie)
    assert {block.address(kind) for kind in (rdv.RDV_IP, rdv.REQUESTER_IP)} == {OUTSIDE}
