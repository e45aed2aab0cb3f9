"""A server behind the router through the whole core: changed lengths, pinholes, and what both ends read."""

from __future__ import annotations

import random

import pytest

from nfreaim.core.address import Endpoint
from nfreaim.core.settings import EngineSettings
from tests.script_helper import TEXT, offer
from tests.unit.fakes import OUTSIDE, Router, Wire
from tests.unit.offers import EDITED, PROPOSAL
from tests.unit.wires import HomeWire

AT_HOME = b"server 10.0.0.9:5190\n"
GOOD = b"server %s:5190\n" % OUTSIDE.encode()
FIRST = 7  # offset of the address


def test_every_cut_of_a_redirect() -> None:
    for cuts in [[], range(1, len(AT_HOME)), *([cut] for cut in range(1, len(AT_HOME)))]:
        wire = HomeWire().begun()
        assert wire.told(AT_HOME, cuts) == GOOD, cuts
        assert wire.told(TEXT, [1, 2, 4, 6]) == TEXT
        assert wire.router.engine.counters.helpers["redirects"] == 1
        assert not wire.router.open_tokens


def test_a_redirect_that_comes_late_is_whole_and_as_it_came() -> None:
    for cut in range(1, len(AT_HOME)):
        wire = HomeWire().begun()
        before = len(wire.left[1])
        wire.send(1, AT_HOME[:cut])
        wire.router.wait(0.031)
        assert wire.s2c[before:] == AT_HOME[:cut]
        wire.send(1, AT_HOME[cut:])
        assert wire.s2c[before:] == (GOOD if cut <= FIRST else AT_HOME), cut
        counters = wire.router.engine.counters.helpers
        assert (counters["redirects"], counters["redirects_left"]) == ((1, 0) if cut <= FIRST else (0, 1))


def test_nothing_waits_longer_than_the_hold_time() -> None:
    wire = HomeWire(Router(EngineSettings(hold=0.01))).begun()
    wire.send(1, AT_HOME[:15], [1, 2, 4, 12])
    assert len(wire.router.open_tokens) == 2
    wire.router.wait(0.0101)
    assert not wire.router.open_tokens


def test_a_session_of_redirects_and_proposals_cut_at_random() -> None:
    rng = random.Random(3)
    pairs = [(AT_HOME, GOOD), (AT_HOME, GOOD), (PROPOSAL, EDITED), (TEXT, TEXT)]
    pairs += [(b"server 198.51.100.9:5190\n",) * 2]
    for _ in range(60):
        rng.shuffle(pairs)
        wire = HomeWire().begun()
        data, wanted = (b"".join(pair[side] for pair in pairs) for side in (0, 1))
        cuts = sorted(rng.sample(range(1, len(data)), rng.randrange(12, 80)))
        assert wire.told(data, cuts) == wanted
        assert wire.router.engine.counters.helpers["redirects"] == 2
        assert [pinhole.inside for pinhole in wire.router.pinholes] == [Endpoint("10.0.0.5", 5190)]


def test_a_relayed_proposal_opens_a_pinhole_to_the_host_that_sent_it() -> None:
    wire = HomeWire().begun()
    assert wire.told(PROPOSAL, [1, 2, 4, 6]) == EDITED
    (pinhole,) = wire.router.firewall.pinholes
    assert (pinhole.inside, pinhole.outside) == (Endpoint("10.0.0.5", 5190), Endpoint(OUTSIDE, 5190))
    assert (pinhole.flow, pinhole.protocol) == (wire.flow_id, "script")
    assert not wire.stored.skewed
    wire.client(b"cancel 1234567\n")
    assert not wire.router.firewall.pinholes


@pytest.mark.parametrize("address", ["10.0.1.5", "192.168.7.5"])
def test_a_private_address_of_some_other_network_gets_no_pinhole(address: str) -> None:
    wire = HomeWire().begun()
    line = offer(at=Endpoint(address, 5190))
    assert wire.told(line) == line
    assert not wire.router.firewall.changes
    assert [report.reason for report in wire.router.watcher.reports] == [
        f"{address} is not a host of the inside networks, which --lan names by interface"
    ]


def test_a_server_that_nobody_vouches_for_gets_no_pinhole_and_keeps_its_redirects() -> None:
    wire = HomeWire().begun()
    kernel = wire.router.kernel
    assert kernel.met_flows == [wire.flow_id], "the answer may be prepared at sign-on"
    kernel.distrusted = {"10.0.0.5": "who is that?"}
    assert wire.told(PROPOSAL, [1, 2, 4, 6]) == PROPOSAL
    other = offer(at=Endpoint("10.0.0.6", 5190))
    assert wire.told(other) == offer(at=Endpoint(OUTSIDE, 5190)), "trust is a matter of each host"
    assert wire.told(AT_HOME) == GOOD, "this tells a client only where it came from"
    assert [report.reason for report in wire.router.watcher.reports if report.reason] == ["who is that?"]
    assert [pinhole.inside.address for pinhole in wire.router.pinholes] == ["10.0.0.6"]


def test_a_server_that_cannot_be_judged_gets_no_pinhole() -> None:
    wire = HomeWire().begun()
    assert wire.told(AT_HOME) == GOOD  # where it was reached is known from now on
    wire.router.kernel.broken = True
    assert wire.told(PROPOSAL) == PROPOSAL
    assert not wire.router.firewall.pinholes


def test_clients_of_ours_need_nobody_to_vouch_for_them() -> None:
    wire = Wire().sign_on()
    wire.router.kernel.distrusted = {"10.0.0.5": "who is that?"}
    assert wire.client(PROPOSAL) == EDITED
    assert wire.router.kernel.met_flows == []


def test_two_clients_of_one_server_each_come_back_the_way_they_came() -> None:
    router = Router()
    router.kernel.reached_at = Endpoint("198.51.100.200", 45190)
    bob = HomeWire(router).begun()
    dave = HomeWire(router, client=Endpoint("203.0.113.21", 51000)).begun()
    assert bob.told(AT_HOME) == b"server 198.51.100.200:45190\n"
    router.kernel.reached_at = Endpoint("192.0.2.7", 80)
    assert dave.told(AT_HOME, [1, 2, 4, 6]) == b"server 192.0.2.7:80\n"


def test_a_retransmitted_redirect_is_the_same_redirect_and_counts_once() -> None:
    wire = HomeWire().begun()
    at = len(wire.sent[1])
    wire.told(AT_HOME, [1, 2, 4, 6])
    wire.inject(1, at, AT_HOME)
    wire.inject(1, at + 3, AT_HOME[3:18])
    assert wire.s2c[at:].startswith(GOOD)
    assert wire.router.engine.counters.helpers["redirects"] == 1


def test_a_client_of_ours_is_followed_to_another_port() -> None:
    wire = Wire().sign_on()
    line = b"server 203.0.113.9:5191\n"
    assert wire.server(line, [1, 2, 4, 6]) == line
    assert wire.router.kernel.diverted == [Endpoint("203.0.113.9", 5191)]
    assert [(one.client, one.protocol) for one in wire.router.kernel.followed] == [("10.0.0.5", "script")]
    bos = Wire(wire.router, server=Endpoint("203.0.113.9", 5191)).sign_on()
    assert bos.client(PROPOSAL) == EDITED
    amy = Wire(wire.router, Endpoint("10.0.0.6", 1), Endpoint("203.0.113.9", 5191)).handshake()
    assert len(wire.router.engine.flows) == 2, "it is followed for the client that was redirected"
    assert amy.client(TEXT) == TEXT
