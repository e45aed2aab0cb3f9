"""Events: what happens to pinholes and messages, and to the daemon, by kind and with values by name.

The log, journald, the status and the history tell the same event, each in its own form. No value is a
message's text or a user's name.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any, Final, NamedTuple

from nfreaim.core.address import FlowId
from nfreaim.core.firewall.pinhole import Pinhole
from nfreaim.core.helper import Report


class Kind(NamedTuple):
    """A kind of event.

    name        in the JSON of log and status
    message_id  MESSAGE_ID in the journal, see systemd.journal-fields(7)
    meaning     for the documentation
    """

    name: str
    message_id: str
    meaning: str


OPENED: Final = Kind("pinhole-opened", "ad0cf36abd4b496da3bd7f9d2af1db92", "a pinhole is open")
CLAIMED: Final = Kind(
    "pinhole-claimed", "cd058c8c8eaf40d4946aeb6c002b9065", "a peer has connected through a pinhole"
)
CLOSED: Final = Kind(
    "pinhole-closed", "f8480a034a054407ab2ba3f2e5f724d9", "a pinhole is closed, with the reason"
)
MAPPED_BACK: Final = Kind(
    "message-mapped-back",
    "57b898eee5204c988eb4a753225922a5",
    "a neighbour's announcement was given the neighbour's own address",
)
LEFT: Final = Kind(
    "message-left", "fe810780b4d54e99883336a91bb21b10", "an announcement stayed as it was, with the reason"
)
REFUSED: Final = Kind("peer-refused", "2a62d504e2bf4aa5a16888ab5beb4f37", "a peer was reset, with the reason")
READY: Final = Kind("daemon-ready", "6016e802950345748ec56473b364c4b0", "the daemon serves its queues")
STOPPING: Final = Kind("daemon-stopping", "70775f38c63d45eba76c38331c40f434", "a signal ends the daemon")
COUNTERS: Final = Kind(
    "counters",
    "a7259cb4842c45fdac88767d883ae148",
    "the counters, asked for by SIGUSR1 or at the daemon's end",
)
DROPS: Final = Kind(
    "packets-dropped", "cdbdcf47a7384913a4c8796bca8ea5a9", "the kernel dropped queued packets"
)
SUM: Final = Kind(
    "lines-left-out",
    "04d5473cbb6247cc8eb81a4cf8d86682",
    "so many lines of one kind were left out in the last minute",
)

KINDS: Final = (OPENED, CLAIMED, CLOSED, MAPPED_BACK, LEFT, REFUSED, READY, STOPPING, COUNTERS, DROPS, SUM)


class Event(NamedTuple):
    """Something that happened *at* a time, in seconds since 1970."""

    kind: Kind
    values: Mapping[str, str]
    at: float

    def document(self) -> dict[str, Any]:
        """As JSON has it."""
        return {"time": round(self.at, 3), "event": self.kind.name, **self.values}


def of_pinhole(kind: Kind, pinhole: Pinhole, **more: str) -> Event:
    """An event in the life of *pinhole*."""
    return _event(
        kind,
        protocol=pinhole.protocol,
        service=pinhole.service,
        inside=str(pinhole.inside),
        outside=str(pinhole.outside),
        client=str(pinhole.flow.client),
        server=str(pinhole.flow.server),
        **more,
    )


def of_message(kind: Kind, flow: FlowId, protocol: str, report: Report) -> Event:
    """An event of a message of *flow*."""
    after = {"after": str(report.after)} if kind is MAPPED_BACK else {"reason": report.reason}
    return _event(
        kind,
        protocol=protocol,
        service=report.service,
        client=str(flow.client),
        server=str(flow.server),
        announced=str(report.before),
        **after,
    )


def _event(kind: Kind, **values: str) -> Event:
    return Event(kind, values, wall_time())


def wall_time() -> float:
    """Seconds since 1970, to be shown to people. No deadline may depend on it, because this clock is set."""
    return time.time()


def noted(kind: Kind, values: Mapping[str, str] | None = None) -> dict[str, Any]:
    """``extra`` of a log record of this kind."""
    return {"kind": kind, "values": values or {}}
