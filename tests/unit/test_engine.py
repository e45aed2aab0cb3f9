"""Engine and helper on one connection: cuts, holds, retransmissions, gaps and hostile packets."""

from __future__ import annotations

import random
from dataclasses import replace

import pytest

from nfreaim.core.address import Endpoint
from nfreaim.core.tcp.segment import ACK, FIN, RST, SYN
from tests.script_helper import HELLO, TEXT, offer
from tests.tcp.packets import packet
from tests.unit.fakes import CLIENT, SERVER, WITHOUT_CUSTODY, Router, Wire
from tests.unit.offers import EDITED, FIRST, PROPOSAL, RECEIVED, RELAY, SECOND, SECOND_EDITED, of

PAIRS = {
    "hexadecimal": (PROPOSAL, EDITED),
    "another": (SECOND, SECOND_EDITED),
    "relay": (RELAY, RELAY),
    "text": (TEXT, TEXT),
}
each_message = pytest.mark.parametrize(("data", "expected"), PAIRS.values(), ids=PAIRS)


@pytest.fixture
def wire() -> Wire:
    return Wire().sign_on()


# --- cuts ---------------------------------------------------------------------------------------------------


@each_message
def test_one_byte_per_segment(data: bytes, expected: bytes) -> None:
    wire = Wire().sign_on()
    assert wire.client(data, range(1, len(data))) == expected
    assert not wire.router.open_tokens
    assert len(wire.router.pinholes) == (data != expected)


@each_message
def test_cut_in_two_at_every_offset(data: bytes, expected: bytes) -> None:
    for cut in range(1, len(data)):
        wire = Wire().sign_on()
        assert wire.client(data, [cut]) == expected, cut
        assert wire.router.firewall.changes == (data != expected)


def test_several_frames_in_one_segment_cut_at_random_places() -> None:
    data, expected = (b"".join(pair[side] for pair in PAIRS.values()) for side in (0, 1))
    rng = random.Random(1)
    for count in [0] + [rng.randrange(1, 60) for _ in range(150)]:
        cuts = sorted(rng.sample(range(1, len(data)), count))
        wire = Wire().sign_on()
        assert wire.client(data, cuts) == expected, cuts
        assert len(wire.router.pinholes) == 2
        assert not wire.router.open_tokens


@pytest.mark.parametrize("before", range(1, 400, 23))
def test_sequence_numbers_that_wrap_inside_the_conversation(before: int) -> None:
    wire = Wire(isn=(2**32 - before, 2**32 - before)).sign_on()
    assert wire.client(TEXT + PROPOSAL, range(5, 200, 9)) == TEXT + EDITED
    wire = Wire(isn=(2**32 - 288 - before, 1)).sign_on()
    assert wire.client(PROPOSAL + SECOND, range(5, 200, 9)) == EDITED + SECOND_EDITED


# --- what comes again -----------------------------------------------------------------------------------


def test_a_retransmission_leaves_as_it_left_the_first_time_and_opens_nothing(wire: Wire) -> None:
    at = len(wire.sent[0])
    wire.client(PROPOSAL)
    for low in range(len(PROPOSAL)):
        for high in range(low + 1, len(PROPOSAL) + 1, 7):
            (verdict,) = wire.inject(0, at + low, PROPOSAL[low:high]).values()
            changed = EDITED[low:high] != PROPOSAL[low:high]
            assert verdict.accept
            assert (verdict.payload is not None) == changed
    assert wire.router.firewall.changes == 1
    assert wire.router.engine.counters.helpers["proposals"] == 1


def test_old_and_new_bytes_in_one_segment() -> None:
    for cut in range(1, len(PROPOSAL)):
        for back in (1, 3, cut):
            wire = Wire().sign_on()
            at = len(wire.sent[0])
            wire.client(PROPOSAL[:cut])
            wire.sent[0] += PROPOSAL[cut:]
            wire.inject(0, at + max(0, cut - back), PROPOSAL[max(0, cut - back) :])
            assert wire.c2s[at:] == EDITED, (cut, back)
            assert not wire.router.open_tokens


def test_a_retransmission_that_reaches_back_before_the_connection_began(wire: Wire) -> None:
    fresh = Wire(client=Endpoint("10.0.0.6", 1)).handshake()
    (verdict,) = fresh.inject(1, -1, b"x" + HELLO[:3]).values()  # keepalive and data
    assert verdict.accept


def test_after_a_bypass_old_edits_are_repeated_and_new_proposals_pass(wire: Wire) -> None:
    at = len(wire.sent[0])
    wire.client(PROPOSAL)
    wire.client(b"not a line")
    assert wire.router.engine.counters.malformed_flows == 1
    assert next(iter(wire.inject(0, at, PROPOSAL).values())).payload is not None
    assert wire.client(SECOND) == SECOND
    assert not wire.router.kernel.offloaded  # it must stay in the queue for its retransmissions
    assert len(wire.router.pinholes) == 1


def test_gigabytes_after_a_bypass_no_new_byte_is_taken_for_an_edited_one(wire: Wire) -> None:
    at = len(wire.sent[0])
    wire.client(PROPOSAL)
    wire.client(b"not a line")
    stream = wire.stored.streams[0]
    end = len(wire.sent[0])
    while end < 2**32:  # far ahead, as fast as a test can: what passes is taken note of
        raw = wire.raw(0, end, b"y" * 1000)
        assert wire.router.engine.process(raw, 0, True, 0.0)[0][1].payload is None
        end += 1000
        if 2**20 < end < 2**32 - 2**20:
            end = min(end + 2**21, 2**32 - 2**20)
    raw = wire.raw(0, 2**32 + at, b"z" * len(PROPOSAL))
    assert wire.router.engine.process(raw, 0, True, 0.0)[0][1].payload is None
    assert stream.next > 2**32


# --- gaps --------------------------------------------------------------------------------------------------


def test_what_comes_before_its_turn_is_dropped_until_the_hole_is_filled(wire: Wire) -> None:
    at = len(wire.sent[0])
    pieces = [PROPOSAL[low : low + 20] for low in range(0, len(PROPOSAL), 20)]
    order = [1, 2, 0, 3, 5, 4, 1, 2, 3, 4, 5]
    wire.sent[0] += PROPOSAL
    for number in order:
        wire.inject(0, at + 20 * number, pieces[number])
    assert wire.c2s[at:] == EDITED
    assert wire.router.engine.counters.gap_drops == 5
    assert not wire.router.open_tokens


def test_a_hole_that_does_not_fill_ends_the_reading_after_some_time(wire: Wire) -> None:
    wire.client(PROPOSAL)
    at = len(wire.sent[0])
    for pause in (0.2, 0.4, 0.8, 1.6, 3.2, 6.4):  # as TCP repeats what it takes for lost
        assert not wire.inject(0, at + 10, TEXT)[wire.router.last_token].accept
        wire.router.wait(pause)
    assert wire.inject(0, at + 10, TEXT)[wire.router.last_token].accept
    assert wire.router.engine.counters.gapped_flows == 1
    assert len(wire.router.pinholes) == 1


def test_silence_behind_a_hole_does_not_end_the_reading(wire: Wire) -> None:
    """Neither end heard of the other for longer than a hole is waited for; its sender fills it afterwards."""
    at = len(wire.sent[0])
    wire.sent[0] += PROPOSAL + TEXT + TEXT
    behind = at + len(PROPOSAL)
    assert not wire.inject(0, behind, TEXT)[wire.router.last_token].accept
    wire.router.wait(13.0)
    for start in (behind + len(TEXT), behind):  # a probe of the tail comes first
        assert not wire.inject(0, start, TEXT)[wire.router.last_token].accept
    wire.inject(0, at, PROPOSAL)
    wire.inject(0, behind, TEXT + TEXT)
    assert wire.c2s[at:] == EDITED + TEXT + TEXT
    assert wire.router.engine.counters.gapped_flows == 0


def test_hundreds_of_packets_behind_a_hole_do_not_end_the_reading(wire: Wire) -> None:
    at = len(wire.sent[0])
    wire.sent[0] += PROPOSAL
    for low in [*range(80, len(PROPOSAL), 2)] * 4:
        assert not wire.inject(0, at + low, PROPOSAL[low : low + 1])[wire.router.last_token].accept
    wire.inject(0, at, PROPOSAL[:80])
    wire.inject(0, at + 80, PROPOSAL[80:])
    assert wire.c2s[at:] == EDITED
    assert not wire.router.open_tokens


def test_the_beginning_of_a_message_whose_end_was_lost_is_dropped_to_come_again_with_it(wire: Wire) -> None:
    at = len(wire.sent[0])
    wire.sent[0] += PROPOSAL + TEXT
    wire.inject(0, at, PROPOSAL[:80])
    wire.inject(0, at + len(PROPOSAL), TEXT)  # behind a gap
    wire.router.wait(0.03)
    assert not wire.router.open_tokens
    assert len(wire.c2s) == at
    wire.inject(0, at, PROPOSAL)
    wire.inject(0, at + len(PROPOSAL), TEXT)
    assert wire.c2s[at:] == EDITED + TEXT
    assert wire.router.engine.counters.late_edit == 0


def test_a_beginning_that_comes_again_alone_is_dropped_once_only(wire: Wire) -> None:
    at = len(wire.sent[0])
    wire.sent[0] += PROPOSAL + TEXT
    for _ in range(2):
        wire.inject(0, at, PROPOSAL[:80])
        wire.inject(0, at + len(PROPOSAL), TEXT)
        wire.router.wait(0.03)
        assert not wire.router.open_tokens
    assert wire.c2s[at:] == PROPOSAL[:80]  # its sender waits for the ACK, perhaps
    wire.inject(0, at + 80, PROPOSAL[80:])
    assert wire.c2s[at:] == PROPOSAL
    assert wire.router.engine.counters.late_edit == 1


def test_a_hole_that_fills_in_time_starts_the_count_afresh(wire: Wire) -> None:
    for _ in range(20):
        at = len(wire.sent[0])
        for _ in range(50):
            wire.inject(0, at + len(TEXT), TEXT)
        wire.router.wait(6.0)
        wire.client(TEXT + TEXT)
    assert wire.client(PROPOSAL) == EDITED


# --- holding --------------------------------------------------------------------------------------------


def test_nothing_is_held_before_the_first_address_byte(wire: Wire) -> None:
    for cut in range(1, FIRST + 1):
        fresh = Wire().sign_on()
        assert fresh.client(PROPOSAL[:cut]) == PROPOSAL[:cut]
    assert wire.client(PROPOSAL[: FIRST + 1]) == b""


def test_a_rest_that_never_comes_lets_everything_leave_as_it_came() -> None:
    for cut in range(FIRST + 1, len(PROPOSAL)):
        wire = Wire().sign_on()
        at = len(wire.sent[0])
        wire.client(PROPOSAL[:cut], [30, FIRST - 1, FIRST + 1] if cut > FIRST + 1 else [30])
        held = len(wire.router.open_tokens)
        assert held >= 1
        wakeup = wire.router.engine.wakeup()
        assert wakeup is not None
        assert wire.router.wait(wakeup - wire.router.now - 0.001) == {}
        assert len(wire.router.wait(0.001)) == held
        assert wire.router.engine.wakeup() is None
        assert wire.c2s[at:] == PROPOSAL[:cut]
        assert wire.router.engine.counters.late_edit == 1
        assert wire.client(PROPOSAL[cut:]) == PROPOSAL[cut:]  # the rest, late
        assert not wire.router.firewall.changes
        assert wire.router.watcher.reports[-1].reason == "its addresses had left before its end came"
        assert wire.client(SECOND) == SECOND_EDITED  # and the next one is served


def test_a_rest_that_comes_in_pieces_after_the_time_is_up_is_not_held_again(wire: Wire) -> None:
    wire.client(PROPOSAL[:80])
    wire.router.wait(0.03)
    assert wire.client(PROPOSAL[80:], range(1, 30)) == PROPOSAL[80:]
    assert not wire.router.firewall.changes


def test_two_streams_are_held_each_for_its_own_time(wire: Wire) -> None:
    other = Wire(wire.router, client=Endpoint("10.0.0.6", 40123)).sign_on()
    wire.client(PROPOSAL[:80])
    wire.router.now += 0.02
    other.client(of("10.0.0.6")[:80])
    assert len(wire.router.wait(0.011)) == 1
    assert len(wire.router.wait(0.02)) == 1
    assert not wire.router.open_tokens


def test_a_complete_proposal_is_edited_though_the_one_behind_it_never_ends(wire: Wire) -> None:
    at = len(wire.sent[0])
    wire.client(PROPOSAL + SECOND[:150], [80, 120])
    assert wire.c2s[at:] == EDITED + SECOND[:3]
    wire.router.wait(0.03)
    assert wire.c2s[at:] == EDITED + SECOND[:150]
    assert [p.inside.port for p in wire.router.pinholes] == [5190]


def test_what_a_server_sends_is_held_only_while_there_is_something_to_map_back(wire: Wire) -> None:
    data = RECEIVED
    assert wire.server(data, [310]) == data
    assert wire.router.engine.counters.held_packets == 0
    wire.client(PROPOSAL)
    assert wire.server(data[:310]) == b""
    wire.server(data[310:])
    assert not wire.router.open_tokens


def test_a_relay_proposal_is_let_go_as_soon_as_it_says_that_it_is_one(wire: Wire) -> None:
    told = RELAY.index(b"relay") + 5
    assert wire.client(RELAY[: told - 4], [80])[80:] == b""
    assert len(wire.router.open_tokens) == 2
    wire.client(RELAY[told - 4 : told])
    assert not wire.router.open_tokens


def test_what_is_complete_leaves_while_the_next_message_is_held(wire: Wire) -> None:
    at = len(wire.sent[0])
    wire.client(PROPOSAL + SECOND[:150], [80])
    assert wire.c2s[at:] == EDITED[:80]
    assert len(wire.router.open_tokens) == 1
    wire.client(SECOND[150:])
    assert wire.c2s[at:] == EDITED + SECOND_EDITED


def test_too_many_held_bytes_let_everything_leave_as_it_came() -> None:
    long = offer(behind=6000)
    wire = Wire(Router(replace(WITHOUT_CUSTODY, hold_bytes=2000))).sign_on()
    at = len(wire.sent[0])
    wire.client(long[:3000], range(100, 3000, 100))
    assert wire.c2s[at:] == long[:3000]
    assert wire.router.engine.counters.late_edit == 1
    assert wire.client(long[3000:]) == long[3000:]
    assert not wire.router.firewall.changes


def test_too_many_held_packets_let_one_stream_go_and_leave_the_others(wire: Wire) -> None:
    router = Router(replace(WITHOUT_CUSTODY, hold_packets=10))
    one = Wire(router).sign_on()
    two = Wire(router, client=Endpoint("10.0.0.6", 40123)).sign_on()
    one.client(PROPOSAL[: FIRST + 6], range(FIRST + 1, FIRST + 6))
    two.client(PROPOSAL[: FIRST + 6], range(FIRST + 1, FIRST + 6))
    assert len(router.open_tokens) == 6
    assert one.client(PROPOSAL[FIRST + 6 :])[-10:] == EDITED[-10:]
    assert not router.open_tokens


def test_a_copy_of_a_held_segment_is_dropped(wire: Wire) -> None:
    at = len(wire.sent[0])
    wire.client(PROPOSAL[:80])
    assert not wire.inject(0, at, PROPOSAL[:80])[wire.router.last_token].accept
    assert not wire.inject(0, at + 75, PROPOSAL[75:80])[wire.router.last_token].accept
    wire.client(PROPOSAL[80:])
    assert wire.c2s[at:] == EDITED
    assert wire.inject(0, at, PROPOSAL[:80])[wire.router.last_token].payload is not None


def test_while_a_stream_is_held_what_carries_no_data_and_what_comes_back_passes(wire: Wire) -> None:
    wire.client(PROPOSAL[:80])
    here, there = len(wire.sent[0]), len(wire.sent[1])
    for way, at, flags in (
        (0, here, ACK),
        (1, there, ACK),
        (0, here, FIN | ACK),
        (0, here, RST),
        (1, there, RST),
    ):
        (verdict,) = wire.inject(way, at, flags=flags).values()
        assert (verdict.accept, verdict.payload) == (True, None)
    assert wire.server(TEXT, [1, 2, 4]) == TEXT
    assert len(wire.router.open_tokens) == 1
    wire.router.wait(0.03)
    assert not wire.router.open_tokens


def test_stopping_releases_what_is_held_and_closes_all_pinholes(wire: Wire) -> None:
    at = len(wire.sent[0])
    wire.client(PROPOSAL + SECOND[:160])
    assert len(wire.router.shutdown()) == 1
    assert wire.c2s[at:] == EDITED + SECOND[:160]
    assert not wire.router.firewall.pinholes
    assert wire.router.shutdown() == {}


def test_a_packet_that_is_none_of_ours_passes(wire: Wire) -> None:
    engine = wire.router.engine
    for raw in (b"", b"\x45", bytes(40), b"\x60" + bytes(60), wire.raw(0, 0, TEXT)[:-1]):
        assert [v.accept for _, v in engine.process(raw, 1, True, 0.0)] == [True]
    web = packet(CLIENT, Endpoint(SERVER.address, 443), 1, 1, ACK, TEXT)
    assert [v.payload for _, v in engine.process(web, 1, True, 0.0)] == [None]
    assert engine.counters.unparsed_packets == 5
    assert not wire.router.kernel.offloaded


def test_a_packet_from_the_wrong_side_is_not_read(wire: Wire) -> None:
    raw = wire.raw(0, len(wire.sent[0]), PROPOSAL)
    assert [v.payload for _, v in wire.router.engine.process(raw, 1, False, 0.0)] == [None]
    assert wire.router.engine.process(wire.raw(0, 0, flags=SYN), 1, False, 0.0)[0][1].accept
    assert wire.client(PROPOSAL) == EDITED


def test_a_peer_at_a_pinhole_is_no_client_of_a_server_there(wire: Wire) -> None:
    wire.client(PROPOSAL)  # a pinhole leads to port 5190 of the client's host
    peer, host = Endpoint("198.51.100.20", 4000), Endpoint("10.0.0.5", 5190)
    engine, flows = wire.router.engine, wire.router.engine.counters.flows
    mss = b"\2\4\5\xb4"
    for end, raw in (
        (peer, packet(peer, host, 1, 0, SYN, tcp_options=mss)),
        (host, packet(host, peer, 7, 2, SYN | ACK, tcp_options=mss)),
        (peer, packet(peer, host, 2, 8, ACK, b"OFT2")),
    ):
        ((_, verdict),) = engine.process(raw, 0, end is host, wire.router.now)
        assert (verdict.accept, verdict.payload) == (True, None)
    assert engine.counters.flows == flows
    assert [each.server for each in wire.router.kernel.offloaded] == [host]
    assert wire.client(TEXT) == TEXT
