"""XmppHelper: reads one connection between a client and an XMPP server, in clear text.

A web page can make a browser send any text, but for its first bytes: HTTP begins with a method, and a stream
with "<". So a flow counts only if both directions are a stream from the first byte on, and if the server
answers the client's sign-on (``SignOn``). If not it is Foreign, which ends the reading for good; so does what
cannot be read: TLS, compression (XEP-0138), a layer of SASL, and whatever else is binary.
"""

from __future__ import annotations

from typing import Final

from nfreaim.core.address import Direction
from nfreaim.core.helper import Nat, Scan
from nfreaim.core.tcp.offsets import Edit
from nfreaim.errors import Foreign, Malformed
from nfreaim.helpers.xmpp.stanzas import FOUND_SIZE, JINGLE, Context, named, value
from nfreaim.helpers.xmpp.streamhosts import Offers, hold
from nfreaim.helpers.xmpp.xmpp_resync import Resync, whole_stanzas
from nfreaim.helpers.xmpp.xmpp_sign_on import ROOT, SignOn, may_begin
from nfreaim.layers.xml_stream import Binary, Kind, NotXml, Tag, XmlStream

_TURNS: Final = {b"proceed": "goes on as TLS", b"compressed": "goes on compressed"}
_SESSION_ENDS: Final = b"session-terminate"


class XmppHelper:
    """See the head of this module, and core.helper.Helper."""

    __slots__ = (
        "_broken",
        "_buffered",
        "_contexts",
        "_offers",
        "_resyncs",
        "_sign_on",
        "_streams",
        "established",
    )

    def __init__(self, midstream: bool) -> None:
        self.established = midstream
        self._sign_on = None if midstream else SignOn()
        # None: it is not known where its stanzas begin
        self._streams: list[XmlStream | None] = [None if midstream else XmlStream() for _ in Direction]
        self._contexts = Context(), Context()
        self._offers = Offers()
        self._broken: Malformed | None = None
        self._buffered = 0
        self._resyncs: tuple[Resync, Resync] | None = None

    def scan(self, direction: Direction, data: bytes, start: int, nat: Nat) -> Scan | None:
        """See core.helper.Helper: every byte comes here once and in order, and segments mean nothing."""
        if self._broken is not None:
            raise self._broken
        stream = self._streams[direction]
        if stream is None:  # met in its midst
            self._streams[direction] = whole_stanzas(data, start)
            return None
        if not start and not self.established and data[:1] != b"<":
            raise Foreign("does not begin as a stream does")
        edits: list[Edit] = []
        try:
            for tag in stream.tags(data, start):
                edits += self._tag(direction, tag, nat)
            if not self.established and not stream.depth and not may_begin(stream.head):
                raise Foreign("does not begin as a stream does")
        except (NotXml, Malformed) as error:
            foreign = not self.established or isinstance(error, Binary | Foreign)
            broken = Foreign(str(error)) if foreign else Malformed(str(error))
            if not edits:
                raise broken from error
            self._broken = broken  # what was announced before this place stays, however it was cut
            return Scan(tuple(edits))
        self._keeps(nat)
        wait = None
        if self.established and stream.depth > 2:
            end = start + len(data)
            wait = hold(direction, self._contexts[direction], stream, end, nat)
        return Scan(tuple(edits), wait) if edits or wait is not None else None

    def skips(self, direction: Direction, raw: bytes, start: int, nat: Nat) -> bool:
        """See core.helper.Helper: not asked where lengths may change, for such flows take no fast path."""
        return False

    def positions(self) -> tuple[bytes, bytes]:
        """See core.helper.Resumable: the depth of elements, and where in a tag reading stands."""
        client, server = self._streams
        return (client.position(), server.position()) if client and server else (b"", b"")

    def resume(self, positions: tuple[bytes, bytes] | None, starts: tuple[int, int]) -> None:
        """See core.helper.Resumable: the rest of a stanza that was begun is skipped."""
        self.established, self._sign_on = True, None
        self._contexts = Context(), Context()
        self._resyncs = Resync(), Resync()
        if positions is not None:
            streams = XmlStream(), XmlStream()
            for stream, position, start in zip(streams, positions, starts, strict=True):
                stream.resume(position, start)
            self._streams = [*streams]

    def resync(self, direction: Direction, data: bytes, start: int, now: float, joined: bool) -> bool:
        """See core.helper.Resumable; how is the subject of xmpp_resync.py."""
        assert self._resyncs is not None
        self._resyncs[direction].saw(data, start, now, joined)
        self._streams = [each.stream for each in self._resyncs]
        return all(self._streams)

    def _keeps(self, nat: Nat) -> None:
        size = sum(len(stream.head) for stream in self._streams if stream)
        size += FOUND_SIZE * sum(len(each.message.found) for each in self._contexts if each.message)
        if size != self._buffered:
            self._buffered = size
            nat.set_buffered(size)

    def _tag(self, direction: Direction, tag: Tag, nat: Nat) -> list[Edit]:
        context = self._contexts[direction]
        if 2 <= tag.depth <= 5 and tag.opens:
            context.open(direction, tag)
        if tag.depth == 2 and tag.opens and direction is Direction.REPLY and tag.name in _TURNS:
            raise Foreign(_TURNS[tag.name])
        if self._sign_on is not None:
            self._signs_on(direction, tag, self._sign_on, nat)
            return []
        # Deeper it is somebody's text, as any other element.
        begins = tag.opens and (tag.depth == 1 or (tag.depth == 2 and tag.name == ROOT))
        if tag.kind is Kind.DECLARATION or begins:
            raise Malformed("a stream begins in a stream")
        if tag.depth == 3 and tag.opens and context.payload[0] == JINGLE:
            self._session(context, tag, nat)
        elif tag.depth in (4, 6) and tag.opens and context.message and context.message.depth == tag.depth - 1:
            self._offers.saw(direction, context.message, tag, nat)
        return self._closed(direction, context, tag, nat) if tag.closes else []

    def _signs_on(self, direction: Direction, tag: Tag, sign_on: SignOn, nat: Nat) -> None:
        context, stream = self._contexts[direction], self._streams[direction]
        if sign_on.read(direction, tag, context.stanza) and tag.depth == 2 and stream is not None:
            stream.restart()
        context.message = None  # nothing is offered before the sign-on is complete
        if tag.depth == 1 and tag.closes:
            raise Foreign("ends before its sign-on")
        if sign_on.done:
            self.established, self._sign_on = True, None
            nat.established()

    def _session(self, context: Context, tag: Tag, nat: Nat) -> None:
        """A message of Jingle begins."""
        attributes = tag.attributes()
        if context.stanza is not None and value(attributes, b"action") == _SESSION_ENDS:
            self._offers.session_over(named(b"session", context.payload[1], context.stanza.party), nat)

    def _closed(self, direction: Direction, context: Context, tag: Tag, nat: Nat) -> list[Edit]:
        """An element has come to its end."""
        edits: list[Edit] = []
        if tag.depth == 1:
            nat.withdraw_all("signed off")
        elif tag.depth == 2:
            if context.stanza is not None:
                self._offers.answered(direction, context.stanza, nat)
            context.stanza = context.message = None
        elif context.message is not None and context.message.depth == tag.depth:
            edits = self._offers.decide(direction, context, tag.at, nat)
            context.message = None
        return edits
