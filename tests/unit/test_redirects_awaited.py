"""Redirects of a server outside: only what the client waits for is followed, and only so many."""

from __future__ import annotations

import logging

import pytest

from nfreaim.core.address import Endpoint
from nfreaim.core.helper import Refused
from tests.oscar.redirect import ASKED, REDIRECTS, migration, naming
from tests.oscar.signon import HOST_ONLINE, SIGNON, hello
from tests.oscar.tlv import tlv
from tests.unit.talk import FakeNat, Talk

BOS = b"203.0.113.9:5191"


def outside() -> FakeNat:
    return FakeNat(server_inside=False)


def refused(talk: Talk) -> int:
    return talk.nat.counters.helpers["redirects_refused"]


@pytest.mark.parametrize("name", ["login-reply", "service-redirect"])
@pytest.mark.parametrize("online", [False, True])
def test_a_redirect_that_nobody_asked_for_is_not_followed(name: str, online: bool) -> None:
    talk = Talk(outside())
    talk.online() if online else talk.begun()
    for other in set(ASKED) - {name}:
        talk.send(0, ASKED[other])
    assert talk.send(1, naming(BOS, name)) == naming(BOS, name)
    assert (talk.nat.followed, refused(talk)) == ([], 1)


@pytest.mark.parametrize("name", ["login-reply", "service-redirect"])
def test_one_request_has_one_reply(name: str) -> None:
    talk = Talk(outside()).begun()
    talk.send(0, ASKED[name])
    for port in (5191, 5192, 5193):
        talk.send(1, naming(b"203.0.113.9:%d" % port, name))
    assert (talk.nat.followed, refused(talk)) == ([Endpoint("203.0.113.9", 5191)], 2)
    talk.send(0, ASKED[name])
    talk.send(1, naming(b"203.0.113.9:5194", name))
    assert len(talk.nat.followed) == 2


def test_a_request_before_the_sign_on_frames_of_both_sides_asks_for_nothing() -> None:
    talk = Talk(outside())
    talk.send(0, hello(0) + ASKED["login-reply"])
    assert talk.nat.followed == []
    talk.send(1, SIGNON + naming(BOS))
    assert talk.nat.followed == [Endpoint("203.0.113.9", 5191)]


@pytest.mark.parametrize(
    ("items", "online", "followed"),
    [(b"", False, 0), (tlv(1, b"1000003") + tlv(2, b"x"), False, 1), (tlv(6, b"cookie"), True, 0)],
)
def test_a_login_reply_in_a_sign_off_frame_answers_a_sign_on_with_a_name(
    items: bytes, online: bool, followed: int
) -> None:
    talk = Talk(outside())
    talk.send(1, SIGNON)
    talk.send(0, hello(0, items))
    if online:
        talk.send(1, HOST_ONLINE)
    for port in (5191, 5192):
        talk.send(1, naming(b"203.0.113.9:%d" % port, "icq-flap-login-reply"))
    assert len(talk.nat.followed) == followed


def test_a_server_moves_a_client_twice_at_most_and_past_sign_on_only() -> None:
    talk = Talk(outside()).begun()
    moved = [migration(tlv(5, b"203.0.113.9:%d" % port)) for port in (5191, 5192, 5193, 5194)]
    talk.send(1, moved[0])
    assert (talk.nat.followed, refused(talk)) == ([], 1)
    talk = Talk(outside()).online()
    for frame in moved:
        talk.send(1, frame)
    assert (len(talk.nat.followed), refused(talk)) == (2, 2)


def test_what_the_router_refuses_is_counted_and_said_once(caplog: pytest.LogCaptureFixture) -> None:
    class Full(FakeNat):
        def watch_server(self, server: Endpoint) -> None:
            raise Refused("8 other servers on this connection")

    caplog.set_level(logging.INFO)
    talk = Talk(Full(server_inside=False)).online()
    for number in range(100):
        talk.send(0, ASKED["service-redirect"])
        talk.send(1, naming(b"203.0.113.9:%d" % (20000 + number), "service-redirect"))
    assert refused(talk) == 100
    assert len(caplog.records) == 1
    assert "is not followed: 8 other servers on this connection" in caplog.text


def test_requests_without_replies_save_up_for_no_flood() -> None:
    talk = Talk(outside()).online()
    for _ in range(100):
        talk.send(0, ASKED["service-redirect"])
    for number in range(100):
        talk.send(1, naming(b"203.0.113.9:%d" % (20000 + number), "service-redirect"))
    assert len(talk.nat.followed) == 8


@pytest.mark.parametrize("name", REDIRECTS)
def test_nothing_is_followed_from_a_server_inside(name: str) -> None:
    talk = Talk(FakeNat(server_inside=True)).begun()
    talk.send(0, ASKED[name])
    talk.send(1, naming(BOS, name))
    assert talk.nat.followed == []
