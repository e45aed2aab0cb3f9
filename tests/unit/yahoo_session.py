"""One YMSG connection through a scripted router, for the tests of Yahoo! Messenger's helper."""

from __future__ import annotations

from typing import Self

from nfreaim.helpers.yahoo import YAHOO
from nfreaim.helpers.yahoo.pager import YahooHelper
from tests.unit.fakes import Router
from tests.unit.helper_session import C2S, S2C, HelperSession
from tests.unit.irc_session import INSIDE, NEIGHBOUR, OUTSIDE, ScriptedNat
from tests.unit.wires import ResizedWire
from tests.yahoo.ymsg import V9, offer, raw, sign_on, url

OFFER = offer(url(INSIDE, 5555))
OFFERED = offer(url(OUTSIDE, 5555))

__all__ = [
    "INSIDE",
    "NEIGHBOUR",
    "OFFER",
    "OFFERED",
    "OUTSIDE",
    "ScriptedNat",
    "Session",
    "YahooWire",
]


class Session(HelperSession[ScriptedNat, YahooHelper]):
    def __init__(self, nat: ScriptedNat | None = None, midstream: bool = False) -> None:
        super().__init__(nat or ScriptedNat(), YahooHelper(midstream))

    def signed_on(self, version: int = V9) -> Session:
        auth, challenge, answer, welcome = sign_on(version)
        self.feed(C2S, auth)
        self.feed(S2C, challenge)
        self.feed(C2S, answer)
        assert not self.helper.established
        self.feed(S2C, welcome)
        assert self.helper.established
        return self


class YahooWire(ResizedWire):
    """A connection through a whole engine."""

    keepalive = raw(0x8A, b"")
    proposal = OFFER

    def make_router(self) -> Router:
        return Router(spec=YAHOO)

    def begun(self) -> Self:
        """Past sign-on."""
        self.handshake()
        hello, challenge, answer, welcome = sign_on()
        self.client(hello)
        self.server(challenge)
        self.client(answer)
        self.server(welcome)
        return self
