"""SignOn: what both ends have to say before a connection counts as one of XMPP. No router, no edits.

Recorded (libpurple 2.14.12, prosody 0.12.3); the stream's header comes again after SASL (RFC 6120, 6 and 7)::

    C <stream:stream to='example.test' xmlns='jabber:client' xmlns:stream='http://etherx.jabber.org/streams'>
    S the same, and <stream:features>...
    C <auth xmlns='urn:ietf:params:xml:ns:xmpp-sasl' ...>     S <success xmlns='...'>
    C <stream:stream ...>                                      S <stream:stream ...><stream:features>...
    C <iq type='set' id='1'><bind xmlns='urn:ietf:params:xml:ns:xmpp-bind'>
    S <iq type='result' id='1'><bind xmlns='...'><jid>alice@example.test/pc</jid></bind></iq>

Instead of a bind (XEP-0198): C <resume xmlns='urn:xmpp:sm:3' previd=...>; S <resumed xmlns=... previd=...>.
Without SASL, until 2004 (XEP-0078): C <iq type='set' id='2'><query xmlns='jabber:iq:auth'>...; S its result.
"""

from __future__ import annotations

from typing import Final

from nfreaim.core.address import Direction
from nfreaim.errors import Foreign
from nfreaim.helpers.xmpp.stanzas import CLIENT, Stanza, named, value
from nfreaim.layers.xml_stream import Kind, Tag

ROOT: Final = b"stream:stream"
_STREAMS: Final = b"http://etherx.jabber.org/streams"
_SASL: Final = b"urn:ietf:params:xml:ns:xmpp-sasl"
_BIND: Final = b"urn:ietf:params:xml:ns:xmpp-bind"
_OLD: Final = b"jabber:iq:auth"
_RESUMPTION: Final = frozenset({b"urn:xmpp:sm:2", b"urn:xmpp:sm:3"})
_FIRST: Final = (b"<?xml", b"<" + ROOT)


def may_begin(head: bytes) -> bool:
    """Whether a stream may begin with a tag that begins with *head*."""
    return any(first.startswith(head[: len(first)]) for first in _FIRST)


class SignOn:
    """Of one connection. *done*: both ends have signed on."""

    __slots__ = ("_asked", "_authenticates", "_declared", "_headers", "_kind", "_succeeded", "done")

    def __init__(self) -> None:
        self.done = False
        self._declared = [False, False]  # by direction: a header has to follow
        self._headers = [0, 0]
        self._authenticates = self._succeeded = False
        self._asked = self._kind = b""  # the id, and the namespace, of the request that ends the sign-on

    def read(self, direction: Direction, tag: Tag, stanza: Stanza | None) -> bool:
        """A tag, and the iq that it is in. Returns whether a document begins with it. Raises Foreign."""
        if tag.kind is Kind.DECLARATION:
            if self._declared[direction] or not self._may_have_header(direction):
                raise Foreign("a declaration that begins no stream")
            self._declared[direction] = True
            return False
        if tag.opens and (tag.depth == 1 or (tag.depth == 2 and tag.name == ROOT)):
            self._header(direction, tag)
            return True
        if self._declared[direction]:
            raise Foreign("a declaration that begins no stream")
        if tag.depth == 2:
            self._top(direction, tag, stanza)
        elif tag.depth == 3 and tag.opens and stanza is not None:
            self._payload(direction, tag, stanza)
        return False

    def _may_have_header(self, direction: Direction) -> bool:
        return self._headers[direction] == int(self._succeeded)

    def _header(self, direction: Direction, tag: Tag) -> None:
        attributes = tag.attributes()
        ours = tag.name == ROOT and value(attributes, b"xmlns:stream") == _STREAMS
        if not ours or tag.kind is not Kind.START or value(attributes, b"xmlns") != CLIENT:
            raise Foreign("does not begin as a client's stream does")
        if not self._may_have_header(direction):
            raise Foreign("a stream begins in a stream")
        self._headers[direction] += 1
        self._declared[direction] = False

    def _top(self, direction: Direction, tag: Tag, stanza: Stanza | None) -> None:
        """A child of the stream."""
        if stanza is not None:
            old = tag.closes and self._kind == _OLD and direction is Direction.REPLY
            self.done = self.done or (old and stanza.kind == b"result" and stanza.ident == self._asked)
        elif tag.opens and tag.name in (b"auth", b"success"):
            if value(tag.attributes(), b"xmlns") != _SASL:
                raise Foreign("signs on in an unknown way")
            if direction is Direction.ORIGINAL:
                self._authenticates = self._authenticates or tag.name == b"auth"
            elif tag.name == b"success":
                if not self._authenticates or self._succeeded:
                    raise Foreign("welcomes somebody who did not sign on")
                self._succeeded = True
        elif tag.opens and tag.name in (b"resume", b"resumed"):
            self._resumes(direction, tag)

    def _resumes(self, direction: Direction, tag: Tag) -> None:
        """A session that was cut off goes on here."""
        attributes = tag.attributes()
        space, session = value(attributes, b"xmlns"), value(attributes, b"previd")
        if space not in _RESUMPTION or not session or self._headers[direction] != 2:
            return
        if direction is Direction.ORIGINAL and tag.name == b"resume":
            self._asked, self._kind = named(session), space
        elif direction is Direction.REPLY and tag.name == b"resumed" and space == self._kind:
            self.done = self.done or named(session) == self._asked

    def _payload(self, direction: Direction, tag: Tag, stanza: Stanza) -> None:
        """A child of an iq."""
        if tag.name not in (b"bind", b"query"):
            return
        space = value(tag.attributes(), b"xmlns")
        if (tag.name, space) not in ((b"bind", _BIND), (b"query", _OLD)):
            return
        if direction is Direction.ORIGINAL and stanza.kind == b"set":
            # The server's header may come behind it: XEP-0305 has clients save that turn.
            begun = self._headers[direction] == (2 if space == _BIND else 1)
            self._asked, self._kind = (stanza.ident, space) if begun else (b"", b"")
        elif direction is Direction.REPLY and space == _BIND == self._kind and stanza.kind == b"result":
            self.done = self.done or (stanza.ident == self._asked and self._headers[direction] == 2)
