"""Stanzas: any bytes in both directions of an XMPP connection, straight into its helper.

An input is a row of pieces (pieces.py), played as it stands and in cuts: what leaves must be the same. An
independent reading of both streams says what may differ: the host and port of a streamhost or candidate, as
the pinholes of the session say, and, by an XML parser that knows namespaces, where such an element may stand.
"""

from __future__ import annotations

import random
import re
from itertools import product
from typing import Final
from xml.parsers import expat

from nfreaim.core.address import Endpoint
from tests.fuzz.pieces import Opened, Piece, Ways, opened_by, passed, pieces_of, rearranged, written
from tests.unit.helper_session import C2S, S2C
from tests.unit.xmpp_session import BOB, INSIDE, NEIGHBOUR, OUTSIDE, ScriptedNat, Session, at_home
from tests.xmpp.texts import (
    ENDING,
    MESSAGE,
    OLD_SIGN_ON,
    SIGN_ON,
    TLS,
    candidate,
    jingle,
    query,
    streamhost,
)

MOST_KEPT: Final = 2 * (8192 + 8 * 512)
_MOVED: Final = {43817: 40001}
_TAGS: Final = re.compile(rb"""<(?:'[^'<]*'|"[^"<]*"|[^<>'"])*>""")
_VALUES: Final = re.compile(rb"""([a-zA-Z:]+)[ \t\r\n]*=[ \t\r\n]*(?:'([^']*)'|"([^"]*)")""")
_QUERY: Final = (
    "http://jabber.org/protocol/bytestreams query",
    "http://jabber.org/protocol/bytestreams streamhost",
)
_JINGLE: Final = (
    *("urn:xmpp:jingle:1 jingle", "urn:xmpp:jingle:1 content"),
    *("urn:xmpp:jingle:transports:s5b:1 transport", "urn:xmpp:jingle:transports:s5b:1 candidate"),
)


def play(data: bytes) -> None:
    """One input, with the client and with the server inside. Raises if something that must hold does not."""
    pieces = list(pieces_of(data))
    for inside in (C2S, S2C):
        whole, opened = _left(pieces, inside, cut=False)
        parts, _ = _left(pieces, inside, cut=True)
        assert whole == parts, "what leaves depends on the cuts"
        for way, (came, left) in enumerate(whole):
            _judge(came, left, opened, out=way == inside)


def _left(pieces: list[Piece], inside: int, cut: bool) -> tuple[Ways, Opened]:
    """By direction what came and what left of it, and the pinholes."""
    nat = at_home() if inside == S2C else ScriptedNat()
    nat.moved = _MOVED
    nat.pinholes[Endpoint(OUTSIDE, 40002)] = Endpoint(NEIGHBOUR, 5500)
    before = dict(nat.pinholes)
    session = Session(nat)
    left = passed(session, pieces, cut, MOST_KEPT)
    assert session.helper.established or not nat.expected, "something opens before sign-on"
    for expectation in nat.expected:
        assert expectation.greetings
        assert expectation.inside.address == INSIDE or (inside == S2C and expectation.peer == BOB)
    return left, opened_by(nat, OUTSIDE) | set(before.items())


def _judge(came: bytes, left: bytes, opened: Opened, out: bool) -> None:
    if came == left:
        return
    at = place = 0
    for one, two in zip(_TAGS.finditer(came), _TAGS.finditer(left), strict=True):
        assert came[at : one.start()] == left[place : two.start()], "text was changed"
        at, place = one.end(), two.end()
        if one[0] != two[0]:
            _edited(one[0], two[0], opened, out)
            _stands(came[: one.end()])
    assert came[at:] == left[place:], "something was changed that is no whole tag"


def _edited(before: bytes, after: bytes, opened: Opened, out: bool) -> None:
    assert re.match(rb"<(?:streamhost|candidate)[ \t\r\n]", before)
    old, new = (_VALUES.findall(each) for each in (before, after))
    assert _VALUES.sub(b"", before) == _VALUES.sub(b"", after)
    assert [name for name, *_ in old] == [name for name, *_ in new]
    one, two = ({name: first + second for name, first, second in each} for each in (old, new))
    assert {name for name in one if one[name] != two[name]} <= {b"host", b"port"}
    ends = [Endpoint(each[b"host"].decode(), int(each.get(b"port", b"1080"))) for each in (one, two)]
    assert tuple(reversed(ends) if out else ends) in opened, ends


def _stands(before: bytes) -> None:
    """The element whose start tag ends *before* stands where it may, if a parser of XML reads so far."""
    stack: list[tuple[str, dict[str, str]]] = []
    parser = expat.ParserCreate(namespace_separator=" ")
    parser.StartElementHandler = lambda name, attributes: stack.append((name, attributes))
    last: list[tuple[str, dict[str, str]]] = []

    def end(name: str) -> None:
        last[:] = stack
        stack.pop()

    parser.EndElementHandler = end
    try:
        parser.Parse(before[before.rfind(b"<stream:stream") :], False)
    except expat.ExpatError:
        return  # it has no such prefix, no UTF-8, or no such entity: nobody reads it
    path = last if before.endswith(b"/>") else stack
    names = tuple(name for name, _ in path)
    assert names[:2] == ("http://etherx.jabber.org/streams stream", "jabber:client iq"), names
    assert names[2:] in (_QUERY, _JINGLE), names
    assert path[1][1]["type"] == "set"


def seeds() -> list[bytes]:
    """Sessions with offers of every kind, in different cuts, and with what ends the reading."""
    told = b"from='alice@example.test/pc' to='bob@example.test/pc'"
    hosts = [
        streamhost(),
        streamhost(NEIGHBOUR),
        streamhost(OUTSIDE, 40002),
        streamhost() + streamhost("fe80::1", 1) + streamhost(port=6000),
        b'<streamhost\n port = "43817" host="10.0.0.5"></streamhost>',
    ]
    stanzas = [query(host, ends=ends) for host, ends in product(hosts, (b"", told))]
    stanzas += [
        jingle(candidate(host, port), ends=told) for host in (INSIDE, OUTSIDE) for port in (None, 40002)
    ]
    stanzas.append(query().replace(b"/bytestreams", b"/bytestream"))
    stanzas.append(b"<message><x xmlns='urn:xmpp:forward:0'>%b</x></message>" % query())
    stanzas += [MESSAGE + b" " + stanzas[0], jingle(action=b"session-terminate", ends=told)]
    found: list[list[Piece]] = []
    for stanza, cut in product(stanzas, (0, 10, 80)):
        found.append([*SIGN_ON, (cut, stanza), (cut | 1, stanza), (0, ENDING)])
    found.append([*OLD_SIGN_ON, (2, stanzas[0])])
    found += [
        [*SIGN_ON, (1, end), (0, stanzas[0])] for end in (b"<proceed %b/>" % TLS, b"\x16\x03", b"<!-- -->")
    ]
    for answer in (b"<iq type='error' id='q1' %b/>", b"<iq type='result' id='q1' %b><query/></iq>"):
        found.append(
            [*SIGN_ON, (0, stanzas[0]), (1, answer % b"from='carol@example.test/pc'"), (0, stanzas[0])]
        )
    return [written(pieces) for pieces in found]


def mutated(data: bytes, limit: int, rng: random.Random) -> bytes:
    """*data* with pieces changed, repeated, joined or removed."""
    return rearranged(data, limit, rng, _damaged, damage=0.7, repeat=0.1)


_WORDS: Final = (
    *(b"<", b">", b"'", b'"', b"/", b"&", b"=", b" ", b"<a>", b"</a>", b"<a b='c'/>", b"\xc3", b"\0"),
    *(b"<iq type='set'>", b"</iq>", b"<query xmlns='http://jabber.org/protocol/bytestreams'>", b"</query>"),
    *(streamhost(), candidate(), b"10.0.0.5", b"203.0.113.1", b"43817", b"40002", b"xmlns='x'", b"<x:"),
)


def _damaged(piece: bytes, rng: random.Random) -> bytes:
    places = [found.start() for found in re.finditer(rb"[<>'\" ]", piece)] or [0]
    at = rng.choice(places) + rng.choice((0, 1)) if rng.random() < 0.7 else rng.randrange(len(piece))
    end = at + rng.choice((0, 0, 1, 2, 8, 40))
    start = rng.choice(places)
    copied = piece[start : start + rng.choice((5, 30, 200))]
    return piece[:at] + rng.choice((rng.choice(_WORDS), rng.choice(_WORDS), copied, b"")) + piece[end:]
