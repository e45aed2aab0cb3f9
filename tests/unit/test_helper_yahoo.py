"""Yahoo! Messenger's helper: which packets it changes and how, in whatever pieces they come; what stays."""

from __future__ import annotations

import random

import pytest

from nfreaim.core.address import Endpoint
from nfreaim.core.greeting import match
from tests.golden import load
from tests.unit.helper_session import C2S
from tests.unit.yahoo_session import INSIDE, NEIGHBOUR, OFFER, OFFERED, OUTSIDE, ScriptedNat, Session
from tests.yahoo.ymsg import (
    ACCEPT15,
    FILETRANSFER,
    INFO15,
    MESSAGE,
    OFFER15,
    OLD,
    P2PFILEXFER,
    V9,
    V10,
    V16,
    offer,
    parse,
    raw,
    relayed,
    url,
    ymsg,
)

GOLDEN = load("yahoo")
TEXT = ymsg(MESSAGE, [(1, b"alice1"), (5, b"bob1"), (14, b"YMSG " + OFFER.replace(b"\xc0\x80", b"\xc0 "))])
DEAD = {
    "peer link": (GOLDEN["peer-link"].data, {"yahoo_peer_links": 1}),
    "negative number": (GOLDEN["peer-link-negative-number"].data, {"yahoo_peer_links": 1}),
    "URL of the sender": (GOLDEN["negotiated-url-of-sender"].data, {"yahoo_negotiations": 1}),
    "URL of the receiver": (GOLDEN["negotiated-url-of-receiver"].data, {"yahoo_negotiations": 1}),
    "relay": (GOLDEN["negotiated-relay"].data, {"yahoo_negotiations": 1, "yahoo_relays": 1}),
    "relay agreed": (
        ymsg(ACCEPT15, [(1, b"bob1"), (5, b"alice1"), (265, b"x$$"), (249, b"3"), (251, b"token")]),
        {"yahoo_negotiations": 1, "yahoo_relays": 1},
    ),
    "negotiation": (
        ymsg(OFFER15, [(1, b"alice1"), (5, b"bob1"), (265, b"x$$"), (222, b"1"), (266, b"1")]),
        {"yahoo_negotiations": 1},
    ),
    "uploaded": (
        ymsg(FILETRANSFER, [(1, b"alice1"), (5, b"bob1"), (20, url("198.51.100.7", None))]),
        {"yahoo_uploads": 1},
    ),
    "link by 0x4D": (
        ymsg(P2PFILEXFER, [(4, b"alice1"), (5, b"bob1"), (13, b"2"), (12, b"ODM4ODYwOTA="), (61, b"0")]),
        {"yahoo_peer_links": 1},
    ),
    "link announced, no address": (
        ymsg(P2PFILEXFER, [(4, b"alice1"), (5, b"bob1"), (13, b"3"), (49, b"PEERTOPEER")]),
        {},
    ),
    "URL in another service": (
        ymsg(INFO15, [(1, b"alice1"), (20, url(INSIDE, 5555))]),
        {"yahoo_negotiations": 1},
    ),
    "text": (TEXT, {}),
}
UNFIT = [
    url("10.0.0.05", 5555),
    url("10.0.0", 5555),
    url("10.0.0.256", 5555),
    url(INSIDE, 5555).replace(b"http", b"https"),
    b"http://alice.example.test:5555/Messenger.alice1.file.txt",
    b"http://alice1@10.0.0.5:5555/Messenger.alice1.file.txt",
    b"http://[::1]:5555/Messenger.alice1.file.txt",
    url(INSIDE, 65536),
    url(INSIDE, 0),
    url(INSIDE, 5555).replace(b":5555", b":05555"),
    url(INSIDE, 5555).replace(b":5555", b":"),
    url(INSIDE, 5555).replace(b":5555", b":5555x"),
    url(INSIDE, 5555, b""),
    b" " + url(INSIDE, 5555),
    b"",
]


# --- what leaves edited -------------------------------------------------------------------------------------


def test_golden_offer() -> None:
    golden = GOLDEN["file-at-own-web-server"]
    for cut in range(1, len(golden.data)):
        assert Session().signed_on().say(golden.data, cut) == golden.expected["same-port"], cut


@pytest.mark.parametrize("version", [OLD, V9, V10, 0x0009, 0x000B, V16])
def test_own_address_becomes_the_outside_one_and_the_length_follows(version: int) -> None:
    session = Session().signed_on(version)
    left = session.say(offer(url(INSIDE, 5555), version=version))
    assert left == offer(url(OUTSIDE, 5555), version=version)
    assert parse(left).value(20) == url(OUTSIDE, 5555)
    (expectation,) = session.nat.expected
    assert (expectation.service, expectation.inside) == ("yahoo-file", Endpoint(INSIDE, 5555))
    assert (expectation.peer, expectation.standing) == (None, False)
    (report,) = session.nat.reports
    assert (report.direction, report.action, report.reason) == ("out", "rewritten", "own address")
    assert (report.before, report.after) == (Endpoint(INSIDE, 5555), Endpoint(OUTSIDE, 5555))
    assert session.nat.counts == {"proposals": 1, "rewritten": 1}


@pytest.mark.parametrize(
    ("port", "moved", "becomes"),
    [
        (None, 40001, 40001),  # a web server at port 80, which the URL need not say
        (80, 40001, 40001),
        (5555, 40001, 40001),
        (5555, 80, None),
        (5555, 5555, 5555),
    ],
)
def test_url_says_the_port_of_the_pinhole(port: int | None, moved: int, becomes: int | None) -> None:
    session = Session(ScriptedNat(moved={port or 80: moved})).signed_on()
    assert session.say(offer(url(INSIDE, port))) == offer(url(OUTSIDE, becomes))
    assert session.nat.expected[0].inside == Endpoint(INSIDE, port or 80)


def test_outside_address_that_the_client_has_learnt_gets_its_pinhole() -> None:
    session = Session(ScriptedNat(moved={5556: 40001})).signed_on()
    assert session.say(OFFERED) == OFFERED
    assert session.say(offer(url(OUTSIDE, 5556))) == offer(url(OUTSIDE, 40001))
    assert [expectation.inside for expectation in session.nat.expected] == [
        Endpoint(INSIDE, 5555),
        Endpoint(INSIDE, 5556),
    ]
    assert session.reasons() == ["own outside address"] * 2
    # A rule of somebody else's may forward these already, and to another port inside.
    assert [each.announced for each in session.nat.expected] == [
        each.inside._replace(address=OUTSIDE) for each in session.nat.expected
    ]
    session.say(OFFER)
    assert session.nat.expected[-1].announced is None


def test_keys_in_any_order_and_bytes_of_any_code_page() -> None:
    pairs = [
        (20, url(INSIDE, 5555, b"/M\xe4\xff.\xc0")),
        (13, b"6"),
        (5, b"\xff\xc0"),
        (54, b""),
        (14, b"\0"),
    ]
    session = Session().signed_on()
    left = session.say(ymsg(P2PFILEXFER, pairs))
    assert left == ymsg(P2PFILEXFER, [(20, url(OUTSIDE, 5555, b"/M\xe4\xff.\xc0")), *pairs[1:]])


# --- cuts ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("packet", [OFFER, *(packet for packet, _ in DEAD.values())])
def test_every_cut_and_byte_by_byte_leaves_the_same_stream(packet: bytes) -> None:
    whole = Session().signed_on().say(packet)
    for cuts in [*([cut] for cut in range(1, len(packet))), range(1, len(packet))]:
        session = Session().signed_on()
        assert session.say(packet, *cuts) == whole, cuts
        assert session.nat.buffered == 0


def test_several_packets_in_a_segment_however_they_are_cut() -> None:
    talk = OFFER + TEXT + offer(url(INSIDE, 5556), to=b"carol1") + DEAD["peer link"][0] + OFFER
    whole = OFFERED + TEXT + offer(url(OUTSIDE, 5556), to=b"carol1") + DEAD["peer link"][0] + OFFERED
    assert Session().signed_on().say(talk) == whole
    for cut in range(1, len(talk)):
        assert Session().signed_on().say(talk, cut) == whole, cut
    generator = random.Random(1)
    for _ in range(100):
        cuts = sorted(generator.sample(range(1, len(talk)), 12))
        assert Session().signed_on().say(talk, *cuts) == whole, cuts


def test_offer_waits_from_its_length_on_and_others_do_not_wait() -> None:
    for packet, relevant in ((OFFER, True), (TEXT, False), (DEAD["peer link"][0], False)):
        for cut in range(1, len(packet)):
            session = Session().signed_on()
            start = len(session.seen[C2S])
            hold = session.feed(C2S, packet[:cut])
            waits = cut > 8 and (relevant or cut < 12)
            assert hold == (start + 8 if waits else None), cut


def test_offer_to_a_client_waits_only_where_a_pinhole_could_be_meant() -> None:
    told = relayed(OFFERED)
    session = Session().signed_on()
    session.hear(told, len(told) - 8)
    assert session.holds == []
    session.say(OFFER)
    session.hear(told, len(told) - 8)
    assert len(session.holds) == 1


def test_length_that_has_left_stays_and_nothing_is_opened() -> None:
    session = Session().signed_on()
    session.feed(C2S, OFFER[:50])
    session.nat.left[C2S] = len(session.seen[C2S])  # it was held for as long as it may be
    assert session.say(OFFER[50:]) == OFFER[50:]
    assert session.reasons() == ["its length had left before its end came"]
    assert session.nat.expected == []


# --- what stays ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("packet", "counts"), DEAD.values(), ids=DEAD)
def test_what_no_server_relays_stays_and_is_counted(packet: bytes, counts: dict[str, int]) -> None:
    for way in ("say", "hear"):
        session = Session().signed_on()
        assert getattr(session, way)(packet) == packet
        assert session.nat.counts == counts
        assert (session.nat.expected, session.nat.reports) == ([], [])
        assert session.say(OFFER) == OFFERED


@pytest.mark.parametrize("where", UNFIT)
def test_what_is_no_url_of_an_own_web_server_stays(where: bytes) -> None:
    session = Session().signed_on()
    assert session.say(offer(where)) == offer(where)
    assert (session.nat.expected, session.nat.reports, session.nat.counts) == ([], [], {})


@pytest.mark.parametrize(
    ("packet", "refusal", "reason"),
    [
        (offer(url(NEIGHBOUR, 5555)), "", "not the sender's own address"),
        (offer(url("203.0.113.9", 5555)), "", "not the sender's own address"),
        (offer(url("127.0.0.1", 5555)), "", "not the sender's own address"),
        (offer(url(INSIDE, None)), "port 80 is not one to open", "port 80 is not one to open"),
        (offer(url(INSIDE, 5555, b"/")), "", "its path does not tell its peer from others"),
        (offer(url(INSIDE, 5555, b"/%41")), "", "its path does not tell its peer from others"),
        (ymsg(P2PFILEXFER, [(20, url(INSIDE, 5555))] * 2), "", "names more than one address"),
        (ymsg(P2PFILEXFER, [(12, b"x"), (20, url(INSIDE, 5555))]), "", "names more than one address"),
    ],
)
def test_offer_that_is_left_alone_says_why(packet: bytes, refusal: str, reason: str) -> None:
    session = Session(ScriptedNat(refusal=refusal)).signed_on()
    assert session.say(packet) == packet
    assert [text.partition(": it announces")[0] for text in session.reasons()] == [reason]
    assert session.nat.expected == []
    assert session.nat.counts == {"proposals": 1, "left": 1}


_KEYS = b"20\xc0\x80" + url(INSIDE, 5555) + b"\xc0\x80"


@pytest.mark.parametrize(
    "data",
    [
        _KEYS[:-2],  # no separator at the end
        _KEYS + b"\0\0\0",  # a rest behind the last pair
        _KEYS + b"5\xc0\x80",  # a key without a value
        b"\xc0\x80" + _KEYS,
        b"020" + _KEYS[2:],
        b"5\xc0\x80bob1\xc0\x80" + b"+20" + _KEYS[2:],
        b"\xc0\x80\xc0\x80" + _KEYS,  # an empty key
        _KEYS + b"9\xc0\x80\xc0\x80" * 100,
        _KEYS + b"14\xc0\x80" + b"x" * 4096 + b"\xc0\x80",
        _KEYS + b"14\xc0\x80" + b"x" * (0xFFFF - len(_KEYS) - 6) + b"\xc0\x80",
    ],
)
def test_packet_whose_pairs_do_not_come_out_stays(data: bytes) -> None:
    session = Session().signed_on()
    packet = raw(P2PFILEXFER, data)
    assert session.say(packet) == packet
    assert session.nat.counts == {"malformed_messages": 1}
    assert session.say(OFFER) == OFFERED


# --- what is announced to a client --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("outside", "inside", "port"), [(40001, 5555, 5555), (40001, 80, None), (5555, 5555, 5555)]
)
def test_url_that_names_our_pinhole_is_mapped_back_however_it_is_cut(
    outside: int, inside: int, port: int | None
) -> None:
    told, mapped = relayed(offer(url(OUTSIDE, outside))), relayed(offer(url(NEIGHBOUR, port)))
    for cut in range(len(told)):
        pinholes = {Endpoint(OUTSIDE, outside): Endpoint(NEIGHBOUR, inside)}
        session = Session(ScriptedNat(pinholes=pinholes)).signed_on()
        assert session.hear(TEXT + told, *([len(TEXT) + cut] if cut else [])) == TEXT + mapped, cut
        (report,) = session.nat.reports
        assert (report.direction, report.action) == ("in", "mapped-back")
        assert session.nat.counts == {"proposals": 1, "mapped_back": 1}


@pytest.mark.parametrize("rest", [b"\0", b"\0\0\0", b"\0rest"])
def test_packet_of_a_server_may_be_too_long(rest: bytes) -> None:
    """As those of Yahoo's servers; a client's may not."""
    told, mapped = (relayed(offer(url(host, 5555)))[20:] + rest for host in (OUTSIDE, INSIDE))
    session = Session().signed_on()
    session.say(OFFER)
    assert session.hear(raw(P2PFILEXFER, told, status=1)) == raw(P2PFILEXFER, mapped, status=1)
    session = Session().signed_on()
    packet = raw(P2PFILEXFER, OFFER[20:] + rest)
    assert session.say(packet) == packet
    assert session.nat.counts == {"malformed_messages": 1}


def test_url_of_a_stranger_stays() -> None:
    session = Session().signed_on()
    told = relayed(offer(url("198.51.100.7", 5555)))
    assert session.hear(told) == told
    assert session.reasons() == ["names no pinhole of this router"]


# --- agreements and greetings -------------------------------------------------------------------------------


def test_same_offer_again_is_the_same_agreement_and_another_is_not() -> None:
    session = Session().signed_on()
    for packet in (OFFER, OFFER, offer(url(INSIDE, 5555), kind=b"6")):
        session.say(packet)
    for packet in (
        offer(url(INSIDE, 5556)),
        offer(url(INSIDE, 5555), to=b"carol1"),
        offer(url(INSIDE, 5555, b"/Messenger.alice1.other.txt")),
    ):
        session.say(packet)
    names = [expectation.agreement for expectation in session.nat.expected]
    assert len(set(names[:3])) == 1
    assert len(set(names)) == 4
    assert {len(name) for name in names} == {8}


PATH = b"/Messenger.bob1.1234567890file.txt?AppID=Messenger&UserID=bob1&K=lc9lu2u89gz1llmplwksajkjx"


@pytest.mark.parametrize(
    ("path", "asked", "verdict"),
    [
        (PATH, b"GET " + PATH + b" HTTP/1.1\r\n", True),
        (PATH, b"HEAD " + PATH + b" HTTP/1.0\r\n", True),
        (PATH, b"GET " + PATH + b"\r\n", True),
        (PATH, b"GET " + PATH, None),
        (PATH, b"GET " + PATH[:20], None),
        (PATH, b"G", None),
        (PATH, b"GET " + PATH + b"y HTTP/1.1\r\n", False),
        (PATH, b"GET " + PATH[:-1] + b" HTTP/1.1\r\n", False),
        (PATH, b"GET / HTTP/1.1\r\n", False),
        (PATH, b"POST " + PATH + b" HTTP/1.1\r\n", False),
        (PATH, b"get " + PATH + b" HTTP/1.1\r\n", False),
        (PATH, b"\x16\x03\x01", False),
        (b"/Messenger.a.b c.txt", b"GET /Messenger.a.b%20c.txt HTTP/1.1\r\n", True),
        (b"/Messenger.a.b c.txt", b"GET /Messenger.a.b c.txt HTTP/1.1\r\n", True),
        (b"/Messenger.a.b c.txt", b"GET /Messenger.a.b+c.txt HTTP/1.1\r\n", True),
        (b"/Messenger.a.b c.txt", b"GET /Messenger.a.d HTTP/1.1\r\n", False),
        (b"/Messenger.a.b(1)&c.txt", b"GET /Messenger.a.b%281%29%26c.txt HTTP/1.1\r\n", True),
        (b"/Messenger.a.\xfc.txt", b"GET /Messenger.a.%FC.txt HTTP/1.1\r\n", True),
        (b"/M" + b"x" * 1000, b"GET /M" + b"x" * 198, True),
        (b"/M" + b"x" * 1000, b"GET /M" + b"x" * 100, None),
    ],
)
def test_request_for_the_announced_path_is_what_the_gate_wants(
    path: bytes, asked: bytes, verdict: bool | None
) -> None:
    session = Session().signed_on()
    session.say(offer(url(INSIDE, 5555, path)))
    assert match(asked, session.nat.expected[0].greetings) is verdict


@pytest.mark.parametrize(
    ("asked", "verdict"),
    [
        (b"GET /Messenger.alice1.file", True),
        (b"HEAD /messenger", True),
        (b"GET /M", None),
        (b"GET / HTTP/1.1\r\n", False),
        (b"GET /index.html", False),
        (b"POST /Messenger.x", False),
    ],
)
def test_request_after_a_restart_which_forgets_the_path(asked: bytes, verdict: bool | None) -> None:
    from nfreaim.helpers.yahoo import YAHOO

    assert match(asked, YAHOO.services["yahoo-file"].greetings) is verdict
