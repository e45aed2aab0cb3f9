"""Journal: one log line per pinhole opened, claimed and closed, and per proposal that got none.

Never a message text and never a screen name: both identify people, and nobody needs them here.
"""

from __future__ import annotations

import logging
import traceback
from pathlib import Path
from types import TracebackType

from nfreaim.core.firewall.pinhole import Pinhole
from nfreaim.core.flow import Flow
from nfreaim.core.helper import Report

log = logging.getLogger("nfreaim")


class QuietFormatter(logging.Formatter):
    """Shows of an exception where it came from and its type, never its text: that may quote what was read."""

    def formatException(
        self,
        ei: tuple[type[BaseException], BaseException, TracebackType | None] | tuple[None, None, None],
    ) -> str:
        kind, _, frames = ei
        name = "no exception" if kind is None else f"{kind.__module__}.{kind.__qualname__}"
        return "".join(["Traceback (most recent call last):\n", *traceback.format_tb(frames)]) + name


def origin(error: Exception) -> str:
    """The type of an exception and the line that raised it, never its text."""
    place = ""
    for frame, line in traceback.walk_tb(error.__traceback__):
        place = f" at {Path(frame.f_code.co_filename).name}:{line}"
    return f"{type(error).__name__}{place}"


class Journal:
    """Whom the engine tells what it does (core.nat.Watcher)."""

    def opened(self, pinhole: Pinhole) -> None:
        log.info(
            "pinhole opened: %s -> %s for %s of %s%s%s",
            pinhole.outside,
            pinhole.inside,
            pinhole.service,
            pinhole.owner.client,
            f", only from {' '.join(pinhole.peers)}" if pinhole.peers else "",
            ", for as long as it is signed on" if pinhole.session else "",
        )

    def claimed(self, pinhole: Pinhole, peer: str) -> None:
        log.info("pinhole claimed: %s -> %s by %s", pinhole.outside, pinhole.inside, peer)

    def closed(self, pinhole: Pinhole, reason: str) -> None:
        log.info("pinhole closed: %s -> %s: %s", pinhole.outside, pinhole.inside, reason)

    def reported(self, flow: Flow, report: Report) -> None:
        if report.action == "mapped-back":
            # What a client published for its session comes back with every change of its status.
            level = logging.INFO if report.cookie else logging.DEBUG
            log.log(level, "mapped back for %s: %s -> %s", flow.owner.client, report.before, report.after)
        elif report.action == "left":
            level = logging.INFO if report.direction == "out" else logging.DEBUG
            log.log(
                level,
                "left alone: %s of %s naming %s: %s",
                report.service,
                flow.owner.client,
                report.before,
                report.reason,
            )
