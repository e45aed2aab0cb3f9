"""The log: an error of ours must be found from it, and nothing that was read may stand in it."""

from __future__ import annotations

import io
import logging
import math
from collections.abc import Callable
from dataclasses import replace

import pytest

from nfreaim.core.address import Endpoint, FlowId
from nfreaim.core.firewall.pinhole import Pinhole
from nfreaim.core.helper import Report
from nfreaim.host.events import OPENED, Event
from nfreaim.host.report.journal import Journal
from nfreaim.host.report.log_output import QuietFormatter
from tests.oscar.messages import proposal
from tests.oscar.tlv import tlv
from tests.unit.oscar_wires import wire_of

SECRET = b"markedtext\xff"


def quote() -> None:
    SECRET.decode()


def wrap() -> None:
    try:
        quote()
    except UnicodeDecodeError as error:
        raise KeyError(error.object) from error


@pytest.mark.parametrize(("fail", "named"), [(quote, "UnicodeDecodeError"), (wrap, "KeyError")])
def test_logged_exception_shows_its_place_and_type_and_no_byte_that_was_read(
    fail: Callable[[], None], named: str
) -> None:
    text = io.StringIO()
    handler = logging.StreamHandler(text)
    handler.setFormatter(QuietFormatter("%(levelname)s %(message)s"))
    log = logging.Logger("test")
    log.addHandler(handler)
    try:
        fail()
    except Exception:
        log.exception("a packet failed")
    said = text.getvalue()
    assert said.startswith("ERROR a packet failed\nTraceback")
    assert said.endswith(f"builtins.{named}\n")
    assert f"in {fail.__name__}" in said
    assert "marked" not in said


ALICE = FlowId(Endpoint("10.0.0.5", 40123), Endpoint("203.0.113.9", 7777))
HERE, THERE = Endpoint("10.0.0.5", 5000), Endpoint("203.0.113.1", 40000)


def test_every_line_about_a_pinhole_or_a_message_names_the_protocol(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "nfreaim")
    journal = Journal()
    pinhole = Pinhole(HERE, THERE, ALICE, b"agreed", "chat", math.inf, ("198.51.100.7",), protocol="one")
    journal.opened(pinhole)
    journal.claimed(pinhole, "198.51.100.7")
    journal.closed(pinhole, "cancelled")
    report = Report("out", "chat", 1, b"agreed", HERE, HERE, "left", "too many")
    journal.reported(ALICE, "one", report)
    journal.reported(ALICE, "one", replace(report, action="mapped-back"))
    assert len(caplog.messages) == 5
    assert all(line.startswith("one: ") for line in caplog.messages)
    assert "agreed" not in caplog.text
    assert b"agreed".hex() not in caplog.text


def test_what_was_opened_is_logged_at_once_and_told_before_what_follows(
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.INFO, "nfreaim")
    pinhole = Pinhole(HERE, THERE, ALICE, b"", "chat", math.inf, protocol="one")
    report = Report("out", "chat", 1, b"", HERE, THERE, "rewritten", "own address")
    left = replace(report, action="left", reason="too many")
    follows: list[tuple[str, Callable[[Journal], None]]] = [
        ("claimed", lambda journal: journal.claimed(pinhole, "198.51.100.7")),
        ("closed", lambda journal: journal.closed(pinhole, "cancelled")),
        ("left alone", lambda journal: journal.reported(ALICE, "one", left)),
    ]
    for what, follow in follows:
        caplog.clear()
        journal, heard = Journal(), list[Event]()
        journal.late, journal.hear = True, heard.append
        journal.opened(pinhole)
        journal.reported(ALICE, "one", report)
        assert len(caplog.messages) == 1
        assert not heard
        follow(journal)
        assert ["pinhole opened" in line for line in caplog.messages] == [True, False]
        assert what in caplog.messages[1]
        assert [event.kind is OPENED for event in heard] == [True, False]
        journal.opened(pinhole)
        journal.tell()
        journal.tell()
        assert [event.kind is OPENED for event in heard] == [True, False, True]


def test_what_comes_again_and_again_is_for_those_who_look_closer(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "nfreaim")
    report = Report("in", "chat", 0, b"", THERE, HERE, "mapped-back", "", routine=True)
    Journal().reported(ALICE, "one", report)
    Journal().reported(ALICE, "one", replace(report, action="left", direction="in", routine=False))
    assert caplog.messages == []


def test_what_announces_no_port_is_no_failure_to_tell_of(caplog: pytest.LogCaptureFixture) -> None:
    """Each invitation, icon and add-in is such a proposal."""
    caplog.set_level(logging.INFO)
    wire = wire_of()
    wire.client(proposal(tlv(2, b"\x0a\0\0\5") + tlv(3, b"\x0a\0\0\5")))
    (report,) = wire.router.watcher.reports
    assert (report.action, report.reason, report.routine) == ("left", "announces no port", True)
    Journal().reported(ALICE, "oscar", report)
    assert caplog.messages == []
    Journal().reported(ALICE, "oscar", replace(report, routine=False))
    assert len(caplog.messages) == 1


def test_peers_whose_first_bytes_prove_little_are_called_unverified(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "nfreaim")
    pinhole = Pinhole(HERE, THERE, ALICE, b"", "chat", 9.0, verify=True, protocol="one", unverified="tls")
    for one in (pinhole, replace(pinhole, unverified="")):
        Journal().opened(one)
        Journal().claimed(one, "198.51.100.7")
    assert [line.endswith(", peers unverified (tls)") for line in caplog.messages] == [
        True,
        True,
        False,
        False,
    ]
