"""docs/messengers.md: its table says of each messenger what the helpers, the demo and the tests say.

A cell about a helper that this version does not have says so, and must not say so once it has it.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

import pytest

from demo import icq, irc, msn, rows, xmpp, yahoo
from nfreaim.config import parse
from nfreaim.helpers import HELPERS
from nfreaim.kernel_helpers import KERNEL_HELPERS
from nfreaim.protocols import usual_ports

REPO = Path(__file__).resolve().parents[2]
PAGE = REPO / "docs" / "messengers.md"
NO_HELPER = "no helper in this version"
NOTHING = "nothing to switch on"
# Each messenger that the page owes an answer about, by the beginning of its row.
OWED = (
    *("AIM", "ICQ", "IRC", "MSN", "Jabber", "Yahoo!", "SIP, SIMPLE"),
    *("Windows Messenger, SIP", "Windows Messenger, public", "T-Online"),
)
SPECS = {spec.name: spec for spec in HELPERS}

Pair = tuple[str, str]


class Line(NamedTuple):
    messenger: str
    helper: str
    tried: str
    ports: str
    plain: str
    served: str
    cannot: str
    switch: str
    shown: str

    @property
    def spec_name(self) -> str:
        """The helper of nfreaim's own, or ""."""
        return self.helper.strip("`") if self.helper.startswith("`") else ""


def table() -> list[Line]:
    lines = PAGE.read_text().split("## ")[0].splitlines()
    found = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines if line.startswith("|")]
    return [Line(*cells) for cells in found[2:]]


TABLE = table()
each = pytest.mark.parametrize("line", TABLE, ids=lambda line: line.messenger)


def pairs(cell: str, word: str) -> dict[Pair, str]:
    """Who reaches whom, or does not, and the seconds that it took."""
    (found,) = re.findall(rf"(?i)\b{word}: ([^;.]*(?:\.\d[^;.]*)*)", cell) or [""]
    return {(a, b): seconds for a, b, seconds in re.findall(r"(\w+) → (\w+)(?: ([\d.]+ s))?", found)}


def demo_of(everybody: Iterable[tuple[Pair, bool, bool]]) -> tuple[dict[Pair, bool], dict[Pair, bool]]:
    """What the demo expects on plain NAT, and with nfreaim on both routers."""
    cases = [*everybody]
    return {pair: plain for pair, plain, _ in cases}, {pair: served for pair, _, served in cases}


DEMO = {
    "AIM": demo_of(
        ((row.proposer, row.receiver), (row.proposer, row.receiver, "oos") in rows.PLAIN_WORKS, True)
        for row in rows.FILES
    ),
    "ICQ": demo_of(
        ((call.caller, call.listener), call.works(()), call.works(("A", "B")))
        for call in icq.CALLS
        if (call.how, call.server) == ("dial", "oos")
    ),
    "IRC": demo_of(
        ((offer.sender, offer.receiver), offer.works(()), offer.works(("A", "B")))
        for offer in irc.OFFERS
        if offer.kind == "file"
    ),
    "MSN": demo_of(
        ((row.sender, row.receiver), bool(row.wanted(())), bool(row.wanted(("A", "B")))) for row in msn.FILES
    ),
    "Jabber": demo_of(
        # Every file arrives: what could not be direct goes in band.
        ((offer.sender, offer.receiver), True, offer.direct(("A", "B")))
        for offer in xmpp.OFFERS
        if offer.kind == "query" and not offer.at_home
    ),
    "Yahoo!": demo_of(
        ((sender, receiver), yahoo.works(sender, receiver, ()), yahoo.works(sender, receiver, ("A", "B")))
        for sender, receiver, port in yahoo.ROWS
        if port
    ),
}
"""By the beginning of the messenger's name. A helper's rows of the demo are compared with its line."""


def test_every_messenger_has_its_line() -> None:
    named = [
        next((owed for owed in OWED if line.messenger.startswith(owed)), line.messenger) for line in TABLE
    ]
    assert named == list(OWED)


def test_every_helper_has_a_line() -> None:
    assert SPECS.keys() <= {line.spec_name for line in TABLE}


@each
def test_no_cell_is_empty(line: Line) -> None:
    assert all(line)


@each
def test_a_helper_that_is_there_is_described_and_one_that_is_not_is_not(line: Line) -> None:
    absent = bool(line.spec_name) and line.spec_name not in SPECS
    assert (NO_HELPER in line.switch) == absent
    assert NO_HELPER not in line.served or absent
    assert (line.shown == "none") <= (absent or line.helper == "none")


@each
def test_what_switches_it_on_is_a_configuration_that_reads_its_ports(line: Line) -> None:
    if line.switch in (NO_HELPER, NOTHING):
        return
    config = parse(re.findall(r"`([^`]+)`", line.switch)[0], line.messenger)
    transport, *ports = line.ports.replace(",", "").split()
    numbers = tuple(map(int, ports))
    if line.helper == "kernel":
        (assigned,) = config.kernel_helpers
        assert (assigned.transport.upper(), assigned.ports) == (transport, numbers)
        assert KERNEL_HELPERS[assigned.name].ports == numbers
    else:
        assert (transport, config.ports[line.spec_name]) == ("TCP", numbers)
        assert ("on by default" in line.switch) == (line.spec_name in usual_ports())


@each
def test_the_tests_that_show_it_exist_and_run(line: Line) -> None:
    for name in re.findall(r"`([^`]+)`", line.shown):
        tree = ast.parse((REPO / name).read_text())
        assert any(isinstance(node, ast.FunctionDef) and node.name.startswith("test_") for node in tree.body)


@pytest.mark.parametrize("messenger", DEMO)
def test_who_reaches_whom_is_what_the_demo_expects(messenger: str) -> None:
    (line,) = (line for line in TABLE if line.messenger.startswith(messenger))
    plain, served = DEMO[messenger]
    for word, reached in (("works", True), ("fails", False)):
        assert pairs(line.plain, word).keys() == {pair for pair, works in plain.items() if works is reached}
        assert pairs(line.served, word).keys() == {pair for pair, works in served.items() if works is reached}
    measured = [*pairs(line.plain, "works").values(), *pairs(line.plain, "fails").values()]
    assert all([*measured, *pairs(line.served, "works").values()])


def test_a_line_that_says_otherwise_is_seen() -> None:
    cell = "works: bob → alice 0.2 s, alice → amy; fails: alice → bob 6.0 s. Chats alike"
    assert pairs(cell, "works") == {("bob", "alice"): "0.2 s", ("alice", "amy"): ""}
    assert pairs(cell, "fails") == {("alice", "bob"): "6.0 s"}
    assert pairs("as MSN", "works") == {}
