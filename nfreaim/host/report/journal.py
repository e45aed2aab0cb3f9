"""Journal: logs each pinhole that is opened, claimed or closed, and each message that was mapped back or
left.

A line never holds a message's text or a user's name: both identify people, and an operator needs neither.
"""

from __future__ import annotations

import logging
import traceback
from types import TracebackType

from nfreaim.core.address import FlowId
from nfreaim.core.firewall.pinhole import Pinhole
from nfreaim.core.helper import Report

log = logging.getLogger("nfreaim")


class QuietFormatter(logging.Formatter):
    """Shows the type of an exception and its traceback, but not its text, which may quote a message."""

    def formatException(
        self,
        ei: tuple[type[BaseException], BaseException, TracebackType | None] | tuple[None, None, None],
    ) -> str:
        kind, _, frames = ei
        name = "no exception" if kind is None else f"{kind.__module__}.{kind.__qualname__}"
        return "".join(["Traceback (most recent call last):\n", *traceback.format_tb(frames)]) + name


class Journal:
    """core.backend.Watcher, in log lines."""

    def opened(self, pinhole: Pinhole) -> None:
        log.info(
            "%s: pinhole opened: %s -> %s for %s of %s%s%s",
            pinhole.protocol,
            pinhole.outside,
            pinhole.inside,
            pinhole.service,
            pinhole.flow.client,
            f", only from {' '.join(pinhole.peers)}" if pinhole.peers else "",
            ", for as long as it is connected" if pinhole.standing else "",
        )

    def claimed(self, pinhole: Pinhole, peer: str) -> None:
        protocol, outside, inside = pinhole.protocol, pinhole.outside, pinhole.inside
        log.info("%s: pinhole claimed: %s -> %s by %s", protocol, outside, inside, peer)

    def closed(self, pinhole: Pinhole, reason: str) -> None:
        protocol, outside, inside = pinhole.protocol, pinhole.outside, pinhole.inside
        log.info("%s: pinhole closed: %s -> %s: %s", protocol, outside, inside, reason)

    def reported(self, flow: FlowId, protocol: str, report: Report) -> None:
        client, before = flow.client, report.before
        level = logging.DEBUG if report.routine else logging.INFO
        if report.action == "mapped-back":
            log.log(level, "%s: mapped back for %s: %s -> %s", protocol, client, before, report.after)
        elif report.action == "left":
            level = level if report.direction == "out" else logging.DEBUG
            service, reason = report.service, report.reason
            log.log(
                level, "%s: left alone: %s of %s naming %s: %s", protocol, service, client, before, reason
            )
