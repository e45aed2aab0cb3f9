"""The second table: one network per column again, with a module of its own for each messenger in it.

``make demo MESSENGERS=all`` shows it below the first, ``make demo MESSENGERS=NAME,NAME`` alone and with these
messengers only. A new one is a module like the others, with an object as demo.attempts.Messenger demands, and
a line in MESSENGERS.
"""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

from demo.attempts import Attempt, Messenger, Result
from demo.checks import ordinary, stopped
from demo.msn import Msn
from demo.rows import ORDINARY, RULES, Cell, Column, side_by_side
from demo.xmpp import Jabber
from demo.yahoo import YAHOO
from tests.lab.scene import start

MESSENGERS: tuple[Messenger, ...] = (Msn(), Jabber(), YAHOO)
"""Those of the second table, from top to bottom."""


def settings(chosen: Sequence[Messenger]) -> str:
    """The daemons' configuration, as TOML."""
    names = ", ".join(f'"{name}"' for name in ("oscar", *(one.protocol for one in chosen)))
    return "\n".join([f"protocols = [{names}]", *(one.settings for one in chosen if one.settings), ""])


def titles(chosen: Sequence[Messenger]) -> list[str]:
    """First column of the table."""
    return [title for one in chosen for title in one.titles] + [ORDINARY, RULES]


def run_column(column: Column, chosen: Sequence[Messenger]) -> None:
    """One lab from the first namespace to the last check. A messenger that does not come online costs its own
    rows only."""
    with column.lab as lab:
        for messenger in chosen:
            messenger.prepare(lab)
        before = {router: lab.firewall_rules(router) for router in column.routers}
        daemons = {router: start(lab, router, settings(chosen), wait=False) for router in column.routers}
        for daemon in daemons.values():
            daemon.wait_ready()
        with ThreadPoolExecutor(max(1, len(chosen))) as pool:
            coming = {one.protocol: pool.submit(one.online, lab) for one in chosen}
        attempts: list[Attempt] = []
        for protocol, online in coming.items():
            if error := online.exception():
                column.error += f"{protocol}: {type(error).__name__}: {error} "
            else:
                attempts += online.result()
        with ThreadPoolExecutor(max(1, len(attempts))) as pool:
            made = side_by_side(attempts, pair=lambda one: one.pair, make=attempted, pool=pool)()
        for attempt, result in made.items():
            note(column, attempt, result)
        column.cells[ORDINARY] = ordinary(column)
        column.cells[RULES] = stopped(lab, daemons, before)


def attempted(attempt: Attempt) -> Result:
    """Make it; what goes wrong on the way is a result, too."""
    try:
        return attempt.make()
    except Exception as error:
        return Result(False, 0.0, f"{type(error).__name__}: {error}")


def note(column: Column, attempt: Attempt, result: Result) -> None:
    """Note the result of an attempt, and what is wrong with it."""
    wrong = attempt.objection(result, column.routers)
    reason = f"expected: {wrong}. {result.reason}" if wrong else result.reason
    text = f"{'ok' if result.ok else 'fails'} {result.seconds:.1f} s"
    text += f" {result.note}" if result.note else ""
    column.cells[attempt.title] = Cell(result.ok, text, reason=reason, good=not wrong)
