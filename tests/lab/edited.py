"""Connections that are edited again and again, so that they wait for a daemon."""

from __future__ import annotations

from dataclasses import replace

from tests.lab.flows import Flow
from tests.lab.irc_offers import number_of
from tests.lab.net import ADDRESS, WAN, Lab
from tests.lab.stream import Plan

OFFER, OUTSIDE = (f"{number_of(address)} 5500" for address in (ADDRESS["alice"], WAN["A"]))


def edited(lab: Lab, name: str, pause: float) -> Flow:
    """A connection of alice's, or to the server at home, whose every message is an edit."""
    plan = Plan(frames=0, redirects=3000, pause=pause)
    if name == "client inside":
        irc = replace(
            plan, dialect="irc", listen="203.0.113.9:6667", expects=(OFFER, OUTSIDE), redirects=0, frames=3000
        )
        calling = replace(plan, dialect="irc", connect=irc.listen, named=OFFER, seed=2)
        return Flow(lab, ("server", irc), ("alice", calling))
    named, becomes = f"{ADDRESS['hsrv']}:5190", f"{WAN['A']}:5190"
    serving = replace(plan, listen=named, named=named)
    calling = replace(plan, connect=becomes, expects=(named, becomes), redirects=0, frames=3000, seed=2)
    return Flow(lab, ("hsrv", serving), ("bob", calling))


def established(lab: Lab, node: str) -> str:
    """The established connections of a node."""
    return lab.run(node, "ss", "-tnH", "state", "established").stdout
