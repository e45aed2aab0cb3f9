"""`nfreaim report --html FILE`: one page with all that somebody who helps wants to see, and nothing to load.

It has the state, the findings of `nfreaim check`, the history of the last day, the counters and the queues.
The page has no script, and names no other file or host.
"""

from __future__ import annotations

import json
import os
import platform
import subprocess
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import replace
from html import escape
from pathlib import Path
from typing import Final, NamedTuple

from nfreaim import __version__, same_program
from nfreaim.config import Config
from nfreaim.core.address import is_address
from nfreaim.errors import BackendError
from nfreaim.host.report.history_file import DIRECTORY
from nfreaim.host.report.status import Document
from nfreaim.host.rules import script
from nfreaim.show import history, tables
from nfreaim.show.masking import Mask
from nfreaim.show.status_text import told_of
from nfreaim.show.tables import Table

_DAY_S: Final = 86400.0
_CHECK_TIMEOUT_S: Final = 120.0
_MOST_ROWS: Final = 500  # of a table

_STYLE: Final = """
:root { --ink: #1c2430; --soft: #5b6675; --line: #dfe4ea; --ok: #1a7f4b; --warn: #9a6200; --fail: #b3261e }
body { font: 15px/1.45 system-ui, sans-serif; color: var(--ink); background: #f5f7f9; margin: 0 }
main { max-width: 1200px; margin: 0 auto; padding: 1.5rem }
header p, .note { color: var(--soft); margin: .2rem 0 }
h1 { font-size: 1.5rem; margin: 0 }
section { background: #fff; border: 1px solid var(--line); border-radius: 8px; padding: 1rem; margin: 1rem 0;
          overflow-x: auto }
h2 { font-size: 1.05rem; margin: 0 0 .6rem }
table { border-collapse: collapse; min-width: 60%; font-size: .88rem; font-variant-numeric: tabular-nums }
th { text-align: left; color: var(--soft); font-weight: 600; border-bottom: 2px solid var(--line) }
th, td { padding: .28rem 1.2rem .28rem 0; vertical-align: top }
summary { color: var(--soft); cursor: pointer; margin-top: .5rem }
td { border-bottom: 1px solid var(--line) }
tr:last-child td { border-bottom: 0 }
.number { text-align: right; white-space: nowrap }
.ok { color: var(--ok) } .warn { color: var(--warn) }
.fail { color: var(--fail) } .hint { color: var(--soft) }
td.badge { font-weight: 700; white-space: nowrap; width: 4rem }
code { background: #eef1f4; border-radius: 4px; padding: 0 .3rem; overflow-wrap: anywhere }
@media print { body { background: #fff } section { break-inside: avoid } }
"""


_PAGE: Final = """<!doctype html>
<html lang="en"><head>{style}</head>
<body><main>{body}</main></body></html>
"""


class Finding(NamedTuple):
    """One finding of `nfreaim check`: "ok", "warn", "FAIL" or "hint", what it is, and the remedy or ""."""

    status: str
    text: str
    remedy: str


def main(config: Config, file: Path, mask: bool) -> int:
    """Write the page to *file*, readable for its owner. Raises BackendError."""
    document, status = told_of(config.status_socket)
    names = [config.pinholes.announce or "", *config.engine.home_names]
    masked = Mask(name for name in names if name and not is_address(name)) if mask else str
    try:
        openings = history.read(config.history_dir or DIRECTORY)
        why_none = ""
    except BackendError as error:
        openings, why_none = [], str(error)
    since = time.time() - _DAY_S
    recent = [one for one in openings if one.opened >= since or one.closed is None or one.closed >= since]
    text = page(document, findings(config), recent, why_none, masked)
    try:
        handle = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
        with open(handle, "w", encoding="utf-8") as opened:
            opened.write(text)
    except OSError as error:
        raise BackendError(f"{error}; choose another file") from error
    print(f"wrote {file}" + ("" if mask else "; it holds addresses: --mask replaces them by names"))
    return status


def findings(config: Config) -> list[Finding]:
    """What `nfreaim check` says with the settings of the installed rules, or else of the configuration."""
    shown = script.run(["show"])
    settings = script.settings(shown.stdout) or script.Settings.of(config)
    words = ["check", "--json"]
    if Path(config.file).exists():
        words += ["--config", config.file]
    words += replace(settings, helpers=()).words()
    try:
        done = subprocess.run(
            same_program.command(*words),
            env=same_program.environment(),
            capture_output=True,
            text=True,
            timeout=_CHECK_TIMEOUT_S,
            stdin=subprocess.DEVNULL,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        return [Finding("FAIL", f"nfreaim check: {error}", "")]
    try:
        return [
            Finding(one["status"], f"{one['group']}: {one['text']}", one["remedy"])
            for one in json.loads(done.stdout)["findings"]
        ]
    except (ValueError, KeyError, TypeError):  # it ended before it printed anything
        return [Finding("FAIL", f"nfreaim check: {done.stderr.strip()}", "")]


def page(
    document: Document,
    found: Iterable[Finding],
    openings: Iterable[history.Opening],
    why_no_history: str,
    mask: Callable[[str], str],
) -> str:
    """The page, whose addresses *mask* replaces."""
    parts = [*_head(document), _findings(list(found))]
    if document["running"]:
        parts += [_section(table(document)) for table in (tables.sessions, tables.pinholes)]
        parts.append(_note(tables.accounting_hint(document)))
    elif "pinholes" in document:
        parts.append(_section(tables.pinholes(document)))
    past = history.table("pinholes of the last day", openings)
    parts.append(_section(past._replace(empty=why_no_history or "no pinhole was opened")))
    for table in (tables.forwards, tables.counters, tables.queues, tables.workers):
        if (made := table(document)).rows:
            parts.append(_section(made))
    if document["running"]:
        parts.append(_section(tables.events(document)))
    body = "\n".join(part for part in parts if part)
    style = f'<meta charset="utf-8"><title>nfreaim report</title><style>{_STYLE}</style>'
    return _PAGE.format(style=style, body=mask(body))


def _head(document: Document) -> Iterator[str]:
    facts: Mapping[str, str] = {
        "made": time.strftime("%Y-%m-%d %H:%M:%S %Z"),
        "nfreaim": __version__,
        "kernel": platform.release(),
        "Python": platform.python_version(),
        "system": _system(),
    }
    kind = ("warn" if document.get("idle") else "ok") if document["running"] else "fail"
    yield f'<header><h1 class="{kind}">{escape(tables.headline(document))}</h1>'
    yield f"<p>{escape(', '.join(f'{name} {value}' for name, value in facts.items() if value))}</p></header>"
    for told in (*tables.idle_told(document), tables.changed_told(document)):
        if told:
            yield f'<p class="warn">{escape(told)}</p>'
    if lost := tables.dropped(document):
        yield f'<p class="fail">The kernel dropped {lost} packets before they were read.</p>'


def _system() -> str:
    try:
        return platform.freedesktop_os_release().get("PRETTY_NAME", "")
    except OSError:
        return ""


def _findings(found: list[Finding]) -> str:
    """What is amiss, and behind a click what is not."""
    order = {"fail": 0, "warn": 1, "hint": 2}
    amiss = [one for one in found if one.status.lower() != "ok"]
    fine = [one for one in found if one.status.lower() == "ok"]
    amiss.sort(key=lambda one: order.get(one.status.lower(), len(order)))
    shown = _finding_rows(amiss) if amiss else '<p class="ok">nothing amiss</p>'
    hidden = f"<details><summary>{len(fine)} findings are ok</summary>{_finding_rows(fine)}</details>"
    return f"<section><h2>what nfreaim check found</h2>{shown}{hidden if fine else ''}</section>"


def _finding_rows(found: Iterable[Finding]) -> str:
    rows = []
    for one in found:
        remedy = f"<br>remedy: <code>{escape(one.remedy)}</code>" if one.remedy else ""
        badge = f'<td class="badge {one.status.lower()}">{escape(one.status)}</td>'
        rows.append(f"<tr>{badge}<td>{escape(one.text)}{remedy}</td></tr>")
    return f"<table>{''.join(rows)}</table>"


def _section(table: Table) -> str:
    title = f"<h2>{escape(table.title)}</h2>"
    if not table.rows:
        return f'<section>{title}<p class="note">{escape(table.empty)}</p></section>'
    head = "".join(_cell("th", text, index in table.numbers) for index, text in enumerate(table.headings))
    rows = "".join(
        f"<tr>{''.join(_cell('td', text, index in table.numbers) for index, text in enumerate(row))}</tr>"
        for row in table.rows[-_MOST_ROWS:]
    )
    return f"<section>{title}<table><tr>{head}</tr>{rows}</table></section>"


def _cell(tag: str, text: str, is_number: bool) -> str:
    kind = ' class="number"' if is_number else ""
    return f"<{tag}{kind}>{escape(text)}</{tag}>"


def _note(text: str) -> str:
    return f'<p class="note">{escape(text)}</p>' if text else ""
