"""OSCAR sessions that outlive the daemon: where FLAP reading goes on, and what is not taken for frames."""

from __future__ import annotations

import json

import pytest

from nfreaim.core.address import Endpoint
from tests.golden import packets
from tests.oscar.flap import numbered
from tests.oscar.redirect import migration
from tests.oscar.signon import KEEPALIVE
from tests.oscar.tlv import tlv
from tests.unit.oscar_wires import PROPOSAL, TEXT, Numbered
from tests.unit.restarts import opened, pause, restarted, unread

GOLDEN = packets()
RECEIVED, HOST_ACK = GOLDEN["send-file-proposal-received"], GOLDEN["host-ack"]


def test_record_has_the_flow_s_ends_and_nothing_that_was_said() -> None:
    wire = Numbered().online()
    wire.say(0, TEXT)
    wire.send(0, numbered(TEXT, wire.due[0])[:40])
    wire.router.engine.save()
    (key,) = wire.router.kernel.kept
    assert key == wire.stored.key
    record = json.dumps(wire.router.kernel.kept[key])
    place = wire.router.kernel.noted[key]
    for said in (b"bob1", TEXT[20:26], TEXT[6:12], b"alice"):
        assert said not in place
        assert said.decode("latin-1") not in record
    wire.router.engine.save()
    assert len(wire.router.kernel.kept) == 1


def test_record_exists_from_sign_on_to_the_end_of_the_reading_or_the_flow() -> None:
    wire = Numbered().begin()
    wire.router.engine.save()
    assert not wire.router.kernel.kept
    wire.say(1, GOLDEN["host-online"])
    wire.router.engine.save()
    assert wire.router.kernel.kept
    wire.say(0, KEEPALIVE, number=9)
    assert not wire.read
    assert (wire.router.kernel.kept, wire.router.kernel.noted) == ({}, {})
    ended = Numbered().online()
    ended.router.engine.save()
    ended.fin(0)
    ended.fin(1)
    ended.router.wait(61)
    assert (ended.router.kernel.kept, ended.router.kernel.noted) == ({}, {})


def test_first_frame_after_a_restart_is_read_if_nothing_was_missed() -> None:
    wire = restarted(Numbered().online())
    assert opened(wire)
    wire.say(1, RECEIVED)
    assert wire.router.engine.counters.malformed_flows == 0


@pytest.mark.parametrize("cut", [1, 3, 5, 6, 7, 30, 75, len(PROPOSAL) - 1])
def test_daemon_that_dies_in_the_midst_of_a_frame_lets_that_one_pass(cut: int) -> None:
    wire = Numbered().online()
    number = wire.due[0].to_bytes(2, "big")
    wire.due[0] += 1
    frame = PROPOSAL[:2] + number + PROPOSAL[4:]
    wire.send(0, frame[:cut])
    wire.router.wait(0.05)
    wire = restarted(wire)
    wire.send(0, frame[cut:])
    # Only its header had come: then it can still be read, and its addresses edited.
    assert bool(wire.router.firewall.pinholes) is (cut < 6)
    assert opened(wire) is (cut >= 6)
    assert wire.read


def test_after_a_crash_reading_begins_when_both_directions_have_shown_where_frames_begin() -> None:
    wire = restarted(Numbered().online(), lost=True)
    unread(wire, 0, TEXT)
    unread(wire, 1, HOST_ACK, RECEIVED)
    for way in (0, 1, 0):
        wire.say(way, KEEPALIVE)
        assert not wire.stored.reading.reads
        assert not opened(wire)
        pause(wire)
    wire.say(1, KEEPALIVE)
    pause(wire)
    wire.say(0, KEEPALIVE)
    assert wire.read
    assert opened(wire)
    assert wire.router.engine.counters.malformed_flows == 0


def test_server_that_writes_a_frame_in_five_pieces_is_understood_too() -> None:
    wire = restarted(Numbered().online(), lost=True)
    unread(wire, 1, RECEIVED)
    for _ in range(3):
        for frame in (RECEIVED, KEEPALIVE):
            number = wire.due[1].to_bytes(2, "big")
            wire.due[1] += 1
            wire.send(1, frame[:2] + number + frame[4:], [1, 2, 4] + [6] * (len(frame) > 6))
        wire.say(0, KEEPALIVE)
        pause(wire)
    assert wire.read
    assert opened(wire)


@pytest.mark.parametrize("number", range(0, 36, 3))
def test_damaged_place_never_lets_anything_be_misread_or_fail(number: int) -> None:
    wire = Numbered().online()
    wire.router.engine.save()
    (key,) = wire.router.kernel.noted
    place = bytearray(wire.router.kernel.noted[key])
    place[number] ^= 0x55
    for damaged in (bytes(place), bytes(place[:number]), bytes(48)):
        again = Numbered().online()
        again.router.engine.save()
        again.router.kernel.noted[key] = damaged
        again = restarted(again, lost=True)
        before = len(again.sent[0])
        again.say(0, TEXT)
        again.say(1, KEEPALIVE)
        assert again.c2s[before:] == bytes(again.sent[0][before:])
        assert again.router.engine.counters.failed_flows == 0


def test_session_at_a_server_that_a_redirect_led_to_goes_on() -> None:
    other = Endpoint("203.0.113.9", 5199)
    first = Numbered().online()
    first.say(1, migration(tlv(5, b"203.0.113.9:5199"), b"\0\1\0\4"))
    second = Numbered(first.router, other).online()
    second = restarted(second)
    assert opened(second)
    assert second.flow_id.server == other
