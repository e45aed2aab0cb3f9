"""A daemon that starts again under a connection, and what passes meanwhile."""

from __future__ import annotations

import json

from nfreaim.helpers.oscar.session import OscarHelper
from tests.golden import packets
from tests.unit.fakes import Router
from tests.unit.wires import PROPOSAL, Numbered

TEXT = packets()["text-message"]


def restarted(wire: Numbered, *, lost: bool = False, record: bool = True) -> Numbered:
    """The same connection at a new daemon; *lost*: it died before it wrote down where flows stand."""
    old = wire.router
    places = dict(old.kernel.noted)
    old.engine.save()
    if not lost:
        places = dict(old.kernel.noted)
    router = Router(helper=OscarHelper)
    router.now = old.now + 1
    for key, kept in old.kernel.kept.items() if record else ():
        again = json.loads(json.dumps(kept))
        if key in places:
            again["position"] = places[key]
        router.engine.restore(again, router.now)
    router.last_token = old.last_token
    wire.router = router
    return wire


def unread(wire: Numbered, way: int, *frames: bytes) -> None:
    """These frames pass while no daemon runs."""
    before, wire.router = wire.router, Router(helper=OscarHelper)
    wire.say(way, *frames)
    wire.router = before


def pause(wire: Numbered, seconds: float = 1.5) -> None:
    wire.router.wait(seconds)


def opened(wire: Numbered) -> bool:
    """Whether a proposal of the client, sent now, opens its pinhole."""
    holes = len(wire.router.firewall.pinholes)
    wire.say(0, PROPOSAL)
    return len(wire.router.firewall.pinholes) > holes
