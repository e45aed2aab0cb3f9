"""IRC's helper: what it must recognise first, where it ends, its bounds, and how it goes on elsewhere."""

from __future__ import annotations

import random

import pytest

from nfreaim.core.address import End
from nfreaim.errors import Foreign
from nfreaim.helpers.irc import IRC, IrcHelper
from tests.unit.helper_session import C2S, S2C
from tests.unit.irc_session import (
    INSIDE,
    OFFERS,
    OWN,
    PROSE,
    SEND,
    SENT,
    SIGN_ON,
    UNFIT,
    WELCOME,
    ScriptedNat,
    Session,
)

# --- the beginning ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "first",
    [
        SIGN_ON,
        b"CAP LS 302\r\nJOIN :\r\n" + SIGN_ON,
        b"PASS secret\r\n" + SIGN_ON,
        b"nick alice\nuser alice 0 * :Alice\n",
        b"USER alice 0 * :Alice\r\nNICK alice\r\n",
    ],
)
@pytest.mark.parametrize(
    "answer",
    [
        WELCOME,
        b"001 alice :Welcome\r\n",
        b"@time=2026-11-28T00:00:00Z :irc.example.test 001 alice :Welcome\n",
        b"NOTICE AUTH :*** Looking up your hostname\r\nPING :1\r\n:irc.example.test CAP * LS :tls\r\n"
        + WELCOME,
    ],
)
def test_connection_is_recognised_however_it_is_cut(first: bytes, answer: bytes) -> None:
    for cut in range(1, len(first)):
        session = Session()
        assert session.say(first, cut) == first
        assert not session.helper.established
        assert session.hear(answer, *[cut for cut in [cut] if cut < len(answer)]) == answer
        assert session.helper.established
        assert session.nat.ready == 1
        assert session.say(SEND) == SENT


@pytest.mark.parametrize(
    "first",
    [
        b"GET / HTTP/1.1\r\n",
        b"POST /upload HTTP/1.1\r\n",
        b"NICK /upload HTTP/1.1\r\nHost: irc.example.test:6667\r\n",
        b"USER /upload HTTP/1.1\r\n\r\n",
        b"NICK alice\r\n\r\n",
        b"NICK alice\r\n" + b"A" * 600 + b"\r\n",
        b"CAP " + b"A" * 600,
        b"NICK\talice\r\n",
        b":alice NICK alice\r\n",
        b"@x=y NICK alice\r\n",
        b" NICK alice\r\n",
        b"\r\n" + SIGN_ON,
        b"JOIN #channel\r\n",
        SEND,
        b"\x16\x03\x01\x02\0\x01",
        b"\0",
        b"*\x01",
        b"SSH-2.0-OpenSSH\r\n",
        b"STARTTLS\r\n",
        b"CAP LS\r\nSTARTTLS\r\n",
    ],
)
def test_client_that_begins_otherwise_is_foreign_however_it_is_cut(first: bytes) -> None:
    for cut in range(1, len(first)):
        with pytest.raises(Foreign):
            Session().say(first, cut)
    with pytest.raises(Foreign):
        Session().say(first)


@pytest.mark.parametrize("first", [b"\x16", b"G", b"PO", b"NO", b"\0", b"\x2a"])
def test_first_bytes_are_enough_where_they_say_it_all(first: bytes) -> None:
    with pytest.raises(Foreign):
        Session().say(first)


@pytest.mark.parametrize(
    "first", [b"\x16\x03\x03", b"\0\0", b"HTTP/1.1 200 OK\r\n", b"220-ready\r\n", b"<html>\r\n"]
)
def test_server_that_does_not_speak_irc_is_foreign(first: bytes) -> None:
    session = Session()
    session.say(SIGN_ON)
    with pytest.raises(Foreign):
        session.hear(first)


@pytest.mark.parametrize("missing", [b"NICK alice\r\n", b"USER alice 0 * :Alice\r\n", SIGN_ON])
def test_welcome_to_who_did_not_sign_on_is_foreign(missing: bytes) -> None:
    session = Session()
    session.say(b"CAP LS\r\n" + SIGN_ON.replace(missing, b""))
    with pytest.raises(Foreign):
        session.hear(WELCOME)
    assert not session.nat.ready


def test_welcome_in_a_users_name_is_foreign() -> None:
    session = Session()
    session.say(SIGN_ON)
    with pytest.raises(Foreign):
        session.hear(b":mallory!m@example.test 001 alice :Welcome\r\n")


@pytest.mark.parametrize(
    "line", [b":irc.example.test 002 alice :x\r\n", b"0001 a\r\n", b":001 PING\r\n", b"PING 001\r\n"]
)
def test_what_only_looks_like_a_welcome_is_none(line: bytes) -> None:
    session = Session()
    session.say(SIGN_ON)
    try:
        session.hear(line)
    except Foreign:
        assert line.startswith(b"0001")
    assert not session.helper.established
    assert session.nat.ready == 0


def test_offer_before_the_welcome_opens_nothing() -> None:
    session = Session()
    assert session.say(SIGN_ON + SEND) == SIGN_ON + SEND
    session.hear(WELCOME)
    assert session.nat.expected == []
    assert session.say(SEND) == SENT


def test_welcome_in_the_client_s_own_direction_is_none() -> None:
    session = Session()
    with pytest.raises(Foreign):
        session.say(WELCOME)
    session = Session()
    session.say(SIGN_ON)
    session.say(b"PRIVMSG bob :x\r\n001 alice :Welcome\r\n")
    assert not session.helper.established


def test_connection_that_is_met_in_its_midst_is_read_from_the_next_line_on() -> None:
    session = Session(midstream=True)
    assert session.say(SEND) == SEND
    assert session.say(SEND) == SENT


def test_server_on_our_side_is_left_alone() -> None:
    with pytest.raises(Foreign):
        Session(ScriptedNat(server_inside=True)).say(SIGN_ON)


# --- the end ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("line", [b"QUIT\r\n", b"quit :bye\r\n", b":alice QUIT :bye\n"])
def test_client_that_signs_off_gives_all_back(line: bytes) -> None:
    for cut in range(len(line)):
        session = Session().signed_on()
        session.say(SEND)
        session.say(line, *([cut] if cut else []))
        assert session.nat.over == ["signed off"]


def test_server_that_ends_the_session_gives_all_back() -> None:
    session = Session().signed_on()
    session.hear(b"ERROR :Closing connection\r\n")
    assert session.nat.over == ["signed off"]


@pytest.mark.parametrize("line", [b":bob!bob@example.test QUIT :bye\r\n", b":bob PRIVMSG alice :QUIT\r\n"])
def test_others_that_sign_off_close_nothing(line: bytes) -> None:
    session = Session().signed_on()
    session.hear(line)
    session.say(b"PRIVMSG bob :ERROR\r\n")
    session.hear(b":bob PRIVMSG alice :ERROR\r\n")
    session.hear(b":bob!b@host ERROR :Closing connection\r\n")
    assert session.nat.over == []


def test_session_that_turns_into_tls_is_foreign_from_there_on() -> None:
    with pytest.raises(Foreign):
        Session().signed_on().say(b"STARTTLS\r\n")
    with pytest.raises(Foreign):
        Session().signed_on().hear(b":irc.example.test 670 alice :STARTTLS successful\r\n")
    Session().signed_on().hear(b":bob PRIVMSG alice :670 or STARTTLS\r\nPING STARTTLS\r\n")


# --- bounds -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("tags", "longest"), [(b"", 512), (b"@t=", 8191)])
def test_line_of_the_greatest_length_is_read_and_one_byte_more_is_not(tags: bytes, longest: int) -> None:
    head = tags + b"x " if tags else b""
    for extra in (0, 1):
        padding = longest - len(head) - len(SEND) + extra
        line = (
            (tags + b"x" * (padding + 1) + b" " + SEND)
            if tags
            else SEND.replace(b"3000", b"3000 " + b"1" * (padding - 1))
        )
        assert len(line) == longest + extra
        for cuts in ([], [100], [longest - 1], [longest], range(1, len(line))):
            session = Session().signed_on()
            out = session.say(line, *[cut for cut in cuts if cut < len(line)])
            assert (out != line) == (not extra), (extra, cuts)
            assert session.say(SEND) == SENT


def test_line_without_an_end_is_not_kept() -> None:
    session = Session().signed_on()
    for start in (b"", b"@"):
        session.say(start + b"x" * 100_000)
        assert session.nat.buffered <= 8191
        session.say(b"PRIVMSG bob :\x01DCC SEND x %s 5500 1\x01\r\n" % OWN)
        assert session.nat.expected == []
        assert session.say(SEND) == SENT
        session.nat.expected.clear()


def test_garbage_raises_nothing_but_foreign_and_is_bounded() -> None:
    generator = random.Random(7)
    pieces = [
        *OFFERS,
        *PROSE,
        *UNFIT,
        SIGN_ON,
        WELCOME,
        b"\x01DCC ",
        b"@",
        b":",
        b" " * 200,
        b'"',
        b"!" * 300,
        b"\n",
    ]
    for number in range(300):
        session = Session()
        try:
            if number % 3:
                session.signed_on()
            for _ in range(20):
                data = b"".join(generator.choices(pieces, k=3))
                at = generator.randrange(len(data))
                data = data[:at] + generator.randbytes(generator.choice([0, 0, 1, 3])) + data[at:]
                session.feed(generator.choice([C2S, S2C]), data[: generator.randint(0, len(data))])
                assert session.nat.buffered <= 2 * 8191
        except Foreign:
            continue
        assert all(expectation.inside.address == INSIDE for expectation in session.nat.expected)


@pytest.mark.parametrize(
    "line",
    [
        b":" + b"a" * 500,
        b"@" + b"a" * 8100,
        b"@" + b"a " * 4000,
        b"PRIVMSG" + b" " * 490,
        b"PRIVMSG bob :\x01DCC SEND" + b" " * 470,
        b'PRIVMSG bob :\x01DCC SEND "' + b"a" * 470,
        b"PRIVMSG bob :\x01DCC SEND " + b'"' * 470,
        b"PRIVMSG bob :\x01DCC SEND x 1" + b" " * 460,
    ],
)
def test_hostile_line_byte_by_byte_comes_to_its_end(line: bytes) -> None:
    """With expressions that try everything this would take minutes."""
    session = Session().signed_on()
    assert session.say(line + b"\r\n", *range(1, len(line))) == line + b"\r\n"
    assert session.hear(line + b"\r\n", *range(1, len(line))) == line + b"\r\n"


# --- going on in another process ----------------------------------------------------------------------------


@pytest.mark.parametrize("cut", range(len(SEND)))
def test_reading_goes_on_where_it_stood(cut: int) -> None:
    session = Session().signed_on()
    session.say(SEND[:cut])
    positions = session.helper.positions()
    assert len(positions[0]) == len(positions[1]) <= 20
    session.helper = IrcHelper(False)
    session.helper.resume(positions, (len(session.seen[C2S]), len(session.seen[S2C])))
    assert session.helper.established
    assert session.say(SEND[cut:]) == (SEND[cut:] if cut else SENT)
    assert session.say(SEND) == SENT


@pytest.mark.parametrize("bad", [(b"", b"\0"), (b"\2", b"\0"), (b"\0\0", b"\0")])
def test_positions_that_are_none_are_refused(bad: tuple[bytes, bytes]) -> None:
    with pytest.raises(ValueError, match="positions"):
        IrcHelper(False).resume(bad, (0, 0))


def test_reading_goes_on_behind_a_line_s_end_in_both_directions() -> None:
    helper = IrcHelper(False)
    helper.resume(None, (0, 0))
    assert not helper.resync(C2S, SEND[20:30], 0, 1.0, False)
    assert not helper.resync(S2C, b"ING :x\r\n:bob PRIV", 0, 2.0, False)
    assert not helper.resync(C2S, SEND[30:40], 10, 3.0, True)
    assert helper.resync(C2S, b"00\r\n" + SEND + SEND[:9], 20, 4.0, True)
    session = Session()
    session.helper = helper
    assert session.say(SEND[9:]) == SEND[9:]
    assert session.say(SEND) == SENT
    assert session.hear(b"MSG alice :x\r\n") == b"MSG alice :x\r\n"


def test_hole_takes_certainty_away() -> None:
    helper = IrcHelper(False)
    helper.resume(None, (0, 0))
    assert not helper.resync(C2S, b"PING :x\r\n", 0, 1.0, False)
    assert not helper.resync(C2S, b"x", 100, 2.0, False)
    assert not helper.resync(S2C, b"PING :x\r\n", 0, 3.0, False)
    assert helper.resync(C2S, b"y\r\n", 101, 4.0, True)


# --- the record ---------------------------------------------------------------------------------------------


def test_record() -> None:
    assert (IRC.name, IRC.ports) == ("irc", (6667,))
    assert IRC.resizes == {End.CLIENT}
    assert set(IRC.services) == {"dcc-chat", "dcc-send"}
    assert all(service.greetings == () and service.cap is None for service in IRC.services.values())
    assert IRC.load() is IrcHelper


def test_flow_whose_lengths_may_change_skips_nothing() -> None:
    session = Session().signed_on()
    assert not session.helper.skips(C2S, b"PING :x\r\n", len(SIGN_ON), session.nat)
