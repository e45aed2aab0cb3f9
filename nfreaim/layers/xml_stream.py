"""XmlStream: the tags of an XML stream (RFC 6120), found on bytes, however its segments were cut.

No tree is built and no text is kept. Between tags is text, which is passed over; in a tag the walk knows its
name, attribute names, and values in single or double quotes. That is enough because RFC 6120, 11.1 forbids
comments, processing instructions, DOCTYPE and entities of one's own, and XML forbids "<" in text and in
values: so "<" always begins a tag, and ">" ends it unless it stands in quotes. CDATA, where this would not
hold, is refused, too. All bytes that count are ASCII, and no byte of a longer UTF-8 character is.

What is no such stream raises NotXml. A control character that XML does not have, or text that is in no child
of the root, raises Binary: something else begins there, as TLS, a compressed stream or a layer of SASL.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Iterator
from enum import IntEnum
from typing import Final, NamedTuple

LONGEST_TAG: Final = 8192
"""Most bytes of a tag that is kept; a longer one is walked through, and its attributes stay unread."""
DEEPEST: Final = 256
"""Elements within elements; recorded clients have fewer than 12."""

_S: Final = rb"[ \t\r\n]"
_NAME: Final = rb"[A-Za-z_\x80-\xff:][A-Za-z0-9_.\-\x80-\xff:]*+"
_VALUE: Final = rb"""(?:'[^'<\x00-\x08\x0b\x0c\x0e-\x1f]*+'|"[^"<\x00-\x08\x0b\x0c\x0e-\x1f]*+")"""
_ATTRIBUTE: Final = rb"%b++%b%b*+=%b*+%b" % (_S, _NAME, _S, _S, _VALUE)
# "++" and "*+" never give back what they took: a hostile tag takes no longer to read than another. Attributes
# are repeated by "*" alone, because Python 3.11.2 may take "*+" of a group for matched where it is not; each
# begins with white space and can be read in one way, so giving one back costs one more look, and fails.
_TAG: Final = re.compile(
    rb"<(?:/(?P<end>%b)%b*+|(?P<name>%b)(?:%b)*%b*+(?P<empty>/)?)>" % (_NAME, _S, _NAME, _ATTRIBUTE, _S)
)
_DECLARATION: Final = re.compile(rb"<\?xml(?:%b)+%b*+\?>" % (_ATTRIBUTE, _S))
_ATTRIBUTE_PARTS: Final = re.compile(rb"%b++(?P<name>%b)%b*+=%b*+(?P<value>%b)" % (_S, _NAME, _S, _S, _VALUE))
_HEAD: Final = re.compile(rb"</?+(?P<name>[^ \t\r\n/>]++)")
_SPECIAL: Final = re.compile(rb"[<>'\"]")
_CONTROL: Final = re.compile(rb"[\x00-\x08\x0b\x0c\x0e-\x1f]")
_BLANK: Final = b" \t\r\n"

_LONGEST_NAME: Final = 64
_LONGEST_HEAD: Final = _LONGEST_NAME + 3  # "</", name, and what shows that it is longer
_NO_NAME: Final = b"< "  # in place of the beginning of a tag that an earlier process has read
_NAMED_DEPTH: Final = 8  # of deeper elements the end tag's name is not compared
# A position: what of a tag has come (_Part), and the depth.
_POSITION: Final = struct.Struct("!BH")


class NotXml(ValueError):
    """The bytes are no stream of XML."""


class Binary(NotXml):
    """They are no text at all, or stand where only tags may."""


class Kind(IntEnum):
    """Of a tag."""

    START = 0
    END = 1
    EMPTY = 2  # an element of one tag
    DECLARATION = 3


class _Part(IntEnum):
    """What of a tag has come; as a part of positions, so a number must keep its meaning."""

    NONE = 0
    BRACKET = 1  # "<" alone
    END_TAG = 2
    START_TAG = 3
    SLASH = 4  # a start tag whose last byte is "/" so far
    APOSTROPHE = 5  # in a value of these quotes
    QUOTE = 6


_IN_QUOTES: Final = {_Part.APOSTROPHE: b"'", _Part.QUOTE: b'"'}


class Attribute(NamedTuple):
    """The value as it was written, which is the stream bytes from offset *at* on."""

    value: bytes
    at: int

    @property
    def end(self) -> int:
        """The offset behind its value."""
        return self.at + len(self.value)


class Tag(NamedTuple):
    """A tag whose ">" has come.

    at     the stream offset of its "<"
    depth  of its element: 1 is the root
    name   as written, with a prefix; empty if it is longer than 64 bytes
    raw    its bytes; empty if it was too long, or its beginning was not seen
    """

    at: int
    kind: Kind
    depth: int
    name: bytes
    raw: bytes

    @property
    def opens(self) -> bool:
        """Whether an element begins with it."""
        return self.kind is Kind.START or self.kind is Kind.EMPTY

    @property
    def closes(self) -> bool:
        """Whether an element ends with it."""
        return self.kind is Kind.END or self.kind is Kind.EMPTY

    def attributes(self) -> dict[bytes, Attribute]:
        """Its attributes by name. Raises NotXml if one is there twice."""
        found: dict[bytes, Attribute] = {}
        head = _HEAD.match(self.raw)
        pos = head.end() if head else 0
        # One is looked for where the last one ends, and nowhere else: a search would try each of the blanks
        # that a tag may end with, and of each read on to the last.
        while one := _ATTRIBUTE_PARTS.match(self.raw, pos):
            pos = one.end()
            if one["name"] in found:
                raise NotXml("a tag has an attribute twice")
            found[one["name"]] = Attribute(one["value"][1:-1], self.at + one.start("value") + 1)
        return found


class XmlStream:
    """One direction. *depth*: how many elements are open where reading stands.

    head  the beginning of a tag whose end is missing, from stream offset *at* on: all of it, or if that is
          too long its first bytes; empty between tags
    """

    __slots__ = ("_cut", "_names", "_quote", "_tail", "at", "depth", "head")

    def __init__(self) -> None:
        self.depth = 0
        self.head = b""
        self.at = 0
        self._cut = False  # head is not all of it
        self._quote = b""
        self._tail = b""  # the last two bytes of a tag that is cut
        self._names: list[bytes] = []  # of open elements from the root on; empty: unknown

    @property
    def resting(self) -> bool:
        """Whether reading stands between two children of the root."""
        return self.depth == 1 and not self.head

    def tags(self, data: bytes, start: int) -> Iterator[Tag]:
        """The tags that end in *data*, the bytes from offset *start* on. Take them all, or never feed again.

        Raises NotXml and Binary at the place that is wrong, behind the tags before it.
        """
        pos, size = 0, len(data)
        while pos < size:
            if self.head:
                pos = self._go_on(data, pos)
                if not pos:
                    return
                yield self._ended()
                continue
            at = data.find(b"<", pos)
            self._text(data, pos, size if at < 0 else at)
            if at < 0:
                return
            whole = _TAG.match(data, at)
            if whole is None or whole.end() - at > LONGEST_TAG:
                self.head, self.at, self._cut, self._quote = b"<", start + at, False, b""
                pos = at + 1
                continue
            pos = whole.end()
            yield self._matched(whole, start + at)

    def restart(self) -> None:
        """The root's start tag came a second time: a new document begins with it."""
        self.depth = 1
        self._names = self._names[-1:]

    def position(self) -> bytes:
        """Where reading stands: numbers."""
        return _POSITION.pack(self._part(), self.depth)

    def resume(self, position: bytes, at: int) -> None:
        """Go on at *position*, which is stream offset *at*. Raises ValueError if it is none."""
        if len(position) != _POSITION.size:
            raise ValueError(f"a position has {_POSITION.size} bytes, not {len(position)}")
        number, depth = _POSITION.unpack(position)
        part = _Part(number)
        if depth > DEEPEST:
            raise ValueError("no position in an XML stream")
        self.depth, self._names = depth, [b""] * min(depth, _NAMED_DEPTH)
        if part is not _Part.NONE:
            self.head = {_Part.BRACKET: b"<", _Part.END_TAG: b"</"}.get(part, _NO_NAME)
            self.at, self._cut, self._quote = at, True, _IN_QUOTES.get(part, b"")
            self._tail = b"/" if part is _Part.SLASH else b""

    def _part(self) -> _Part:
        if not self.head:
            return _Part.NONE
        if self.head == b"<":
            return _Part.BRACKET
        if self.head.startswith(b"</"):
            return _Part.END_TAG
        if self._quote:
            return _Part.APOSTROPHE if self._quote == b"'" else _Part.QUOTE
        tail = self._tail if self._cut else self.head
        return _Part.SLASH if tail.endswith(b"/") else _Part.START_TAG

    def _text(self, data: bytes, pos: int, end: int) -> None:
        """The bytes [pos, end) of *data*, between two tags."""
        control = _CONTROL.search(data, pos, end)
        if control is not None:
            raise Binary("goes on as something binary")
        if self.depth < 2 and data[pos:end].strip(_BLANK):
            raise Binary("has text where only stanzas may stand")

    def _go_on(self, data: bytes, pos: int) -> int:
        """Walk on in the tag that has begun. Returns where it ends in *data*; 0 if it does not."""
        began, size = pos, len(data)
        while True:
            if self._quote:
                end = data.find(self._quote, pos)
                if data.find(b"<", pos, size if end < 0 else end) >= 0:
                    raise NotXml("a value has a bracket in it")
                pos = end + 1
                if end < 0:
                    break
                self._quote = b""
            special = _SPECIAL.search(data, pos)
            pos = special.end() if special else 0
            if special is None or special[0] == b">":
                break
            if special[0] == b"<":
                raise NotXml("a tag has a bracket in it")
            self._quote = special[0]
        end = pos or size
        if _CONTROL.search(data, began, end):
            raise Binary("goes on as something binary")
        self._append(data[began:end])
        return pos

    def _append(self, more: bytes) -> None:
        """*more* bytes of the tag that has begun."""
        if self._cut or len(self.head) + len(more) > LONGEST_TAG:
            self._tail = ((self._tail if self._cut else self.head[-2:]) + more[-2:])[-2:]
            self._cut = True
            self.head = (self.head[:_LONGEST_HEAD] + more[:_LONGEST_HEAD])[:_LONGEST_HEAD]
        else:
            self.head += more
        if self.head[1:2] == b"!":
            raise NotXml("has a comment, CDATA or a document type")

    def _ended(self) -> Tag:
        """The tag in ``head``, whose end has come."""
        raw, self.head = self.head, b""
        if not self._cut:
            whole = _TAG.fullmatch(raw)
            if whole is not None:
                return self._matched(whole, self.at)
            if self.depth < 2 and _DECLARATION.fullmatch(raw):
                return Tag(self.at, Kind.DECLARATION, 0, b"", raw)
            raise NotXml("a tag is not well-formed")
        found = _HEAD.match(raw)
        name = found["name"] if found and len(found["name"]) <= _LONGEST_NAME else b""
        if raw.startswith(b"</"):
            return self._tag(Kind.END, b"", b"", self.at)
        return self._tag(Kind.EMPTY if self._tail == b"/>" else Kind.START, name, b"", self.at)

    def _matched(self, whole: re.Match[bytes], at: int) -> Tag:
        if whole["end"] is not None:
            return self._tag(Kind.END, whole["end"], whole[0], at)
        name = whole["name"] if len(whole["name"]) <= _LONGEST_NAME else b""
        return self._tag(Kind.EMPTY if whole["empty"] else Kind.START, name, whole[0], at)

    def _tag(self, kind: Kind, name: bytes, raw: bytes, at: int) -> Tag:
        """The tag, and what it does to the depth."""
        names = self._names
        if kind is not Kind.END:
            depth = self.depth + 1
            if depth > DEEPEST:
                raise NotXml("elements stand too deep in each other")
            if kind is Kind.START:
                self.depth = depth
                if depth <= _NAMED_DEPTH:
                    names.append(name)
            return Tag(at, kind, depth, name, raw)
        depth = self.depth
        if not depth:
            raise NotXml("more elements end than begin")
        self.depth -= 1
        if depth <= _NAMED_DEPTH:
            begun = names.pop()
            if begun and name and begun != name:
                raise NotXml("an element ends by another one's name")
        return Tag(at, kind, depth, name, raw)
