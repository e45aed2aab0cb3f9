"""Records: what has to outlive the daemon of a flow, as plain data, and the flow made from it again.

A skewed flow's has "streams", what is needed to translate it. Any other's says that it is signed on.

Only numbers, strings, lists and dicts; whoever stores them decides how.
"""

from __future__ import annotations

from operator import index

from nfreaim.core.address import reverse
from nfreaim.core.backend import Record
from nfreaim.core.flow import Flow
from nfreaim.core.tcp.offsets import Edit, OffsetMap


def record(flow: Flow) -> Record:
    """What is needed to go on translating *flow*."""
    return {
        "key": flow.key.hex(),
        "server_inside": flow.server_inside,
        "finished": flow.finished,
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


def session(flow: Flow, fixed: bool) -> Record:
    """That *flow* is signed on; not *fixed*: only because a redirect was followed to its server."""
    return {"key": flow.key.hex(), "server_inside": flow.server_inside, "followed": not fixed}


def is_skewed(kept: Record) -> bool:
    """Whether this is the record of a flow that must not pass untranslated."""
    return "streams" in kept


def flow_of(kept: Record, now: float) -> Flow:
    """The flow of a record. It is bypassed: nobody knows which bytes left since.

    Raises ValueError, KeyError, TypeError if the record is damaged.
    """
    key = bytes.fromhex(kept["key"])
    if len(key) != 12:
        raise ValueError(f"a flow's key has 12 bytes, not {len(key)}")
    if key == reverse(key):
        raise ValueError("a flow from an endpoint to itself")
    if not is_skewed(kept):
        flow = Flow(key, 0, 0, None, now)
        flow.seen_from(not kept["server_inside"])
        return flow
    first, second = kept["streams"]
    flow = Flow(key, index(first["base"]), index(second["base"]), None, now)
    flow.seen_from(not kept["server_inside"])
    flow.skewed = True
    flow.finished = index(kept.get("finished", 0)) & 3
    flow.closed = now if flow.finished == 3 else None
    for stream, data in zip(flow.streams, (first, second), strict=True):
        edits = [Edit(index(start), index(end), bytes.fromhex(text)) for start, end, text in data["edits"]]
        stream.map = OffsetMap(edits, index(data["before"]))
        stream.advance(index(data["next"]))
        scale = data.get("scale")
        stream.scale = None if scale is None else min(max(index(scale), 0), 14)
    return flow
