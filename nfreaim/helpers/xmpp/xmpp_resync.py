"""Finds the limits of stanzas again after bytes were missed.

A nested element may have a stanza's name, and its bytes may come from a stranger: a client that quotes a
message forwards it as an element. So no tag alone shows where a stanza begins. A segment does that came after
a pause and holds nothing but whole stanzas. Servers and clients write a stanza at once, so a pause within one
is the network's, and no stranger can put it where he wants. Where this is wrong after all, an element ends
that was not seen to begin, as soon as the quoting stanza goes on; that ends the reading.
"""

from __future__ import annotations

from typing import Final

from nfreaim.helpers.xmpp.stanzas import CLIENT, STANZAS, value
from nfreaim.layers.xml_stream import NotXml, Tag, XmlStream

_COUNTS: Final = frozenset({b"r", b"a"})  # XEP-0198: asks for the number of stanzas that came, and says it
_RESUMABLE: Final = frozenset({b"urn:xmpp:sm:2", b"urn:xmpp:sm:3"})
PAUSE_S: Final = 1.0
"""Longer than a lost segment takes to come again, most of the time."""


def between_stanzas() -> XmlStream:
    """A reader that stands between two stanzas."""
    stream = XmlStream()
    stream.depth = 1
    stream.resume(stream.position(), 0)
    return stream


def whole_stanzas(data: bytes, start: int) -> XmlStream | None:
    """The reader behind *data*, the bytes from offset *start* on, if these are stanzas and nothing else."""
    stream = between_stanzas()
    try:
        for tag in stream.tags(data, start):
            if tag.depth < 2:
                return None
            if tag.depth == 2 and tag.opens and not _may_stand(tag):
                return None
    except NotXml:
        return None
    return stream if stream.resting and data.startswith(b"<") else None


def _may_stand(tag: Tag) -> bool:
    """Whether *tag* begins a stanza, or what the ends of a stream that can be resumed say beside each."""
    space = value(tag.attributes(), b"xmlns", CLIENT)
    return (tag.name in STANZAS and space == CLIENT) or (tag.name in _COUNTS and space in _RESUMABLE)


class Resync:
    """One direction. *stream*: the reader, once it is certain where stanzas begin; else None."""

    __slots__ = ("_last", "stream")

    def __init__(self) -> None:
        self.stream: XmlStream | None = None
        self._last: float | None = None

    def saw(self, data: bytes, start: int, now: float, joined: bool) -> None:
        """A segment passed; see core.helper.Resumable."""
        if self.stream is not None:
            self.stream = _walked(self.stream, data, start) if joined else None
        paused = self._last is not None and now - self._last >= PAUSE_S
        self._last = now
        if self.stream is None and paused:
            self.stream = whole_stanzas(data, start)


def _walked(stream: XmlStream, data: bytes, start: int) -> XmlStream | None:
    try:
        for _ in stream.tags(data, start):
            pass
    except NotXml:
        return None
    return stream if stream.depth else None
