"""An OSCAR server behind the router, through the whole core: lengths, pinholes, what both ends read."""

from __future__ import annotations

import random

import pytest

from nfreaim.core.address import Endpoint
from nfreaim.core.settings import EngineSettings
from tests.golden import load
from tests.oscar.messages import AIM, OOS, answered, relayed
from tests.oscar.redirect import ASKED, AT_HOME, HOME, naming, redirect, renamed
from tests.oscar.signon import CLIENT_SIGNON, HOST_ONLINE, SIGNON
from tests.oscar.tlv import tlv
from tests.tcp.packets import packed
from tests.unit.fakes import OUTSIDE
from tests.unit.oscar_fixtures import Router, Wire
from tests.unit.oscar_wires import HomeWire

GOLDEN = load()
GOOD = naming(f"{OUTSIDE}:5190".encode())


@pytest.mark.parametrize("frame", AT_HOME)
def test_every_cut_of_a_redirect(frame: bytes) -> None:
    good = redirected(frame)
    for cuts in [[], [1, 2, 4, 6], range(1, len(frame)), *([cut] for cut in range(1, len(frame)))]:
        wire = HomeWire().begun()
        assert wire.told(frame, cuts) == good, cuts
        assert wire.told(GOLDEN["self-info"].data, [1, 2, 4, 6]) == GOLDEN["self-info"].data
        assert wire.router.engine.counters.helpers["redirects"] == 1
        assert not wire.router.open_tokens


def redirected(frame: bytes) -> bytes:
    return renamed(frame, HOME, f"{OUTSIDE}:5190".encode())


def test_a_redirect_that_comes_late_is_whole_and_as_it_came() -> None:
    frame = AT_HOME[0]
    for cut in range(1, len(frame)):
        wire = HomeWire().begun()
        before = len(wire.left[1])
        wire.send(1, frame[:cut])
        wire.router.wait(0.031)
        assert wire.s2c[before:] == frame[:cut]
        wire.send(1, frame[cut:])
        assert wire.s2c[before:] == (GOOD if cut <= 4 else frame), cut
        counters = wire.router.engine.counters
        assert (counters.helpers["redirects"], counters.helpers["redirects_left"]) == (
            (1, 0) if cut <= 4 else (0, 1)
        )


def test_a_session_of_redirects_and_proposals_cut_at_random() -> None:
    rng = random.Random(3)
    frames = [
        *AT_HOME,
        relayed(OOS),
        relayed(AIM, who=b"amy1"),
        GOLDEN["self-info"].data,
        GOLDEN["keepalive"].data,
    ]
    frames += [redirect(tlv(5, b"elsewhere.example:5190") + tlv(6, bytes(256))), HOST_ONLINE]
    for _ in range(60):
        rng.shuffle(frames)
        wire = HomeWire(Router(EngineSettings(home_names=frozenset({"home.example"})))).online()
        data = b"".join(frames)
        cuts = sorted(rng.sample(range(1, len(data)), rng.randrange(12, 80)))
        wanted = b"".join(
            redirected(frame) if frame in AT_HOME else outside(frame) if frame[6:10] == b"\0\4\0\7" else frame
            for frame in frames
        )
        assert wire.told(data, cuts) == wanted
        assert wire.router.engine.counters.helpers["redirects"] == 3
        assert [pinhole.inside for pinhole in wire.router.pinholes] == [Endpoint("10.0.0.5", 5190)]


def outside(frame: bytes) -> bytes:
    """A relayed proposal of 10.0.0.5, but for its user info and service data."""
    own, out = packed("10.0.0.5"), packed(OUTSIDE)
    at = frame.index(b"COOKIE7\0", 30)
    block = frame[at:]
    for tag in (2, 3, 4):
        block = block.replace(tlv(tag, own), tlv(tag, out))
    inverse = [bytes(byte ^ 0xFF for byte in address) for address in (own, out)]
    return frame[:at] + block.replace(tlv(0x16, inverse[0]), tlv(0x16, inverse[1]))


def test_a_relayed_proposal_opens_a_pinhole_to_the_host_that_sent_it() -> None:
    wire = HomeWire().online()
    assert wire.told(relayed(OOS), [1, 2, 4, 6]) == outside(relayed(OOS))
    (pinhole,) = wire.router.firewall.pinholes
    assert (pinhole.inside, pinhole.outside) == (Endpoint("10.0.0.5", 5190), Endpoint(OUTSIDE, 5190))
    assert pinhole.flow == wire.flow_id
    assert not wire.stored.skewed
    wire.client(answered(1))
    assert not wire.router.firewall.pinholes


@pytest.mark.parametrize("address", ["10.0.1.5", "192.168.7.5"])
def test_a_private_address_of_some_other_network_gets_no_pinhole(address: str) -> None:
    wire = HomeWire().online()
    frame = relayed(OOS.replace(packed("10.0.0.5"), packed(address)))
    assert wire.told(frame) == frame
    assert not wire.router.firewall.changes
    assert [report.reason for report in wire.router.watcher.reports] == [
        f"{address} is not a host of the inside networks, which --lan names by interface"
    ]


def test_a_name_that_the_operator_listed_stands_for_the_server_however_it_is_written() -> None:
    wire = HomeWire(Router(EngineSettings(home_names=frozenset({"home.example"})))).begun()
    assert wire.told(naming(b"Home.Example:5190"), [1, 2, 4, 6]) == GOOD


def test_a_client_of_ours_is_followed_to_another_port() -> None:
    wire = Wire().handshake()
    wire.server(SIGNON, [1, 2, 4, 6])
    wire.client(CLIENT_SIGNON + ASKED["login-reply"])
    frame = naming(b"203.0.113.9:5191")
    assert wire.server(frame, [1, 2, 4, 6]) == frame
    assert wire.router.kernel.diverted == [Endpoint("203.0.113.9", 5191)]
    bos = Wire(wire.router, server=Endpoint("203.0.113.9", 5191)).sign_on()
    golden = GOLDEN["send-file-proposal"]
    assert bos.client(golden.data) == golden.expected["same-port"]
