"""Rendezvous: what two clients agreed on to meet, put together from messages and connections."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final

from nfreaim.core.address import Endpoint, FlowId
from nfreaim.core.helper import Report
from nfreaim.explain.connections import Pair
from nfreaim.explain.sides import Sides
from nfreaim.replay.outcome import Message, Replay, Step

_LONGEST_S: Final = 900.0  # from an announcement to the last connection that is counted as its consequence
_EARLY_S: Final = 0.5  # stamps of two interfaces, or of two files, need not agree to the packet


@dataclass(slots=True, eq=False)
class Announcement:
    """A message in which a client says where it listens.

    source, target  the ends of the connection that carried it, in the message's direction: addresses
    lan, wan  the endpoint that it names on either side of the router; None: that side is not in the capture
    report    what the engine made of it, as nfreaim would have on this router; None: only the WAN was seen
    opened    the outside endpoint of the pinhole that nfreaim would have opened
    """

    frame: int
    time: float
    flow: FlowId
    protocol: str
    service: str
    stage: int
    leaves: bool
    source: str
    target: str
    lan: Endpoint | None = None
    wan: Endpoint | None = None
    report: Report | None = None
    opened: Endpoint | None = None

    @property
    def endpoints(self) -> set[Endpoint]:
        """Where a peer may try to connect because of it, by any side's names."""
        would = {self.report.before, self.report.after} if self.report is not None else set()
        return {end for end in (self.lan, self.wan, *would) if end is not None and end.address and end.port}

    @property
    def told(self) -> Endpoint:
        """The endpoint that its reader gets, as far as the capture shows it."""
        sides = (self.wan, self.lan) if self.leaves else (self.lan, self.wan)
        found = sides[0] or sides[1]
        assert found is not None
        return found


@dataclass(slots=True, eq=False)
class Answer:
    """A message that says yes or no, or the end of the connection that the announcement came by."""

    frame: int
    time: float
    flow: FlowId
    accepted: bool
    reason: str = ""


@dataclass(slots=True, eq=False)
class Rendezvous:
    """All that belongs together, each part in order of time."""

    protocol: str
    service: str
    announcements: list[Announcement] = field(default_factory=list)
    answers: list[Answer] = field(default_factory=list)
    attempts: list[Pair] = field(default_factory=list)
    over: bool = False

    @property
    def began(self) -> float:
        """When it was first announced."""
        return self.announcements[0].time

    @property
    def endpoints(self) -> set[Endpoint]:
        """Where peers may try to connect."""
        return set().union(*(one.endpoints for one in self.announcements))


class Story:
    """Puts the rendezvous of a capture together; *times*: of the frames, by number."""

    def __init__(self, sides: Sides, pairs: Sequence[Pair], times: dict[int, float]) -> None:
        self.told: list[Rendezvous] = []
        self._sides, self._pairs, self._times = sides, pairs, times
        self._names: dict[tuple[FlowId, bytes], Rendezvous] = {}
        self._controls: set[FlowId] = set()

    def read(self, lan: Replay, wan: Replay) -> list[Rendezvous]:
        """The rendezvous of both sides' replays, with the connections that followed."""
        twins = {pair.lan.flow: pair.wan.flow for pair in self._pairs if pair.lan and pair.wan}
        seen: dict[tuple[FlowId, str, str, int], list[Message]] = {}
        for message in wan.messages:
            seen.setdefault(_kind(message, message.flow), []).append(message)
        expected: dict[FlowId, list[Step]] = {}
        for one in lan.history:
            if isinstance(one, Step):
                if one.kind == "expected":
                    expected.setdefault(one.flow, []).append(one)
                else:
                    self._answered(one)
                continue
            steps = expected.pop(one.flow, [])
            others = seen.get(_kind(one, twins.get(one.flow, one.flow)), [])
            twin = others.pop(0) if others and one.flow in twins else None
            if not one.report.routine:
                self._announced(one, twin, steps)
        for others in seen.values():
            for message in others:
                if not message.report.routine:
                    self._announced(None, message, [])
        self.told.sort(key=lambda one: (one.began, one.announcements[0].frame))
        for rendezvous in self.told:
            rendezvous.announcements.sort(key=lambda one: (one.time, one.frame))
        self._connected()
        return self.told

    def _announced(self, lan: Message | None, wan: Message | None, steps: list[Step]) -> None:
        one = lan or wan
        assert one is not None
        report, (client, server) = one.report, one.flow
        inside_first = self._first_is_inside(one.flow)
        leaves = report.direction == "out"
        ends = (client, server) if inside_first is leaves else (server, client)
        self._controls |= {message.flow for message in (lan, wan) if message}
        opened = next((step.outside for step in steps if step.outside), None)
        announcement = Announcement(
            frame=one.frame,
            time=self._times[one.frame],
            flow=one.flow,
            protocol=one.protocol,
            service=report.service,
            stage=report.stage,
            leaves=leaves,
            source=ends[0].address,
            target=ends[1].address,
            lan=lan.report.before if lan else None,
            wan=wan.report.before if wan else None,
            report=lan.report if lan else None,
            opened=opened,
        )
        rendezvous = self._of(announcement, one)
        rendezvous.announcements.append(announcement)
        for name in (one.report.agreement, one.report.name, *(step.agreement for step in steps)):
            self._names[one.flow, name] = rendezvous

    def _first_is_inside(self, flow: FlowId) -> bool:
        """Whether the client's end is the inside one; on the WAN side, the router's."""
        client = flow.client.address
        return self._sides.is_inside(client) or client == self._sides.outside

    def _of(self, announcement: Announcement, message: Message) -> Rendezvous:
        """The one that it belongs to: by its agreement or, if it comes in, by an endpoint told before."""
        rivals = [one for one in reversed(self.told) if self._may_hold(one, announcement)]
        agreement = message.report.agreement
        if not announcement.leaves:
            for rendezvous in rivals:
                if announcement.endpoints & rendezvous.endpoints:
                    return rendezvous
        known = self._names.get((message.flow, agreement))
        if known in rivals:
            return known
        # Another connection may name an agreement alike by chance, if it begins with it.
        if agreement and (not announcement.leaves or announcement.stage > 1):
            alike = {id(one) for (_, name), one in self._names.items() if name == agreement}
            for rendezvous in rivals:
                if id(rendezvous) in alike:
                    return rendezvous
        self.told.append(Rendezvous(announcement.protocol, announcement.service))
        return self.told[-1]

    @staticmethod
    def _may_hold(rendezvous: Rendezvous, announcement: Announcement) -> bool:
        recent = announcement.time - rendezvous.announcements[-1].time <= _LONGEST_S
        return recent and not rendezvous.over and rendezvous.protocol == announcement.protocol

    def _answered(self, step: Step) -> None:
        """Note an answer, once in each rendezvous that it concerns."""
        accepted, when = step.kind == "accepted", self._times.get(step.frame, 0.0)
        for rendezvous in self._concerned(step):
            answers = rendezvous.answers
            again = accepted and any(one.accepted for one in answers)
            if rendezvous.over or again or any(one.frame == step.frame for one in answers):
                continue
            rendezvous.over = not accepted
            answers.append(Answer(step.frame, when, step.flow, accepted, step.reason))

    def _concerned(self, step: Step) -> list[Rendezvous]:
        """The rendezvous that *step* names; where its flow is over, all that were agreed there."""
        if step.kind != "over":
            found = self._names.get((step.flow, step.agreement))
            return [found] if found else []
        return list({id(one): one for (flow, _), one in self._names.items() if flow == step.flow}.values())

    def _connected(self) -> None:
        """Give each connection to the latest rendezvous that announced where it leads."""
        for pair in self._pairs:
            both = [one for one in (pair.lan, pair.wan) if one]
            if any(one.flow in self._controls for one in both) or pair.first.isn is None:
                continue
            goals = {one.flow.server for one in both}
            began = pair.first.time
            found = [
                (announcement.time <= began, -abs(began - announcement.time), rendezvous)
                for rendezvous in self.told
                for announcement in rendezvous.announcements
                if announcement.endpoints & goals and -_EARLY_S <= began - announcement.time <= _LONGEST_S
            ]
            if found:
                max(found, key=lambda one: one[:2])[2].attempts.append(pair)


def _kind(message: Message, flow: FlowId) -> tuple[FlowId, str, str, int]:
    """By which the same message is found on the other side of the router, in order."""
    report = message.report
    return flow, report.direction, report.service, report.stage
