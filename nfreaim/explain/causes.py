"""Causes: whether the peers of a rendezvous have met, and if not where and why it failed."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from nfreaim.explain.connections import Pair
from nfreaim.explain.rendezvous import Announcement, Rendezvous
from nfreaim.explain.sides import Sides
from nfreaim.explain.wording import deciding, hidden, host, met, replaced, result, spoken

_NO_PINHOLE = "names no pinhole"


@dataclass(frozen=True, slots=True)
class Causes:
    """Tells them for the captures of one router; *lan*, *wan*: whether that side is in them."""

    sides: Sides
    lan: bool
    wan: bool

    def of(self, rendezvous: Rendezvous) -> tuple[bool, list[str]]:
        """Whether the peers met, and sentences that say how, or why not."""
        good = [pair for pair in rendezvous.attempts if met(pair)]
        if good:
            return True, [self._success(pair) for pair in good]
        found = list(dict.fromkeys(self._failures(rendezvous)))
        return False, found or ["No connection followed, and nothing in the capture says why."]

    def _success(self, pair: Pair) -> str:
        one, (client, server) = deciding(pair), pair.first.flow
        way = ""
        if pair.lan and pair.wan and pair.lan.flow.server != pair.wan.flow.server:
            way = f", which the router led to {spoken(pair.lan.flow.server)}"
        there, back = one.sent
        return (
            f"The peers have met: {host(client.address)} connected to {spoken(server)}{way}; "
            f"{there} bytes went there, {back} came back."
        )

    def _failures(self, rendezvous: Rendezvous) -> Iterator[str]:
        tried = {one.flow.server for pair in rendezvous.attempts for one in (pair.lan, pair.wan) if one}
        for announcement in rendezvous.announcements:
            if not announcement.endpoints & tried:
                yield from self._untried(announcement, rendezvous)
            elif announcement.leaves:
                yield from self._told_wrongly(announcement)
        for pair in rendezvous.attempts:
            yield self._failed(pair)
        for answer in rendezvous.answers:
            if not answer.accepted and "connection" not in answer.reason:
                yield f"It ended: {answer.reason}."

    def _untried(self, one: Announcement, rendezvous: Rendezvous) -> Iterator[str]:
        """What speaks against an announcement that nobody followed."""
        if not one.endpoints:
            yield f"The message names no endpoint: {_reason(one)}."
        elif one.leaves:
            yield from self._told_wrongly(one)
            yield from self._nobody_came(one)
        else:
            told, reader = one.told, host(one.target)
            kind = hidden(told.address)
            if one.report is not None and one.report.action == "mapped-back":
                yield (
                    f"{reader} is behind the same router as its peer: nfreaim would tell it "
                    f"{spoken(one.report.after)}."
                )
            if kind and not self.sides.is_inside(told.address):
                yield (
                    f"{reader} was told {spoken(told)}, a {kind} address of another network: "
                    "nobody there runs an ALG."
                )
            if not rendezvous.over:
                yield f"{reader} did not try to connect to {spoken(told)}."

    def _told_wrongly(self, one: Announcement) -> Iterator[str]:
        """What leaves and names an address that no peer reaches."""
        report = one.report
        would = report is not None and report.action == "rewritten"
        after = spoken(report.after) if report is not None else ""
        if one.wan is not None:
            kind = hidden(one.wan.address)
            if not kind:
                return
            yield f"Peers outside were told {spoken(one.wan)}, a {kind} address, which they cannot reach."
            if would and one.lan == one.wan and hidden(self.sides.outside):
                yield (
                    "The router did not change it, nor would nfreaim: no peer reaches the router's own "
                    f"outside address {self.sides.outside}."
                )
            elif would and one.lan == one.wan:
                yield (
                    f"The router did not change it; nfreaim would have said {after} and opened that port. "
                    "It did not run, or not for this server's port, or not yet when this connection began."
                )
            elif report is not None and not would:
                yield f"nfreaim leaves it: {_reason(one)}."
        elif would and report is not None:
            yield (
                f"Without nfreaim peers are told {spoken(report.before)}, which nobody outside reaches; "
                f"nfreaim would say {after} and open that port."
            )
        elif report is not None:
            yield f"nfreaim leaves the message as it is: {_reason(one)}."

    def _nobody_came(self, one: Announcement) -> Iterator[str]:
        kind = hidden(self.sides.outside)
        if one.wan is not None and not hidden(one.wan.address):
            yield (
                f"No connection to {spoken(one.wan)} arrived at the router: the peer did not try, or "
                "something in front of the router dropped it."
            )
        elif one.wan is None:
            yield "No peer's connection is in the capture."
        if kind and self.wan:
            yield (
                f"The router's outside address {self.sides.outside} is of a {kind} network: another router "
                "is in front of it, which has to forward the port."
            )

    def _failed(self, pair: Pair) -> str:
        """Where and why a connection failed."""
        (client, server), became = pair.first.flow, result(pair)
        who = f"{host(client.address)} tried {spoken(server)}: {became}"
        if self.sides.is_inside(client.address):
            return f"{who}; {self._outgoing(pair)}."
        if pair.wan and pair.lan is None and server.address == self.sides.outside:
            if deciding(pair).outcome == "refused":
                return f"{who}; the router answered by itself: no pinhole led on from there."
            if self.lan:
                return (
                    f"{who}; the router did not lead it on: no pinhole was open, or another rule dropped it."
                )
            return (
                f"{who}; the LAN side, which would show whether the router led it on, is not in the capture."
            )
        if deciding(pair).outcome == "refused":
            return f"{who}; it reached {self._listener(pair)}, and nothing listens there."
        if deciding(pair).outcome == "open":
            return f"{who}; the listener did not want it, or its first bytes were wrong."
        return f"{who}; it reached {self._listener(pair)}, whose own firewall may have dropped it."

    @staticmethod
    def _listener(pair: Pair) -> str:
        return spoken((pair.lan or pair.first).flow.server)

    def _outgoing(self, pair: Pair) -> str:
        """Why an inside host's connection failed."""
        server = pair.first.flow.server
        kind = hidden(server.address)
        if self.sides.is_inside(server.address):
            return "both are behind this router, and should have met there"
        if kind:
            return f"that is a {kind} address of another network: nobody there runs an ALG"
        if pair.first.outcome == "refused":
            return "that host, or the router in front of it, has nothing that listens there"
        if pair.first.outcome == "open":
            return "the other side reset it"
        return "the router or firewall in front of that host lets no connection in: nobody there runs an ALG"


def _reason(one: Announcement) -> str:
    return replaced(one.report.reason) if one.report is not None else "it could not be read"


def worth_telling(one: Announcement) -> bool:
    """Whether the reason why nfreaim leaves a message says more than that it concerns nobody here."""
    report = one.report
    return report is not None and report.action == "left" and not report.reason.startswith(_NO_PINHOLE)
