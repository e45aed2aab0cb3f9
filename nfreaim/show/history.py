"""`nfreaim history`: every pinhole that was opened, by day and host, from the lines that the daemon wrote.

A pinhole has several lines, joined by "id": opened, claimed, closed, and what the connections of each peer
carried. A daemon that is killed leaves pinholes open, which the next one takes over under a new id; these
lines are joined, too.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from datetime import date, datetime, timedelta
from pathlib import Path
from typing import Any, Final

from nfreaim.errors import AbsentError, BackendError, ConfigError
from nfreaim.exit_status import Exit
from nfreaim.host.events import CLAIMED, CLOSED, OPENED
from nfreaim.host.report.history_file import EARLIER, NAME
from nfreaim.show import tables
from nfreaim.show.tables import Table
from nfreaim.show.terminal import Ink, is_coloured, lines

_PLACE: Final = ("outside", "inside", "protocol", "service", "client", "server")
_NUMBERS: Final = frozenset({4, 5, 6})


@dataclass
class Peer:
    """A peer of one pinhole, and what its connections carried. None: not known.

    unfinished  they went on when the daemon stopped
    """

    connections: int = 0
    bytes: int | None = 0
    packets: int | None = 0
    unfinished: bool = False
    counted: bool = False

    def add(self, line: dict[str, Any]) -> None:
        """Count what *line* says."""
        self.counted = True
        self.connections += line["connections"]
        self.unfinished |= line.get("unfinished", False)
        for name in ("bytes", "packets"):
            found, more = getattr(self, name), line[name]
            setattr(self, name, None if found is None or more is None else found + more)

    def amount(self, name: str) -> int | None:
        """The bytes or packets; None: not known, or not yet."""
        found: int | None = getattr(self, name)
        return found if self.counted else None


@dataclass
class Opening:
    """One pinhole: where, for whom, when, and what became of it. Times in seconds since 1970.

    run  the start of the daemon that had it last; "": the latest one
    """

    place: dict[str, str]
    opened: float
    closed: float | None = None
    reason: str = ""
    peers: dict[str, Peer] = field(default_factory=dict)
    run: str = ""

    @property
    def host(self) -> str:
        """The address of the inside host."""
        return self.place["inside"].rpartition(":")[0]

    @property
    def day(self) -> date:
        """The local day on which it was opened."""
        return datetime.fromtimestamp(self.opened).date()

    def document(self) -> dict[str, Any]:
        """As JSON has it."""
        peers = [
            {
                "address": address,
                "connections": peer.connections if peer.counted else None,
                "bytes": peer.amount("bytes"),
                "packets": peer.amount("packets"),
                "unfinished": peer.unfinished,
            }
            for address, peer in self.peers.items()
        ]
        times = {"opened": self.opened, "closed": self.closed, "reason": self.reason}
        return {"host": self.host, **self.place, **times, "peers": peers}


def main(directory: Path, host: str | None, day: str | None, as_json: bool) -> int:
    """Print the history in *directory*, of this host and day if given.

    Raises BackendError, and ConfigError if *day* is none.
    """
    wanted = None if day is None else day_of(day)
    found = chosen(read(directory), host, wanted)
    if as_json:
        for one in found:
            print(json.dumps(one.document()))
    else:
        print("\n".join(_text(found, Ink(is_coloured()))))
    return Exit.FINE


def day_of(text: str) -> date:
    """The day that *text* names: YYYY-MM-DD, today or yesterday. Raises ConfigError."""
    if text in ("today", "yesterday"):
        return date.today() - timedelta(days=text == "yesterday")
    try:
        return date.fromisoformat(text)
    except ValueError as error:
        raise ConfigError(f"--day {text}: write YYYY-MM-DD, today or yesterday") from error


def chosen(openings: Iterable[Opening], host: str | None, day: date | None) -> list[Opening]:
    """Those of this host and day; None: of all."""
    return [one for one in openings if host in (None, one.host) and day in (None, one.day)]


def read(directory: Path) -> list[Opening]:
    """The pinholes in the history, in the order of their opening. Raises BackendError."""
    joined: dict[str, Opening] = {}
    alive: dict[tuple[str, ...], Opening] = {}
    found: list[Opening] = []
    run = ""
    for line in _lines(directory):
        kind, name = line.get("event"), str(line.get("id", ""))
        run = name.partition("-")[0]
        if kind == OPENED.name:
            place = {key: str(line.get(key, "")) for key in _PLACE}
            key = tuple(place.values())
            if key not in alive:
                alive[key] = Opening(place, line["time"])
                found.append(alive[key])
            joined[name] = alive[key]
            joined[name].run = run
        elif name in joined:
            _tell(joined[name], line)
            if kind == CLOSED.name:
                alive.pop(tuple(joined[name].place.values()), None)
    for one in found:
        one.run = "" if one.run == run else one.run
    return found


def _tell(one: Opening, line: dict[str, Any]) -> None:
    if line["event"] == CLAIMED.name:
        one.peers.setdefault(line["peer"], Peer())
    elif line["event"] == CLOSED.name:
        one.closed, one.reason = line["time"], line["reason"]
    elif line["event"] == "carried":
        one.peers.setdefault(line["peer"], Peer()).add(line)


def _lines(directory: Path) -> Iterator[dict[str, Any]]:
    """The lines of both files, the earlier one first; one that is damaged is left out."""
    there = False
    for name in (EARLIER, NAME):
        try:
            with open(directory / name, encoding="utf-8", errors="replace") as file:
                there = True
                for text in file:
                    if (line := _parsed(text)) is not None:
                        yield line
        except FileNotFoundError:
            continue
        except PermissionError as error:
            raise BackendError(f"{error}; run it as root, or as the daemon's user") from error
        except OSError as error:
            raise BackendError(f"the history: {error}") from error
    if not there:
        raise AbsentError(
            f"no history in {directory}: the daemon keeps one under systemd, or where history_dir is set; "
            "it begins with the first pinhole"
        )


def _parsed(text: str) -> dict[str, Any] | None:
    try:
        line = json.loads(text)
    except ValueError:  # a daemon was killed while it wrote
        return None
    return line if isinstance(line, dict) and isinstance(line.get("time"), int | float) else None


def table(title: str, openings: Iterable[Opening]) -> Table:
    """The pinholes of one day and host, a row for each peer."""
    rows = [row for one in openings for row in _rows(one)]
    headings = ("opened", "service", "outside", "peer", "bytes", "packets", "open for", "closed because")
    return Table(title, (*headings, "asked for by"), rows, _NUMBERS)


def by_day_and_host(openings: Iterable[Opening]) -> Iterator[Table]:
    """A table for each day and host."""
    groups: dict[tuple[date, str], list[Opening]] = {}
    for one in openings:
        groups.setdefault((one.day, one.host), []).append(one)
    for (day, host), group in groups.items():
        yield table(f"{day} {host}", group)


def _rows(one: Opening) -> Iterator[tuple[str, ...]]:
    place = one.place
    open_for = "open" if one.closed is None else tables.duration(one.closed - one.opened)
    begin = (tables.clock_time(one.opened), place["service"], place["outside"])
    end = (open_for, one.reason, f"{place['client']} at {place['server']}")
    if not one.peers:
        yield (*begin, "nobody came", "", "", *end)
    for number, (address, peer) in enumerate(one.peers.items()):
        more = " so far" if peer.unfinished else ""
        amounts = (tables.size(peer.amount("bytes")) + more, tables.number(peer.amount("packets")) + more)
        if not peer.counted and not one.run:
            amounts = ("not over", "")
        yield (
            *(begin if not number else ("", "", "")),
            address,
            *amounts,
            *(end if not number else ("",) * 3),
        )


def _text(openings: list[Opening], ink: Ink) -> Iterator[str]:
    if not openings:
        yield "no pinhole was opened"
    for number, one in enumerate(by_day_and_host(openings)):
        if number:
            yield ""
        yield from lines(one, ink)
