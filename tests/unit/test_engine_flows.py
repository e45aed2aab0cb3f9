"""Engine and flows: where a connection begins and ends, hostile input, and helpers that fail."""

from __future__ import annotations

from ipaddress import IPv4Network

import pytest

from nfreaim.core.address import Direction, Endpoint
from nfreaim.core.firewall.policy import PinholePolicy
from nfreaim.core.flow_table import FlowLimits
from nfreaim.core.helper import Expectation, Nat, Scan
from nfreaim.core.settings import EngineSettings
from nfreaim.core.tcp.offsets import Edit
from nfreaim.core.tcp.segment import ACK, FIN, RST, SYN
from nfreaim.errors import Foreign
from tests.script_helper import HELLO, TEXT, ScriptHelper, offer, script
from tests.tcp.packets import packet
from tests.unit.fakes import OUTSIDE, Router, Wire
from tests.unit.offers import EDITED, PROPOSAL, SECOND, of


@pytest.fixture
def wire() -> Wire:
    return Wire().sign_on()


# --- beginnings --------------------------------------------------------------------------------------------


def test_a_new_connection_between_the_same_ends_starts_afresh(wire: Wire) -> None:
    wire.client(PROPOSAL)
    wire.client(SECOND[:150])
    assert len(wire.router.open_tokens) == 1
    again = Wire(wire.router, isn=(77, 78))
    again.inject(0, -1, flags=SYN)
    assert len(wire.router.pinholes) == 1  # a SYN alone proves nothing
    again.inject(1, -1, flags=SYN | ACK)
    again.inject(0, 0, flags=ACK)
    assert len(wire.router.pinholes) == 1  # nor does an ACK before connection tracking has seen it
    again.inject(0, 0, flags=ACK)
    assert not wire.router.open_tokens
    assert wire.router.watcher.closes[-1][1] == "control connection replaced"
    again.sign_on()
    assert again.client(PROPOSAL) == EDITED
    assert len(wire.router.engine.flows) == 1


def test_a_handshake_that_is_repeated_late_does_not_make_the_reader_forget(wire: Wire) -> None:
    wire.client(PROPOSAL[:80])
    wire.handshake()
    assert len(wire.router.open_tokens) == 1
    assert wire.client(PROPOSAL[80:])[-5:] == EDITED[-5:]
    wire.handshake()
    assert len(wire.router.pinholes) == 1
    assert wire.client(TEXT) == TEXT
    assert wire.router.engine.counters.gap_drops == 0


def test_retransmitted_syns_and_answers_begin_one_flow() -> None:
    wire = Wire()
    for way, flags in ((0, SYN), (0, SYN), (1, SYN | ACK), (0, SYN), (1, SYN | ACK), (1, SYN | ACK)):
        assert next(iter(wire.inject(way, -1, flags=flags).values())).accept
    assert wire.sign_on().client(PROPOSAL) == EDITED
    assert wire.router.engine.counters.flows == 1


def test_data_in_the_handshake_passes_and_the_flow_is_left_alone() -> None:
    for way, flags in ((0, SYN), (1, SYN | ACK)):
        wire = Wire()
        wire.inject(0, -1, flags=SYN) if way else None
        (verdict,) = wire.inject(way, -1, PROPOSAL, flags).values()
        assert verdict.accept
        assert verdict.payload is None
        assert len(wire.router.engine.flows) == 0


def test_an_offloaded_flow_comes_back_with_its_next_connection() -> None:
    wire = Wire()
    wire.client(b"data of a connection that nobody saw begin")
    assert wire.router.kernel.offloaded == [wire.flow_id]
    fresh = Wire(wire.router, isn=(5, 6)).sign_on()
    assert wire.router.kernel.offloaded == []
    assert fresh.client(PROPOSAL) == EDITED


def test_a_kernel_that_cannot_offload_costs_nothing_but_speed() -> None:
    wire = Wire()
    wire.router.kernel.broken = True
    assert wire.client(b"no beginning") == b"no beginning"
    wire.router.kernel.broken = False
    assert wire.client(b"no beginning") == b"no beginning"
    wire.router.kernel.broken = True
    assert Wire(wire.router).sign_on().client(TEXT) == TEXT


def test_a_flow_met_in_the_middle_is_not_stopped_by_bytes_that_passed_before() -> None:
    wire = Wire(Router(EngineSettings(midstream=True)))
    wire.client(TEXT)  # acknowledges nothing of what the server has just sent
    wire.sent[1] += TEXT  # passed before anybody looked
    at = len(wire.sent[1])
    assert wire.inject(1, at, TEXT)[wire.router.last_token].accept
    assert wire.inject(1, at - 10, TEXT[-10:])[wire.router.last_token].accept
    assert wire.router.engine.counters.gap_drops == 0
    assert not wire.inject(1, at + 200, TEXT)[wire.router.last_token].accept  # a real gap
    wire.sent[1] += TEXT
    wire.server(TEXT, [50])
    assert wire.client(PROPOSAL) == EDITED


# --- ends --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("way", [0, 1])
@pytest.mark.parametrize(
    "flags", [RST, RST | ACK, FIN | ACK, SYN, SYN | ACK, SYN | FIN, FIN | SYN | RST, 0, 0xFF]
)
def test_blind_packets_with_wrong_numbers_change_nothing(wire: Wire, way: int, flags: int) -> None:
    wire.client(PROPOSAL)
    for off in (-100000, -1, 1, 1000, 2**30, 2**31):
        for data in (b"", b"text \n"):
            if data and not flags & (SYN | RST) and -6 < off < 2**22:
                continue  # new data and data a little ahead: the tests of overlaps and gaps
            (verdict,) = wire.router.engine.process(
                wire.raw(way, len(wire.sent[way]) + off, data, flags), 0, way == 0, wire.router.now
            )
            assert verdict[1].accept
            assert verdict[1].payload is None
    assert len(wire.router.firewall.pinholes) == 1
    assert wire.client(SECOND) != SECOND
    assert wire.server(TEXT, [1, 2, 4]) == TEXT


@pytest.mark.parametrize("from_inside", [True, False])
def test_one_side_alone_cannot_replace_a_connection(wire: Wire, from_inside: bool) -> None:
    wire.client(PROPOSAL)
    way = 0 if from_inside else 1
    source, destination = wire.ends[way], wire.ends[1 - way]
    for raw in (packet(source, destination, 1, 0, SYN), packet(source, destination, 5, 2, SYN | ACK)):
        wire.router.engine.process(raw, 0, from_inside, wire.router.now)
    assert wire.router.engine.counters.flows == 1
    assert len(wire.router.firewall.pinholes) == 1


def test_a_fin_with_the_last_data(wire: Wire) -> None:
    wire.client(PROPOSAL)
    wire.send(0, b"by", flags=FIN | ACK)
    assert not list(wire.router.pinholes)
    wire.send(1, TEXT, flags=FIN | ACK)
    wire.inject(0, len(wire.sent[0]), flags=FIN | ACK)
    assert wire.stored.life == 3
    wire.router.wait(59.0)
    assert len(wire.router.engine.flows) == 1
    wire.router.wait(2.0)
    assert len(wire.router.engine.flows) == 0


@pytest.mark.parametrize("last", [b"", b"last words"])
def test_the_end_of_a_bypassed_flow_closes_its_pinholes(wire: Wire, last: bytes) -> None:
    wire.client(PROPOSAL)
    wire.client(b"not a line")
    wire.client(TEXT)
    assert wire.router.firewall.pinholes
    wire.inject(0, len(wire.sent[0]), last, FIN | ACK)
    assert not wire.router.firewall.pinholes


def test_an_idle_flow_is_forgotten_with_its_pinholes() -> None:
    router = Router(EngineSettings(limits=FlowLimits(idle=50.0)))
    wire = Wire(router).sign_on()
    wire.client(PROPOSAL)
    router.wait(51.0)
    assert len(router.engine.flows) == 0
    assert router.watcher.closes[-1][1] == "control connection idle"


@pytest.mark.parametrize("way", [0, 1])
def test_the_end_of_the_control_connection_closes_its_pinholes(way: int) -> None:
    wire = Wire().sign_on()
    wire.client(PROPOSAL)
    wire.fin(way)
    assert [reason for _, reason in wire.router.watcher.closes] == ["control connection closed"]


def test_a_control_connection_that_vanished_is_noticed_by_polling() -> None:
    wire = Wire(Router(EngineSettings(poll=2.0))).sign_on()
    wire.client(PROPOSAL)
    wire.router.wait(2.0)
    assert len(wire.router.pinholes) == 1
    wire.router.kernel.dead.add(wire.flow_id)
    wire.router.kernel.broken = True
    wire.router.wait(2.0)
    assert len(wire.router.pinholes) == 1  # not to know is not to be dead
    wire.router.kernel.broken = False
    wire.router.wait(2.0)
    assert [reason for _, reason in wire.router.watcher.closes] == ["control connection lost"]


def test_every_control_connection_is_polled_in_its_turn() -> None:
    router = Router(policy=PinholePolicy(lifetime=1e6))
    router.kernel.networks = [IPv4Network("10.0.1.0/24")]
    wires = [Wire(router, client=Endpoint(f"10.0.1.{n}", 4000)).sign_on() for n in range(1, 101)]
    for number, wire in enumerate(wires, 1):
        wire.client(of(f"10.0.1.{number}"))
        router.kernel.dead.add(wire.flow_id)
    assert len(router.pinholes) == 100
    for left in (68, 36, 4, 0):
        router.wait(2.0)
        assert len(router.pinholes) == left


# --- bad input ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("way", [0, 1])
@pytest.mark.parametrize(
    "data",
    [
        b"\x2a" * 3000,
        b"\x16\x03\x01\x02\0\x01\0\x01\xfc\x03\x03" + bytes(600),
        b"GET / HTTP/1.1\r\nHost: example.com\r\n\r\n",
        b"hell" + bytes(3),
        PROPOSAL,
    ],
    ids=["asterisks", "TLS", "HTTP", "a beginning", "an offer"],
)
def test_a_foreign_protocol_passes_and_leaves_the_queue(data: bytes, way: int) -> None:
    for cuts in ((), range(1, len(data), 5)):
        wire = Wire().handshake()
        wire.send(way, data, cuts)
        assert (wire.c2s, wire.s2c)[way] == data
        assert wire.router.engine.counters.foreign_flows == 1
        assert wire.router.kernel.offloaded == [wire.flow_id]
        assert not wire.stored.reading.reads


@pytest.mark.parametrize("begun", [False, True])
def test_ten_megabytes_of_asterisks(begun: bool) -> None:
    wire = Wire().sign_on() if begun else Wire().handshake()
    chunk = b"\x2a" * 1460
    router, at = wire.router, len(wire.sent[0])
    for number in range(10_000_000 // len(chunk)):
        raw = wire.raw(0, at + number * len(chunk), chunk)
        ((_, verdict),) = router.engine.process(raw, 0, True, router.now)
        assert (verdict.accept, verdict.payload) == (True, None)
    counters = router.engine.counters
    assert (counters.malformed_flows, counters.foreign_flows) == (begun, not begun)


def test_a_long_proposal_is_edited_as_long_as_it_fits_what_may_be_held(wire: Wire) -> None:
    long, expected = (offer(at=Endpoint(host, 5190), behind=7900) for host in ("10.0.0.5", OUTSIDE))
    assert wire.client(long, range(500, len(long), 500)) == expected


def test_a_line_that_never_ends_passes_within_bounds_and_the_next_one_is_read(wire: Wire) -> None:
    huge = offer(behind=65536)
    for _ in range(3):
        assert wire.client(huge + TEXT, range(700, len(huge), 700)) == huge + TEXT
        wire.router.wait(0.03)
    assert wire.router.engine.counters.helpers["malformed_messages"] == 3
    assert wire.client(PROPOSAL) == EDITED


@pytest.mark.parametrize("at", range(len(PROPOSAL)))
def test_every_byte_of_a_proposal_may_be_wrong(at: int) -> None:
    for value in (0, 0xFF, PROPOSAL[at] ^ 1):
        bad = PROPOSAL[:at] + bytes([value]) + PROPOSAL[at + 1 :]
        whole, pieces = Wire().sign_on(), Wire().sign_on()
        whole.client(bad)
        pieces.client(bad, range(1, len(bad)))
        for wire in (whole, pieces):
            wire.router.wait(0.03)
            assert len(wire.c2s) == len(wire.sent[0])
        assert pieces.c2s == whole.c2s
        assert whole.router.engine.counters.failed_flows == 0


# --- helpers that fail -------------------------------------------------------------------------------------


class Failing(ScriptHelper):
    """Raises, or answers with *bad*, when it sees the word BOOM."""

    bad: Scan | None = None

    def scan(self, direction: Direction, data: bytes, start: int, nat: Nat) -> Scan | None:
        if b"BOOM" in data:
            if self.bad is None:
                raise ZeroDivisionError("division by zero")
            return self.bad
        return super().scan(direction, data, start, nat)


@pytest.mark.parametrize(
    "bad",
    [
        None,
        Scan((Edit(0, 1, b"x"),)),
        Scan((Edit(10**6, 10**6 + 1, b""),)),
        Scan((Edit(5000, 5001, b"xyz"),)),
    ],
    ids=["raises", "edits what has left", "shortens", "lengthens"],
)
def test_a_helper_that_fails_concerns_one_flow(bad: Scan | None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Failing, "bad", bad)
    router = Router(spec=script(Failing))
    wire, other = Wire(router).sign_on(), Wire(router, client=Endpoint("10.0.0.6", 40123)).sign_on()
    at = len(wire.sent[0])
    wire.client(PROPOSAL + SECOND[:150])
    assert len(router.open_tokens) == 1
    wire.server(b"BOOM")
    assert not router.open_tokens
    assert wire.c2s[at:] == EDITED + SECOND[:150]
    assert router.engine.counters.failed_flows == 1
    assert len(router.pinholes) == 1  # the peer has been told of it
    assert wire.client(SECOND[150:] + PROPOSAL) == SECOND[150:] + PROPOSAL
    amy = of("10.0.0.6")
    assert other.client(amy) != amy


class Disappointed(ScriptHelper):
    """Finds out late that the flow is foreign."""

    def scan(self, direction: Direction, data: bytes, start: int, nat: Nat) -> Scan | None:
        if data == b"BOOM":
            raise Foreign("not this protocol after all")
        return super().scan(direction, data, start, nat)


@pytest.mark.parametrize(("first", "offloaded"), [(TEXT, True), (PROPOSAL, False)])
def test_a_flow_with_edits_stays_in_the_queue_for_its_retransmissions(first: bytes, offloaded: bool) -> None:
    wire = Wire(Router(spec=script(Disappointed))).sign_on()
    at = len(wire.sent[0])
    out = wire.client(first)
    wire.client(b"BOOM")
    assert (wire.router.kernel.offloaded == [wire.flow_id]) == offloaded
    wire.inject(0, at, first)
    assert wire.c2s[at:] == out + b"BOOM"


class Early(ScriptHelper):
    """Asks for a pinhole before sign-on."""

    def scan(self, direction: Direction, data: bytes, start: int, nat: Nat) -> Scan | None:
        nat.expect(Expectation(b"COOKIE-A", "talk", Endpoint(nat.inside.address, 5190)))
        return None


def test_no_helper_opens_anything_before_its_connection_is_established() -> None:
    router = Router(spec=script(Early))
    wire = Wire(router).handshake()
    assert wire.client(HELLO) == HELLO
    assert wire.server(HELLO) == HELLO
    assert not router.firewall.changes
