"""The tokenizer of XML streams: what it finds however its bytes are cut, what it refuses, its bounds."""

from __future__ import annotations

import random
from xml.parsers import expat

import pytest

from nfreaim.layers.xml_stream import DEEPEST, LONGEST_TAG, Binary, Kind, NotXml, Tag, XmlStream

DOCUMENT = (
    b"<?xml version='1.0' ?>\n<s:s to=\"a\" x='1' y = \"it's\" >"
    b" \n<m><body>text &lt;q a='b'&gt; &#39;\"'\xc3\xa9</body></m >"
    b"<iq\n id\t=\r'a>b/'  z='\"'\t/><a><b><c.d-e_f/></b></a>"
    b"<p/>\n</s:s>"
)


def tags(stream: XmlStream, *pieces: bytes) -> list[Tag]:
    found: list[Tag] = []
    start = 0
    for piece in pieces:
        found += stream.tags(piece, start)
        start += len(piece)
    return found


def seen_by_expat(document: bytes) -> list[tuple[bool, str, dict[str, str]]]:
    events: list[tuple[bool, str, dict[str, str]]] = []
    parser = expat.ParserCreate()
    parser.StartElementHandler = lambda name, attributes: events.append((True, name, attributes))
    parser.EndElementHandler = lambda name: events.append((False, name, {}))
    parser.Parse(document, True)
    return events


def events_of(found: list[Tag]) -> list[tuple[bool, str, dict[str, str]]]:
    events: list[tuple[bool, str, dict[str, str]]] = []
    for tag in found:
        if tag.opens:
            values = {name.decode(): one.value.decode() for name, one in tag.attributes().items()}
            events.append((True, tag.name.decode(), values))
        if tag.closes:
            events.append((False, tag.name.decode(), {}))
    return events


def test_a_parser_of_xml_sees_the_same() -> None:
    found = tags(XmlStream(), DOCUMENT)
    assert found[0].kind is Kind.DECLARATION
    assert events_of(found) == seen_by_expat(DOCUMENT)
    for tag in found:
        assert DOCUMENT[tag.at : tag.at + len(tag.raw)] == tag.raw
        for one in tag.attributes().values() if tag.kind is not Kind.DECLARATION else ():
            assert DOCUMENT[one.at : one.end] == one.value


def test_cuts_make_no_difference() -> None:
    whole = tags(XmlStream(), DOCUMENT)
    assert tags(XmlStream(), *(bytes([byte]) for byte in DOCUMENT)) == whole
    for cut in range(1, len(DOCUMENT)):
        stream = XmlStream()
        assert tags(stream, DOCUMENT[:cut], DOCUMENT[cut:]) == whole
        assert (stream.depth, stream.head) == (0, b"")


@pytest.mark.parametrize(
    "wrong",
    [
        b"<a b='<'/>",
        b"<a <b/>",
        b"<a b=1/>",
        b"<a b='1'c='2'/>",
        b"<a b/>",
        b"<a b='1/>'",
        b"< a/>",
        b"<a / >",
        b"</a b='1'>",
        b"<1/>",
        b"<>",
        b"</>",
        b"<a></b>",
        b"</s></s>",
        b"<!-- a -->",
        b"<![CDATA[<a/>]]>",
        b"<!DOCTYPE a>",
        b"<a><?pi?></a>",
        b"<a\x00/>",
        b"<a b='\x16\x03'/>",
        b"\x16\x03\x01",
        b"text",
        b"<a/>text",
        b"<a>\x01</a>",
    ],
)
def test_what_is_no_such_stream_is_refused_wherever_it_is_cut(wrong: bytes) -> None:
    end = b"<e/>"  # a tag that never ends is seen at the next one
    for size in range(1, len(wrong) + 1):
        stream = XmlStream()
        tags(stream, b"<s>")
        pieces = [(wrong + end)[at : at + size] for at in range(0, len(wrong + end), size)]
        with pytest.raises(NotXml):
            tags(stream, *pieces)


@pytest.mark.parametrize("wrong", [b"\x16\x03\x01", b"<a>\0", b"<a b='\x08", b"<a\x1f", b"text", b"<a/>\x0e"])
def test_what_is_binary_is_foreign(wrong: bytes) -> None:
    stream = XmlStream()
    tags(stream, b"<s>")
    with pytest.raises(Binary):
        tags(stream, wrong)


def test_attributes_are_read_from_the_name_on_without_a_search() -> None:
    """A search of 8,000 blanks for what begins with a blank would take 32 million steps."""
    for raw in (b"<a b='1' ? c='2'>", b"<a b='1'\0 c='2'/>"):
        assert Tag(7, Kind.START, 2, b"a", raw).attributes() == {b"b": (b"1", 13)}
    [tag] = tags(XmlStream(), b"<" + b"n" * 100 + b" b='1'" + b" " * 8000 + b"/>")
    assert tag.attributes() == {b"b": (b"1", 105)}


def test_attribute_that_is_there_twice_is_refused() -> None:
    [tag] = tags(XmlStream(), b"<a b='1' c='2' b='1'/>")
    with pytest.raises(NotXml):
        tag.attributes()


def test_tags_before_the_wrong_place_are_told_of() -> None:
    found = XmlStream().tags(b"<s><proceed/>\x16\x03", 0)
    assert [next(found).name, next(found).name] == [b"s", b"proceed"]
    with pytest.raises(Binary):
        next(found)


@pytest.mark.parametrize("size", [1, 700, LONGEST_TAG * 3])
@pytest.mark.parametrize("ending", [b"/>", b">", b" / '/>"])
def test_tag_that_is_too_long_is_walked_through(size: int, ending: bytes) -> None:
    stream = XmlStream()
    tags(stream, b"<s>")
    tag = b"<abc d='" + b"x>" * LONGEST_TAG + (b"'" if ending != b" / '/>" else b"") + ending + b"<e/>"
    found = tags(stream, *(tag[at : at + size] for at in range(0, len(tag), size)))
    empty = ending != b">"
    assert [(one.kind, one.name, one.depth) for one in found] == [
        (Kind.EMPTY if empty else Kind.START, b"abc", 2),
        (Kind.EMPTY, b"e", 2 if empty else 3),
    ]
    assert found[0].raw == b""


def test_what_is_kept_of_a_tag_has_a_bound() -> None:
    for beginning in (b"<a b='", b"<", b"</", b"<a ", b"<a b "):
        stream = XmlStream()
        for _ in range(200):
            tags(stream, beginning + b"x" * 100)
            beginning = b""
            assert len(stream.head) <= LONGEST_TAG
        if b"'" not in stream.head:
            assert len(stream.head) < 100


def test_long_names_are_no_names() -> None:
    found = tags(XmlStream(), b"<s><%b/><%b/></s>" % (b"a" * 64, b"a" * 65))
    assert [len(tag.name) for tag in found] == [1, 64, 0, 1]


def test_depth_has_a_bound() -> None:
    stream = XmlStream()
    tags(stream, b"<a>" * DEEPEST)
    with pytest.raises(NotXml):
        tags(stream, b"<a>")
    stream = XmlStream()
    tags(stream, b"<a>" * DEEPEST + b"</a>" * DEEPEST)
    assert stream.depth == 0


@pytest.mark.parametrize("cut", range(len(DOCUMENT)))
def test_reading_goes_on_where_it_stood(cut: int) -> None:
    first = XmlStream()
    before = tags(first, DOCUMENT[:cut])
    if first.head.startswith(b"<?") or first.position()[0] == 1:
        return  # the declaration comes before anything is saved; what follows "<" alone, below
    second = XmlStream()
    second.resume(first.position(), cut)
    after = list(second.tags(DOCUMENT[cut:], cut))
    whole = tags(XmlStream(), DOCUMENT)
    assert [(one.kind, one.depth) for one in before + after] == [(one.kind, one.depth) for one in whole]
    assert after[1:] == whole[len(before) + 1 :]


def test_reading_goes_on_behind_a_bracket() -> None:
    for rest, kind in ((b"/a>", Kind.END), (b"b/>", Kind.EMPTY), (b"b>", Kind.START)):
        first = XmlStream()
        tags(first, b"<a><")
        second = XmlStream()
        second.resume(first.position(), 4)
        [tag] = second.tags(rest, 4)
        assert tag.kind is kind


@pytest.mark.parametrize("bad", [b"", b"\0", b"\0\0\0\0", b"\7\0\1", b"\0\1\1"])
def test_positions_that_are_none_are_refused(bad: bytes) -> None:
    with pytest.raises(ValueError, match=r"position|_Part"):
        XmlStream().resume(bad, 0)


def test_garbage_raises_nothing_but_not_xml() -> None:
    generator = random.Random(5)
    pieces = [
        b"<",
        b">",
        b"'",
        b'"',
        b"=",
        b" ",
        b"/",
        b"a",
        b"a='b'",
        b"<a>",
        b"</a>",
        b"<a/>",
        b"\xff",
        b"?",
    ]
    for _ in range(2000):
        data = b"<s>" + b"".join(generator.choices(pieces, k=12))
        outcomes = []
        for size in (1, 3, len(data)):
            stream = XmlStream()
            found: list[Tag] = []
            try:
                for at in range(0, len(data), size):
                    found += stream.tags(data[at : at + size], at)
                outcomes.append((found, stream.depth, stream.head))
            except NotXml:
                outcomes.append(([], -1, b""))
        assert outcomes[1:] == outcomes[:-1], data
