"""``make demo``: a table of what works between clients that NAT keeps apart, without and with nfreaim.

``make demo MESSENGERS=all`` adds a second table (demo.messengers). Four labs run side by side, one per
column. Exit status 0 only if every cell is what it has to be (see demo.rows), with contents compared at both
ends, ordinary traffic untouched, and the routers' rules after nfreaim exactly what they were before it.
Nothing is left behind, also on Ctrl-C.
"""

from __future__ import annotations

import argparse
import signal
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor, wait
from pathlib import Path
from types import FrameType

from demo import box_in_front, double_nat, icq, irc, messengers, returning_uplink, uplinks
from demo.attempts import Messenger
from demo.checks import ordinary, stopped
from demo.rows import (
    AOL,
    AT_HOME,
    BEHIND_TWO,
    COLUMNS,
    CUT,
    FILES,
    HOME,
    IMS,
    LONG,
    ORDINARY,
    ROUTER,
    RULES,
    SERVERS_AT_HOME,
    SIGN_ON,
    UPLINK,
    Cell,
    Column,
    Row,
    judge,
)
from tests.lab import home
from tests.lab.irc_client import IrcClient, Outcome
from tests.lab.irc_server import IrcServer
from tests.lab.net import LAN, SECOND_SERVER, Lab, lab_available
from tests.lab.scene import start
from tests.lab.standin import Client, IcqCall, Server, StandIn, Transfer

# Clients of different servers on one host listen on different ports.
PORTS = {HOME: 5290, ROUTER: 5390, LONG: 5490}
CUT_AT = 67  # within the first address of a proposal to somebody without a name
Clients = dict[tuple[str, str], Client]


def prepare_home(lab: Lab) -> None:
    """What the operator of the servers at home sets up on router A."""
    home.forward(lab, outside=home.growing(lab)[0])
    outside, inside = home.shrinking(lab)
    home.forward(lab, outside=outside, inside=inside)
    # Had it the address of everything else, peers that dial a client's port 5190 would reach this server.
    lab.run("A", "ip", "address", "add", f"{home.ROUTER_OUTSIDE}/24", "dev", "wan")
    home.open_port(lab, outside=home.ROUTER_OUTSIDE)


def home_servers(lab: Lab) -> dict[str, tuple[Server, str, str]]:
    """Each server at home, and the addresses that inside and outside clients use for it."""
    router, wan = f"{LAN['A']}:5190", f"{home.ROUTER_OUTSIDE}:5190"
    return {
        HOME: (Server(lab, address=home.HOME, node="hsrv"), f"{home.HOME}:5190", f"{home.LONG_OUTSIDE}:5190"),
        ROUTER: (
            Server(lab, address=home.ROUTER_OUTSIDE, node="A", announce=router, also=router),
            router,
            wan,
        ),
        LONG: (Server(lab, address=home.LONG_INSIDE, node="hsrv"), "", f"{home.SHORT_OUTSIDE}:5190"),
    }


def aim_clients(lab: Lab) -> Clients:
    """The AIM clients of one lab, by host and server; they are still starting."""
    everybody = ("alice", "amy", "bob", "carol")
    made = {(host, "oos"): Client(lab, host, f"{host} oos") for host in everybody}
    for host in ("alice", "amy", "carol"):
        made[host, "aol"] = Client(lab, host, f"{host} aol", "winaim")
    for place in (HOME, ROUTER):
        for host in everybody:
            made[host, place] = Client(lab, host, f"{host} {place}", first_port=PORTS[place])
    made["bob", LONG] = Client(lab, "bob", "bob long", first_port=PORTS[LONG])
    return made


def sign_on_at_home(column: Column, servers: dict[str, tuple[Server, str, str]], clients: Clients) -> None:
    """Sign everybody on, side by side; who fails is taken out of *clients*."""
    began = time.monotonic()
    running = {
        (host, place): clients[host, place].start(
            "sign_on", server=inside if host in ("alice", "amy") else outside, services=True
        )
        for place, (_, inside, outside) in servers.items()
        for host in ("alice", "amy", "bob", "carol")
        if (host, place) in clients
    }
    for key, answer in running.items():
        result = answer.result(40.0)
        if not result["ok"]:
            del clients[key]
        for row in SIGN_ON:
            if key == (row.proposer, row.server):
                ok, seconds = bool(result["ok"]), time.monotonic() - began
                text = f"ok {seconds:.1f} s" if ok else f"fails {seconds:.1f} s"
                column.cells[row.title] = Cell(ok, text, ok, reason=str(result.get("error", "")))


def transfers(column: Column, clients: Clients, rows: list[Row]) -> None:
    """Run these rows side by side and note the outcomes; who is not signed on reaches nobody."""
    running = []
    for row in rows:
        ends = [clients.get((host, row.server)) for host in (row.proposer, row.receiver)]
        if ends[0] is None or ends[1] is None:
            column.cells[row.title] = Cell(False, "not signed on")
        else:
            mode = {"name": "cut", "cuts": [CUT_AT + len(ends[1].name)], "nagle": True} if row.cut else None
            running.append((row, Transfer(ends[0], ends[1], row.kind, write=mode)))
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


def note(column: Column, row: icq.Call | irc.Offer, outcome: IcqCall | Outcome, wrong: str) -> None:
    """Note the outcome of one of ICQ's direct connections or IRC's offers, and what is wrong with it."""
    reason = f"expected: {wrong}. {outcome.reason}" if wrong else outcome.reason
    text = f"{'ok' if outcome.ok else 'fails'} {outcome.seconds:.1f} s"
    column.cells[row.title] = Cell(outcome.ok, text, reason=reason, good=not wrong)


def behind_two_routers(column: Column) -> None:
    """The rows about double NAT, in a network of their own beside the column's."""
    with double_nat.network(column) as (servers, clients):
        sign_on_at_home(column, servers, clients)
        transfers(column, clients, BEHIND_TWO)


def behind_a_box(column: Column) -> None:
    """The rows about a box in front that is asked for ports, in a network of their own, too."""
    with box_in_front.network(column) as clients:
        transfers(column, clients, box_in_front.ROWS)


def run_column(column: Column) -> None:
    """One lab from the first namespace to the last check."""
    with column.lab as lab:
        prepare_home(lab)
        uplinks.prepare(lab)
        before = {router: lab.firewall_rules(router) for router in column.routers}
        daemons = {
            router: start(lab, router, irc.SETTINGS, wait=False, options=uplinks.OPTIONS.get(router, ()))
            for router in column.routers
        }
        servers = {"oos": Server(lab), "aol": Server(lab, "aol", {"name": "whole"}, SECOND_SERVER)}
        servers[UPLINK] = uplinks.server(lab)
        at_home = home_servers(lab)
        clients = aim_clients(lab) | uplinks.clients(lab)
        icq_clients = icq.clients(lab)
        irc_server, irc_clients = IrcServer(lab), irc.clients(lab)
        oscar = (*servers.values(), *(server for server, *_ in at_home.values()), *clients.values())
        ends: list[StandIn | IrcServer | IrcClient] = [*oscar, *icq_clients.values(), irc_server]
        for end in (*ends, *irc_clients.values()):
            end.wait_ready()
        for daemon in daemons.values():
            daemon.wait_ready()
        for (_, kind), client in clients.items():
            if kind in servers:
                client.sign_on(servers[kind], services=kind == "oos")
        icq.sign_on(icq_clients, servers)
        irc.sign_on(irc_clients, irc_server)
        with ThreadPoolExecutor(3 + len(icq.CALLS) + len(irc.OFFERS)) as pool:
            doubled = pool.submit(behind_two_routers, column)
            asked = pool.submit(behind_a_box, column)
            signing_on = pool.submit(sign_on_at_home, column, at_home, clients)
            calls = icq.start(icq_clients, pool)
            offers = irc.start(irc_clients, pool)
            transfers(column, dict(clients), FILES)
            transfers(column, dict(clients), IMS + AOL + uplinks.ROWS)
            transfers(column, dict(clients), CUT)
            for call, connection in calls().items():
                note(column, call, connection, call.objection(connection, column.routers))
            for offer, outcome in offers().items():
                note(column, offer, outcome, offer.objection(outcome, column.routers))
            signing_on.result()
            doubled.result()
            asked.result()
        transfers(column, clients, AT_HOME)
        at_home[ROUTER][0].stop()  # its port is wanted for ordinary traffic
        column.cells[ORDINARY] = ordinary(column)
        column.cells[RULES] = stopped(lab, daemons, before)
    column.cells[returning_uplink.TITLE] = returning_uplink.comes_back(column.routers)


def run(columns: list[Column], fill: Callable[[Column], None], keep_logs: Path | None) -> None:
    """Fill the columns side by side; what goes wrong becomes part of the report. KeyboardInterrupt when the
    user has enough, with nothing left behind."""

    def attempted(column: Column) -> None:
        try:
            fill(column)
        except Exception as error:
            column.error += f"{type(error).__name__}: {error}"

    for column in columns:
        if keep_logs:
            column.lab.keep_logs = keep_logs / column.name.replace(" ", "-")
    pool = ThreadPoolExecutor(len(columns))
    try:
        wait([pool.submit(attempted, column) for column in columns])
    except KeyboardInterrupt:
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, _deaf)
        print("interrupted, cleaning up", file=sys.stderr)
        raise
    finally:
        for column in columns:
            column.lab.close()
        pool.shutdown()


def table(columns: list[Column], titles: list[str]) -> str:
    """The rows with these titles."""
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


def complain(columns: list[Column], began: float) -> bool:
    """Print what is not as it has to be, and the time since *began*; True if that is nothing."""
    complaints = [f"{column.name}: {column.error}" for column in columns if column.error]
    for column in columns:
        for title, cell in column.cells.items():
            if not cell.good:
                complaints.append(f"{column.name}: {title}: {cell.text}: {cell.reason}")
    for complaint in complaints:
        print(f"! {complaint}")
    verdict = "NOT as it has to be" if complaints else "all as it has to be"
    print(f"{verdict}, {time.monotonic() - began:.0f} s", flush=True)
    return not complaints


def first_table(columns: list[Column], began: float) -> bool:
    """Judge and print it; True if there is nothing to complain about."""
    plain = columns[0].cells
    for column in columns:
        for row in (*FILES, *IMS, *CUT, *AOL, *uplinks.ROWS, *SERVERS_AT_HOME, *box_in_front.ROWS):
            if row.title in column.cells:
                judge(row, column, plain.get(row.title))
    titles = [row.title for row in (*FILES, *IMS, *CUT, *AOL, *uplinks.ROWS)]
    titles += [call.title for call in icq.CALLS]
    titles += [offer.title for offer in irc.OFFERS]
    print(
        table(
            columns,
            [
                *titles,
                *(row.title for row in (*SERVERS_AT_HOME, *box_in_front.ROWS)),
                *(returning_uplink.TITLE, ORDINARY, RULES),
            ],
        )
    )
    print("¹ the first attempt failed and the client's own fallback (the receiver listens instead) worked")
    print("² server of AOL's kind, clients that check 0x0016/0x0017; else as open-oscar-server and libpurple")
    return complain(columns, began)


def second_table(columns: list[Column], chosen: list[Messenger], began: float) -> bool:
    """The same for these messengers."""
    print(table(columns, messengers.titles(chosen)))
    for messenger in chosen:
        for footnote in messenger.footnotes:
            print(footnote)
    return complain(columns, began)


def _interrupt(number: int, frame: FrameType | None) -> None:
    raise KeyboardInterrupt


def _deaf(number: int, frame: FrameType | None) -> None:
    """During the clean-up. Not SIG_IGN, which a process started meanwhile would inherit and never end."""


def _shown(names: list[str], fill: Callable[[Column], None], keep_logs: Path | None) -> list[Column]:
    """The columns with these names, filled."""
    columns = [Column(name, COLUMNS[name], Lab("legacy", "nft", home_server=True)) for name in names]
    print(
        f"{len(columns)} networks in namespaces, router A with iptables-legacy, B with iptables-nft ...",
        flush=True,
    )
    run(columns, fill, keep_logs)
    return columns


def main() -> int:
    """Run the columns; 0 all as it has to be, 1 not, 2 no lab possible here, 130 interrupted."""
    known = {one.protocol: one for one in messengers.MESSENGERS}
    parser = argparse.ArgumentParser(description="Peer connections of messengers across two NAT routers.")
    parser.add_argument("--plain-only", action="store_true", help="only the column without nfreaim")
    parser.add_argument("--keep-logs", type=Path, metavar="DIR", help="copy all logs to DIR")
    parser.add_argument(
        "--messenger",
        action="append",
        default=[],
        choices=["all", *known],
        help="all: the second table, too; a name: that messenger's part of it alone, may be repeated",
    )
    options = parser.parse_args()
    if reason := lab_available():
        print(f"demo: {reason}", file=sys.stderr)
        return 2
    names = list(COLUMNS)[:1] if options.plain_only else list(COLUMNS)
    everything = "all" in options.messenger
    chosen = [one for name, one in known.items() if everything or name in options.messenger]
    for number in (signal.SIGTERM, signal.SIGINT):  # SIGINT explicitly: a background job inherits it ignored
        signal.signal(number, _interrupt)
    good = True
    try:
        if everything or not options.messenger:
            began = time.monotonic()
            good = first_table(_shown(names, run_column, options.keep_logs), began)
        if chosen:

            def fill(column: Column) -> None:
                messengers.run_column(column, chosen)

            began = time.monotonic()
            good = second_table(_shown(names, fill, options.keep_logs), chosen, began) and good
    except KeyboardInterrupt:
        return 130
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
