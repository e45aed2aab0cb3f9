"""IRC's DCC offers in a lab, by a LAN host whose pinhole those of others are told from."""

from __future__ import annotations

from dataclasses import replace
from ipaddress import IPv4Address
from typing import Final

from tests.lab.flows import Flow
from tests.lab.net import ADDRESS, WAN, Daemon, Lab
from tests.lab.scene import eventually
from tests.lab.stream import Plan

_PORT: Final = 5501


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
    listed = lab.run("A", "ipset", "list", "nfreaim_skew").stdout.partition("Members:\n")[2]
    return {line.split()[0] for line in listed.splitlines()}
