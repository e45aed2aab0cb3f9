"""Redirects of a server behind the router: what outside clients are told, however it is cut."""

from __future__ import annotations

import logging
import random
from itertools import combinations

import pytest

from nfreaim.core.address import Endpoint
from nfreaim.core.tcp.offsets import Edit
from nfreaim.helpers.oscar.flap import MAX_FRAME
from nfreaim.layers.oscar_messages import MAX_TLVS
from nfreaim.layers.oscar_redirect import MAX_FAMILIES
from tests.golden import load
from tests.oscar.flap import FLAP_SNAC, flap
from tests.oscar.redirect import ASKED, HOME, REDIRECTS, migration, naming, redirect, renamed
from tests.oscar.signon import SIGNON
from tests.oscar.snac import MIGRATION, SERVICE_REDIRECT
from tests.oscar.tlv import tlv
from tests.unit.talk import REACHED, FakeNat, Talk

GOLDEN = load()
GROWN, SHRUNK = Endpoint("198.51.100.200", 45190), Endpoint("192.0.2.7", 80)

CASES = [(name, case) for name in REDIRECTS for case in ("grown", "shrunk")]


def reached_at(case: str) -> FakeNat:
    """A router whose client named what the golden packets name, and is to be told another endpoint."""
    return FakeNat(reached_at={"grown": GROWN, "shrunk": SHRUNK}[case], names=frozenset({"203.0.113.9"}))


def sent(frame: bytes, nat: FakeNat | None = None) -> tuple[bytes, FakeNat]:
    talk = Talk(nat).begun()
    return talk.send(1, frame), talk.nat


# --- golden packets ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(("name", "case"), CASES)
def test_a_golden_redirect_names_what_the_client_reached(name: str, case: str) -> None:
    out, nat = sent(GOLDEN[name].data, reached_at(case))
    assert out == GOLDEN[name].expected[case]
    assert out == naming(str(nat.reached_at).encode(), name)
    assert (nat.counters.helpers["redirects"], nat.counters.helpers["redirects_left"]) == (1, 0)
    assert not nat.followed


@pytest.mark.parametrize(("name", "case"), CASES)
def test_a_redirect_cut_in_two_at_every_offset(name: str, case: str) -> None:
    golden = GOLDEN[name]
    for cut in range(1, len(golden.data)):
        talk = Talk(reached_at(case)).begun()
        assert talk.send(1, golden.data, [cut]) == golden.expected[case], cut
        assert talk.holds == [4 if cut > 4 else None, None], cut


@pytest.mark.parametrize(("name", "case"), CASES)
def test_a_redirect_one_byte_at_a_time(name: str, case: str) -> None:
    golden = GOLDEN[name]
    talk = Talk(reached_at(case)).begun()
    assert talk.send(1, golden.data, range(1, len(golden.data))) == golden.expected[case]
    assert talk.holds == [None] * 4 + [4] * (len(golden.data) - 5) + [None]


@pytest.mark.parametrize(("name", "case"), CASES)
def test_a_redirect_in_the_five_segments_of_a_server(name: str, case: str) -> None:
    golden = GOLDEN[name]
    talk = Talk(reached_at(case)).begun()
    assert talk.send(1, golden.data, [1, 2, 4, 6]) == golden.expected[case]
    assert talk.holds == [None, None, None, 4, None]


@pytest.mark.parametrize(("name", "case"), CASES)
def test_a_sender_that_waits_for_the_ack_of_its_first_byte_is_not_made_to_wait(name: str, case: str) -> None:
    golden = GOLDEN[name]
    talk = Talk(reached_at(case), late=True).begun()
    assert talk.send(1, golden.data, [1]) == golden.expected[case]
    assert talk.holds == [None, None]


@pytest.mark.parametrize("case", ["grown", "shrunk"])
def test_redirects_among_other_frames_in_one_segment_and_cut_at_random(case: str) -> None:
    names = [*REDIRECTS[:2], "text-message", "keepalive", *REDIRECTS, "self-info", "signoff"]
    data = b"".join(GOLDEN[name].data for name in names)
    wanted = b"".join(GOLDEN[name].expected.get(case, GOLDEN[name].data) for name in names)
    rng = random.Random(17)
    for count in [0] * 3 + [*range(1, 60)] * 3:
        talk = Talk(reached_at(case)).begun()
        assert talk.send(1, data, sorted(rng.sample(range(1, len(data)), count))) == wanted
        assert talk.nat.counters.helpers["redirects"] == 5


@pytest.mark.parametrize(
    ("text", "reached"),
    [
        (b"10.0.0.9:5190", Endpoint("203.0.113.100", 5190)),
        (b"192.168.100.200:5190", Endpoint("192.0.2.4", 80)),
        (b"192.168.100.200:5190", Endpoint("198.51.100.1", 15190)),
        (b"10.0.0.9:5190", Endpoint("192.0.2.44", 443)),
        (b"home.example:5190", Endpoint("203.0.113.100", 5190)),
    ],
)
def test_texts_that_grow_that_shrink_and_that_stay_as_long(text: bytes, reached: Endpoint) -> None:
    for name in REDIRECTS:
        out, nat = sent(naming(text, name), FakeNat(reached_at=reached))
        assert out == naming(str(reached).encode(), name)
        assert nat.counters.helpers["redirects"] == 1


@pytest.mark.parametrize("name", REDIRECTS)
def test_without_a_port_only_the_host_is_replaced(name: str) -> None:
    assert sent(naming(b"10.0.0.9", name))[0] == naming(b"203.0.113.100", name)


def test_every_length_and_the_text_are_the_only_bytes_edited() -> None:
    talk = Talk().begun()
    at = len(talk.sent[1])
    talk.send(1, naming(HOME))
    assert talk.edits[1] == [
        Edit(at + 4, at + 6, b"\x01\x33"),
        Edit(at + 28, at + 30 + len(HOME), b"\0\x12203.0.113.100:5190"),
    ]
    talk = Talk(FakeNat(reached_at=Endpoint("192.0.2.9", 519))).begun()
    talk.send(1, naming(HOME))
    assert talk.edits[1] == [Edit(at + 30, at + 30 + len(HOME), b"192.0.2.9:519")]


def test_a_migration_and_a_snac_with_an_extra_block() -> None:
    body = tlv(5, HOME) + tlv(6, b"cookie")
    extra = b"\0\6\0\1\0\2\0\4"
    for frame in (
        migration(body),
        migration(body, families=b"\0\0"),
        migration(body, b"\0\1\0\4", extra),
        redirect(body, SERVICE_REDIRECT, extra),
        redirect(tlv(6, b"cookie") + tlv(5, HOME), extra=b"\0\0"),
    ):
        for cut in range(1, len(frame)):
            assert Talk().begun().send(1, frame, [cut]) == renamed(frame, HOME, str(REACHED).encode())


def test_a_server_that_stands_there_twice_alike_is_replaced_twice() -> None:
    frame = redirect(tlv(5, HOME) + tlv(6, b"cookie") + tlv(5, HOME))
    out, nat = sent(frame)
    assert out == renamed(frame, HOME, str(REACHED).encode())
    assert nat.counters.helpers["redirects"] == 1


def test_a_redirect_of_a_session_is_rewritten_as_well() -> None:
    frame = naming(HOME, "service-redirect")
    assert Talk().online().send(1, frame, [1, 2, 4, 6]) == naming(str(REACHED).encode(), "service-redirect")


# --- holding ----------------------------------------------------------------------------------------------


def test_what_cannot_become_a_redirect_is_not_held() -> None:
    """A frame is let go as soon as its channel or its family says that it is something else."""
    for name, cuts, holds in [
        ("text-message", [1, 2, 4, 6], [None, None, None, 4, None]),
        ("text-message", [6, 7, 8, 9, 10], [4, 4, None, None, None, None]),
        ("rate-parameters", [6, 8, 9, 10], [4, 4, 4, None, None]),
        ("keepalive", [1, 2, 4, 5], [None, None, None, None, None]),
        ("signoff", [1, 2, 4, 5], [None, None, None, 4, None]),
    ]:
        for talk in (Talk().begun(), Talk().online()):
            assert talk.send(1, GOLDEN[name].data, cuts) == GOLDEN[name].data
            assert talk.holds == holds, (name, cuts)


def test_the_client_s_frames_and_those_before_sign_on_are_not_held() -> None:
    talk = Talk()
    talk.send(1, SIGNON + b"\x2a\4\0\2\0", [1, 2, 4, 6])
    assert set(talk.holds) == {None}
    talk = Talk().begun()
    frame = naming(HOME)
    assert talk.send(0, frame, [1, 2, 4, 6]) == frame
    assert set(talk.holds) == {None}
    assert talk.nat.counters.helpers["redirects"] == talk.nat.counters.helpers["redirects_left"] == 0


def test_frames_too_long_for_a_redirect_are_not_held() -> None:
    """A login reply has some hundred bytes. One of 8 KiB passes, as does a sign-off that long."""
    for channel in (2, 4):
        body = (b"\0\x17\0\3" + bytes(6) if channel == 2 else b"") + tlv(5, HOME) + tlv(6, bytes(MAX_FRAME))
        frame = flap(channel, data=body)
        talk = Talk().begun()
        assert talk.send(1, frame, [5, 6, 100, 5000]) == frame
        assert talk.holds[2:] == [None] * 3


# --- left alone -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", REDIRECTS)
def test_when_its_length_has_left_the_whole_redirect_stays_as_it_came(name: str) -> None:
    frame = naming(HOME, name)
    for cut in range(5, len(frame)):
        talk = Talk(late=True).begun()
        assert talk.send(1, frame, [cut]) == frame, cut
        assert (talk.nat.counters.helpers["redirects"], talk.nat.counters.helpers["redirects_left"]) == (0, 1)
    for first, second in combinations(range(1, len(frame), 13), 2):
        talk = Talk(late=True).begun()
        assert talk.send(1, frame, [first, second]) in (frame, naming(str(REACHED).encode(), name))


LEFT = {
    "an address that is not ours": (tlv(5, b"198.51.100.5:5190"), "server_names"),
    "a name that is not listed": (tlv(5, b"elsewhere.example:5190"), "server_names"),
    "an address with leading zeros": (tlv(5, b"010.0.0.09:5190"), "IPv4|server_names"),
    "IPv6": (tlv(5, b"[2001:db8::9]:5190"), "IPv4"),
    "bare IPv6": (tlv(5, b"2001:db8::9"), "IPv4"),
    "two servers": (tlv(5, HOME) + tlv(5, b"10.0.0.8:5190"), "two different"),
    "two ports": (tlv(5, HOME) + tlv(5, b"10.0.0.9:5191"), "two different"),
    "no text": (tlv(5, b""), "IPv4"),
    "no host": (tlv(5, b":5190"), "IPv4"),
    "port 0": (tlv(5, b"10.0.0.9:0"), "IPv4"),
    "port 65536": (tlv(5, b"10.0.0.9:65536"), "IPv4"),
    "port and no number": (tlv(5, b"10.0.0.9:"), "IPv4"),
    "a port that is none": (tlv(5, b"10.0.0.9:oscar"), "IPv4"),
    "a NUL": (tlv(5, HOME + b"\0"), "IPv4"),
    "a newline": (tlv(5, HOME + b"\n"), "IPv4"),
    "not ASCII": (tlv(5, b"10.0.0.\xb29:5190"), "IPv4"),
    "UTF-16": (tlv(5, HOME.decode().encode("utf-16-be")), "IPv4"),
    "a TLV that overruns": (b"\0\5\0\xff" + HOME, "contradict"),
    "bytes left over": (tlv(5, HOME) + b"\0", "contradict"),
    "too many TLVs": (tlv(5, HOME) + tlv(9, b"") * MAX_TLVS, "contradict"),
}


@pytest.mark.parametrize("case", LEFT)
@pytest.mark.parametrize("midway", [False, True])
def test_bad_input_is_left_alone_counted_and_said_once(
    case: str, midway: bool, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    tlvs, advice = LEFT[case]
    frame = redirect(tlv(1, b"alice1") + tlvs)
    talk = Talk().begun()
    for _ in range(3):
        assert talk.send(1, frame, [1, 2, 4, 6, len(frame) // 2] if midway else []) == frame
    counters = talk.nat.counters
    assert (counters.helpers["redirects"], counters.helpers["redirects_left"]) == (0, 3)
    lines = [record for record in caplog.records if record.levelno >= logging.INFO]
    assert [record.levelname for record in lines] == ["INFO"]
    assert any(word in lines[0].getMessage() for word in advice.split("|"))
    assert lines[0].getMessage().isprintable()
    # and the next one, if it is sound, is rewritten
    assert talk.send(1, naming(HOME)) == naming(str(REACHED).encode())


def test_an_empty_migration_or_one_that_lies_about_its_families() -> None:
    body = tlv(5, HOME)
    for data in (
        b"",
        b"\0",
        b"\0\x09\0\1" + body,
        b"\xff\xff" + body,
        bytes([0, MAX_FAMILIES + 1]) + bytes(300),
    ):
        frame = redirect(data, MIGRATION)
        out, nat = sent(frame)
        assert out == frame
        assert nat.counters.helpers["redirects_left"] == nat.counters.helpers["malformed_messages"] == 1


def test_a_router_that_does_not_know_where_the_client_connected_to_leaves_it(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.INFO)
    out, nat = sent(naming(HOME), FakeNat(reached_at=None))
    assert out == naming(HOME)
    assert nat.counters.helpers["redirects_left"] == 1
    assert "connection tracking" in caplog.text


@pytest.mark.parametrize("text", [b"203.0.113.100:5190", b"203.0.113.100", b"203.0.113.100:5191"])
def test_a_server_that_names_its_outside_address_itself_is_right(text: bytes) -> None:
    nat = FakeNat(names=frozenset({"203.0.113.100"}))
    assert sent(naming(text), nat)[0] == naming(text)
    assert nat.counters.helpers["redirects"] == nat.counters.helpers["redirects_left"] == 0


def test_a_refused_login_and_a_sign_off_with_a_reason_are_no_redirects() -> None:
    for frame in (
        redirect(tlv(1, b"alice1") + tlv(8, b"\0\5") + tlv(4, b"http://10.0.0.9/")),
        flap(4, data=tlv(9, b"\0\1") + tlv(11, b"http://10.0.0.9/")),
        flap(4, data=b"\xff"),
    ):
        out, nat = sent(frame)
        assert out == frame
        assert nat.counters.helpers["redirects"] == nat.counters.helpers["redirects_left"] == 0


def test_a_text_in_a_message_that_looks_like_a_redirect_is_a_text() -> None:
    frame = flap(
        FLAP_SNAC, data=b"\0\4\0\7" + bytes(6) + b"COOKIE7\0\0\1\4bob1\0\0\0\0" + tlv(2, naming(HOME))
    )
    talk = Talk().online()
    assert talk.send(1, frame, [1, 2, 4, 6, 60]) == frame
    assert talk.holds == [None, None, None, 4, None, None]


def test_before_both_sides_have_signed_on_nothing_is_read() -> None:
    for name in REDIRECTS:
        talk = Talk()
        talk.send(1, SIGNON)
        assert talk.send(1, naming(HOME, name)) == naming(HOME, name)
        assert talk.nat.counters.helpers["redirects"] == talk.nat.counters.helpers["redirects_left"] == 0


# --- what channel 4 means ---------------------------------------------------------------------------------


def test_a_sign_off_ends_what_the_session_had_opened_and_a_login_reply_does_not() -> None:
    for frame, ends in [
        (GOLDEN["signoff"].data, True),
        (flap(4, data=tlv(9, b"\0\1")), True),
        (flap(4, data=bytes(MAX_FRAME)), True),
        (naming(HOME, "icq-flap-login-reply"), False),
        (naming(b"elsewhere.example:1", "icq-flap-login-reply"), False),
    ]:
        for inside in (True, False):
            talk = Talk(FakeNat(server_inside=inside)).online()
            talk.send(1, frame, [1, 2, 4])
            assert talk.nat.withdrawn == (["signed off"] if ends else [])


def test_a_client_s_sign_off_ends_it_at_its_header() -> None:
    talk = Talk(FakeNat(server_inside=False)).online()
    talk.send(0, flap(4, data=tlv(9, b"\0\1"))[:6])
    assert talk.nat.withdrawn == ["signed off"]


# --- servers of somebody else -----------------------------------------------------------------------------


@pytest.mark.parametrize("text", [b"203.0.113.9:5191", b"10.0.0.9:5191", b"198.51.100.5:5191"])
def test_a_stranger_s_redirect_is_followed_and_not_touched(text: bytes) -> None:
    for name in REDIRECTS:
        frame = naming(text, name)
        for cuts in ([], [1, 2, 4, 6], range(1, len(frame))):
            talk = Talk(FakeNat(server_inside=False)).begun()
            talk.send(0, ASKED[name])
            assert talk.send(1, frame, cuts) == frame
            assert set(talk.holds) == {None}
            assert talk.nat.followed == [Endpoint(text.decode().partition(":")[0], 5191)]
            assert talk.nat.counters.helpers["redirects"] == talk.nat.counters.helpers["redirects_left"] == 0


def test_a_stranger_s_redirect_without_a_port_means_the_flow_s_own() -> None:
    talk = Talk(FakeNat(server_inside=False)).begun()
    talk.send(0, ASKED["login-reply"])
    talk.send(1, naming(b"203.0.113.7"))
    assert talk.nat.followed == [Endpoint("203.0.113.7", 5190)]


def test_a_stranger_s_redirect_is_kept_unread_no_byte_longer_than_any_frame() -> None:
    """In the middle of a session a frame of this kind is nobody's proposal, whatever its bytes look like."""
    frame = redirect(tlv(1, b"\0" * 2 + b"\0\2" + b"\1a" + b"\0\0\0\0") + tlv(5, b"203.0.113.7:1"))
    talk = Talk(FakeNat(server_inside=False)).online()
    talk.nat.expected[b"other"] = None  # type: ignore[assignment]
    for cut in range(1, len(frame)):
        assert talk.send(1, frame, [cut]) == frame
        assert talk.holds == [None, None]


@pytest.mark.parametrize(("text", "said"), [(b"bos.example:5191", "5191"), (b"bos.example:5190", "")])
def test_a_name_cannot_be_followed_and_another_port_has_to_be_listed(
    text: bytes, said: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    nat = sent(naming(text), FakeNat(server_inside=False))[1]
    assert not nat.followed
    assert ("add 5191 to ports" in caplog.text) == bool(said)


@pytest.mark.parametrize("case", [case for case in LEFT if case not in ("an address that is not ours",)])
def test_a_stranger_s_bad_redirect_teaches_nothing(case: str) -> None:
    frame = redirect(LEFT[case][0])
    out, nat = sent(frame, FakeNat(server_inside=False))
    assert out == frame
    assert not nat.followed
    assert nat.counters.helpers["redirects_left"] == 0
