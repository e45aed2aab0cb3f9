"""Tables: what the status document says, in words, for the terminal, the live screen and the page alike."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from typing import Any, Final, NamedTuple

from nfreaim.core.counters import meanings
from nfreaim.core.flow_table import MOST_TOLD
from nfreaim.helpers import HELPERS
from nfreaim.host.report.status import lines_to_write

Document = dict[str, Any]

UNKNOWN: Final = "unknown"
_UNITS: Final = ("B", "kB", "MB", "GB", "TB")
_LIVING: Final = ("new", "established", "restored", "resyncing")
STATES: Final[Mapping[str, str]] = {
    "new": "being recognised",
    "established": "read",
    "restored": "read until the restart",
    "resyncing": "looking for its place",
    "bypassed": "passes unread",
    "foreign": "another protocol",
}
"""What is done with a control connection, by the name of its state (core.flow.State)."""


class Table(NamedTuple):
    """Rows of text under *headings*. *numbers*: the columns that are aligned to the right."""

    title: str
    headings: Sequence[str]
    rows: Sequence[Sequence[str]]
    numbers: frozenset[int] = frozenset()
    empty: str = "none"


def sessions(document: Document) -> Table:
    """Control connections, those that are read before those that pass."""
    found = sorted(
        document.get("sessions", ()),
        key=lambda one: (one["state"] not in _LIVING, one["protocol"], one["host"], one["client"]),
    )
    rows = [
        (
            one["protocol"],
            one["host"],
            one["client"] if one["server"].startswith(f"{one['host']}:") else one["server"],
            STATES.get(one["state"], one["state"]),
            duration(one["age"]),
            str(one["pinholes"]),
        )
        for one in found
    ]
    known = document.get("flows", {}).get("known", len(rows))
    newest = f", the newest of {known}" if len(rows) >= MOST_TOLD else ""
    title = f"sessions ({len(rows)}{newest})"
    headings = ("protocol", "host", "other end", "reading", "age", "pinholes")
    return Table(title, headings, rows, frozenset({4, 5}), "nobody is signed on")


def pinholes(document: Document) -> Table:
    """Open pinholes, those that close next first."""
    rows = [
        (
            f"{one['outside']}, announced as {one['announced']}" if one.get("announced") else one["outside"],
            one["inside"],
            one["service"],
            one["protocol"],
            peer_of(one),
            duration(one["age"]),
            "while connected" if one["left"] is None else f"{one['left']:.0f} s",
            size(one.get("bytes")),
            number(one.get("packets")),
        )
        for one in document["pinholes"]
    ]
    headings = ("outside", "inside", "service", "protocol", "peer", "age", "left", "bytes", "packets")
    return Table(f"pinholes ({len(rows)})", headings, rows, frozenset({5, 6, 7, 8}))


def peer_of(pinhole: Mapping[str, Any]) -> str:
    """Who has come through a pinhole, or may come."""
    came: list[str] = pinhole.get("connected", [])
    if came:
        who = came[0] if len(came) == 1 else f"{len(came)} peers"
    else:
        who = f"awaits {' '.join(pinhole['peers'])}" if pinhole["peers"] else "awaits anybody"
    return f"{who}, unverified ({pinhole['unverified']})" if pinhole.get("unverified") else who


def events(document: Document) -> Table:
    """What happened last, latest first."""
    rows = [(clock_time(one["time"]), *told(one)) for one in reversed(document.get("events", ()))]
    return Table("events", ("time", "event", "what"), rows, empty="nothing has happened yet")


def told(event: Mapping[str, Any]) -> tuple[str, str]:
    """An event in words: its kind, and what it is about."""
    kind = event["event"].replace("-", " ")
    if "announced" in event:
        what = f"{event['service']} of {event['client']} naming {event['announced']}"
        end = f" -> {event['after']}" if "after" in event else f": {event['reason']}"
        return kind, what + end
    what = f"{event['outside']} -> {event['inside']} for {event['service']}"
    if event.get("barred"):
        what += f", of no use: {event['barred']} drops what comes"
    peer = event.get("peer", "")
    return kind, what + (f" by {peer}" if peer else "") + (
        f": {event['reason']}" if "reason" in event else ""
    )


def counters(document: Document) -> Table:
    """The counters that are not zero, with their meaning."""
    what = meanings(HELPERS)
    found = document.get("counters", {})
    rows = [(name, str(value), what.get(name, "")) for name, value in found.items() if value]
    return Table("counters", ("counter", "value", "meaning"), rows, frozenset({1}), "all are zero")


def queues(document: Document) -> Table:
    """The kernel's queues, with what it dropped."""
    rows = [
        tuple(str(one[key]) for key in ("number", "waiting", "seen", "dropped_full", "dropped_socket"))
        for one in document.get("queues", ())
    ]
    headings = ("queue", "waiting", "seen", "dropped: queue full", "dropped: socket full")
    return Table("queues", headings, rows, frozenset(range(5)), "none is bound")


def workers(document: Document) -> Table:
    """The processes that read, if there are several."""
    rows = [
        tuple(str(one[key]) for key in ("number", "pid", "queue", "flows", "packets"))
        for one in document.get("workers", ())
    ]
    return Table(
        "workers", ("worker", "process", "queue", "connections", "packets"), rows, frozenset(range(5))
    )


def forwards(document: Document) -> Table:
    """Ports that the configuration forwards."""
    shadowed = document.get("shadowed", ())
    lost = "another program's rules have a port of it, and come first"
    rows = [(one, lost if one in shadowed else "as configured") for one in document.get("forwards", ())]
    return Table("forwards", ("forward", "in force"), rows)


def reload_told(document: Document) -> str:
    """What the last reload of the configuration left undone; "": nothing."""
    told = document.get("reload") or {}
    if told.get("error"):
        return f"the configuration was not taken over: {told['error']}"
    if told.get("restart"):
        return f"changed, and in force only after a restart: {', '.join(told['restart'])}"
    return ""


def idle_told(document: Document) -> list[str]:
    """Why the daemon serves nobody yet, and what to write, in lines; none if it serves."""
    idle = document.get("idle")
    if not idle:
        return []
    return [
        f"nobody is served: {idle['why']}",
        f"if this is a router, write into {idle['file']}, which the daemon looks at every few seconds:",
        *(f"    {line}" for line in lines_to_write(idle)),
    ]


def changed_told(document: Document) -> str:
    """How the router's set-up differs from the interfaces that are served; "": nothing is known."""
    changed: str = (document.get("interfaces") or {}).get("changed", "")
    return changed


def dropped(document: Document) -> int:
    """Packets that the kernel dropped before anybody read them."""
    return sum(one["dropped_full"] + one["dropped_socket"] for one in document.get("queues", ()))


def headline(document: Document) -> str:
    """Version, and for how long the daemon has run."""
    running = f"running for {duration(document['uptime'])}" if document["running"] else "no daemon"
    waits = ", and waits for interfaces" if document.get("idle") else ""
    return f"nfreaim {document['version']}, {running}{waits}"


def accounting_hint(document: Document) -> str:
    """How bytes can be known, if the kernel does not count them; else ""."""
    if document.get("accounting", True):
        return ""
    return (
        "bytes and packets are unknown: switch counting on by `sysctl -w net.netfilter.nf_conntrack_acct=1`"
    )


def duration(seconds: float) -> str:
    """A time span in its two largest units."""
    whole = int(seconds)
    for low, high, name, small in ((60, 3600, "min", "s"), (3600, 86400, "h", "min"), (86400, 0, "d", "h")):
        if whole >= low and (not high or whole < high):
            rest = whole % low // {"s": 1, "min": 60, "h": 3600}[small]
            return f"{whole // low} {name} {rest} {small}"
    return f"{whole} s"


def size(value: int | None) -> str:
    """A number of bytes."""
    if value is None:
        return UNKNOWN
    amount, unit = float(value), 0
    while amount >= 999.5 and unit < len(_UNITS) - 1:
        amount, unit = amount / 1000, unit + 1
    return f"{amount:.1f} {_UNITS[unit]}" if unit and amount < 99.95 else f"{amount:.0f} {_UNITS[unit]}"


def number(value: int | None) -> str:
    """A count."""
    return UNKNOWN if value is None else str(value)


def clock_time(seconds: float) -> str:
    """The local time of day."""
    return datetime.fromtimestamp(seconds).strftime("%H:%M:%S")


def widths(table: Table) -> list[int]:
    """Characters of each column."""
    lines: Iterable[Sequence[str]] = (table.headings, *table.rows)
    return [max(map(len, column)) for column in zip(*lines, strict=True)]
