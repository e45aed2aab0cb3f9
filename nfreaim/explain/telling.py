"""Telling: makes the ladder diagram of a rendezvous."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from nfreaim.explain.accounts import Names
from nfreaim.explain.causes import Causes, worth_telling
from nfreaim.explain.connections import Pair
from nfreaim.explain.ladder import Arrow, Column, Ladder, Look, Note
from nfreaim.explain.rendezvous import Announcement, Answer, Rendezvous
from nfreaim.explain.wording import hidden, host, met, replaced, result, spoken

_SILENT: Final = frozenset({"control connection closed", "end of the capture"})
_ORDINALS: Final = {2: "counter-proposal", 3: "third proposal"}


class Teller:
    """Tells the rendezvous of one capture. *names*: of users, to be shown; *began*: when the capture did."""

    def __init__(self, causes: Causes, names: Names, began: float) -> None:
        self._causes, self._sides = causes, causes.sides
        self._names, self._began = names, began

    def ladder(self, rendezvous: Rendezvous, number: int) -> Ladder:
        """The diagram of *rendezvous*, which is the capture's *number*-th."""
        ladder = Ladder(self._title(rendezvous, number))
        places = self._columns(rendezvous, ladder)
        events: list[tuple[float, int, Announcement | Answer | Pair]] = [
            *((one.time, one.frame, one) for one in rendezvous.announcements),
            *((one.time, one.frame, one) for one in rendezvous.answers if one.reason not in _SILENT),
            *((one.first.time, one.first.frame, one) for one in rendezvous.attempts),
        ]
        for _, _, event in sorted(events, key=lambda one: one[:2]):
            if isinstance(event, Announcement):
                self._announcement(event, ladder, places)
            elif isinstance(event, Answer):
                self._answer(event, ladder, places)
            else:
                self._attempt(event, ladder, places)
        ladder.good, ladder.verdict = self._causes.of(rendezvous)
        return ladder

    def _title(self, rendezvous: Rendezvous, number: int) -> str:
        first = rendezvous.announcements[0]
        if not first.leaves:
            who = f"offered to {self._named(first.target)}"
        elif first.source == first.flow.server.address:
            who = f"relayed by {self._named(first.source)}"
        else:
            who = f"{self._named(first.source)} offers"
        return f"{number}. {rendezvous.service} ({rendezvous.protocol}): {who}, frame {first.frame}"

    def _named(self, address: str) -> str:
        name = self._names.hosts.get(address)
        return f"{host(address)} ({name})" if name else host(address)

    def _columns(self, rendezvous: Rendezvous, ladder: Ladder) -> dict[str, int]:
        """Give every host its column: those inside, the router, servers, others outside."""
        servers = dict.fromkeys(end for one in rendezvous.announcements for end in (one.source, one.target))
        ends = {
            end.address: None
            for pair in rendezvous.attempts
            for one in (pair.lan, pair.wan)
            if one
            for end in one.flow
        }
        at_home = {one.flow.server.address for one in rendezvous.announcements}
        router = self._sides.outside
        everybody = [address for address in {**servers, **ends} if address != router]
        inside = [address for address in everybody if self._sides.is_inside(address)]
        outside = [address for address in everybody if address not in inside]
        for address in inside:
            ladder.columns.append(
                Column(self._named(address), "server inside" if address in at_home else "inside")
            )
        ladder.columns.append(Column(host(router), "this router"))
        for address in outside:
            told = hidden(address)
            role = f"{told} address elsewhere" if told else "peer outside"
            if address in servers:
                role = "server" if address in at_home else "client outside"
            ladder.columns.append(Column(self._named(address), role))
        return {address: place for place, address in enumerate([*inside, router, *outside])}

    def _when(self, time: float) -> float:
        return max(0.0, time - self._began)

    def _announcement(self, one: Announcement, ladder: Ladder, places: Mapping[str, int]) -> None:
        router = places[self._sides.outside]
        source, target, when = places[one.source], places[one.target], self._when(one.time)
        rank = f", {_ORDINALS[one.stage]}" if one.stage in _ORDINALS else ""
        before, after = (one.lan, one.wan) if one.leaves else (one.wan, one.lan)
        report = one.report
        whose = "listens" if one.source == one.flow.client.address else "a peer listens"
        party = self._names.parties.get(one.frame, "")
        with_whom = f" {'to' if one.source == one.flow.client.address else 'from'} {party}" if party else ""
        said = f"{one.service}{rank}{with_whom}: {whose} at {spoken(before or one.told)}"
        rows = ladder.rows
        if before is not None and after is not None and before != after and router not in (source, target):
            rows.append(Arrow(source, router, said, when=when))
            rows.append(Arrow(router, target, f"becomes {spoken(after)}"))
            return
        would = report is not None and report.action != "left" and report.after != report.before
        if would and report is not None and (before is None or after is None):
            told = f"nfreaim would say {spoken(report.after)}"
            if one.opened is not None:
                told += f" and open that port to {spoken(report.before)}"
            rows.append(Arrow(source, router, said, when=when))
            rows.append(Arrow(router, target, told, "would"))
            return
        rows.append(Arrow(source, target, said, when=when))
        if would and report is not None:
            rows.append(Note(router, f"unchanged; nfreaim would say {spoken(report.after)}"))
        elif worth_telling(one) and report is not None:
            rows.append(Note(router, f"nfreaim leaves it: {_short(report.reason)}"))

    def _answer(self, one: Answer, ladder: Ladder, places: Mapping[str, int]) -> None:
        inside = [end.address for end in one.flow if self._sides.is_inside(end.address)]
        column = next((places[address] for address in inside if address in places), 0)
        text = "accepted" if one.accepted else one.reason
        ladder.rows.append(Note(column, text, self._when(one.time)))

    def _attempt(self, pair: Pair, ladder: Ladder, places: Mapping[str, int]) -> None:
        look: Look = "works" if met(pair) else "fails"
        when = self._when(pair.first.time)
        (client, server), end = pair.first.flow, result(pair)
        rows = ladder.rows
        led = pair.lan is not None and pair.wan is not None and pair.lan.flow.server != pair.wan.flow.server
        source = places[client.address]
        if led and pair.lan is not None:
            router, goal = places[self._sides.outside], pair.lan.flow.server
            rows.append(Arrow(source, router, f"connects to {spoken(server)}", look, when))
            rows.append(Arrow(router, places[goal.address], f"led to {spoken(goal)}: {end}", look))
            return
        rows.append(Arrow(source, places[server.address], f"connects to {spoken(server)}: {end}", look, when))


def _short(reason: str) -> str:
    """A reason without its remedy, which the verdict repeats."""
    return replaced(reason).partition("; remedy")[0]
