"""IRC's helper: which messages it changes and how, in whatever pieces they come; what waits; what stays."""

from __future__ import annotations

import random

import pytest

from nfreaim.core.address import Endpoint
from tests.unit.helper_session import C2S
from tests.unit.irc_session import (
    INSIDE,
    NEIGHBOUR,
    OFFERS,
    OTHER,
    OUTSIDE,
    OWN,
    PROSE,
    ROUTER,
    SEND,
    SENT,
    SIGN_ON,
    TAGS,
    UNFIT,
    ScriptedNat,
    Session,
    dcc,
)

TALK = (
    SEND
    + b"PRIVMSG bob :hello\r\n"
    + dcc(b"CHAT chat %s 5501" % OWN)
    + PROSE[1]
    + dcc(b"SEND x %s 5502 1" % OWN)
)


# --- a client's offers --------------------------------------------------------------------------------------


@pytest.mark.parametrize("line", OFFERS)
def test_own_address_becomes_the_outside_one(line: bytes) -> None:
    session = Session().signed_on()
    head, _, tail = line.rpartition(OWN)
    assert session.say(line) == head + ROUTER + tail
    (expectation,) = session.nat.expected
    service = "dcc-chat" if b"CHAT" in line else "dcc-send"
    port = 5501 if service == "dcc-chat" and b"5501" in line else 5500
    assert (expectation.service, expectation.inside) == (service, Endpoint(INSIDE, port))
    assert (expectation.peer, expectation.standing, expectation.greetings) == (None, False, ())
    (report,) = session.nat.reports
    assert (report.direction, report.action, report.reason) == ("out", "rewritten", "own address")
    assert (report.before, report.after) == (Endpoint(INSIDE, port), Endpoint(OUTSIDE, port))
    assert session.nat.counts == {"proposals": 1, "rewritten": 1}


@pytest.mark.parametrize("line", [*OFFERS, *PROSE, *UNFIT])
def test_every_cut_leaves_the_same_stream(line: bytes) -> None:
    whole = Session().signed_on().say(line)
    for cut in range(1, len(line)):
        session = Session().signed_on()
        assert session.say(line, cut) == whole, cut
        assert session.nat.buffered == 0


@pytest.mark.parametrize("line", OFFERS[:2] + PROSE + UNFIT)
def test_byte_by_byte_leaves_the_same_stream(line: bytes) -> None:
    assert Session().signed_on().say(line, *range(1, len(line))) == Session().signed_on().say(line)


def test_any_two_cuts_leave_the_same_stream() -> None:
    for one in range(1, len(SEND)):
        for two in range(one + 1, len(SEND)):
            assert Session().signed_on().say(SEND, one, two) == SENT


def test_several_lines_in_a_segment_however_they_are_cut() -> None:
    nat = ScriptedNat(moved={5500: 40001, 5502: 7})
    whole = Session(nat).signed_on().say(TALK)
    assert whole.count(ROUTER) == 3
    assert b"%s 40001 3000" % ROUTER in whole
    assert b"%s 7 1" % ROUTER in whole
    assert PROSE[1] in whole
    for cut in range(1, len(TALK)):
        assert Session(ScriptedNat(moved=nat.moved)).signed_on().say(TALK, cut) == whole, cut
    generator = random.Random(1)
    for _ in range(200):
        cuts = sorted(generator.sample(range(1, len(TALK)), 12))
        assert Session(ScriptedNat(moved=nat.moved)).signed_on().say(TALK, *cuts) == whole, cuts


def test_port_that_is_taken_outside_becomes_another() -> None:
    session = Session(ScriptedNat(moved={5500: 40001})).signed_on()
    assert session.say(SEND) == SENT.replace(b"5500", b"40001")
    assert session.nat.reports[0].after == Endpoint(OUTSIDE, 40001)


def test_outside_address_that_the_client_has_learnt_gets_its_pinhole() -> None:
    session = Session(ScriptedNat(moved={5501: 40001})).signed_on()
    assert session.say(SENT) == SENT
    assert session.say(SENT.replace(b"5500", b"5501")) == SENT.replace(b"5500", b"40001")
    assert [expectation.inside.port for expectation in session.nat.expected] == [5500, 5501]
    assert session.reasons() == ["own outside address"] * 2
    # A rule of somebody else's may forward these already, and to another port inside.
    assert [each.announced for each in session.nat.expected] == [
        Endpoint(OUTSIDE, 5500),
        Endpoint(OUTSIDE, 5501),
    ]
    session.say(SEND)
    assert session.nat.expected[-1].announced is None


@pytest.mark.parametrize(
    ("line", "refusal", "reason"),
    [
        (SEND.replace(OWN, OTHER), "", "not the sender's own address"),
        (SEND.replace(OWN, b"3405803785"), "", "not the sender's own address"),  # the server's
        (SEND.replace(OWN, b""), "", "not the sender's own address"),  # so 5500 is the address
        (SEND.replace(b"5500", b"0"), "", "passive: the receiver is to listen"),
        (SEND.replace(OWN, b"16843009").replace(b"5500", b"0"), "", "passive: the receiver is to listen"),
        (SEND.replace(b"5500", b"22"), "port 22 is not one to open", "port 22 is not one to open"),
    ],
)
def test_offer_that_is_left_alone_says_why(line: bytes, refusal: str, reason: str) -> None:
    session = Session(ScriptedNat(refusal=refusal)).signed_on()
    assert session.say(line) == line
    assert [text.partition(": it announces")[0] for text in session.reasons()] == [reason]
    assert session.nat.expected == []
    assert session.nat.counts == {"proposals": 1, "left": 1}


@pytest.mark.parametrize("line", PROSE + UNFIT)
def test_what_is_no_offer_is_none(line: bytes) -> None:
    session = Session().signed_on()
    assert session.say(line) == line
    assert session.hear(b":bob!bob@example.test " + line) == b":bob!bob@example.test " + line
    assert (session.nat.expected, session.nat.reports) == ([], [])


def test_same_offer_again_is_the_same_agreement_and_another_is_not() -> None:
    session = Session().signed_on()
    for line in (SEND, SEND.replace(b"bob", b"BOB"), SEND.replace(b"file.bin", b'"file.bin"')):
        session.say(line)
    for other in (
        SEND.replace(b"5500", b"5501"),
        SEND.replace(b"bob", b"carol"),
        SEND.replace(b"SEND", b"TSEND"),
    ):
        session.say(other)
    names = [expectation.agreement for expectation in session.nat.expected]
    assert len(set(names[:3])) == 1
    assert len(set(names)) == 4
    assert {len(name) for name in names} == {8}


# --- waiting ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("line", PROSE)
def test_talk_is_never_held(line: bytes) -> None:
    session = Session(ScriptedNat(pinholes={Endpoint(OUTSIDE, 5500): Endpoint(INSIDE, 5500)})).signed_on()
    session.say(line, *range(1, len(line)))
    session.hear(line, *range(1, len(line)))
    assert session.holds == []


@pytest.mark.parametrize("line", OFFERS)
def test_offer_waits_from_its_address_on_and_not_before(line: bytes) -> None:
    address = line.rindex(OWN)
    for cut in range(1, len(line)):
        session = Session().signed_on()
        start = len(SIGN_ON)
        hold = session.feed(C2S, line[:cut])
        assert (hold is not None and hold < start + cut) == (cut > address), cut
        assert hold in (None, start + address) or cut <= address


@pytest.mark.parametrize("rest", [b"hello", b"123456789012", b"167772165 x", b"167772165 5500x", b"1\0"])
def test_what_cannot_become_an_address_any_more_does_not_wait(rest: bytes) -> None:
    session = Session().signed_on()
    session.say(b"PRIVMSG bob :\x01DCC SEND file.bin " + rest)
    assert session.holds == []


def test_offer_to_a_client_waits_only_where_a_pinhole_could_be_meant() -> None:
    line = b":bob!bob@example.test " + dcc(b"SEND file.bin %s 5500 3000" % ROUTER, b"alice")
    session = Session().signed_on()
    session.hear(line, len(line) - 8)
    assert session.holds == []
    session.say(SEND)
    session.hear(line, len(line) - 8)
    assert len(session.holds) == 1


def test_address_that_has_left_stays_and_nothing_is_opened() -> None:
    session = Session().signed_on()
    cut = SEND.index(OWN) + 4
    session.feed(C2S, SEND[:cut])
    session.nat.left[C2S] = len(session.seen[C2S])  # it was held for as long as it may be
    assert session.say(SEND[cut:]) == SEND[cut:]
    assert session.reasons() == ["its address had left before its end came"]
    assert session.nat.expected == []


# --- offers to a client; RESUME and ACCEPT ------------------------------------------------------------------


def relayed(line: bytes, nick: bytes) -> bytes:
    return b":%s!user@example.test %s" % (nick, line)


def test_offer_that_names_our_pinhole_is_mapped_back_however_it_is_cut() -> None:
    line = relayed(dcc(b"SEND file.bin %s 40001 3000" % ROUTER, b"alice"), b"amy")
    mapped = line.replace(b"%s 40001" % ROUTER, b"%s 5500" % OTHER)
    for cut in range(len(line)):
        pinholes = {Endpoint(OUTSIDE, 40001): Endpoint(NEIGHBOUR, 5500)}
        session = Session(ScriptedNat(pinholes=pinholes)).signed_on()
        assert session.hear(TAGS + line, *([len(TAGS) + cut] if cut else [])) == TAGS + mapped, cut
        (report,) = session.nat.reports
        assert (report.direction, report.action) == ("in", "mapped-back")
        assert (report.before, report.after) == (Endpoint(OUTSIDE, 40001), Endpoint(NEIGHBOUR, 5500))
        assert session.nat.counts == {"proposals": 1, "mapped_back": 1}


def test_offer_of_a_stranger_stays() -> None:
    session = Session().signed_on()
    line = relayed(dcc(b"SEND file.bin 3405803796 5500 3000", b"alice"), b"bob")
    assert session.hear(line) == line
    assert session.reasons() == ["names no pinhole of this router"]


@pytest.mark.parametrize("cut", [*range(50), None])
def test_resume_and_accept_of_an_offer_whose_port_had_to_change(cut: int | None) -> None:
    session = Session(ScriptedNat(moved={5500: 40001})).signed_on()
    session.say(SEND)
    resume = relayed(dcc(b'RESUME "file.bin" 40001 1000', b"alice"), b"Bob")
    accept = dcc(b"ACCEPT file.bin 5500 1000", b"BOB")
    at = [] if cut is None or cut < 1 else [cut]
    assert session.hear(resume, *at) == resume.replace(b"40001", b"5500")
    assert session.say(accept, *[cut for cut in at if cut < len(accept)]) == accept.replace(b"5500", b"40001")
    assert [report.stage for report in session.nat.reports] == [1, 2, 2]
    assert session.reasons()[1:] == ["port of an offer"] * 2
    ends = Endpoint(INSIDE, 5500), Endpoint(OUTSIDE, 40001)
    assert [(report.before, report.after) for report in session.nat.reports] == [ends, ends[::-1], ends]


def test_resume_and_accept_between_neighbours() -> None:
    """Amy offered 5500, which is 40001 outside; alice was told Amy's own address and port."""
    pinholes = {Endpoint(OUTSIDE, 40001): Endpoint(NEIGHBOUR, 5500)}
    session = Session(ScriptedNat(pinholes=pinholes)).signed_on()
    session.hear(relayed(dcc(b"SEND file.bin %s 40001 3000" % ROUTER, b"alice"), b"amy"))
    resume = dcc(b"RESUME file.bin 5500 1000", b"amy")
    accept = relayed(dcc(b"ACCEPT file.bin 40001 1000", b"alice"), b"amy")
    assert session.say(resume) == resume.replace(b"5500", b"40001")
    assert session.hear(accept) == accept.replace(b"40001", b"5500")


@pytest.mark.parametrize(
    "line",
    [
        relayed(dcc(b"RESUME file.bin 40001 1000", b"alice"), b"carol"),  # of somebody else
        relayed(dcc(b"RESUME file.bin 5500 1000", b"alice"), b"bob"),  # another port
        relayed(
            dcc(b"ACCEPT file.bin 40001 1000", b"alice"), b"bob"
        ),  # who was offered a file does not accept
        dcc(b"RESUME file.bin 40001 1000", b"alice"),  # from nobody
    ],
)
def test_answers_that_are_not_to_that_offer_stay(line: bytes) -> None:
    session = Session(ScriptedNat(moved={5500: 40001})).signed_on()
    session.say(SEND)
    assert session.hear(line) == line
    assert len(session.nat.reports) == 1


@pytest.mark.parametrize("resumer", [b"bob", b"robert"])
@pytest.mark.parametrize(
    ("line", "known"),
    [
        (b":bob!b@host NICK :robert\r\n", b"robert"),
        (b":Bob!b@host nick Robert\r\n", b"robert"),
        (b":bob!b@host QUIT :gone\r\n", b""),
        (b":carol!c@host NICK :robert\r\n", b"bob"),
        (b":bob!b@host PRIVMSG alice :NICK robert\r\n", b"bob"),
        (b":bob!b@host NICK\r\n", b""),
    ],
)
def test_who_takes_the_nick_of_the_one_that_was_offered_to_gets_no_answer(
    line: bytes, known: bytes, resumer: bytes
) -> None:
    session = Session(ScriptedNat(moved={5500: 40001})).signed_on()
    session.say(SEND)
    session.hear(line)
    resume = relayed(dcc(b"RESUME file.bin 40001 1000", b"alice"), resumer)
    assert session.hear(resume) == (resume.replace(b"40001", b"5500") if known == resumer else resume)


def test_client_that_offers_without_end_is_remembered_in_part() -> None:
    session = Session(ScriptedNat(moved={port: port + 10000 for port in range(2000, 3000)})).signed_on()
    for port in range(2000, 3000):
        session.say(SEND.replace(b"5500", b"%d" % port))
    first, last = (relayed(dcc(b"RESUME x %d 1" % port, b"alice"), b"bob") for port in (12000, 12999))
    assert session.hear(first) == first
    assert session.hear(last) == last.replace(b"12999", b"2999")
