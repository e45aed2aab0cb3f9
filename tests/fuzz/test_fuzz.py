"""The fuzz targets without atheris: every seed, every input that once failed, a few hundred mutations.

And the judges themselves: engines that do wrong, each in one way, must not get past them.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

import pytest

from nfreaim.core.engine import Engine
from nfreaim.core.firewall import peer_gate, room
from nfreaim.core.firewall.peer_gate import PeerGate
from nfreaim.core.firewall.table import PinholeTable
from nfreaim.core.flow import Flow
from nfreaim.core.resume import KeptFlows
from nfreaim.core.tcp.offsets import Edit
from nfreaim.core.tcp.segment import Segment
from nfreaim.core.tcp.stream import Stream
from nfreaim.core.verdict import ACCEPT, Verdict
from nfreaim.helpers.oscar import redirects
from nfreaim.helpers.oscar.proposal import Proposal
from nfreaim.helpers.oscar.session import OscarHelper
from nfreaim.helpers.xmpp import stanzas as xmpp_stanzas
from nfreaim.helpers.xmpp import streamhosts
from nfreaim.helpers.yahoo.pager import _Offer
from nfreaim.layers.oscar_messages import RdvTag
from tests.fuzz import corpus, mutate
from tests.fuzz.ends import ENDS
from tests.fuzz.program import Kind, Program, Step, send
from tests.fuzz.targets import TARGETS
from tests.fuzz.world import World
from tests.oscar.signon import CLIENT_SIGNON

MUTATIONS = {
    "segment": 1500,
    "flap": 100,
    "helper": 60,
    "engine": 60,
    "gate": 400,
    "records": 300,
    "pager": 300,
    "msn": 400,
    "stanzas": 400,
}
PARTS = 4
REGRESSIONS = [(target, name) for target in TARGETS for name, _ in corpus.regressions(target)]


@pytest.mark.parametrize("part", range(PARTS))
@pytest.mark.parametrize("target", TARGETS)
def test_every_seed_holds(target: str, part: int) -> None:
    seeds = corpus.seeds(target)[part::PARTS]
    assert seeds
    for seed in seeds:
        TARGETS[target](seed)


@pytest.mark.parametrize(("target", "name"), REGRESSIONS)
def test_what_once_failed_holds(target: str, name: str) -> None:
    TARGETS[target]((corpus.REGRESSIONS / name).read_bytes())


@pytest.mark.parametrize("target", TARGETS)
def test_mutations_hold(target: str) -> None:
    rng = random.Random(5190)
    seeds = corpus.seeds(target)
    for _ in range(MUTATIONS[target]):
        data = rng.choice(seeds)
        for _ in range(rng.randint(1, 4)):
            data = mutate.mutated(target, data, 4096, rng.randrange(1 << 32))
        TARGETS[target](data)


def test_any_bytes_are_a_program_and_encoding_loses_nothing() -> None:
    rng = random.Random(1)
    for _ in range(300):
        program = Program.decode(rng.randbytes(rng.randrange(400)))
        assert Program.decode(program.encode()) == program


def test_the_seeds_reach_what_they_are_for() -> None:
    """Pinholes out and back, session-long ones, held packets, skewed flows, what is read after a restart."""
    names = (
        "pinhole",
        "mapped-back",
        "skewed",
        "session",
        "held",
        "resumed-0",
        "resumed-1",
        "unsequenced",
        "handed-on",
    )
    reached = dict.fromkeys((*names, "resumed-0", "resumed-1"), 0)
    for name, program in corpus.scripts():
        world = World(program)
        world.run()
        counters = world.engine.counters
        reached["pinhole"] += len(world.ever)
        reached["mapped-back"] += counters.helpers["mapped_back"]
        reached["session"] += sum(pinhole.standing for pinhole in world.ever)
        reached["held"] += counters.held_packets
        reached["unsequenced"] += counters.helpers["unsequenced_flows"]
        if name in reached:
            reached[name] += len(world.ever)
        reached["handed-on"] += len(world.ever) > len({pinhole.outside for pinhole in world.ever})
        reached["skewed"] += any(line.out_end != len(line.sent) for line in world.slots[2])
    assert all(reached.values()), reached


# --- engines that do wrong ---


def other_field(monkeypatch: pytest.MonkeyPatch) -> None:
    def also(self: Proposal, address: bytes, before: Any, after: Any) -> None:
        move(self, address, before, after)
        for tlv in self.block.all(RdvTag.SEQ_NUM):
            tlv.value = b"\0\7"

    move = Proposal.move
    monkeypatch.setattr(Proposal, "move", also)


def wrong_address(monkeypatch: pytest.MonkeyPatch) -> None:
    swap = Proposal.swap_address
    monkeypatch.setattr(Proposal, "swap_address", lambda self, old, new: swap(self, old, b"\xcb\0\x71\x63"))


def wrong_checksum(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(self: Segment, at: int, data: bytes) -> Segment:
        made = patched(self, at, data)
        made.raw = made.raw[: made.tcp + 16] + b"ab" + made.raw[made.tcp + 18 :]
        return made

    patched = Segment.patched
    monkeypatch.setattr(Segment, "patched", broken)


def no_sign_on(monkeypatch: pytest.MonkeyPatch) -> None:
    begin = OscarHelper.__init__

    def established(self: OscarHelper, midstream: bool) -> None:
        begin(self, midstream)
        self.established = True

    monkeypatch.setattr(OscarHelper, "__init__", established)


def any_numbers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(OscarHelper, "slacks", (0x8000, 0x8000))


def believes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Stream, "acknowledges", lambda *_: True)


def no_window(monkeypatch: pytest.MonkeyPatch) -> None:
    def on_ack(self: Stream[Flow], segment: Segment) -> None:
        listen(self, segment)
        self.edge = None

    listen = Stream.on_ack
    monkeypatch.setattr(Stream, "on_ack", on_ack)


def record_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(KeptFlows, "over", lambda *_: None)


def lost_token(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Engine, "_gap", lambda *_: [])


def edit_not_repeated(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Engine, "_again", lambda *them: [(them[3], ACCEPT)])


def pinholes_stay(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(PinholeTable, "close_flow", lambda *_: None)


def anybody(monkeypatch: pytest.MonkeyPatch) -> None:
    check = room.check
    monkeypatch.setattr(
        "nfreaim.core.firewall.table.check",
        lambda wanted, _, *rest: check(wanted, wanted.inside.address, *rest),
    )
    monkeypatch.setattr("nfreaim.core.nat.FlowNat.inside", property(lambda _: ENDS[1][0]))


def wrong_redirect(monkeypatch: pytest.MonkeyPatch) -> None:
    edits = redirects._edits

    def another(*arguments: Any) -> list[Edit]:
        return [Edit(e.start, e.end, e.data.replace(b"198.51", b"198.52")) for e in edits(*arguments)]

    monkeypatch.setattr(redirects, "_edits", another)


def failing(monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(*_: Any) -> None:
        raise KeyError("an accident")

    monkeypatch.setattr(OscarHelper, "_rendezvous", fails)


WRONGS: list[Callable[[pytest.MonkeyPatch], None]] = [
    other_field,
    wrong_address,
    wrong_checksum,
    no_sign_on,
    any_numbers,
    believes,
    no_window,
    record_stays,
    lost_token,
    edit_not_repeated,
    pinholes_stay,
    anybody,
    wrong_redirect,
    failing,
]


def inputs() -> list[bytes]:
    """What shows each of them."""
    offer, status = corpus.GOLDEN["send-file-proposal"], corpus.GOLDEN["icq-status"]
    signed_on = corpus.signed_on
    programs = [
        [*signed_on(0), send(0, 0, offer), Step(Kind.AGAIN, 0, 0, False, (120, 100, 0))],
        [*signed_on(0), send(0, 0, status)],
        [*signed_on(0), send(0, 0, offer.replace(b"\x0a\0\0\5", b"\x0a\0\0\6"))],
        [*signed_on(0)[:2], send(0, 0, CLIENT_SIGNON), send(0, 0, offer)],
        [*signed_on(0), send(0, 0, offer[:40], lost=True), send(0, 0, offer[40:])],
    ]
    wanted = ("home-", "window-", "lie-", "off-", "resumed-")
    named = [program for name, program in corpus.scripts() if name.startswith(wanted)]
    return [program.encode() for program in (*(Program(0, tuple(steps)) for steps in programs), *named)]


def play(target: str, datas: list[bytes]) -> None:
    for data in datas:
        TARGETS[target](data)


def test_an_engine_that_does_right_is_not() -> None:
    play("engine", inputs())


@pytest.mark.parametrize("wrong", WRONGS, ids=lambda wrong: wrong.__name__)
def test_an_engine_that_does_wrong_is_caught(
    wrong: Callable[[pytest.MonkeyPatch], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    wrong(monkeypatch)
    with pytest.raises((AssertionError, KeyError)):
        play("engine", inputs())


def test_a_gate_that_does_wrong_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    """It takes any first word, or releases what has not arrived."""
    right = PeerGate._from_inside

    def early(self: PeerGate, key: bytes, connection: Any, segment: Segment) -> Verdict:
        verdict = right(self, key, connection, segment)
        return Verdict(True, release=True) if len(connection.read) > 8 else verdict

    for name, wrong in (("match", lambda *_: True), ("_from_inside", early)):
        with monkeypatch.context() as patch:
            patch.setattr(peer_gate if name == "match" else PeerGate, name, wrong)
            with pytest.raises(AssertionError):
                play("gate", corpus.seeds("gate"))


def test_a_length_that_does_not_follow_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    edits = _Offer._edits
    monkeypatch.setattr(_Offer, "_edits", lambda self, after: edits(self, after)[-1:])
    with pytest.raises((AssertionError, ValueError)):
        play("pager", corpus.seeds("pager"))


def test_a_reader_of_stanzas_that_does_wrong_is_caught(monkeypatch: pytest.MonkeyPatch) -> None:
    def any_space(attributes: dict[bytes, Any], name: bytes, absent: bytes = b"") -> bytes:
        payload = name == b"xmlns" and not absent
        return xmpp_stanzas.BYTESTREAMS if payload else value(attributes, name, absent)

    value, edits = xmpp_stanzas.value, streamhosts._edits
    for module, name, wrong in (
        (streamhosts, "_edits", lambda found, changes: edits(found, changes)[:1]),
        (xmpp_stanzas, "value", any_space),
    ):
        with monkeypatch.context() as patch:
            patch.setattr(module, name, wrong)
            with pytest.raises(AssertionError):
                play("stanzas", corpus.seeds("stanzas"))
