"""`nfreaim top`: the status as a live screen. The only module that imports rich."""

from __future__ import annotations

import os
import select
import signal
import sys
import termios
import time
import tty
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final

from nfreaim.errors import ConfigError
from nfreaim.exit_status import Exit
from nfreaim.host.report.status import Document, fetch
from nfreaim.show import tables
from nfreaim.show.optional import missing
from nfreaim.show.tables import Table

try:
    from rich.console import Console, Group, JustifyMethod, RenderableType
    from rich.live import Live
    from rich.table import Table as Shown
    from rich.text import Text
except ImportError as error:
    raise missing("top", "rich", "python3-rich", "; `nfreaim status` needs nothing") from error

_STYLES: Final = {
    "read": "green",
    "being recognised": "yellow",
    "looking for its place": "yellow",
    "passes unread": "red",
    tables.UNKNOWN: "dim",
    "pinhole opened": "green",
    "pinhole claimed": "cyan",
    "message left": "yellow",
}
_FURNITURE: Final = 4  # lines of a table beside its rows: title, headings, and a blank one each
_SHARES: Final = (0.3, 0.25, 0.25, 0.2)  # of the screen: sessions, pinholes, events, counters


def main(path: Path, interval_s: float) -> int:
    """Show the status of the daemon at socket *path* until q or Ctrl-C.

    Raises BackendError, and ConfigError without a terminal.
    """
    if not (sys.stdin.isatty() and sys.stdout.isatty()):
        raise ConfigError("nfreaim top needs a terminal; `nfreaim status` prints once, anywhere")
    for name in ("LINES", "COLUMNS"):  # the size at some time in the past, which rich would believe
        os.environ.pop(name, None)
    console = Console()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))  # the terminal is left as it was
    with (
        suppress(KeyboardInterrupt),
        _keys() as handle,
        Live(console=console, screen=True, auto_refresh=False) as live,
    ):
        while True:
            live.update(screen(_asked(path), console.height), refresh=True)
            if _quits(handle, interval_s):
                break
    return Exit.FINE


def screen(document: Document | str, height: int) -> RenderableType:
    """The whole screen of so many lines; of a text, why there is no document."""
    if isinstance(document, str):
        return Group(Text("nfreaim", style="bold red"), Text(document), Text(), _footer())
    if idle := tables.idle_told(document):
        lines = [Text(line) for line in idle]
        return Group(Text(tables.headline(document), style="bold yellow"), Text(), *lines, Text(), _footer())
    head = Text(tables.headline(document), style="bold green")
    lost = tables.dropped(document)
    head.append(f"   dropped by the kernel: {lost}", style="bold red" if lost else "dim")
    changed = tables.changed_told(document)
    rows = max(0, height - 4 - bool(changed) - _FURNITURE * len(_SHARES))
    parts: list[RenderableType] = [head, Text()]
    found = (tables.sessions, tables.pinholes, tables.events, tables.counters)
    made = [table(document) for table in found]
    for table, most in zip(made, _rooms([len(table.rows) for table in made], rows), strict=True):
        parts += [_shown(table, most), Text()]
    if changed:
        parts.append(Text(changed, style="yellow", no_wrap=True, overflow="ellipsis"))
    if hint := tables.accounting_hint(document):
        parts.append(Text(hint, style="dim"))
    return Group(*parts, _footer())


def _rooms(wanted: list[int], rows: int) -> list[int]:
    """How many of *rows* each table gets: its share, and what others leave."""
    rooms = [min(want, max(1, int(rows * share))) for want, share in zip(wanted, _SHARES, strict=True)]
    for index, want in enumerate(wanted):
        rooms[index] += max(0, min(want - rooms[index], rows - sum(rooms)))
    return rooms


def _shown(table: Table, most: int) -> Shown:
    hidden = len(table.rows) - most
    title = f"{table.title}, {hidden} more by nfreaim status" if hidden > 0 and table.rows else table.title
    wide = bool(table.rows) and len(table.headings) - 1 not in table.numbers
    shown = Shown(
        title=title,
        title_justify="left",
        title_style="bold",
        header_style="dim",
        box=None,
        pad_edge=False,
        expand=wide,
    )
    for index, heading in enumerate(table.headings):
        justify: JustifyMethod = "right" if index in table.numbers else "left"
        ratio = 1 if wide and index == len(table.headings) - 1 else None
        shown.add_column(heading, justify=justify, no_wrap=True, overflow="ellipsis", ratio=ratio)
    for row in table.rows[:most]:
        shown.add_row(*(Text(cell, style=_STYLES.get(cell, "")) for cell in row))
    if not table.rows:
        shown.add_row(Text(table.empty, style="dim"))
    return shown


def _footer() -> Text:
    return Text(f"{time.strftime('%H:%M:%S')}   q quits", style="dim")


def _asked(path: Path) -> Document | str:
    document = fetch(path)
    return f"no daemon answers at {path}; waiting for one" if document is None else document


@contextmanager
def _keys() -> Iterator[int]:
    """The terminal's keys, one by one and unseen."""
    handle = sys.stdin.fileno()
    found = termios.tcgetattr(handle)
    try:
        tty.setcbreak(handle)
        yield handle
    finally:
        termios.tcsetattr(handle, termios.TCSADRAIN, found)


def _quits(handle: int, seconds: float) -> bool:
    """Wait; whether somebody wants to quit meanwhile."""
    until = time.monotonic() + seconds
    while (left := until - time.monotonic()) > 0:
        if select.select([handle], [], [], left)[0] and os.read(handle, 64) in (b"q", b"Q", b""):
            return True
    return False
