"""A daemon that starts again under a connection, and what passes meanwhile."""

from __future__ import annotations

import json
from typing import TypeVar

from tests.unit.fakes import Wire

W = TypeVar("W", bound=Wire)


def restarted(wire: W, *, lost: bool = False, record: bool = True) -> W:
    """The same connection at a new daemon; *lost*: it died before it wrote down where flows stand."""
    old = wire.router
    positions = dict(old.kernel.noted)
    old.engine.save()
    if not lost:
        positions = dict(old.kernel.noted)
    router = wire.make_router()
    router.now = old.now + 1
    for key, kept in (old.kernel.kept | old.kernel.protected).items() if record else ():
        again = json.loads(json.dumps(kept))
        if key in positions:
            again["position"] = positions[key]
        router.engine.restore(again, router.now)
    router.kernel.protected |= old.kernel.protected
    if record:
        router.kernel.kept, router.kernel.noted = dict(old.kernel.kept), positions
    router.last_token = old.last_token
    wire.router = router
    return wire


def unread(wire: Wire, way: int, *messages: bytes) -> None:
    """These pass while no daemon runs."""
    before, wire.router = wire.router, wire.make_router()
    wire.say(way, *messages)
    wire.router = before


def pause(wire: Wire, seconds: float = 1.5) -> None:
    wire.router.wait(seconds)


def opened(wire: Wire) -> bool:
    """Whether a proposal of the client, sent now, opens its pinhole."""
    pinholes = len(wire.router.firewall.pinholes)
    wire.say(0, wire.proposal)
    return len(wire.router.firewall.pinholes) > pinholes
