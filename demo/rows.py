"""The rows and columns of the demo, what each cell must show, and the judgement on what it did show."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import TypeVar

from tests.lab.net import ADDRESS, BEHIND, Lab

COLUMNS: dict[str, tuple[str, ...]] = {
    "plain NAT": (),
    "nfreaim on A": ("A",),
    "on B": ("B",),
    "on A and B": ("A", "B"),
}
PAIRS = (("bob", "alice"), ("alice", "bob"), ("alice", "carol"), ("carol", "alice"), ("alice", "amy"))
UPLINK, BOX = "uplink", "box"
PLAIN_WORKS = {
    *(("bob", "alice", "oos"), ("alice", "bob", "oos"), ("alice", "amy", "aol")),
    ("alice", "bob", BOX),  # by the client's fallback
}
FIRST, ANY, AS_PLAIN = "first attempt", "any attempt", "no worse than plain NAT"
FAILS = "it fails, or the network is no NAT"


# Servers on our side: on hsrv, on the router itself, and one whose address is longer inside than outside.
HOME, ROUTER, LONG, FRONT = "home", "router", "long", "front"
PLACES = {
    HOME: "server at home",
    ROUTER: "server on router A",
    LONG: "server at 192.168.100.200, outside 192.0.2.1",
    FRONT: "double NAT, server at home",
}
TITLES = PLACES | {
    UPLINK: "second uplink, chosen by marks",
    BOX: "double NAT, the box is asked for ports",
}


@dataclass(frozen=True)
class Row:
    """One kind of rendezvous between two hosts at one kind of server, or the sign-on of one host."""

    proposer: str
    receiver: str
    kind: str  # "file", "im" or "sign-on"
    server: str = "oos"  # with libpurple-like clients; "aol": clients check complements; or one of TITLES
    cut: bool = False  # the proposal is, within an address, and its end waits for the ACK of its beginning

    @property
    def title(self) -> str:
        """First column of the table."""
        if self.kind == "sign-on":
            return f"{PLACES[self.server]}: {self.proposer} signs on"
        what = {"file": "file", "im": "direct IM"}[self.kind]
        where = f"{TITLES[self.server]}: " if self.server in TITLES else ""
        what += ", cut" if self.cut else ""
        return f"{where}{self.proposer} → {self.receiver}, {what}" + (" ²" if self.server == "aol" else "")


FILES = [Row(a, b, "file") for a, b in PAIRS]
IMS = [Row(a, b, "im") for a, b in PAIRS]
CUT = [Row("alice", receiver, "file", cut=True) for receiver in ("bob", "carol")]
AOL = [Row("alice", "carol", "file", "aol"), Row("alice", "amy", "file", "aol")]
HOME_PAIRS = (("alice", "bob"), ("bob", "alice"), ("alice", "amy"), ("carol", "alice"))
SIGN_ON = [Row("bob", "", "sign-on", place) for place in PLACES]
AT_HOME = [Row(a, b, "file", place) for place in (HOME, ROUTER) for a, b in HOME_PAIRS]
BEHIND_TWO = [Row(a, b, "file", FRONT) for a, b in (("alice", "bob"), ("bob", "alice"))]
SERVERS_AT_HOME = [
    row for place in PLACES for row in (*SIGN_ON, *AT_HOME, *BEHIND_TWO) if row.server == place
]


@dataclass
class Cell:
    """What happened."""

    ok: bool
    text: str
    first: bool = False
    peer: str = ""  # address of the receiver as the proposer saw it
    reason: str = ""
    good: bool = True  # it is what it has to be


@dataclass
class Column:
    """Everything one lab found out."""

    name: str
    routers: tuple[str, ...]
    lab: Lab
    cells: dict[str, Cell] = field(default_factory=dict)
    error: str = ""


_Row = TypeVar("_Row", bound=Hashable)
_Outcome = TypeVar("_Outcome")


def side_by_side(
    rows: Iterable[_Row],
    pair: Callable[[_Row], Hashable],
    make: Callable[[_Row], _Outcome],
    pool: ThreadPoolExecutor,
) -> Callable[[], dict[_Row, _Outcome]]:
    """Begin with all rows, those of one *pair* one after the other; the outcomes when they are there."""
    pairs: dict[Hashable, list[_Row]] = {}
    for row in rows:
        pairs.setdefault(pair(row), []).append(row)

    def run(mine: list[_Row]) -> dict[_Row, _Outcome]:
        return {row: make(row) for row in mine}

    running = [pool.submit(run, mine) for mine in pairs.values()]
    return lambda: {row: outcome for future in running for row, outcome in future.result(60.0).items()}


ORDINARY, RULES = "ordinary traffic untouched", "firewall as before, after stop"


def demanded(row: Row, routers: tuple[str, ...]) -> str:
    """What a cell must show.

    To a server behind router A, outside clients get through an ALG there and nowhere else. An ALG on the
    proposer's own router makes the first attempt work. One on the receiver's router alone
    makes the receiver's counter-proposal work, which is the second attempt. Otherwise nothing may be worse
    than plain NAT.
    """
    if row.server in PLACES:
        lone = (row.proposer, row.receiver) == ("alice", "amy")  # both sign on at an inside address
        if "A" not in routers:
            return FIRST if lone else FAILS
        own = row.proposer != "carol" or "B" in routers
        return FIRST if own else ANY
    if BEHIND.get(row.proposer) in routers:
        return FIRST
    if BEHIND.get(row.receiver) in routers and row.proposer in BEHIND:
        return ANY
    return AS_PLAIN


def judge(row: Row, column: Column, plain: Cell | None) -> None:
    """Mark a cell that is not what it has to be."""
    cell = column.cells[row.title]
    demand = demanded(row, column.routers)
    if demand == FAILS:
        cell.good = not cell.ok
    elif not column.routers and row.server not in PLACES:
        works = (row.proposer, row.receiver, row.server) in PLAIN_WORKS
        cell.good = cell.ok == works
        demand = "it works" if works else FAILS
    elif demand == FIRST:
        cell.good = cell.first
        if row.receiver and BEHIND.get(row.proposer) == BEHIND.get(row.receiver):
            cell.good = cell.first and cell.peer == ADDRESS[row.receiver]
            demand += ", on their own LAN"
    elif demand == ANY:
        cell.good = cell.ok
    else:
        cell.good = plain is None or (cell.ok >= plain.ok and cell.first >= plain.first)
    if not cell.good:
        cell.reason = f"expected: {demand}. {cell.reason}"
