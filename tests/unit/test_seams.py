"""What nobody thought of, at each seam of the core: no packet without a verdict, no byte other than sent."""

from __future__ import annotations

import logging
from typing import Any, NoReturn

import pytest

from nfreaim.core.address import Endpoint, FlowId
from nfreaim.core.tcp.segment import ACK, RST
from nfreaim.core.tcp.stream import Stream
from tests.script_helper import TEXT, address, offer
from tests.tcp.packets import packet
from tests.unit.fakes import CLIENT, OUTSIDE, SERVER, Router, Wire
from tests.unit.offers import EDITED, PROPOSAL
from tests.unit.wires import HomeWire

AT_HOME = b"server 10.0.0.9:5190\n"
GOOD = b"server %s:5190\n" % OUTSIDE.encode()


class Surprise(Exception):
    """No BackendError, nothing that anybody declared."""


def surprising(*_: Any) -> NoReturn:
    raise Surprise("nobody thought of this")


def breaking(owner: object, *names: str) -> None:
    for name in names:
        setattr(owner, name, surprising)


def tracebacks(caplog: pytest.LogCaptureFixture) -> int:
    return sum(record.exc_info is not None for record in caplog.records)


@pytest.mark.parametrize(
    ("part", "name"),
    [
        ("kernel", "outside_address"),
        ("firewall", "open"),
        ("firewall", "busy"),
    ],
)
def test_a_proposal_whose_pinhole_fails_in_an_unknown_way_leaves_as_it_came(
    part: str, name: str, caplog: pytest.LogCaptureFixture
) -> None:
    wire = Wire().sign_on()
    broken = getattr(wire.router, part)
    whole = getattr(broken, name)
    breaking(broken, name)
    assert wire.client(PROPOSAL, [100]) == PROPOSAL
    assert wire.client(PROPOSAL) == PROPOSAL
    assert not wire.router.open_tokens
    assert tracebacks(caplog) == 1, "the first of a kind says where"
    setattr(broken, name, whole)
    assert wire.client(PROPOSAL) == EDITED, "the flow is still read"


@pytest.mark.parametrize("name", ["opened", "claimed", "closed", "reported"])
def test_an_observer_that_fails_stops_nobody(name: str, caplog: pytest.LogCaptureFixture) -> None:
    wire = Wire().sign_on()
    breaking(wire.router.watcher, name)
    assert wire.client(PROPOSAL) == EDITED
    assert len(wire.router.pinholes) == 1
    (pinhole,) = wire.router.pinholes
    wire.router.pinholes.claimed(pinhole.outside, "203.0.113.7", wire.router.now)
    wire.fin(0)
    assert len(wire.router.pinholes) == 0
    assert not wire.router.firewall.pinholes
    assert tracebacks(caplog) == 1


def test_a_pinhole_that_cannot_be_removed_for_an_unknown_reason_is_tried_again() -> None:
    wire = Wire().sign_on()
    wire.client(PROPOSAL)
    firewall = wire.router.firewall
    whole = firewall.close
    breaking(firewall, "close")
    wire.fin(0)
    wire.router.wait(1.0)
    assert firewall.pinholes
    firewall.close = whole  # type: ignore[method-assign]
    wire.router.wait(1.0)
    assert not firewall.pinholes


@pytest.mark.parametrize("name", ["alive", "ended"])
def test_a_look_up_that_fails_closes_nothing_and_the_rest_of_the_tick_is_done(name: str) -> None:
    wire = Wire().sign_on()
    wire.client(PROPOSAL)
    wire.router.kernel.flushed.add(wire.flow_id)
    breaking(wire.router.kernel, name)
    wire.router.wait(20.0)
    assert len(wire.router.pinholes) == 1
    wire.router.wait(700.0)
    assert len(wire.router.pinholes) == 0, "its deadline passed"


def test_an_edit_that_cannot_be_protected_for_an_unknown_reason_is_not_made_and_said_once(
    caplog: pytest.LogCaptureFixture,
) -> None:
    wire = HomeWire().begun()
    kernel = wire.router.kernel
    whole = kernel.protect
    breaking(kernel, "protect")
    for _ in range(3):
        assert wire.told(AT_HOME, [1, 2, 4, 12]) == AT_HOME
    assert not wire.stored.skewed
    assert "edits that change lengths are not made" in caplog.text
    assert sum("edits that change lengths are not made" in record.message for record in caplog.records) == 1
    kernel.protect = whole  # type: ignore[method-assign]
    caplog.set_level(logging.INFO)
    assert wire.told(AT_HOME) == GOOD
    assert "are made again" in caplog.text
    breaking(kernel, "protect")
    assert wire.told(AT_HOME) == AT_HOME, "translated as before, and not edited"


def test_the_end_of_a_skewed_flow_survives_an_unprotect_that_fails() -> None:
    wire = HomeWire().begun()
    wire.told(AT_HOME)
    breaking(wire.router.kernel, "unprotect")
    wire.inject(0, len(wire.sent[0]), flags=RST | ACK)
    wire.router.kernel.flushed.add(wire.flow_id)
    wire.router.wait(2.0)
    wire.router.wait(12.0)
    assert not list(wire.router.engine.flows)


@pytest.mark.parametrize("name", ["offload", "undo_offload"])
def test_a_foreign_flow_passes_whatever_the_sets_do(name: str) -> None:
    wire = Wire()
    breaking(wire.router.kernel, name)
    for _ in range(2):
        wire.handshake()
        wire.inject(0, 0, b"GET / HTTP/1.1\r\n")
        assert not wire.router.open_tokens


def test_a_reset_that_fails_still_drops_what_nobody_can_translate() -> None:
    router = Router()
    breaking(router.kernel, "reset")
    raw = packet(CLIENT, SERVER, 1, 1, ACK, b"data")
    (verdict,) = router.engine.process(raw, "token", True, 1.0, skewed=True)
    assert verdict[0] == "token"
    assert not verdict[1].accept


def test_held_packets_get_their_verdicts_although_one_of_them_cannot_be_edited(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    wire = Wire().sign_on()
    wire.send(0, PROPOSAL[:-2], [80, 100])
    held = len(wire.router.open_tokens)
    assert held >= 2
    real, calls = Stream.rendered, list[int]()

    def rendered(self: Any, segment: Any, at: int) -> Any:
        calls.append(at)
        if len(calls) == 1:
            raise Surprise
        return real(self, segment, at)

    monkeypatch.setattr(Stream, "rendered", rendered)
    wire.send(0, PROPOSAL[-2:])
    assert not wire.router.open_tokens
    assert wire.router.engine.counters.failed_packets == 1
    assert tracebacks(caplog) == 1


# --- connection tracking that is flushed --------------------------------------------------------------------


def test_a_flushed_entry_that_comes_back_costs_no_pinhole() -> None:
    wire = Wire().sign_on()
    wire.client(PROPOSAL)
    for _ in range(5):
        wire.router.kernel.flushed.add(wire.flow_id)
        wire.router.wait(2.0)
        wire.router.wait(6.0)
        wire.router.kernel.flushed.clear()
        wire.router.wait(2.0)
    assert len(wire.router.pinholes) == 1


def test_an_entry_that_stays_away_or_says_that_it_is_over_ends_the_pinholes() -> None:
    wire = Wire().sign_on()
    wire.client(PROPOSAL)
    wire.router.kernel.flushed.add(wire.flow_id)
    wire.router.wait(2.0)
    assert len(wire.router.pinholes) == 1
    wire.router.wait(10.0)
    assert [reason for _, reason in wire.router.watcher.closes] == ["control connection lost"]
    again = Wire(client=CLIENT._replace(port=40200)).sign_on()
    again.client(PROPOSAL)
    again.router.kernel.dead.add(again.flow_id)
    again.router.wait(2.0)
    assert len(again.router.pinholes) == 0, "it ended, and connection tracking saw it"


def test_a_proposal_right_after_a_flush_is_edited_with_the_address_known_before() -> None:
    wire = Wire().sign_on()
    wire.client(PROPOSAL)
    breaking(wire.router.kernel, "outside_address")
    assert address(Endpoint(OUTSIDE, 5190)) in wire.client(offer(b"7654321"))


def test_a_skewed_flow_that_nobody_saw_end_stays_translated_after_a_flush() -> None:
    wire = HomeWire().begun()
    assert wire.told(AT_HOME) == GOOD
    wire.router.kernel.flushed.add(FlowId(*wire.ends))
    for _ in range(20):
        wire.router.wait(2.0)
    assert wire.stored.skewed
    assert wire.stored.key in wire.router.kernel.protected
    assert wire.told(TEXT) == TEXT
    wire.router.now += 5 * 3600.0
    wire.router.wait(2.0)
    wire.router.wait(12.0)
    assert not wire.router.kernel.protected, "nobody is there any more"


# --- others take pinholes out of the kernel -----------------------------------------------------------------


def test_pinholes_that_others_removed_are_put_back_and_no_other() -> None:
    wire = Wire().sign_on()
    table, firewall = wire.router.pinholes, wire.router.firewall
    assert table.reinstall(wire.router.now) == []
    wire.client(PROPOSAL)
    (pinhole,) = table
    assert table.reinstall(wire.router.now) == []
    firewall.pinholes.clear()
    assert table.reinstall(wire.router.now) == [pinhole]
    assert firewall.pinholes == [pinhole]
    wire.fin(0)
    assert table.reinstall(wire.router.now) == []
    assert firewall.pinholes == []


def test_what_the_kernel_itself_closed_at_its_deadline_is_no_damage_of_others() -> None:
    """Its entry ends up to a second before the daemon's tick closes it, and the watch may look in between."""
    wire = Wire().sign_on()
    table, firewall = wire.router.pinholes, wire.router.firewall
    wire.client(PROPOSAL)
    (pinhole,) = table
    firewall.pinholes.clear()
    assert table.reinstall(pinhole.deadline) == []
    assert firewall.pinholes == [], "nothing is opened beyond its deadline"
    assert table.reinstall(pinhole.deadline - 0.1) == []  # the kernel may have closed it meanwhile
    assert table.reinstall(pinhole.deadline - 2.0) == [pinhole]


def test_a_removal_that_the_renewal_repairs_is_told_all_the_same_and_once() -> None:
    wire = Wire().sign_on()
    table, firewall = wire.router.pinholes, wire.router.firewall
    wire.client(PROPOSAL)
    (pinhole,) = table
    firewall.pinholes.clear()
    firewall.renewing = True
    wire.router.wait(1.0)
    assert firewall.pinholes == [pinhole]
    assert table.reinstall(wire.router.now) == [pinhole]
    assert table.reinstall(wire.router.now) == []


def test_a_renewal_that_is_refused_ends_nothing() -> None:
    wire = Wire().sign_on()
    wire.client(PROPOSAL)
    firewall = wire.router.firewall
    firewall.pinholes.clear()
    firewall.renewing = firewall.refuse_add = True
    for _ in range(3):
        wire.router.wait(1.0)
    firewall.refuse_add = False
    wire.router.wait(1.0)
    assert firewall.pinholes == list(wire.router.pinholes)
