"""A scripted router, one XMPP connection through it, and what clients say: for the tests of its helper."""

from __future__ import annotations

from dataclasses import dataclass, field

from nfreaim.core.address import Direction, Endpoint
from nfreaim.core.helper import Expectation, Refused
from nfreaim.helpers.xmpp.xmpp_helper import XmppHelper
from tests.unit import irc_session
from tests.unit.helper_session import HelperSession
from tests.xmpp import texts

INSIDE, OUTSIDE, SERVER, NEIGHBOUR, BOB = "10.0.0.5", "203.0.113.1", "203.0.113.9", "10.0.0.6", "203.0.113.20"
HOME = "10.0.0.9"

SIGN_ON, OLD_SIGN_ON, RESUMED = (
    [(Direction(way), text) for way, text in turns]
    for turns in (texts.SIGN_ON, texts.OLD_SIGN_ON, texts.RESUMED)
)


@dataclass
class ScriptedNat(irc_session.ScriptedNat):
    """Beside what its parent does: *withdrawn* and *accepted*, which are names of agreements."""

    withdrawn: list[bytes] = field(default_factory=list)
    agreed: list[bytes] = field(default_factory=list)

    def offered(self, expectation: Expectation) -> None:
        """Its peer may come, and no pinhole is opened."""

    def withdraw(self, agreement: bytes, reason: str) -> None:
        self.withdrawn.append(agreement)

    def accepted(self, agreement: bytes) -> None:
        self.agreed.append(agreement)

    def is_home(self, host: str) -> bool:
        return host.startswith("10.")


class RefusingNat(ScriptedNat):
    """Refuses one port, and other hosts than those of the LAN."""

    def expect(self, expectation: Expectation) -> Endpoint:
        if expectation.inside.port == 5555 or not expectation.inside.address.startswith("10.0.0."):
            raise Refused("not this one")
        return super().expect(expectation)


def at_home() -> ScriptedNat:
    """The server is inside, and bob signs on from outside."""
    inside, outside = Endpoint(HOME, 5222), Endpoint(BOB, 40123)
    return RefusingNat(server_inside=True, inside=inside, outside=outside)


class Session(HelperSession[ScriptedNat, XmppHelper]):
    def __init__(self, nat: ScriptedNat | None = None, midstream: bool = False) -> None:
        super().__init__(nat or ScriptedNat(), XmppHelper(midstream))

    def signed_on(self, turns: list[tuple[Direction, bytes]] = SIGN_ON) -> Session:
        for direction, text in turns:
            self.feed(direction, text)
        assert self.helper.established
        return self
