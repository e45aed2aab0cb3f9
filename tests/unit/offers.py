"""Offers of the client at 10.0.0.5, as it says them and as they leave."""

from __future__ import annotations

from typing import Final

from nfreaim.core.address import Endpoint
from tests.script_helper import offer
from tests.unit.fakes import CLIENT, OUTSIDE

PROPOSAL: Final = offer()
EDITED: Final = offer(at=Endpoint(OUTSIDE, 5190))
FIRST: Final = 71  # offset of the first byte of PROPOSAL's address
SECOND: Final = offer(b"7654321", "direct-im", Endpoint(CLIENT.address, 4000), before=100, behind=90)
SECOND_EDITED: Final = offer(b"7654321", "direct-im", Endpoint(OUTSIDE, 4000), before=100, behind=90)
RECEIVED: Final = offer(b"0000001", at=Endpoint("198.51.100.20", 5190), before=300)
RELAY: Final = offer(b"2222222", tail=b" relay")


def of(host: str) -> bytes:
    """PROPOSAL, as the inside *host* says it."""
    return offer(at=Endpoint(host, 5190))
