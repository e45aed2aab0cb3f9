"""``make demo``: one table of what works between clients that NAT keeps apart, without and with nfreaim.

Four labs run side by side, one per column. Exit status 0 only if every cell is what it has to be (see
:func:`demanded`), with contents compared at both ends, ordinary traffic untouched, and the routers' rules
after nfreaim exactly what they were before it. Nothing is left behind, also on Ctrl-C.
"""

from __future__ import annotations

import argparse
import difflib
import signal
import sys
import time
from concurrent.futures import ThreadPoolExecutor, wait
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType

from tests.lab import demo_icq
from tests.lab.net import ADDRESS, BEHIND, LAN, SECOND_SERVER, Lab, lab_available
from tests.lab.standin import Client, IcqCall, Server, Transfer
from tests.lab.traffic import download

COLUMNS: dict[str, tuple[str, ...]] = {
    "plain NAT": (),
    "nfreaim on A": ("A",),
    "on B": ("B",),
    "on A and B": ("A", "B"),
}
PAIRS = (("bob", "alice"), ("alice", "bob"), ("alice", "carol"), ("carol", "alice"), ("alice", "amy"))
PLAIN_WORKS = {("bob", "alice", "oos"), ("alice", "bob", "oos"), ("alice", "amy", "aol")}
FIRST, ANY, AS_PLAIN = "first attempt", "any attempt", "no worse than plain NAT"


@dataclass(frozen=True)
class Row:
    """One kind of rendezvous between two hosts at one kind of server."""

    proposer: str
    receiver: str
    kind: str  # "file" or "im"
    server: str = "oos"  # "oos" with libpurple-like clients, "aol" with clients that check complements

    @property
    def title(self) -> str:
        """First column of the table."""
        what = {"file": "file", "im": "direct IM"}[self.kind]
        return f"{self.proposer} → {self.receiver}, {what}" + (" ²" if self.server == "aol" else "")


FILES = [Row(a, b, "file") for a, b in PAIRS]
IMS = [Row(a, b, "im") for a, b in PAIRS]
AOL = [Row("alice", "carol", "file", "aol"), Row("alice", "amy", "file", "aol")]


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


ORDINARY, RULES = "ordinary traffic untouched", "firewall as before, after stop"


def demanded(row: Row, routers: tuple[str, ...]) -> str:
    """What a cell must show.

    An ALG on the proposer's own router makes the first attempt work. One on the receiver's router alone
    makes the receiver's counter-proposal work, which is the second attempt. Otherwise nothing may be worse
    than plain NAT.
    """
    if BEHIND.get(row.proposer) in routers:
        return FIRST
    if BEHIND.get(row.receiver) in routers and row.proposer in BEHIND:
        return ANY
    return AS_PLAIN


def judge(row: Row, column: Column, plain: Cell | None) -> None:
    """Mark a cell that is not what it has to be."""
    cell = column.cells[row.title]
    demand = demanded(row, column.routers)
    if not column.routers:
        works = (row.proposer, row.receiver, row.server) in PLAIN_WORKS
        cell.good = cell.ok == works
        demand = "it works" if works else "it fails, or the network is no NAT"
    elif demand == FIRST:
        cell.good = cell.first
        if BEHIND.get(row.proposer) == BEHIND.get(row.receiver):
            cell.good = cell.first and cell.peer == ADDRESS[row.receiver]
            demand += ", on their own LAN"
    elif demand == ANY:
        cell.good = cell.ok
    else:
        cell.good = plain is None or (cell.ok >= plain.ok and cell.first >= plain.first)
    if not cell.good:
        cell.reason = f"expected: {demand}. {cell.reason}"


def transfers(column: Column, clients: dict[tuple[str, str], Client], rows: list[Row]) -> None:
    """Run these rows side by side and note the outcomes."""
    running = [
        (row, Transfer(clients[row.proposer, row.server], clients[row.receiver, row.server], row.kind))
        for row in rows
    ]
    for row, transfer in running:
        outcome = transfer.outcome()
        text = f"{'ok' if outcome.ok else 'fails'} {outcome.seconds:.1f} s"
        if outcome.ok and not outcome.first_attempt:
            text += " (fallback ¹)"
        tried = [*outcome.receiver.get("tried", []), *outcome.proposer.get("tried", [])]
        reason = "; ".join([outcome.reason, *tried])
        column.cells[row.title] = Cell(
            outcome.ok, text, outcome.first_attempt, outcome.peer.split(":")[0], reason
        )


def calls(column: Column, outcomes: dict[demo_icq.Call, IcqCall]) -> None:
    """Note the outcomes of ICQ's direct connections."""
    for row, call in outcomes.items():
        wrong = row.objection(call, column.routers)
        reason = f"expected: {wrong}. {call.reason}" if wrong else call.reason
        text = f"{'ok' if call.ok else 'fails'} {call.seconds:.1f} s"
        column.cells[row.title] = Cell(call.ok, text, peer=call.peer, reason=reason, good=not wrong)


def ordinary(column: Column) -> Cell:
    """Traffic that is none of nfreaim's business: right at both ends, and not one packet of it queued."""
    lab = column.lab
    time.sleep(0.3)  # the last acknowledgements of the control connections
    before = {router: lab.queue_state(router) for router in column.routers}
    began = time.monotonic()
    download(lab, "alice", "bob", "203.0.113.20", 8080)
    download(lab, "carol", "bob", "203.0.113.20", 8080)
    download(lab, "alice", "amy", "10.0.0.6", 5190)
    download(lab, "alice", "A", LAN["A"], 5190)
    download(lab, "carol", "B", LAN["B"], 5190)
    seconds = time.monotonic() - began
    after = {router: lab.queue_state(router) for router in column.routers}
    for router in column.routers:
        if not any(before[router].values()):
            return Cell(
                False, "no queue", reason=f"router {router}: control traffic was not queued", good=False
            )
    if before != after:
        return Cell(False, "queued", reason=f"NFQUEUE counters {before} became {after}", good=False)
    return Cell(True, f"ok {seconds:.1f} s")


def run_column(column: Column) -> None:
    """One lab from the first namespace to the last check."""
    with column.lab as lab:
        before = {router: lab.firewall_rules(router) for router in column.routers}
        daemons = {router: lab.start_alg(router, wait=False) for router in column.routers}
        servers = {"oos": Server(lab), "aol": Server(lab, "aol", {"name": "whole"}, SECOND_SERVER)}
        clients = {}
        for server, profile, hosts in (
            ("oos", "libpurple", ("alice", "amy", "bob", "carol")),
            ("aol", "winaim", ("alice", "amy", "carol")),
        ):
            for host in hosts:
                clients[host, server] = Client(lab, host, f"{host} {server}", profile)
        icq = demo_icq.clients(lab)
        for standin in (*servers.values(), *clients.values(), *icq.values()):
            standin.wait_ready()
        for daemon in daemons.values():
            daemon.wait_ready()
        for (_, server), client in clients.items():
            client.sign_on(servers[server], services=server == "oos")
        demo_icq.sign_on(icq, servers)
        with ThreadPoolExecutor(len(demo_icq.CALLS)) as pool:
            outcomes = demo_icq.start(icq, pool)
            transfers(column, clients, FILES)
            transfers(column, clients, IMS + AOL)
            calls(column, outcomes())
        column.cells[ORDINARY] = ordinary(column)
        problems = []
        for router, daemon in daemons.items():
            if lab.firewall_rules(router) == before[router]:
                problems.append(f"router {router}: no rules while running")
            status = daemon.stop()
            if status != 0:
                problems.append(f"router {router}: nfreaim ended with status {status}")
            pair = before[router].splitlines(), lab.firewall_rules(router).splitlines()
            problems += [f"router {router}: {line}" for line in difflib.unified_diff(*pair, lineterm="", n=0)]
        if daemons:
            good = not problems
            column.cells[RULES] = Cell(good, "yes" if good else "no", reason="; ".join(problems), good=good)
        else:
            column.cells[RULES] = Cell(True, "-")


def attempt_column(column: Column) -> None:
    """:func:`run_column`; what goes wrong becomes part of the report."""
    try:
        run_column(column)
    except Exception as error:
        column.error = f"{type(error).__name__}: {error}"


def table(columns: list[Column]) -> str:
    """The one table."""
    titles = [row.title for row in (*FILES, *IMS, *AOL, *demo_icq.CALLS)] + [ORDINARY, RULES]
    lines = [["", *(column.name for column in columns)]]
    for title in titles:
        line = [title]
        for column in columns:
            cell = column.cells.get(title)
            line.append("not run !" if cell is None else cell.text + ("" if cell.good else " !"))
        lines.append(line)
    widths = [max(len(line[i]) for line in lines) for i in range(len(lines[0]))]
    rule = "  ".join("─" * width for width in widths)
    shown = ["  ".join(text.ljust(width) for text, width in zip(line, widths, strict=True)) for line in lines]
    return "\n".join([shown[0], rule, *shown[1:]])


def report(columns: list[Column]) -> bool:
    """Print table and complaints; True if there is nothing to complain about."""
    plain = columns[0].cells
    for column in columns:
        for row in (*FILES, *IMS, *AOL):
            if row.title in column.cells:
                judge(row, column, plain.get(row.title))
    print(table(columns))
    print("¹ the first attempt failed and the client's own fallback (the receiver listens instead) worked")
    print("² server of AOL's kind, clients that check 0x0016/0x0017; else as open-oscar-server and libpurple")
    complaints = [f"{column.name}: {column.error}" for column in columns if column.error]
    for column in columns:
        for title, cell in column.cells.items():
            if not cell.good:
                complaints.append(f"{column.name}: {title}: {cell.text}: {cell.reason}")
    for complaint in complaints:
        print(f"! {complaint}")
    return not complaints


def _interrupt(number: int, frame: FrameType | None) -> None:
    raise KeyboardInterrupt


def _deaf(number: int, frame: FrameType | None) -> None:
    """During the clean-up. Not SIG_IGN, which a process started meanwhile would inherit and never end."""


def main() -> int:
    """Run the columns; 0 all as it has to be, 1 not, 2 no lab possible here, 130 interrupted."""
    parser = argparse.ArgumentParser(description="AIM's and ICQ's peer connections across two NAT routers.")
    parser.add_argument("--plain-only", action="store_true", help="only the column without nfreaim")
    parser.add_argument("--keep-logs", type=Path, metavar="DIR", help="copy all logs to DIR")
    options = parser.parse_args()
    if reason := lab_available():
        print(f"demo: {reason}", file=sys.stderr)
        return 2
    names = list(COLUMNS)[:1] if options.plain_only else list(COLUMNS)
    for number in (signal.SIGTERM, signal.SIGINT):  # SIGINT explicitly: a background job inherits it ignored
        signal.signal(number, _interrupt)
    began = time.monotonic()
    columns = [Column(name, COLUMNS[name], Lab("legacy", "nft")) for name in names]
    print(
        f"{len(columns)} networks in namespaces, router A with iptables-legacy, B with iptables-nft ...",
        flush=True,
    )
    for column in columns:
        if options.keep_logs:
            column.lab.keep_logs = options.keep_logs / column.name.replace(" ", "-")
    pool = ThreadPoolExecutor(len(columns))
    try:
        wait([pool.submit(attempt_column, column) for column in columns])
    except KeyboardInterrupt:
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, _deaf)
        print("interrupted, cleaning up", file=sys.stderr)
        return 130
    finally:
        for column in columns:
            column.lab.close()
        pool.shutdown()
    good = report(columns)
    print(f"{'all as it has to be' if good else 'NOT as it has to be'}, {time.monotonic() - began:.0f} s")
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
