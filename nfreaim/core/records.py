"""Records: the state of a flow that outlives the daemon, as plain data, and the flow restored from it.

A skewed flow's record has "streams", the state of its translation. Any other record says that the flow is
established. Both name the protocol. They hold numbers, strings, lists and dicts; the store keeps them.
"""

from __future__ import annotations

from operator import index
from typing import Any

from nfreaim.core.address import End, reverse
from nfreaim.core.backend import Record
from nfreaim.core.flow import Flow, Life
from nfreaim.core.tcp.custody import Custody
from nfreaim.core.tcp.offsets import Edit, OffsetMap
from nfreaim.core.tcp.segment import Segment
from nfreaim.core.tcp.stream import Stream

_LARGEST_SCALE = 14  # RFC 7323 section 2.3


def record(flow: Flow) -> Record:
    """What is needed to go on translating *flow*."""
    return {
        **_head(flow),
        "finished": int(flow.life),
        "streams": [
            {
                "base": stream.base,
                "next": stream.next,
                "scale": stream.scale,
                "before": stream.map.before,
                "edits": [[edit.start, edit.end, edit.data.hex()] for edit in stream.map.edits],
                **_custody(stream),
            }
            for stream in flow.streams
        ],
    }


def _custody(stream: Stream[Flow]) -> Record:
    custody = stream.custody
    if custody is None or not custody.told:
        return {}
    data = custody.data[: custody.told - custody.start]
    head = custody.head.rebuilt(custody.head.seq, custody.head.ack, b"", None).raw
    return {"custody": {"start": custody.start, "data": data.hex(), "head": head.hex()}}


def session(flow: Flow) -> Record:
    """That *flow* is established."""
    return {**_head(flow), "scales": [stream.scale for stream in flow.streams]}


def _head(flow: Flow) -> Record:
    return {
        "key": flow.key.hex(),
        "protocol": flow.protocol,
        "server_inside": flow.inside is End.SERVER,
        "followed": flow.followed,
        "proved": flow.proved,
        "barred": flow.barred,
    }


def is_skewed(kept: Record) -> bool:
    """Whether this is the record of a flow that must not pass untranslated."""
    return "streams" in kept


def flow_of(kept: Record, now: float) -> Flow:
    """The flow of a record. It is bypassed, because bytes may have passed since.

    Raises ValueError, KeyError, TypeError if the record is damaged.
    """
    flow = _flow_of(kept, now)
    flow.followed = kept.get("followed") is True
    flow.proved = kept.get("proved") is True
    barred = kept.get("barred", "")
    if not isinstance(barred, str):
        raise TypeError("the reason is no text")
    flow.barred = barred
    return flow


def says_how_it_began(kept: Record) -> bool:
    """Whether the record tells if the flow is proved. Those of earlier versions do not."""
    return "proved" in kept


def _flow_of(kept: Record, now: float) -> Flow:
    key = bytes.fromhex(kept["key"])
    if len(key) != 12:
        raise ValueError(f"a flow's key has 12 bytes, not {len(key)}")
    if key == reverse(key):
        raise ValueError("a flow from an endpoint to itself")
    protocol = kept["protocol"]
    if not isinstance(protocol, str):
        raise TypeError("the protocol's name is no text")
    inside = End.SERVER if kept["server_inside"] else End.CLIENT
    if not is_skewed(kept):
        flow = Flow(key, (0, 0), inside, now)
        flow.protocol = protocol
        for stream, scale in zip(flow.streams, kept.get("scales", (None, None)), strict=True):
            stream.scale = _scale(scale)
        return flow
    first, second = kept["streams"]
    flow = Flow(key, (index(first["base"]), index(second["base"])), inside, now)
    flow.protocol = protocol
    flow.skewed = True
    flow.life = Life(index(kept.get("finished", 0)) & 3)
    flow.closed = now if flow.life is Life.FINISHED else None
    for stream, data in zip(flow.streams, (first, second), strict=True):
        edits = [Edit(index(start), index(end), bytes.fromhex(text)) for start, end, text in data["edits"]]
        stream.map = OffsetMap(edits, index(data["before"]))
        stream.advance(index(data["next"]))
        stream.scale = _scale(data.get("scale"))
        stream.custody = _custody_of(data.get("custody"), now)
        flow.resizable = flow.resizable or stream.map.skewed
    flow.attend()
    return flow


def _custody_of(kept: Any, now: float) -> Custody | None:
    """What an earlier daemon had in custody; nothing of it is withheld now."""
    if kept is None:
        return None
    head = Segment.parse(bytes.fromhex(kept["head"]))
    if head is None:
        raise ValueError("no packet's headers")
    custody = Custody(index(kept["start"]), head, now)
    custody.data = bytes.fromhex(kept["data"])
    custody.withheld, custody.told = None, custody.end
    return custody


def _scale(kept: Any) -> int | None:
    return None if kept is None else min(max(index(kept), 0), _LARGEST_SCALE)
