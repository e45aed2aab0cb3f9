"""XMPP's helper: what becomes of each message with addresses, in every cut, in both directions."""

from __future__ import annotations

import pytest

from nfreaim.core.address import Endpoint
from nfreaim.helpers.xmpp.socks5_greetings import GREETINGS
from tests.unit.helper_session import C2S, S2C
from tests.unit.xmpp_session import (
    BOB,
    INSIDE,
    NEIGHBOUR,
    OUTSIDE,
    RefusingNat,
    ScriptedNat,
    Session,
    at_home,
)
from tests.xmpp.texts import (
    ALICE,
    CAROL,
    LEAVES,
    OFFER,
    candidate,
    jingle,
    query,
    relayed,
    streamhost,
)

OWN, ROUTER = b"10.0.0.5", b"203.0.113.1"
PROXY = b"<streamhost jid='proxy.example.test' host='203.0.113.50' port='1080'/>"

# What a client says; its own address must leave as the router's, and nothing else change.
OFFERS = [
    OFFER,
    query(b'<streamhost port="43817" host="10.0.0.5" jid="a@b/c" />'),
    query(b"<streamhost\n host = '10.0.0.5'\r\n\tport='43817'></streamhost>"),
    query(b"<streamhost host='10.0.0.5' jid=\"a'b>c\" port='43817'/>"),
    query(streamhost(), streamhost("192.168.122.1"), PROXY),
    query(PROXY, b" \n", streamhost()),
    query(streamhost("alice.lan"), streamhost("fe80::1"), streamhost()),
    query(b"<x><streamhost/></x>", streamhost()),
    query(streamhost(), streamhost()),
    query(b"<streamhost xmlns='http://jabber.org/protocol/bytestreams' host='10.0.0.5' port='43817'/>"),
    OFFER.replace(b"<iq ", b"<iq xmlns='jabber:client' "),
    b"<message to='carol@example.test'><body>here it comes</body></message> \n" + OFFER + b"<presence/>",
    jingle(),
    jingle(candidate(kind=b"")),
    jingle(candidate(), candidate("192.168.122.1"), candidate("203.0.113.9", kind=b" type='proxy'")),
    *(jingle(action=action) for action in (b"session-accept", b"transport-replace", b"content-add")),
]
LEFT = [
    query(streamhost(NEIGHBOUR)),
    query(PROXY),
    query(streamhost("alice.lan")),
    query(streamhost("fe80::1")),
    query(b"<streamhost host='&#49;0.0.0.5' port='43817'/>"),
    query(b"<streamhost host='10.0.0.5' port='&#52;3817'/>"),
    query(b"<streamhost host='10.0.0.05' port='43817'/>"),
    query(b"<streamhost host='10.0.0.5 ' port='43817'/>"),
    query(b"<streamhost host='10.0.0.256' port='43817'/>"),
    query(b"<streamhost host='10.0.0.5' port='043817'/>"),
    query(b"<streamhost host='10.0.0.5' port='65536'/>"),
    query(b"<streamhost host='10.0.0.5' port='0'/>"),
    query(b"<streamhost host='10.0.0.5'/>"),
    query(b"<streamhost port='43817'/>"),
    query(b"<streamhost host='10.0.0.5' port='43817' zeroconf='_jabber.bytestreams'/>"),
    query(b"<bs:streamhost xmlns:bs='http://jabber.org/protocol/bytestreams' host='10.0.0.5' port='43817'/>"),
    query(b"<streamhost xmlns='x' host='10.0.0.5' port='43817'/>"),
    query(b"<x>" + streamhost() + b"</x>"),
    query(b"<streamhost-used host='10.0.0.5' port='43817'/>"),
    query(b"<streamhost>" + streamhost() + b"</streamhost>").replace(b"<streamhost>", b"<streamhost a='b'>"),
    OFFER.replace(b"type='set'", b"type='result'"),
    OFFER.replace(b"type='set'", b"type='get'"),
    OFFER.replace(b"type='set' ", b""),
    OFFER.replace(b"<iq ", b"<iq xmlns='jabber:server' "),
    OFFER.replace(b"/bytestreams", b"/bytestream"),
    OFFER.replace(b"query", b"si"),
    OFFER.replace(b"<query xmlns=", b"<query x="),
    OFFER.replace(b"iq", b"message"),
    b"<message to='carol@example.test'><body>%b</body></message>"
    % OFFER.replace(b"<", b"&lt;").replace(b">", b"&gt;"),
    b"<message to='carol@example.test'><x xmlns='urn:xmpp:forward:0'>%b</x></message>" % OFFER,
    b"<iq type='set' to='carol@example.test/pc'><si xmlns='http://jabber.org/protocol/si'>%b</si></iq>"
    % OFFER,
    b"<iq type='set'><body a=\"%b\"/></iq>" % streamhost().replace(b"<", b"&lt;"),
    jingle(candidate(NEIGHBOUR)),
    jingle(candidate(kind=b" type='assisted'")),
    jingle(candidate(kind=b" type='proxy'")),
    jingle(candidate(kind=b" type='tunnel'")),
    jingle(action=b"session-info"),
    jingle(action=b"session-terminate"),
    jingle(action=b"transport-info"),
    jingle().replace(b"s5b:1", b"ice-udp:1"),
    jingle().replace(b"urn:xmpp:jingle:1", b"urn:xmpp:jingle:0"),
    jingle().replace(b"content", b"contents"),
    jingle().replace(b"<content ", b"<content xmlns='x' "),
]


def leaves(said: bytes) -> bytes:
    return (
        said.replace(b"host='10.0.0.5'", b"host='203.0.113.1'")
        .replace(b'host="10.0.0.5"', b'host="203.0.113.1"')
        .replace(b"host = '10.0.0.5'", b"host = '203.0.113.1'")
    )


@pytest.mark.parametrize("said", OFFERS)
def test_own_address_leaves_as_the_routers_wherever_it_is_cut(said: bytes) -> None:
    expected = leaves(said)
    assert expected != said
    session = Session().signed_on()
    assert session.say(said) == expected
    assert session.say(said, *range(1, len(said))) == expected
    for cut in range(1, len(said), 3):
        session = Session().signed_on()
        assert session.say(said, cut) == expected, said[:cut]
        assert {expectation.inside for expectation in session.nat.expected} == {
            Endpoint(INSIDE, 5086 if b"jingle" in said else 43817)
        }
    assert session.reasons() == ["own address"]
    assert session.nat.counts == {"proposals": 1, "rewritten": 1}


@pytest.mark.parametrize("said", [query(streamhost(OUTSIDE)), query(PROXY, streamhost(OUTSIDE))])
def test_own_outside_address_is_as_good_as_the_inside_one(said: bytes) -> None:
    session = Session().signed_on()
    assert session.say(said) == said
    (wanted,) = session.nat.expected
    assert (wanted.inside, wanted.announced) == (Endpoint(INSIDE, 43817), Endpoint(OUTSIDE, 43817))
    assert session.reasons() == ["own outside address"]
    session = Session(ScriptedNat(moved={43817: 40000})).signed_on()
    assert session.say(said) == said.replace(b"43817", b"40000")


def test_proxy_at_the_outside_address_is_nobodys_own() -> None:
    said = query(PROXY.replace(b"203.0.113.50", OUTSIDE.encode()))
    session = Session().signed_on()
    assert session.say(said) == said
    assert session.nat.expected == []


def test_what_a_client_announces_that_nobody_reaches_is_said() -> None:
    session = Session().signed_on()
    session.say(query(streamhost("127.0.1.1")))
    assert "it announces 127.0.1.1 (loopback), and its connection comes from 10.0.0.5" in session.reasons()[0]


@pytest.mark.parametrize("said", LEFT)
def test_what_is_no_offer_of_its_own_stays(said: bytes) -> None:
    session = Session().signed_on()
    assert session.say(said) == said
    assert session.say(said, *range(1, len(said))) == said
    assert session.nat.expected == []
    assert session.nat.counts["rewritten"] == 0
    assert session.say(OFFER) == LEAVES  # nothing of it is remembered


@pytest.mark.parametrize("said", [query(streamhost(NEIGHBOUR)), query(PROXY)])
def test_nothing_waits_longer_than_an_edit_may_concern_it(said: bytes) -> None:
    """Another one's endpoint waits until its tag ends, and text and what stands elsewhere not at all."""
    session = Session().signed_on()
    begins = len(session.seen[C2S])
    first = said.find(b"<streamhost")
    last = said.find(b">", first)
    for at, byte in enumerate(said):
        hold = session.feed(C2S, bytes([byte]))
        waits = first <= at < last
        if not waits:
            assert hold in (None, begins + at)  # a tag that has just begun may be of any name
        else:
            assert hold == begins + first


def test_expectation_says_what_a_peer_says_first_and_is_the_same_for_the_same_offer() -> None:
    session = Session().signed_on()
    for said in (OFFER, OFFER, query(sid=b"s2"), OFFER.replace(CAROL, b"bob@example.test/pc")):
        session.say(said)
    first, again, other, another = session.nat.expected
    assert first == again
    assert len({first.agreement, other.agreement, another.agreement}) == 3
    assert (first.service, first.inside, first.greetings) == ("xmpp-file", Endpoint(INSIDE, 43817), GREETINGS)
    assert (first.peer, first.standing) == (None, False)


def test_port_that_is_taken_outside_is_announced_as_another() -> None:
    session = Session(ScriptedNat(moved={43817: 5, 5086: 40001})).signed_on()
    assert session.say(OFFER) == LEAVES.replace(b"43817", b"5")
    assert session.say(jingle()) == leaves(jingle()).replace(b"'5086'", b"'40001'")


def test_endpoints_of_one_message_share_a_pinhole_if_they_share_a_port() -> None:
    said = query(streamhost(port=6000), streamhost(port=6001), streamhost(port=6000))
    session = Session().signed_on()
    assert session.say(said) == leaves(said)
    assert [each.inside.port for each in session.nat.expected] == [6000, 6001]


def test_candidate_without_a_port_means_1080_and_cannot_be_given_another() -> None:
    said = jingle(candidate(port=None))
    session = Session().signed_on()
    assert session.say(said) == leaves(said)
    assert session.nat.expected[0].inside.port == 1080
    session = Session(ScriptedNat(moved={1080: 40001})).signed_on()
    assert session.say(said) == said
    assert session.nat.withdrawn == [session.nat.expected[0].agreement]


def test_message_is_edited_in_whole_or_left() -> None:
    said = query(streamhost(), streamhost(port=5555))
    session = Session(RefusingNat()).signed_on()
    assert session.say(OFFER) == LEAVES
    [offered] = session.nat.expected
    assert session.say(said) == said
    assert session.nat.withdrawn == []  # it is the same agreement as before
    assert session.say(query(*[streamhost(), streamhost(port=5555)], sid=b"s2")).count(OWN) == 2
    assert session.nat.withdrawn == [session.nat.expected[2].agreement] != [offered.agreement]
    assert session.reasons() == ["own address", "not this one", "not this one"]


def test_message_that_names_too_many_endpoints_or_is_too_long_is_left() -> None:
    most = query(*[streamhost(port=6000 + number) for number in range(8)])
    many = query(*[streamhost(port=6000 + number) for number in range(9)])
    others = query(*[streamhost("192.168.0.1", 6000 + number) for number in range(60)], streamhost())
    padded = query(streamhost(), b" " * 8192)
    session = Session().signed_on()
    for said, expected in ((most, leaves(most)), (many, many), (others, leaves(others)), (padded, padded)):
        assert session.say(said) == expected
    assert [session.reasons()[place] for place in (1, 3)] == ["names too many endpoints", "is too long"]


def test_message_that_has_left_in_part_stays() -> None:
    session = Session().signed_on()
    at = OFFER.index(b"' port")
    session.feed(C2S, OFFER[:at])
    session.nat.left[C2S] += at  # its time to wait is over
    assert session.feed(C2S, OFFER[at:]) is None
    assert session.edits[0] == []
    assert session.reasons() == ["its addresses had left before its end came"]


# --- back to the own network --------------------------------------------------------------------------------


@pytest.mark.parametrize("said", [relayed(OFFER), relayed(query(PROXY, streamhost())), relayed(jingle())])
def test_pinhole_of_a_neighbour_is_mapped_back(said: bytes) -> None:
    """Prosody shuffles the attributes, so the same holds for any order."""
    arrives, port = leaves(said), 5086 if b"jingle" in said else 43817
    expected = said.replace(OWN, NEIGHBOUR.encode()).replace(b"'%d'" % port, b"'5500'")
    for cut in range(1, len(arrives), 3):
        nat = ScriptedNat(pinholes={Endpoint(OUTSIDE, port): Endpoint(NEIGHBOUR, 5500)})
        session = Session(nat).signed_on()
        assert session.hear(arrives, cut) == expected
        assert session.nat.expected == []
    assert session.reasons() == ["pinhole of this router"]
    assert session.nat.counts == {"proposals": 1, "mapped_back": 1}


def test_what_arrives_and_names_no_pinhole_stays() -> None:
    nat = ScriptedNat(pinholes={Endpoint(OUTSIDE, 1): Endpoint(NEIGHBOUR, 5500)})
    for said in (
        relayed(OFFER),
        relayed(LEAVES),
        relayed(jingle()),
        relayed(OFFER.replace(b"set", b"result")),
    ):
        assert Session(nat).signed_on().hear(said) == said
    assert nat.expected == []


def test_nothing_that_arrives_waits_while_there_is_no_pinhole() -> None:
    session = Session().signed_on()
    session.hear(relayed(LEAVES), *range(1, len(relayed(LEAVES))))
    assert session.holds == []


# --- answers ------------------------------------------------------------------------------------------------

ERROR = b"<iq from='%b' id='%b' type='error' to='%b'><error code='404' type='cancel'/></iq>"
USED = (
    b"<iq from='%b' id='%b' type='result' to='%b'><query xmlns='http://jabber.org/protocol/bytestreams'>"
    b"<streamhost-used jid='alice@example.test/pc'/></query></iq>"
)
CANDIDATE_USED, CANDIDATE_ERROR = (
    relayed(jingle(child, action=b"transport-info"))
    for child in (b"<candidate-used cid='c'/>", b"<candidate-error/>")
)


@pytest.mark.parametrize("sender", [CAROL, CAROL.replace(b"carol", b"Carol")])
def test_answers_of_the_peer_end_its_pinhole(sender: bytes) -> None:
    session = Session().signed_on()
    session.say(OFFER)
    [offered] = session.nat.expected
    session.hear(USED % (sender, b"q1", ALICE))
    assert session.nat.agreed == [offered.agreement]
    session.hear(ERROR % (sender, b"q1", ALICE))
    session.hear(ERROR % (sender, b"q1", ALICE))
    assert session.nat.withdrawn == [offered.agreement]


@pytest.mark.parametrize(
    "answer",
    [
        ERROR % (b"mallory@example.test/pc", b"q1", ALICE),
        ERROR % (b"carol@example.test/PC", b"q1", ALICE),
        ERROR % (CAROL, b"q2", ALICE),
        USED % (b"mallory@example.test/pc", b"q1", ALICE),
        (USED % (CAROL, b"q1", ALICE)).replace(b"result", b"get"),
        (USED % (CAROL, b"q1", ALICE)).replace(b"-used", b""),
        b"<message from='%b' type='error' id='q1'/>" % CAROL,
        CANDIDATE_USED,
        CANDIDATE_ERROR,
        relayed(jingle(action=b"session-terminate")),
    ],
)
def test_what_is_no_answer_of_the_peer_changes_nothing(answer: bytes) -> None:
    session = Session().signed_on()
    session.say(OFFER)
    session.hear(answer)
    session.say(ERROR % (CAROL, b"q1", ALICE))  # nor can the client answer itself
    assert session.nat.agreed == session.nat.withdrawn == []


def test_answers_of_jingle() -> None:
    session = Session().signed_on()
    session.say(jingle())
    [offered] = session.nat.expected
    session.hear(CANDIDATE_USED.replace(CAROL, b"mallory@example.test/pc"))
    assert session.nat.agreed == []
    session.hear(CANDIDATE_USED)
    assert session.nat.agreed == [offered.agreement]
    session.hear(CANDIDATE_ERROR)
    assert session.nat.withdrawn == [offered.agreement]
    session.say(jingle())
    session.hear(relayed(jingle(action=b"session-terminate")))
    session.say(jingle())
    session.say(jingle(action=b"session-terminate"))
    assert session.nat.withdrawn == [offered.agreement] * 3


# --- a server inside ----------------------------------------------------------------------------------------

TOLD = relayed(OFFER, ALICE, b"bob@example.test/pc")


def test_server_inside_relays_the_offer_of_an_inside_host() -> None:
    for cut in range(1, len(TOLD), 3):
        session = Session(at_home()).signed_on()
        assert session.hear(TOLD, cut) == leaves(TOLD)
        [expected] = session.nat.expected
        assert (expected.inside, expected.peer) == (Endpoint(INSIDE, 43817), BOB)
    assert session.reasons() == ["host of the inside networks"]
    session.say(ERROR % (b"bob@example.test/pc", b"q1", b"alice@example.test/pc"))
    assert session.nat.withdrawn == [expected.agreement]


def test_other_interfaces_of_an_inside_host_keep_nothing_from_being_served() -> None:
    """Which of the addresses is the sender's the server does not say."""
    ends = b"from='%b' to='bob@example.test/pc'" % ALICE
    hosts = streamhost("10.9.9.9"), streamhost(), streamhost("10.8.8.8", 5555), streamhost("192.168.122.1")
    session = Session(at_home()).signed_on()
    said = query(*hosts, ends=ends)
    assert session.hear(said) == leaves(said)
    assert [each.inside.address for each in session.nat.expected] == [INSIDE]
    said = query(hosts[0], ends=ends)
    assert session.hear(said) == said
    assert session.reasons() == ["host of the inside networks", "not this one"]


@pytest.mark.parametrize(
    "said",
    [
        TOLD.replace(b"from='alice@example.test", b"from='alice@evil.example"),  # of another server
        TOLD.replace(b"from='alice@example.test/pc'", b""),
        TOLD.replace(b"to='bob@example.test/pc'", b""),
        *(TOLD.replace(b"43817", port) for port in (b"1080", b"9050")),
        leaves(TOLD),
        TOLD.replace(OWN, BOB.encode()),
    ],
)
def test_what_else_a_server_inside_relays_stays(said: bytes) -> None:
    session = Session(at_home()).signed_on()
    assert session.hear(said) == said
    assert session.nat.expected == []


def test_what_clients_outside_say_to_a_server_inside_stays() -> None:
    session = Session(at_home()).signed_on()
    assert session.say(OFFER) == OFFER
    assert session.say(leaves(OFFER)) == leaves(OFFER)
    assert session.nat.expected == []
    assert session.nat.reports == []
    assert S2C not in session.holds
