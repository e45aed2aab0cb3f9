"""XmppRedactor: redacts an XMPP connection; see core.redaction.

What stays: tags with the names of elements and attributes, namespaces, kinds, addresses and ports that
are written in digits. JIDs and ids become pseudonyms. All other values, and all text, are overwritten:
passwords, messages, names of files, pictures.
"""

from __future__ import annotations

import re
from typing import Final

from nfreaim.core.address import Direction
from nfreaim.core.redaction import FILL, Pseudonyms, filled
from nfreaim.errors import Foreign, Malformed
from nfreaim.helpers.xmpp.xmpp_resync import between_stanzas, whole_stanzas
from nfreaim.helpers.xmpp.xmpp_sign_on import ROOT
from nfreaim.layers.xml_stream import Kind, NotXml, Tag, XmlStream

_NAMES: Final = frozenset(
    {b"from", b"to", b"jid", b"id", b"sid", b"cid", b"previd", b"initiator", b"responder"}
)
_PLAIN: Final = frozenset({b"type", b"action", b"mode", b"priority", b"version", b"mechanism", b"creator"})
_SAFE: Final = re.compile(rb"[A-Za-z0-9.-]{1,24}")
_SPACE: Final = re.compile(rb"(?:urn:|http://|https://|jabber:)[A-Za-z0-9.:/#_+-]{1,120}|jabber:[a-z:]{1,40}")
_ADDRESS: Final = re.compile(rb"(?:[0-9]{1,3}\.){3}[0-9]{1,3}|[0-9A-Fa-f:]{2,40}")
_PORT: Final = re.compile(rb"[0-9]{1,5}")
_DECLARATION: Final = re.compile(rb"<\?xml[A-Za-z0-9 .='\"-]{1,80}\?>")
_BLANK: Final = re.compile(rb"[^ \t\r\n]")


class XmppRedactor:
    """See the head of this module, and core.redaction.Redactor."""

    __slots__ = ("_ends", "_names", "_streams", "_text", "account", "party", "recognised")

    def __init__(self, pseudonyms: Pseudonyms, midstream: bool) -> None:
        self.account, self.party, self.recognised = "", "", False
        self._names = pseudonyms
        self._streams: list[XmlStream | None] = [None if midstream else XmlStream() for _ in Direction]
        self._ends = [0, 0]
        self._text = b""  # the name of the server's last element, if its text is the client's name

    def redacted(self, direction: Direction, data: bytes) -> bytes:
        """See Redactor."""
        stream, start = self._streams[direction], self._ends[direction]
        if stream is None:  # met in its midst: it is read from a whole stanza on
            if whole_stanzas(data, start) is None:
                self._ends[direction] += len(data)
                return filled(data)
            stream = self._streams[direction] = between_stanzas()
        if not stream.depth and not start and not data.startswith(b"<"):
            raise Foreign("does not begin as a stream does")
        made: list[bytes] = []
        begun, end = stream.head, start
        try:
            for tag in stream.tags(data, start):
                raw = self._raw(tag, begun)
                if tag.at > end:
                    made.append(self._between(direction, data[end - start : tag.at - start]))
                made.append(self._tag(direction, tag, raw, stream))
                end, begun = tag.at + len(raw), b""
        except NotXml as error:
            raise Malformed(str(error)) from error
        self._ends[direction] = start + len(data)
        text_end = stream.at if stream.head else start + len(data)
        if not (stream.head and stream.at < start) and text_end > end:
            made.append(self._between(direction, data[end - start : text_end - start]))
        return b"".join(made)

    @staticmethod
    def _raw(tag: Tag, begun: bytes) -> bytes:
        if not tag.raw:
            raise Malformed("a tag is too long to be read")
        return tag.raw

    def _between(self, direction: Direction, text: bytes) -> bytes:
        """Text between two tags; only white space stands between stanzas."""
        if self._text and direction is Direction.REPLY:
            self.account, self._text = text.decode("utf-8", "replace"), b""
        return _BLANK.sub(FILL, text)

    def _tag(self, direction: Direction, tag: Tag, raw: bytes, stream: XmlStream) -> bytes:
        if tag.kind is Kind.DECLARATION:
            return raw if _DECLARATION.fullmatch(raw) else filled(raw)
        if tag.opens and tag.depth == 2 and tag.name == ROOT:
            stream.restart()
        if direction is Direction.REPLY:
            self._text = tag.name if tag.opens and (tag.depth, tag.name) == (4, b"jid") else b""
        made = bytearray(raw)
        try:
            attributes = tag.attributes()
            if tag.depth == 2 and tag.name == b"iq" and tag.opens:
                end = attributes.get(b"to" if direction is Direction.ORIGINAL else b"from")
                self.party = end.value.decode("utf-8", "replace") if end else ""
            for name, attribute in attributes.items():
                at = attribute.at - tag.at
                made[at : at + len(attribute.value)] = self._value(name, attribute.value)
        except NotXml as error:
            raise Malformed(str(error)) from error
        return bytes(made)

    def _value(self, name: bytes, value: bytes) -> bytes:
        if name == b"xmlns" or name.startswith(b"xmlns:"):
            return value if _SPACE.fullmatch(value) else filled(value)
        if name == b"host" and _ADDRESS.fullmatch(value):
            return value
        if name == b"port" and _PORT.fullmatch(value):
            return value
        if name in _PLAIN and _SAFE.fullmatch(value):
            return value
        if name in _NAMES or name == b"host":
            return self._names.name(value)
        return filled(value)
