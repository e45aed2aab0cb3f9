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
from nfreaim.core.tcp.offsets import Edit, OffsetMap

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
            }
            for stream in flow.streams
        ],
    }


def session(flow: Flow, by_port: bool) -> Record:
    """That *flow* is established.

    by_port  its server's port is one of its protocol's; if not, the client was redirected to the server
    """
    scales = [stream.scale for stream in flow.streams]
    return {**_head(flow), "followed": not by_port, "scales": scales}


def _head(flow: Flow) -> Record:
    return {
        "key": flow.key.hex(),
        "protocol": flow.protocol,
        "server_inside": flow.inside is End.SERVER,
    }


def is_skewed(kept: Record) -> bool:
    """Whether this is the record of a flow that must not pass untranslated."""
    return "streams" in kept


def flow_of(kept: Record, now: float) -> Flow:
    """The flow of a record. It is bypassed, because bytes may have passed since.

    Raises ValueError, KeyError, TypeError if the record is damaged.
    """
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
    flow.skewed = flow.resizable = True
    flow.life = Life(index(kept.get("finished", 0)) & 3)
    flow.closed = now if flow.life is Life.FINISHED else None
    for stream, data in zip(flow.streams, (first, second), strict=True):
        edits = [Edit(index(start), index(end), bytes.fromhex(text)) for start, end, text in data["edits"]]
        stream.map = OffsetMap(edits, index(data["before"]))
        stream.advance(index(data["next"]))
        stream.scale = _scale(data.get("scale"))
    return flow


def _scale(kept: Any) -> int | None:
    return None if kept is None else min(max(index(kept), 0), _LARGEST_SCALE)
