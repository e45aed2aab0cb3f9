"""`nfreaim status`: prints what the daemon says of itself, or what the kernel still has without one."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from nfreaim import __version__
from nfreaim.errors import BackendError
from nfreaim.exit_status import Exit
from nfreaim.host.report.status import Document, fetch, of_kernel
from nfreaim.show import tables
from nfreaim.show.terminal import GREEN, RED, YELLOW, Ink, is_coloured, lines

_START: Final = "start it: systemctl start nfreaim, or nfreaim run"


def main(path: Path, as_json: bool) -> int:
    """Print the document of the daemon at socket *path*, or else the kernel's. Raises BackendError."""
    document, status = told_of(path)
    if as_json:
        print(json.dumps(document, indent=1))
    elif "pinholes" in document:
        print("\n".join(text(document, Ink(is_coloured()))))
    return status


def told_of(path: Path) -> tuple[Document, Exit]:
    """The document of the daemon, or else the kernel's, and the exit status of who shows it.

    Raises BackendError.
    """
    document = fetch(path)
    if document is None:
        return _without_daemon(path), Exit.ABSENT
    return document, Exit.TROUBLED if document.get("idle") else Exit.FINE


def _without_daemon(path: Path) -> Document:
    """What the kernel has while no daemon answers at *path*, and a line about that on standard error."""
    absent = f"no daemon answers at {path}; {_START}"
    try:
        document = of_kernel()
    except (BackendError, ImportError) as error:
        print(f"nfreaim: {absent} (nor can the kernel's part be read: {error})", file=sys.stderr)
        return {"version": __version__, "running": False}
    print(f"nfreaim: {absent}", file=sys.stderr)
    return document


def text(document: Document, ink: Ink) -> Iterator[str]:
    """The lines of *document*."""
    if idle := tables.idle_told(document):
        yield ink(tables.headline(document), YELLOW)
        yield from ("", *idle)
        return
    yield ink(tables.headline(document), GREEN if document["running"] else RED)
    shown = [tables.pinholes(document)]
    if document["running"]:
        shown = [tables.sessions(document), *shown]
    shown += [table for table in (tables.forwards(document), tables.workers(document)) if table.rows]
    shown.append(tables.queues(document))
    if document["running"]:
        shown += [tables.counters(document), tables.events(document)]
    for table in shown:
        yield ""
        yield from lines(table, ink)
    if lost := tables.dropped(document):
        yield ""
        yield ink(f"the kernel dropped {lost} packets before they were read", RED)
    for left in (tables.reload_told(document), tables.changed_told(document)):
        if left:
            yield ""
            yield ink(left, YELLOW)
    if hint := tables.accounting_hint(document):
        yield ""
        yield ink(hint, YELLOW)
