"""Where a direction of the stream stands, and the messages with addresses in it: Context, Stanza, Message.

XEP-0065 (file transfer of XEP-0096 and others), recorded::

    <iq type='set' id='purple7' to='carol@example.test/pc'>
      <query xmlns='http://jabber.org/protocol/bytestreams' sid='purple6'>
        <streamhost jid='alice@example.test/pc' host='10.0.0.5' port='43817'/>        I listen here
    <iq type='result' id='purple7' from='carol@example.test/pc'><query xmlns=...><streamhost-used jid=.../>

XEP-0260, where both sides say where they listen; the answers come as messages of their own::

    <iq type='set' ...><jingle xmlns='urn:xmpp:jingle:1' action='session-initiate' sid='a'><content ...>
      <transport xmlns='urn:xmpp:jingle:transports:s5b:1' sid='b'>
        <candidate cid='c' host='10.0.0.5' port='5086' priority='1' type='direct' jid='...'/>

Attributes come in any order: prosody 0.12.3 shuffles them. An element is known by its name without a prefix
and by an xmlns on its own tag; where an address stands within its message, xmlns must not say otherwise.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from hashlib import blake2b
from typing import Final, NamedTuple

from nfreaim.core.address import Direction, Endpoint
from nfreaim.layers.xml_stream import Attribute, Tag

BYTESTREAMS: Final = b"http://jabber.org/protocol/bytestreams"
JINGLE: Final = b"urn:xmpp:jingle:1"
JINGLE_S5B: Final = b"urn:xmpp:jingle:transports:s5b:1"
CLIENT: Final = b"jabber:client"
STANZAS: Final = frozenset({b"iq", b"message", b"presence"})

# Of Jingle those that may name where their sender listens.
_OFFERING: Final = frozenset(
    {b"session-initiate", b"session-accept", b"content-add", b"content-accept"}
    | {b"transport-replace", b"transport-accept"}
)
_OCTET: Final = rb"(?:0|[1-9][0-9]?|1[0-9][0-9]|2[0-4][0-9]|25[0-5])"
_ADDRESS: Final = re.compile(rb"(?:%b\.){3}%b" % (_OCTET, _OCTET))
_ENTITIES: Final = (
    *((b"&apos;", b"'"), (b"&quot;", b'"'), (b"&lt;", b"<"), (b"&gt;", b">")),
    (b"&amp;", b"&"),  # the last, for what it makes is no entity
)
_PORT: Final = re.compile(rb"[1-9][0-9]{0,4}")
_USUAL_PORT: Final = 1080  # of a candidate that names none (XEP-0260)
_MOST_FOUND: Final = 8  # endpoints of one message that concern us: a host listens on a port or two


def named(*parts: bytes) -> bytes:
    """A name in 8 bytes: what a peer writes may be long, and many flows remember names."""
    return blake2b(b"\0".join(parts), digest_size=8).digest()


FOUND_SIZE: Final = 512
"""Bytes that a Found takes, about."""


class Found(NamedTuple):
    """A place that names an endpoint; *port* is None where it is not written.

    own  it is its writer's, not that of a proxy that its writer knows
    """

    endpoint: Endpoint
    host: Attribute
    port: Attribute | None
    own: bool

    @property
    def start(self) -> int:
        """The offset of the first byte that an edit of it could concern."""
        return self.host.at if self.port is None else min(self.host.at, self.port.at)


@dataclass(slots=True)
class Message:
    """A query or transport whose end has not come, and what was found in it.

    at, depth  of its start tag
    item       the name of the elements in it that have addresses
    names      by which a later stanza can speak of it: its stanza, its stream, its session
    first      the first endpoint in it that is written in digits
    found      those that concern this router, at most 8; *more*: there may be others
    datagrams  what follows goes by UDP, to the same port
    """

    at: int
    depth: int
    namespace: bytes
    item: bytes
    names: tuple[bytes, ...]
    first: Endpoint | None = None
    found: list[Found] = field(default_factory=list)
    more: bool = False
    datagrams: bool = False

    def read(self, tag: Tag) -> Found | None:
        """The endpoint that a child of it names in plain digits, as something that its writer listens on."""
        if tag.name != self.item or self.more:
            return None
        if len(self.found) >= _MOST_FOUND:
            self.more = True
            return None
        attributes = tag.attributes()
        host, port = attributes.get(b"host"), attributes.get(b"port")
        direct = b"zeroconf" not in attributes and value(attributes, b"type", b"direct") == b"direct"
        if not direct or value(attributes, b"xmlns", self.namespace) != self.namespace:
            return None
        if host is None or not _ADDRESS.fullmatch(host.value):
            return None
        if port is None and self.item != b"candidate":
            return None
        if port is not None and (not _PORT.fullmatch(port.value) or int(port.value) > 0xFFFF):
            return None
        number = int(port.value) if port else _USUAL_PORT
        # A user's JID has a resource, that of a proxy has none (XEP-0065); a candidate says what it is.
        own = self.item == b"candidate" or b"/" in value(attributes, b"jid")
        return Found(Endpoint(host.value.decode(), number), host, port, own)


@dataclass(slots=True)
class Stanza:
    """An iq whose end has not come.

    kind     "set", "get", "result" or "error"
    ident    its id, and *party*, who it is from or to, as its reader's own server says; both as ``named``
    local    it is from and to users of one server
    used     it says which of the offered endpoints a peer has reached
    """

    kind: bytes
    ident: bytes
    party: bytes
    local: bool
    used: bool = False


@dataclass(slots=True)
class Context:
    """Where one direction stands: what is open there, as far as it matters."""

    stanza: Stanza | None = None
    payload: tuple[bytes, bytes] = (b"", b"")  # the stanza's child of interest: namespace, and its sid
    offering: bool = False  # the payload is one that may name endpoints
    content: bool = False  # a content of Jingle is open
    message: Message | None = None

    def open(self, direction: Direction, tag: Tag) -> None:
        """A tag of *direction* that begins an element at a depth from 2 to 5."""
        if tag.depth == 2:
            self.stanza = _stanza(direction, tag) if tag.name == b"iq" else None
            self.payload, self.message, self.content = (b"", b""), None, False
        elif self.stanza is None:
            return
        elif tag.depth == 3:
            self._open_payload(self.stanza, tag)
        elif tag.depth == 4:
            space = self.payload[0]
            self.content = space == JINGLE and tag.name == b"content" and _says(tag, JINGLE)
            if space == BYTESTREAMS and tag.name == b"streamhost-used":
                self.stanza.used = True
        elif self.content and tag.name == b"transport":
            attributes = tag.attributes()
            if value(attributes, b"xmlns") == JINGLE_S5B:
                stream = named(b"stream", value(attributes, b"sid"), self.stanza.party)
                session = named(b"session", self.payload[1], self.stanza.party)
                names = (self._of_stanza(self.stanza), stream, session)
                self.message = Message(tag.at, tag.depth, JINGLE_S5B, b"candidate", names)
                self.message.datagrams = _by_datagrams(attributes)

    def _open_payload(self, stanza: Stanza, tag: Tag) -> None:
        self.payload, self.message, self.offering = (b"", b""), None, False
        if tag.name not in (b"query", b"jingle"):
            return
        attributes = tag.attributes()
        space, sid = value(attributes, b"xmlns"), value(attributes, b"sid")
        if (tag.name, space) == (b"query", BYTESTREAMS):
            self.payload, self.offering = (space, sid), stanza.kind == b"set"
            if self.offering:
                names = (self._of_stanza(stanza), named(b"stream", sid, stanza.party))
                self.message = Message(tag.at, tag.depth, space, b"streamhost", names)
                self.message.datagrams = _by_datagrams(attributes)
        elif (tag.name, space) == (b"jingle", JINGLE) and stanza.kind == b"set":
            self.payload, self.offering = (space, sid), value(attributes, b"action") in _OFFERING

    @staticmethod
    def _of_stanza(stanza: Stanza) -> bytes:
        return named(b"stanza", stanza.ident, stanza.party)


def value(attributes: dict[bytes, Attribute], name: bytes, absent: bytes = b"") -> bytes:
    """The value of an attribute, or *absent*."""
    found = attributes.get(name)
    return absent if found is None else found.value


def _by_datagrams(attributes: dict[bytes, Attribute]) -> bool:
    """Whether a query or transport with them is for UDP; "tcp" is the default (XEP-0065, XEP-0260)."""
    return value(attributes, b"mode", b"tcp") != b"tcp"


def _says(tag: Tag, namespace: bytes) -> bool:
    """Whether *tag*, within an element of *namespace*, belongs to it."""
    return value(tag.attributes(), b"xmlns", namespace) == namespace


def _stanza(direction: Direction, tag: Tag) -> Stanza | None:
    attributes = tag.attributes()
    if value(attributes, b"xmlns", CLIENT) != CLIENT:
        return None
    sender, receiver = (_account(value(attributes, name)) for name in (b"from", b"to"))
    party = receiver if direction is Direction.ORIGINAL else sender
    local = bool(sender) and _domain(sender) == _domain(receiver)
    return Stanza(value(attributes, b"type"), named(value(attributes, b"id")), named(party), local)


def _account(jid: bytes) -> bytes:
    """A JID, user@server/resource, whose user and server may be written in either case.

    A server need not escape the characters that its client did.
    """
    for entity, character in _ENTITIES if b"&" in jid else ():
        jid = jid.replace(entity, character)
    user, slash, resource = jid.partition(b"/")
    return user.lower() + slash + resource


def _domain(jid: bytes) -> bytes:
    return jid.partition(b"/")[0].rpartition(b"@")[2]
