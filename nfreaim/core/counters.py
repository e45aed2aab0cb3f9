"""Counters: what the engine did, in numbers."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field, fields
from typing import NamedTuple

from nfreaim.core.address import End, FlowId
from nfreaim.core.helper import MESSAGE_COUNTERS, HelperSpec


def _counts(what: str) -> int:
    """A counter of *what*, for ``meanings``."""
    counter: int = field(default=0, metadata={"counts": what})
    return counter


@dataclass(slots=True)
class Counters:
    """What happened since the start.

    helpers  those that the helpers count, by name (see HelperSpec)
    """

    packets: int = _counts("packets of control connections, and of newcomers, that were looked at")
    changed_packets: int = _counts("packets that left with other bytes or numbers than they came with")
    unparsed_packets: int = _counts("queued packets that are no whole TCP segment, and passed")
    flows: int = _counts("control connections that began")
    foreign_flows: int = _counts(
        "connections to the servers' ports that speak another protocol, and pass unread"
    )
    malformed_flows: int = _counts("control connections that could not be followed, and pass unread since")
    failed_flows: int = _counts(
        "control connections that pass unread because of an error of nfreaim; please report it"
    )
    failed_packets: int = _counts(
        "packets that an earlier edit could not be applied to, because of an error of nfreaim"
    )
    gapped_flows: int = _counts(
        "control connections that pass unread because bytes were missing for too long"
    )
    evicted_flows: int = _counts("control connections that were forgotten because the table was full")
    evicted_half_open: int = _counts(
        "handshakes that were forgotten before they were complete, as in a flood of SYNs"
    )
    evicted_half_read: int = _counts(
        "control connections that pass unread because half messages took too much memory"
    )
    evicted_edits: int = _counts(
        "control connections whose edits were forgotten because all edits took too much memory"
    )
    evicted_pinholes: int = _counts("pinholes that gave way to a host that had fewer")
    gap_drops: int = _counts(
        "packets that came out of order and were dropped, so that their sender repeats them in order"
    )
    paced_drops: int = _counts(
        "packets that were dropped to slow down a sender whose messages take too long to read"
    )
    held_packets: int = _counts("packets that waited for the rest of their message")
    custodies: int = _counts(
        "half messages that were acknowledged in their receiver's place, so that the sender sends the rest"
    )
    skipped_messages: int = _counts("messages that passed unread because their sender had used up its time")
    late_edit: int = _counts("messages that passed as they were because their rest did not come in time")
    refused_edits: int = _counts(
        "edits that were not made because they would change the length where it must not change"
    )
    resets: int = _counts("connections that were reset because their edits were not known any more")
    strange_senders: int = _counts(
        "connections for which nothing is opened: their packets did not come from the host itself"
    )
    peers_verified: int = _counts("peers that began with the greeting of their service, and were let through")
    peers_refused: int = _counts("peers that began otherwise, or came too late, and were reset")
    peers_gave_way: int = _counts("peers that said nothing, and were reset because too many waited")
    peers_passed: int = _counts("peers that were connected before this daemon began, and passed")
    peer_drops: int = _counts("packets of peers that were dropped while their greeting was not complete")
    helpers: dict[str, int] = field(default_factory=lambda: dict.fromkeys(MESSAGE_COUNTERS, 0))

    @classmethod
    def of(cls, specs: Iterable[HelperSpec]) -> Counters:
        """Zeroes, with the counters of these protocols."""
        counters = cls()
        for spec in specs:
            counters.helpers |= dict.fromkeys(spec.counters, 0)
        return counters

    def as_dict(self) -> dict[str, int]:
        """Every counter by name."""
        own = {item.name: getattr(self, item.name) for item in fields(self) if item.name != "helpers"}
        return own | self.helpers


def meanings(specs: Iterable[HelperSpec]) -> dict[str, str]:
    """What each counter counts, those of these protocols included, in the order of ``as_dict``."""
    found = {item.name: item.metadata["counts"] for item in fields(Counters) if item.metadata}
    found |= MESSAGE_COUNTERS
    for spec in specs:
        found |= spec.counters
    return found


class FlowStatus(NamedTuple):
    """What an operator sees of one flow.

    inside  which end is the inside one
    state   the name of its state (core.flow.State), in lower case
    since   when it became known here
    """

    flow: FlowId
    protocol: str
    inside: End
    state: str
    since: float


class EngineStats(NamedTuple):
    """What an engine tells of itself.

    flows     how many it knows
    edited    those whose length was changed
    counters  by name
    newest    those that began last and are not over, at most some hundreds
    """

    flows: int
    edited: tuple[FlowId, ...]
    counters: dict[str, int]
    newest: tuple[FlowStatus, ...] = ()
