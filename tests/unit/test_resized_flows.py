"""Flows whose edits change lengths, whichever end is inside: when they begin to fail closed, and for whom."""

from __future__ import annotations

import json

import pytest

from nfreaim.core import records
from nfreaim.core.address import End, Endpoint
from nfreaim.core.flow import State
from nfreaim.core.flow_table import FlowLimits
from nfreaim.core.settings import EngineSettings
from nfreaim.core.tcp.segment import ACK, FIN, SYN
from tests.playbook.notation import Stage
from tests.script_helper import TEXT, offer, script
from tests.unit.fakes import CLIENT, OUTSIDE, Router
from tests.unit.offers import EDITED, PROPOSAL
from tests.unit.restarts import pause, restarted, unread
from tests.unit.wires import AMY, BOTH, HomeWire, ResizedWire

DOTTED = offer(b"3333333", at=Endpoint("10.0.0.5", 6000), dotted=True)
LONGER = offer(b"3333333", at=Endpoint(OUTSIDE, 6000), dotted=True)
SHORT = b"text\n"
WIRES = {"client inside": ResizedWire, "server inside": HomeWire}
either = pytest.mark.parametrize("kind", WIRES.values(), ids=WIRES)


def received(wire: ResizedWire, data: bytes) -> bool:
    """Whether the end outside has read exactly *data* last, and the other end what that one said."""
    way = wire.inside
    exact = wire.c2s if way == 0 else wire.s2c
    other = wire.s2c if way == 0 else wire.c2s
    return exact.endswith(data) and other == bytes(wire.sent[1 - way])


def state(wire: ResizedWire) -> State:
    return wire.stored.reading.state


# --- failing closed -----------------------------------------------------------------------------------------


@either
def test_flow_fails_closed_only_from_its_first_edit_on_that_changes_a_length(kind: type[ResizedWire]) -> None:
    wire = kind().begun()
    assert wire.told(TEXT + PROPOSAL + TEXT) == TEXT + EDITED + TEXT
    assert (wire.stored.skewed, wire.router.kernel.protected) == (False, {})
    assert wire.told(DOTTED + TEXT, [40, 80]) == LONGER + TEXT
    assert wire.stored.skewed
    assert list(wire.router.kernel.protected) == [wire.stored.key]
    assert wire.told(PROPOSAL + DOTTED) == EDITED + LONGER
    assert received(wire, EDITED + LONGER)


@either
def test_flow_that_failed_closed_is_reset_when_its_state_is_lost_and_another_passes(
    kind: type[ResizedWire],
) -> None:
    wire = kind().begun()
    for skewed in (False, True):
        router = wire.make_router()
        for way in (0, 1):
            raw = wire.raw(way, len(wire.sent[way]), TEXT)
            ((_, verdict),) = router.engine.process(raw, way, way == wire.inside, 5.0, skewed)
            assert verdict.accept is not skewed
            assert verdict.payload is None
        assert len(router.kernel.resets) == 2 * skewed
        wire.told(DOTTED)


@either
def test_protocol_that_does_not_ask_for_it_never_skews(kind: type[ResizedWire]) -> None:
    wire = kind(Router(spec=script(resizes=frozenset()))).begun()
    assert wire.told(DOTTED + TEXT) == DOTTED + TEXT
    assert wire.router.engine.counters.refused_edits == 1
    assert [reason for _, reason in wire.router.watcher.closes] == ["edit refused"]
    assert not wire.router.firewall.pinholes
    assert (wire.stored.resizable, wire.stored.skewed, wire.router.kernel.protected) == (False, False, {})
    assert wire.told(PROPOSAL) == EDITED, "edits that keep the length are made"
    at = len(wire.sent[wire.inside])
    assert wire.router.engine.passes(wire.raw(wire.inside, at, TEXT), True, wire.router.now)


@pytest.mark.parametrize(("resizes", "kind"), [(End.SERVER, ResizedWire), (End.CLIENT, HomeWire)])
def test_protocol_that_asks_for_it_with_the_other_end_inside_never_skews(
    resizes: End, kind: type[ResizedWire]
) -> None:
    wire = kind(Router(spec=script(resizes=frozenset({resizes})))).begun()
    assert wire.told(DOTTED) == DOTTED
    assert (wire.stored.resizable, wire.stored.skewed) == (False, False)


# --- shares -------------------------------------------------------------------------------------------------


def flow_of(router: Router, port: int, host: str = CLIENT.address) -> ResizedWire:
    return ResizedWire(router, client=Endpoint(host, port)).begun()


def test_one_inside_host_cannot_have_more_than_its_share_of_skewed_flows() -> None:
    limits = FlowLimits(skewed=4, skewed_per_host=2)
    router = Router(EngineSettings(limits=limits), spec=script(resizes=BOTH))
    first, second, third = (flow_of(router, port) for port in (1, 2, 3))
    assert [wire.told(DOTTED) for wire in (first, second, third)] == [LONGER, LONGER, DOTTED]
    assert (third.stored.skewed, router.engine.counters.refused_edits) == (False, 1)
    assert first.told(DOTTED) == LONGER, "a flow that is skewed stays so"
    own = DOTTED.replace(b"10.0.0.5:6000", b"10.0.0.6:6001")
    its = LONGER.replace(b":6000", b":6001")
    others = [flow_of(router, port, AMY.address) for port in (1, 2)]
    assert [wire.told(own) for wire in others] == [its, its]
    assert third.told(PROPOSAL) == EDITED, "edits that keep the length are made"
    for way in (0, 1, 0):
        first.fin(way)
        first.sent[way] += b"F"  # a FIN takes a position
    router.wait(61.0)
    router.wait(61.0)
    assert third.told(DOTTED) == LONGER, "its host has room again"
    fourth = flow_of(router, 3, AMY.address)
    assert fourth.told(own) == own


def test_flows_of_one_inside_server_share_the_whole_table() -> None:
    """Its clients come from everywhere, so its address says nothing about who made them."""
    limits = FlowLimits(skewed=3, skewed_per_host=1)
    router = Router(EngineSettings(limits=limits), spec=script(resizes=BOTH))
    wires = [HomeWire(router, client=Endpoint(f"203.0.113.{number}", 1)).begun() for number in range(30, 34)]
    assert [wire.told(DOTTED) for wire in wires] == [LONGER, LONGER, LONGER, DOTTED]


# --- after a restart ----------------------------------------------------------------------------------------


@either
def test_restored_flow_gets_such_an_edit_once_both_positions_are_certain(kind: type[ResizedWire]) -> None:
    wire = restarted(kind().begun())
    assert wire.told(DOTTED) == DOTTED, "nothing is known of the other direction yet"
    assert wire.read
    assert not wire.stored.skewed
    assert wire.told(DOTTED) == LONGER
    assert wire.stored.key in wire.router.kernel.protected
    wire = restarted(wire)
    assert wire.stored.skewed
    assert wire.told(TEXT + DOTTED) == TEXT + LONGER, "it was skewed before, and its record has all numbers"
    assert received(wire, LONGER)


def test_skewed_flow_at_a_server_that_a_redirect_led_to_is_read_again() -> None:
    other = Endpoint("203.0.113.9", 5199)
    first = ResizedWire().begun()
    first.say(1, b"server 203.0.113.9:5199\n")
    wire = ResizedWire(first.router, server=other).begun()
    assert wire.told(DOTTED) == LONGER
    wire = restarted(wire)
    assert wire.stored.skewed
    assert wire.told(DOTTED) == LONGER


@either
def test_empty_acknowledgements_make_positions_certain_too(kind: type[ResizedWire]) -> None:
    wire = restarted(kind().begun())
    wire.told(TEXT)
    assert wire.told(DOTTED) == LONGER
    wire = restarted(kind().begun())
    inside = int(wire.inside)
    wire.send(inside, TEXT)
    wire.inject(1 - inside, len(wire.sent[1 - inside]), flags=ACK)
    assert wire.told(DOTTED) == LONGER


@either
def test_restored_flow_whose_window_scales_are_not_known_never_gets_such_an_edit(
    kind: type[ResizedWire],
) -> None:
    """As a record of an older daemon."""
    wire = kind().begun()
    wire.router.engine.save()
    for record in wire.router.kernel.kept.values():
        del record["scales"]
    wire = restarted(wire)
    for _ in range(3):
        assert wire.told(TEXT + DOTTED) == TEXT + DOTTED
    assert wire.told(PROPOSAL) == EDITED
    assert not wire.stored.skewed


@either
def test_restored_flow_that_missed_bytes_is_certain_again_behind_its_next_boundaries(
    kind: type[ResizedWire],
) -> None:
    wire = restarted(kind().begun(), lost=True)
    inside = int(wire.inside)
    unread(wire, inside, TEXT)
    for _ in range(2):
        wire.say(inside, SHORT)
        wire.say(1 - inside, SHORT)
    assert state(wire) is State.ESTABLISHED
    assert wire.told(DOTTED) == DOTTED
    assert wire.told(DOTTED) == LONGER
    assert received(wire, LONGER)


def stale(kind: type[ResizedWire]) -> tuple[ResizedWire, int]:
    """A flow whose daemon died before it wrote down what passed since, and where the inside end stood."""
    wire = kind().begun()
    wire.router.engine.save()
    at = len(wire.sent[wire.inside])
    noted = dict(wire.router.kernel.noted)
    unread(wire, wire.inside, TEXT, DOTTED, TEXT)
    wire.router.engine._kept.moved.clear()
    wire.router.kernel.noted = noted
    return restarted(wire, lost=True), at


@either
def test_end_that_acknowledges_what_was_not_seen_shows_that_positions_are_not_certain(
    kind: type[ResizedWire],
) -> None:
    """The inside end repeats, byte for byte in place, what had passed while no daemon ran."""
    wire, at = stale(kind)
    inside = int(wire.inside)
    wire.inject(inside, at, TEXT)
    wire.inject(1 - inside, len(wire.sent[1 - inside]), flags=ACK)
    wire.inject(inside, at + len(TEXT), DOTTED)
    assert not wire.stored.skewed, "the other end has had those bytes, with the old length"


@either
def test_a_position_is_not_certain_before_the_other_end_has_acknowledged_what_was_read(
    kind: type[ResizedWire],
) -> None:
    """Its first segments were under way when the inside end's bytes passed, so they acknowledge less."""
    wire, at = stale(kind)
    inside = int(wire.inside)
    arrived, wire.left[inside] = wire.left[inside], dict.fromkeys(range(at), 0)
    for _ in range(2):
        wire.say(1 - inside, SHORT)
    wire.left[inside] = arrived
    wire.inject(inside, at, TEXT)
    assert not wire.stored.reading.certain(wire.stored.streams[inside], wire.router.now)
    wire.inject(1 - inside, len(wire.sent[1 - inside]), flags=ACK)
    wire.inject(inside, at + len(TEXT), DOTTED)
    assert not wire.stored.skewed


@pytest.mark.parametrize(("client", "server", "kept"), [(7, 3, [3, 7]), (None, 3, [0, 0]), (0, 14, [14, 0])])
def test_record_keeps_the_scale_of_each_receiver_s_windows(
    client: int | None, server: int, kept: list[int]
) -> None:
    stage = Stage()
    for line in (
        "client -1 SYN" + ("" if client is None else f" scale {client}"),
        f"server -1 SYN ack 0 scale {server}",
        "client 0 ack 0",
    ):
        list(stage.line(line) or ())
    (flow,) = stage.router.engine.flows
    record = json.loads(json.dumps(records.session(flow)))
    assert record["scales"] == kept
    assert [stream.scale for stream in records.flow_of(record, 0.0).streams] == kept


def test_flow_whose_handshake_was_not_seen_has_no_scales_in_its_record() -> None:
    router = Router(EngineSettings(midstream=True), spec=script(resizes=BOTH))
    wire = ResizedWire(router)
    wire.client(TEXT)
    assert records.session(wire.stored)["scales"] == [None, None]


@either
@pytest.mark.parametrize(("quiet", "edited"), [(1.0, False), (11.0, True)])
def test_first_words_after_a_restart_are_edited_once_they_can_be_no_repetition(
    kind: type[ResizedWire], quiet: float, edited: bool
) -> None:
    wire = restarted(kind().begun())
    pause(wire, quiet)
    assert wire.told(DOTTED) == (LONGER if edited else DOTTED)


# --- gaps soon after a restart ------------------------------------------------------------------------------


@either
def test_gap_soon_after_a_restart_in_place_is_read_again_through_a_boundary(kind: type[ResizedWire]) -> None:
    wire = restarted(kind().begun())
    inside = int(wire.inside)
    assert wire.told(TEXT + PROPOSAL) == TEXT + EDITED
    assert state(wire) is State.ESTABLISHED
    unread(wire, inside, TEXT)  # passes by another way
    wire.say(inside, b"text behind")
    assert state(wire) is State.RESYNCING
    wire.say(inside, b" the gap\n")
    assert state(wire) is State.RESYNCING, "it stands in its place, but that proves nothing"
    assert wire.router.engine.counters.gap_drops == 0
    for _ in range(2):
        wire.say(1 - inside, SHORT)
        wire.say(inside, SHORT)
    assert state(wire) is State.ESTABLISHED
    pause(wire, 600.0)
    unread(wire, inside, TEXT)
    wire.say(inside, SHORT)
    assert wire.router.engine.counters.gap_drops == 1, "long after the restart it is an ordinary gap"


@either
def test_bytes_behind_such_a_gap_are_not_taken_for_edited_ones(kind: type[ResizedWire]) -> None:
    wire = restarted(kind().begun())
    inside = int(wire.inside)
    assert wire.told(PROPOSAL) == EDITED
    unread(wire, inside, TEXT)
    for _ in range(5):
        wire.say(inside, TEXT * 3)
        wire.say(1 - inside, TEXT)
    assert received(wire, TEXT * 16)
    assert wire.told(DOTTED + TEXT) == LONGER + TEXT
    assert received(wire, LONGER + TEXT)


@either
def test_no_edit_moves_a_fin_that_came_ahead_of_its_data_after_a_restart(kind: type[ResizedWire]) -> None:
    """The FIN is repeated first if all of a connection's last segments were lost while no daemon ran."""
    wire = kind().begun()
    wire.told(DOTTED)
    wire = restarted(wire)
    inside = int(wire.inside)
    data = TEXT + DOTTED + TEXT
    at = len(wire.sent[inside]) + len(data)
    (verdict,) = wire.inject(inside, at, flags=FIN | ACK).values()
    assert verdict.accept
    fin = verdict.payload or wire.raw(inside, at, flags=FIN | ACK)
    wire.send(inside, data, [len(TEXT)])
    assert int.from_bytes(fin[24:28]) == (wire.isn[inside] + 1 + len(wire.left[inside])) & 0xFFFFFFFF
    assert received(wire, data)


def test_handshake_of_a_flow_with_no_state_is_no_reason_to_reset() -> None:
    wire = ResizedWire()
    ((_, verdict),) = wire.router.engine.process(wire.raw(0, -1, flags=SYN), 1, True, 0.0, True)
    assert verdict.accept
    assert not wire.router.kernel.resets


@either
def test_edits_that_were_acknowledged_are_forgotten_once_the_flow_is_idle(kind: type[ResizedWire]) -> None:
    """What it costs to keep them is spent for repetitions, which do not come a minute later."""
    wire = kind().begun()
    assert wire.told(DOTTED + TEXT) == LONGER + TEXT
    stream = wire.stored.streams[wire.inside]
    shift = stream.map.shift
    acked, stream.acked = stream.acked, 0
    wire.router.wait(70.0)
    assert stream.map.edits, "nobody has acknowledged them"
    stream.acked = acked
    wire.router.wait(3.0)
    assert (stream.map.edits, stream.map.shift, stream.map.skewed) == ([], shift, True)
    assert wire.told(TEXT + DOTTED) == TEXT + LONGER
    assert received(wire, TEXT + LONGER)
