"""The story of captures: what holds for all of them, and a ladder for each rendezvous."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network

from nfreaim import protocols
from nfreaim.capture import Capture
from nfreaim.explain.accounts import Names, names_in
from nfreaim.explain.causes import Causes
from nfreaim.explain.connections import connections_in
from nfreaim.explain.frames import Frames
from nfreaim.explain.ladder import Ladder
from nfreaim.explain.rendezvous import Story
from nfreaim.explain.sides import UNKNOWN, guessed, paired
from nfreaim.explain.telling import Teller
from nfreaim.replay.player import replay


@dataclass(frozen=True, slots=True)
class Explained:
    """*notes*: sentences about the captures as a whole."""

    notes: list[str]
    ladders: list[Ladder]


def explained(
    captures: Sequence[Capture],
    ports: protocols.Ports,
    inside: tuple[IPv4Network, ...] = (),
    outside: str | None = None,
    names: bool = False,
) -> Explained:
    """Read *captures*, taken on one router.

    ports            of servers, of each protocol
    inside, outside  the networks behind the router, and its outside address; empty and None: as captured
    names            also tell under which names hosts signed on
    """
    notes = [f"Note: {one.truncated}; read up to there." for one in captures if one.truncated]
    frames = Frames(captures)
    connections = connections_in(frames)
    servers = protocols.by_port(ports)
    sides = guessed(connections, frozenset(servers), inside, outside)
    pairs = paired(connections, sides)
    causes = Causes(sides, any(map(sides.of_lan, connections)), any(map(sides.of_wan, connections)))
    lan = replay(frames, sides, sides.outside, ports, midstream=True)
    wan = replay(frames, [IPv4Address(sides.outside)], sides.outside, ports, midstream=True)
    told = Story(sides, pairs, frames.times).read(lan, wan)
    known = names_in(frames, servers, sides.outside) if names else Names()
    teller = Teller(causes, known, frames.began)
    notes.append(_seen(causes))
    if not told:
        notes.append(
            f"No rendezvous: {lan.flows + wan.flows} connections to servers were read "
            f"({', '.join(f'{name}:{_list(numbers)}' for name, numbers in ports.items())}), and none of "
            "their messages names an address. Name other ports with --protocol NAME:PORT."
        )
    return Explained(notes, [teller.ladder(one, number) for number, one in enumerate(told, 1)])


def _seen(causes: Causes) -> str:
    """Which sides of the router the captures have."""
    sides = causes.sides
    networks = ", ".join(map(str, sides.inside)) or "no inside network"
    if causes.lan and causes.wan:
        return f"Both sides of the router: inside {networks}, outside address {sides.outside}."
    if causes.wan:
        return f"The WAN side of the router alone: outside address {sides.outside}."
    where = "" if sides.outside == UNKNOWN else f"; its outside address is {sides.outside}"
    return f"The LAN side of the router alone: inside {networks}{where}."


def _list(numbers: Sequence[int]) -> str:
    return ",".join(map(str, numbers))
