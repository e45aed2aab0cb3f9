"""Journal: logs each pinhole that is opened, claimed or closed, and each message that was mapped back or
left.

What a self-test does is for debugging. A line never holds a message's text or a user's name: both identify
people, and an operator needs neither.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

from nfreaim.core.address import Endpoint, FlowId
from nfreaim.core.firewall.pinhole import Pinhole
from nfreaim.core.helper import Report
from nfreaim.host import events
from nfreaim.host.events import CLAIMED, CLOSED, LEFT, MAPPED_BACK, OPENED, Event
from nfreaim.host.netfilter.interfaces import is_own
from nfreaim.host.netfilter.names import TEST_CLIENT

log = logging.getLogger("nfreaim")


class Journal:
    """core.backend.Watcher, in log lines.

    barred       what drops every connection through a pinhole, as far as is known; ""
    barred_here  the same of pinholes that lead to this router
    hear         is told each event whose log line is not for debugging
    late         ``hear`` is told that a pinhole was opened by ``tell`` only, in time for what follows: the
                 message that it was opened for does not wait meanwhile. The log line is not late
    """

    barred = barred_here = ""
    hear: Callable[[Event], None] = staticmethod(lambda event: None)
    late = False

    def __init__(self) -> None:
        self._untold: list[Event] = []

    def tell(self) -> None:
        """Tell of what was opened since the last call."""
        if self._untold:
            untold, self._untold = self._untold, []
            for event in untold:
                self.hear(event)

    def opened(self, pinhole: Pinhole) -> None:
        inside = pinhole.inside
        barred = self.barred
        if barred != self.barred_here and is_own(inside.address):
            barred = self.barred_here
        event = events.of_pinhole(OPENED, pinhole, peers=" ".join(pinhole.peers), barred=barred)
        what = f"pinhole of no use, because {barred} drops what comes" if barred else "pinhole opened"
        log.log(
            _level(inside),
            "%s: %s: %s -> %s for %s of %s%s%s%s%s",
            pinhole.protocol,
            what,
            pinhole.outside,
            inside,
            pinhole.service,
            pinhole.flow.client,
            f", only from {' '.join(pinhole.peers)}" if pinhole.peers else "",
            ", for as long as it is connected" if pinhole.standing else "",
            f", announced as {pinhole.told}" if pinhole.told else "",
            _unverified(pinhole),
            extra=_of(inside, event),
        )
        self._untold.append(event)
        if not self.late:
            self.tell()

    def claimed(self, pinhole: Pinhole, peer: str) -> None:
        self.tell()
        event = events.of_pinhole(CLAIMED, pinhole, peer=peer)
        protocol, outside, inside = pinhole.protocol, pinhole.outside, pinhole.inside
        weak, extra = _unverified(pinhole), _of(inside, event)
        text = "%s: pinhole claimed: %s -> %s by %s%s"
        log.log(_level(inside), text, protocol, outside, inside, peer, weak, extra=extra)
        self.hear(event)

    def closed(self, pinhole: Pinhole, reason: str) -> None:
        self.tell()
        event = events.of_pinhole(CLOSED, pinhole, reason=reason)
        protocol, outside, inside = pinhole.protocol, pinhole.outside, pinhole.inside
        extra = _of(inside, event)
        text = "%s: pinhole closed: %s -> %s: %s"
        log.log(_level(inside), text, protocol, outside, inside, reason, extra=extra)
        self.hear(event)

    def reported(self, flow: FlowId, protocol: str, report: Report) -> None:
        if report.action == "rewritten":
            return  # that its pinhole was opened is told
        self.tell()
        client, before = flow.client, report.before
        level = logging.DEBUG if report.routine else _level(client)
        if report.action == "mapped-back":
            event = events.of_message(MAPPED_BACK, flow, protocol, report)
            after, extra = report.after, _of(client, event)
            log.log(level, "%s: mapped back for %s: %s -> %s", protocol, client, before, after, extra=extra)
        else:
            event = events.of_message(LEFT, flow, protocol, report)
            level = level if report.direction == "out" else logging.DEBUG
            service, reason = report.service, report.reason
            log.log(
                level,
                "%s: left alone: %s of %s naming %s: %s",
                protocol,
                service,
                client,
                before,
                reason,
                extra=_of(client, event),
            )
        if level > logging.DEBUG or client.address == TEST_CLIENT:
            self.hear(event)


def _level(host: Endpoint) -> int:
    """Of a line about the inside *host*."""
    return logging.DEBUG if host.address == TEST_CLIENT else logging.INFO


def _of(host: Endpoint, event: Event) -> dict[str, Any]:
    """Whose line it is, for LogLimit, and of which event."""
    return {"source": host.address, **events.noted(event.kind, event.values)}


def _unverified(pinhole: Pinhole) -> str:
    """What is said of peers whose first bytes prove little."""
    return f", peers unverified ({pinhole.unverified})" if pinhole.unverified else ""
