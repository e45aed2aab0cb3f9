"""Ends: who talks to whom in a played program. Nothing else lives here."""

from __future__ import annotations

from typing import Final

from nfreaim.core.address import Endpoint
from tests.unit.fakes import CLIENT as ALICE
from tests.unit.fakes import SERVER as OSCAR

HOME: Final = Endpoint("10.0.0.9", 5190)
ENDS: Final = (
    (ALICE, OSCAR),
    (Endpoint("10.0.0.6", 40200), OSCAR),
    (Endpoint("203.0.113.20", 51000), HOME),
    (Endpoint("10.0.0.5", 40124), OSCAR),
)
OUTSIDES: Final = ("203.0.113.1", "198.51.100.200", "192.0.2.7", "10.9.9.9")
ANNOUNCED: Final = "198.51.100.7"
