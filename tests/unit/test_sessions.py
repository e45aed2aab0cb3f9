"""Sessions that outlive the daemon: where reading goes on, and what is never taken for lines meanwhile."""

from __future__ import annotations

import json
import logging
from itertools import pairwise

import pytest

from nfreaim.core.address import Endpoint
from nfreaim.core.verdict import ACCEPT
from tests.script_helper import HELLO, KEPT, TEXT
from tests.tcp.packets import PSH_ACK, packet
from tests.unit.fakes import Router, Wire
from tests.unit.offers import PROPOSAL, RECEIVED
from tests.unit.restarts import opened, pause, restarted, unread

SHORT = b"text\n"


def test_record_has_the_flow_s_ends_and_nothing_that_was_said() -> None:
    wire = Wire().sign_on()
    wire.say(0, TEXT)
    wire.send(0, TEXT[:40])
    wire.router.engine.save()
    (key,) = wire.router.kernel.kept
    assert key == wire.stored.key
    record = json.dumps(wire.router.kernel.kept[key])
    place = wire.router.kernel.noted[key]
    for said in (TEXT[5:9], TEXT[20:26]):
        assert said not in place
        assert said.decode("latin-1") not in record
    wire.router.engine.save()
    assert len(wire.router.kernel.kept) == 1


def test_record_exists_from_sign_on_to_the_end_of_the_reading_or_the_flow() -> None:
    wire = Wire().handshake()
    wire.say(1, HELLO)
    wire.router.engine.save()
    assert not wire.router.kernel.kept
    wire.say(0, HELLO)
    wire.router.engine.save()
    assert wire.router.kernel.kept
    wire.say(0, b"not a line")
    assert not wire.read
    assert (wire.router.kernel.kept, wire.router.kernel.noted) == ({}, {})
    ended = Wire().sign_on()
    ended.router.engine.save()
    ended.fin(0)
    ended.fin(1)
    ended.router.wait(61)
    assert (ended.router.kernel.kept, ended.router.kernel.noted) == ({}, {})


def test_full_disk_costs_the_restart_ability_while_it_is_full_and_one_warning(
    caplog: pytest.LogCaptureFixture,
) -> None:
    router = Router()
    first = Wire(router).sign_on()
    router.kernel.broken = True
    router.engine.save()
    first.say(0, TEXT)
    router.engine.save()
    router.kernel.broken = False
    assert opened(first)
    router.engine.save()
    assert router.kernel.kept.keys() == router.kernel.noted.keys() == {first.stored.key}, (
        "kept once there is room"
    )
    warnings = [record for record in caplog.records if record.levelno == logging.WARNING]
    assert len(warnings) == 1


def test_first_line_after_a_restart_is_read_if_nothing_was_missed() -> None:
    wire = restarted(Wire().sign_on())
    assert opened(wire)
    wire.say(1, RECEIVED)
    assert wire.router.engine.counters.malformed_flows == 0


@pytest.mark.parametrize("cut", [1, 3, 5, 6, 7, 30, 75, len(PROPOSAL) - 1])
def test_daemon_that_dies_in_the_midst_of_a_line_lets_that_one_pass(cut: int) -> None:
    wire = Wire().sign_on()
    wire.send(0, PROPOSAL[:cut])
    wire.router.wait(0.05)
    wire = restarted(wire)
    wire.send(0, PROPOSAL[cut:])
    # Only its first word had come: then it can still be read, and its address edited.
    assert bool(wire.router.firewall.pinholes) is (cut <= KEPT)
    assert opened(wire) is (cut > KEPT)
    assert wire.read


@pytest.mark.parametrize("way", [0, 1])
@pytest.mark.parametrize(
    ("at", "ack"), [(0, 5 << 20), (0, -(5 << 20)), (5 << 20, 0), (-(5 << 20), 0), (7, 1 << 31)]
)
def test_forged_packet_after_a_restart_does_not_cost_the_place(way: int, at: int, ack: int) -> None:
    """Packets of inside hosts are seen before any check of the kernel's: whoever forges one has to guess."""
    wire = restarted(Wire().sign_on())
    seq, acknowledged = (wire.isn[each] + 1 + len(wire.sent[each]) for each in (way, 1 - way))
    ends = wire.ends[way], wire.ends[1 - way]
    raw = packet(*ends, seq + at & 0xFFFFFFFF, acknowledged + ack & 0xFFFFFFFF, PSH_ACK, b"forged")
    (verdict,) = wire.router.engine.process(raw, "forged", way == 0, wire.router.now)
    assert verdict == ("forged", ACCEPT)
    assert opened(wire)
    wire.say(1, RECEIVED)
    assert wire.read


def test_repetition_of_what_was_read_before_is_not_read_again() -> None:
    wire = Wire().sign_on()
    wire.say(0, TEXT)
    wire = restarted(wire)
    wire.inject(0, len(wire.sent[0]) - len(TEXT), bytes(wire.sent[0][-len(TEXT) :]))
    assert not wire.stored.reading.reads
    assert opened(wire)


@pytest.mark.parametrize("way", [0, 1], ids=["client", "server"])
def test_lines_missed_in_either_direction_are_noticed_and_nothing_is_read_at_first(way: int) -> None:
    wire = restarted(Wire().sign_on())
    unread(wire, way, TEXT if way == 0 else RECEIVED)
    assert not opened(wire)
    assert wire.c2s[-len(PROPOSAL) :] == bytes(wire.sent[0][-len(PROPOSAL) :])
    assert not wire.stored.reading.reads


def test_after_a_crash_reading_begins_when_both_directions_have_shown_where_lines_begin() -> None:
    wire = restarted(Wire().sign_on(), lost=True)
    unread(wire, 0, TEXT)
    unread(wire, 1, TEXT, RECEIVED)
    for way in (0, 1, 0):
        wire.say(way, SHORT)
        assert not wire.stored.reading.reads
        assert not opened(wire)
        pause(wire)
    wire.say(1, SHORT)
    pause(wire)
    wire.say(0, SHORT)
    assert wire.read
    assert opened(wire)
    assert wire.router.engine.counters.malformed_flows == 0


def test_record_without_a_place_is_enough() -> None:
    wire = Wire().sign_on()
    wire.router.engine.save()
    wire.router.kernel.noted.clear()
    wire = restarted(wire, lost=True)
    for _ in range(3):
        pause(wire)
        wire.say(0, SHORT)
        wire.say(1, SHORT)
    assert opened(wire)


def test_unknown_connection_only_passes_and_that_is_said_once(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO):
        wire = restarted(Wire().sign_on(), record=False)
        for _ in range(4):
            wire.say(0, SHORT)
            wire.say(1, SHORT)
            pause(wire)
        assert not opened(wire)
    assert caplog.text.count("has to sign on again") == 1
    assert wire.router.kernel.offloaded[0] == wire.flow_id


def place_of(wire: Wire) -> bytes:
    return next(iter(wire.router.kernel.noted.values()))


@pytest.mark.parametrize("number", range(20))
def test_damaged_place_never_lets_anything_be_misread_or_fail(number: int) -> None:
    wire = Wire().sign_on()
    wire.router.engine.save()
    (key,) = wire.router.kernel.noted
    place = bytearray(wire.router.kernel.noted[key])
    place[number] ^= 0x55
    for damaged in (bytes(place), bytes(place[:number]), bytes(20)):
        again = Wire().sign_on()
        again.router.engine.save()
        again.router.kernel.noted[key] = damaged
        again = restarted(again, lost=True)
        before = len(again.sent[0])
        again.say(0, TEXT)
        again.say(1, SHORT)
        assert again.c2s[before:] == bytes(again.sent[0][before:])
        assert again.router.engine.counters.failed_flows == 0


@pytest.mark.parametrize(
    "record",
    [
        {},
        {"key": "00"},
        {"key": 5, "server_inside": False},
        {"key": "zz" * 12, "server_inside": False},
        {"key": "00" * 12},
        {"key": "0a0000050a0000059cbb9cbb", "server_inside": False, "followed": True},
    ],
)
def test_damaged_record_is_refused_whole(record: dict[str, object]) -> None:
    router = Router()
    with pytest.raises((ValueError, KeyError, TypeError)):
        router.engine.restore(dict(record), 0.0)
    assert len(router.engine.flows) == 0


def test_hole_in_what_goes_on_is_not_waited_for() -> None:
    """A repeated segment can look like the next one: what is behind it passed long ago and never comes."""
    wire = Wire().sign_on()
    wire.router.engine.save()
    at = len(wire.sent[0])
    stale = dict(wire.router.kernel.noted)
    unread(wire, 0, TEXT, TEXT, TEXT)
    wire.router.engine._kept.moved.clear()
    wire.router.kernel.noted = stale
    wire = restarted(wire, lost=True)
    wire.inject(0, at, bytes(wire.sent[0][at : at + len(TEXT)]))
    wire.say(0, SHORT)
    assert wire.router.engine.counters.gap_drops == 0
    assert not wire.stored.reading.reads
    assert wire.c2s.endswith(bytes(wire.sent[0][-5:]))


def test_session_at_a_server_that_a_redirect_led_to_goes_on() -> None:
    other = Endpoint("203.0.113.9", 5199)
    first = Wire().sign_on()
    first.say(1, b"server 203.0.113.9:5199\n")
    second = Wire(first.router, server=other).sign_on()
    second = restarted(second)
    assert opened(second)
    assert second.flow_id.server == other


def test_first_line_of_a_new_connection_replaces_what_was_kept() -> None:
    wire = restarted(Wire().sign_on())
    again = Wire(wire.router, isn=(5, 6)).handshake()
    again.say(0, HELLO)
    assert not opened(again)


def test_many_that_sign_on_at_once_are_written_down_bit_by_bit_and_all_of_them() -> None:
    router = Router()
    for number in range(5):
        Wire(router, client=Endpoint("10.0.0.5", 41000 + number)).sign_on()
    waiting = [list(router.engine._kept.moved)]
    while router.engine._kept.moved:
        router.engine.save(40)
        waiting.append(list(router.engine._kept.moved))
    assert [len(keys) for keys in waiting] == [5, 3, 1, 0]
    assert all(one[-len(two) :] == two for one, two in pairwise(waiting) if two)
    assert len(router.kernel.kept) == 5
