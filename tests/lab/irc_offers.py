"""IRC's DCC offers in a lab, by a LAN host whose pinhole those of others are told from."""

from __future__ import annotations

from dataclasses import replace
from ipaddress import IPv4Address
from typing import Final

from tests.lab import kernel_sets
from tests.lab.flows import Flow
from tests.lab.net import ADDRESS, SERVER, WAN, Daemon, Lab
from tests.lab.scene import eventually
from tests.lab.stream import Plan

_PORT: Final = 5501
_ALICES_PORT: Final = 5500
_SERVER: Final = f"{SERVER}:6667"


def number_of(address: str) -> int:
    """An address as an offer has it."""
    return int(IPv4Address(address))


AMYS_INSIDE: Final = f"{number_of(ADDRESS['amy'])} {_PORT}"
AMYS_OUTSIDE: Final = f"{number_of(WAN['A'])} {_PORT}"


def amy_offers(lab: Lab, daemon: Daemon) -> None:
    """amy has a pinhole, which her connection to another server keeps open for ten minutes."""
    address = f"{ADDRESS['bob']}:6667"
    plan = Plan(dialect="irc", frames=3000, pause=0.2, largest=100)
    calling = replace(plan, connect=address, named=AMYS_INSIDE, redirects=3000)
    Flow(lab, ("bob", replace(plan, listen=address)), ("amy", calling))
    daemon.wait_log(f"-> 10.0.0.6:{_PORT}", 30.0)
    eventually(lambda: any(flow.startswith(ADDRESS["amy"]) for flow in waiting(lab)))


def waiting(lab: Lab) -> set[str]:
    """The connections that would wait for a daemon."""
    return set(kernel_sets.entries(lab, "A", "nfreaim_skew"))


def irc_flow(lab: Lab, plan: Plan) -> Flow:
    """A connection of alice to a server outside; she announces her listener, the server amy's."""
    both = replace(plan, dialect="irc")
    inside, outside = (f"{number_of(address)} {_ALICES_PORT}" for address in (ADDRESS["alice"], WAN["A"]))
    serving = replace(both, listen=_SERVER, named=AMYS_OUTSIDE, expects=(inside, outside))
    calling = replace(both, connect=_SERVER, named=inside, expects=(AMYS_OUTSIDE, AMYS_INSIDE), seed=2)
    return Flow(lab, ("server", serving), ("alice", calling))
