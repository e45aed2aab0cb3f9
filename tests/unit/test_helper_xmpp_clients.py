"""XMPP's helper: what clients other than the recorded ones write, after specifications and sources."""

from __future__ import annotations

import pytest

from nfreaim.core.address import Direction, Endpoint
from tests.unit.helper_session import C2S, S2C
from tests.unit.xmpp_session import (
    INSIDE,
    NEIGHBOUR,
    OUTSIDE,
    RESUMED,
    SIGN_ON,
    ScriptedNat,
    Session,
    at_home,
)
from tests.xmpp.texts import HEADER, LEAVES, MESSAGE, OFFER, jingle, query, relayed, streamhost

# Psi, which offers from both sides at once; Gajim with IPv6; Smack, and whoever else writes the mode.
PSI = (
    b'<iq type="set" to="carol@example.test/pc" id="ab8aa">\n'
    b'<query xmlns="http://jabber.org/protocol/bytestreams" mode="tcp" sid="s5b_1">\n'
    b'<fast xmlns="http://affinix.com/jabber/stream"/>\n'
    b'<streamhost port="8010" host="10.0.0.5" jid="alice@example.test/pc"/>\n'
    b'<streamhost port="7777" host="proxy.example.test" jid="proxy.example.test"/>\n</query>\n</iq>\n'
)
GAJIM = (
    b'<iq xmlns="jabber:client" to="carol@example.test/pc" type="set" id="au_12">'
    b'<query xmlns="http://jabber.org/protocol/bytestreams" mode="tcp" sid="x1">'
    b'<streamhost host="fe80::1" jid="alice@example.test/pc" port="28011" />'
    b'<streamhost host="10.0.0.5" jid="alice@example.test/pc" port="28011" /></query></iq>'
)


@pytest.mark.parametrize("said", [PSI, GAJIM])
def test_own_address_in_what_others_write(said: bytes) -> None:
    leaves = said.replace(b'"10.0.0.5"', b'"203.0.113.1"')
    for cut in range(1, len(said), 7):
        assert Session().signed_on().say(said, cut) == leaves


# --- sign-ons ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("turns", [SIGN_ON, RESUMED], ids=["bind", "resumed"])
def test_client_need_not_wait_for_the_servers_second_header(turns: list[tuple[Direction, bytes]]) -> None:
    """XEP-0305: it says in one go what the server answers in one go."""
    (_, header), (_, answer), (_, asks), (_, result) = turns[4:]
    hurried = [*turns[:4], (C2S, header + asks), (S2C, answer + result)]
    assert Session().signed_on(hurried).say(OFFER) == LEAVES
    session = Session()
    for direction, text in [*hurried[:5], (S2C, result)]:
        session.feed(direction, text)
    assert not session.helper.established  # in the stream before


def test_stranger_cannot_end_the_reading_by_quoting_a_header() -> None:
    session = Session().signed_on()
    session.hear(MESSAGE.replace(b"hello", HEADER + b"</stream:stream>"))
    assert session.say(OFFER) == LEAVES


# --- names --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("said", "relayed_as"),
    [(b"Carol's PC", b"Carol&apos;s PC"), (b"&lt;&amp;>", b"&lt;&amp;&gt;"), (b"&amp;lt;", b"&amp;lt;")],
)
def test_user_is_the_same_however_a_server_escapes_the_name(said: bytes, relayed_as: bytes) -> None:
    session = Session().signed_on()
    session.say(OFFER.replace(b"'carol@example.test/pc'", b'"carol@example.test/%b"' % said))
    [offered] = session.nat.expected
    answer = b"<iq from='carol@example.test/%b' id='q1' type='error' to='alice@example.test/pc'/>"
    session.hear(answer % b"&lt;")
    assert session.nat.withdrawn == []
    session.hear(answer % relayed_as)
    assert session.nat.withdrawn == [offered.agreement]


# --- UDP ----------------------------------------------------------------------------------------------------

UDP = [
    query().replace(b"sid='s1'", b"sid='s1' mode='udp'"),
    query().replace(b"<query ", b'<query mode="udp" '),
    jingle().replace(b"mode='tcp'", b"mode='udp'"),
]


@pytest.mark.parametrize("said", UDP)
def test_stream_of_datagrams_is_left_and_does_not_wait(said: bytes) -> None:
    """Its peer would reach the listener by TCP, and then send to the same port by UDP, which is closed."""
    session = Session().signed_on()
    assert session.say(said, *range(1, len(said))) == said
    assert (session.nat.expected, session.reasons()) == ([], ["is for UDP"])
    assert session.holds == []
    home = Session(at_home()).signed_on()
    told = relayed(said, b"alice@example.test/pc", b"bob@example.test/pc")
    assert home.hear(told) == told
    assert home.nat.expected == []


def test_stream_of_datagrams_is_not_mapped_back() -> None:
    pinholes = {Endpoint(OUTSIDE, port): Endpoint(NEIGHBOUR, 5500) for port in (43817, 5086)}
    for said in UDP:
        told = relayed(said.replace(INSIDE.encode(), OUTSIDE.encode()))
        assert Session(ScriptedNat(pinholes=pinholes)).signed_on().hear(told) == told


# --- a server at home ---------------------------------------------------------------------------------------


def test_port_of_proxies_keeps_nothing_else_from_being_served() -> None:
    """The server's own proxy (XEP-0065) may be there, and be named beside the sender."""
    ends = b"from='alice@example.test/pc' to='bob@example.test/pc'"
    proxy = streamhost("10.0.0.9", 1080)
    session = Session(at_home()).signed_on()
    assert session.hear(query(streamhost(), proxy, ends=ends)) == query(streamhost(OUTSIDE), proxy, ends=ends)
    assert [each.inside for each in session.nat.expected] == [Endpoint(INSIDE, 43817)]
    assert session.hear(query(proxy, ends=ends)) == query(proxy, ends=ends)
    assert session.reasons() == ["host of the inside networks", "names a port of SOCKS proxies"]
