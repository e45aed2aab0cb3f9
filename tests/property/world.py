"""Two ends, a bad network and the engine between them: one random case, decided by a list of numbers.

First chaos: packets are sent, lost, doubled and reordered before and behind the engine, which may be
restarted in between. Then calm: nothing is lost any more, and time-outs have to bring everything to its end
in a few rounds. What the ends receive is compared with the texts, edited by the plainest code there is.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from nfreaim.core.address import End as FlowEnd
from nfreaim.core.engine import Engine
from nfreaim.core.firewall.policy import PinholePolicy
from nfreaim.core.settings import EngineSettings
from nfreaim.core.tcp.offsets import Edit
from nfreaim.core.verdict import Verdicts
from tests.property.choices import Choices
from tests.property.tracker import Tracker
from tests.script_helper import Plan, planned
from tests.tcp.ends import FORGED, End, Judge, Manner
from tests.tcp.packets import ACK, RST, SYN, Packet, mss, near, packed, packet
from tests.unit.fake_firewall import FakeFirewall
from tests.unit.fake_watcher import FakeWatcher
from tests.unit.fakes import FakeKernel, guarded_table

CLIENT, SERVER = ("10.0.0.5", 40123), ("203.0.113.9", 5190)
KEY = packed(CLIENT[0]) + packed(SERVER[0]) + CLIENT[1].to_bytes(2, "big") + SERVER[1].to_bytes(2, "big")
ROUNDS = 160
MANNERS: tuple[Manner, ...] = ("cut", "refuse", "take")
KEEP, LOSE = 1, 2  # what becomes of the records when the engine is started again


class Script(Plan):
    """The plan of a case. *made* is the reference: what the engine may refuse is not in it."""

    def __init__(self, world: World, edits: tuple[list[Edit], list[Edit]]) -> None:
        super().__init__(edits)
        self.world = world

    def expects(self, edits: Sequence[Edit]) -> bool:
        kept = KEY in self.world.kernel.protected  # at least for the sake of bytes in custody
        skewed = kept or any(skews(edit) for edit in [*edits, *self.made[0], *self.made[1]])
        if not self.world.resizes and any(map(skews, edits)):
            return False
        return not (skewed and self.world.kernel.broken)


def skews(edit: Edit) -> bool:
    return len(edit.data) != edit.end - edit.start


class World:
    """One case. *story* collects what happens, if it is a list."""

    def __init__(self, choices: Choices, story: list[str] | None = None) -> None:
        self.choices, self.story = choices, story
        below = choices.below
        self.kernel, self.now = FakeKernel(), 1000.0
        kind = below(6)
        self.hold = (0.03, 0.3, 8.0)[below(3)]
        self.server_inside, self.resizes = bool(kind & 1), 0 < kind < 5
        texts = [bytes(97 + (at + 7 * way) % 26 for at in range(below(60))) for way in (0, 1)]
        isn = [2**32 - 1 - below(80) if below(2) else below(2**32) for _ in range(2)]
        limits = [choices.between(4, 100) for _ in range(2)]
        sack = not below(2)
        self.ends = (
            End(CLIENT, SERVER, (isn[0], isn[1]), texts[0], choices.between(1, 40), limits[0], sack),
            End(SERVER, CLIENT, (isn[1], isn[0]), texts[1], choices.between(1, 40), limits[1], sack),
        )
        for end in self.ends:
            end.manner = MANNERS[below(3)]
        self.tracker = Tracker((self.ends[0].base, self.ends[1].base), (limits[0], limits[1]))
        self.script = Script(self, (self._plan(0), self._plan(1)))
        self.engine = self._engine()
        self.before: tuple[list[bytes], list[bytes]] = ([], [])  # on the way to the engine
        self.behind: tuple[list[bytes], list[bytes]] = ([], [])
        self.tokens: dict[int, tuple[int, bytes]] = {}
        self.token = 0
        self.restarted = self.lost = self.waited = False
        self.kept = [0, 0]
        self.handled = 0
        places = self.fwd(0), self.fwd(1)
        kept = (lambda: self.kept[0], lambda: self.kept[1])
        self.judges = (Judge(*places, True, *kept), Judge(*places[::-1], True, *kept[::-1]))
        for way, end in enumerate(self.ends):
            end.out = self.before[way].append
            end.window = self.ends[1 - way].limit
            end.patient = not below(3)
            end.waits = below(3) == 1

    def _engine(self) -> Engine:
        watcher = FakeWatcher()
        table = guarded_table(PinholePolicy(), FakeFirewall(), watcher)
        spec = planned(self.script, frozenset(FlowEnd) if self.resizes else frozenset())
        settings = EngineSettings(hold=self.hold)
        return Engine({SERVER[1]: spec}, table, self.kernel.backend, watcher, settings)

    def _plan(self, way: int) -> list[Edit]:
        below, edits, at = self.choices.below, list[Edit](), 0
        text = self.ends[way].text
        for number in range(below(5)):
            at += below(12)
            end = at + 1 + below(8)
            if end > len(text):
                break
            size = (end - at, 0, below(4), 1 + below(12))[below(4)]
            edits.append(Edit(at, end, (b"%d" % number) * size))
            at = end
        return edits

    def fwd(self, way: int) -> Callable[[int], int]:
        """The reference: where an original offset stands in the edited stream."""
        made = self.script.made[way]

        def place(x: int) -> int:
            shift = 0
            for edit in made:
                if x < edit.end:
                    return (
                        x + shift
                        if x < edit.start
                        else edit.start + shift + min(x - edit.start, len(edit.data))
                    )
                shift += len(edit.data) - (edit.end - edit.start)
            return x + shift

        return place

    def edited(self, way: int) -> bytes:
        text, out, at = self.ends[way].text, b"", 0
        for edit in self.script.made[way]:
            out += text[at : edit.start] + edit.data
            at = edit.end
        return out + text[at:]

    # --- the router ---

    def tracked(self, way: int, raw: bytes, inside: bool) -> bool:
        """Whether connection tracking lets a packet pass, which sees all in the numbers of the outside end.

        inside  the packet comes from there, or goes there: once each, on the outside's half of its way
        """
        one = Packet(raw).judged()
        if inside is not ((way == 0) is not self.server_inside) or one.ident == FORGED or one.flags & SYN:
            return True
        passes = self.tracker.passes(way, one)
        if not passes and self.story is not None:
            self.story.append(f"    INVALID {self.told(way, raw)}")
        return passes

    def arrive(self, way: int, raw: bytes) -> None:
        """A packet reaches the router."""
        if self.tracked(way, raw, inside=False):
            self.process(way, raw)

    def process(self, way: int, raw: bytes) -> None:
        """A packet reaches the engine."""
        self.token += 1
        self.tokens[self.token] = (way, raw)
        self.handled += 1
        if self.story is not None:
            self.story.append(f"{'client' if way == 0 else 'server'} {self.told(way, raw)}")
        if self.ahead(way, raw):
            del self.tokens[self.token]
            return
        inside = (way == 0) is not self.server_inside
        skewed = KEY in self.kernel.protected
        verdicts = self.engine.process(raw, self.token, inside, self.now, skewed)
        assert self.token not in [token for token, _ in verdicts[:-1]]
        self.settle(verdicts)

    def ahead(self, way: int, raw: bytes) -> bool:
        """A forged packet ahead of what has left: edits to come may make it right, by no fault of ours."""
        stream = self.engine.flows.streams.get(raw[12:24])
        one = Packet(raw)
        if stream is None or one.ident != FORGED:
            return False
        return stream.offset(one.seq) > stream.first_editable(stream.next)

    def settle(self, verdicts: Verdicts) -> None:
        for token, verdict in verdicts:
            way, raw = self.tokens.pop(token)
            if verdict.accept:
                assert verdict.payload != raw, "an unchanged packet is written back"
                out = verdict.payload or raw
                assert not self.lost, "a packet passes though the state is lost"
                if not self.tracked(way, out, inside=True):
                    continue
                self.behind[way].append(out)
                if self.story is not None:
                    self.story.append(f"    leaves  {self.told(way, out)}")
            elif self.story is not None:
                self.story.append("    dropped")
        self._note_kept()
        while self.kernel.sent:
            raw = self.kernel.sent.pop(0)
            way = 0 if raw[12:24] == KEY else 1
            if self.story is not None:
                self.story.append(f"    sent    {self.told(way, raw)}")
            if self.tracked(way, raw, inside=True):
                self.behind[way].append(raw)

    def _note_kept(self) -> None:
        """How far the record on disk has what the ends were told has arrived."""
        for way, stream in enumerate(self.kernel.protected.get(KEY, {}).get("streams", ())):
            if custody := stream.get("custody"):
                self.kept[way] = max(self.kept[way], custody["start"] + len(custody["data"]) // 2)

    def told(self, way: int, raw: bytes) -> str:
        """A packet in the notation of the playbooks."""
        one, end = Packet(raw), self.ends[way]
        at = near(one.seq - end.base, end.nxt)
        names = "".join(f" {name}" for bit, name in ((1, "FIN"), (2, "SYN"), (4, "RST")) if one.flags & bit)
        text = f' "{one.payload.decode("latin-1")}"' if one.payload else ""
        sack = "".join(
            f" sack {near(a - end.peer_base, 0)}:{near(b - end.peer_base, 0)}" for a, b in one.blocks
        )
        ack = near(one.ack - end.peer_base, 0)
        return f"{at}:{at + len(one.payload)}{text}{names} ack {ack}{sack} window {one.window}"

    def handshake(self) -> None:
        client, server = self.ends
        one = packet(CLIENT, SERVER, client.base - 1, 0, SYN, tcp_options=mss(1460), window=0)
        two = packet(SERVER, CLIENT, server.base - 1, client.base, SYN | ACK, tcp_options=mss(1460), window=0)
        three = packet(CLIENT, SERVER, client.base, server.base, ACK, window=0)
        for way, raw in ((0, one), (1, two), (0, three)):
            self.arrive(way, raw)
            self.behind[way].clear()

    def restart(self, how: int) -> None:
        self.tokens.clear()  # the kernel drops what waits in the queue
        self.restarted = True
        self.engine = self._engine()
        self.kernel.resets.clear()
        self.lost = how == LOSE and KEY in self.kernel.protected
        if how == KEEP:
            for record in list(self.kernel.protected.values()):
                self.engine.restore(record, self.now)
        if KEY not in self.kernel.protected:  # same-length edits may be undone by what comes again
            self.judges = (self.judges[0]._replace(strict=False), self.judges[1]._replace(strict=False))
        if self.story is not None:
            self.story.append(f"restart, {'state lost' if self.lost else 'state kept'}")

    def deliver(self, way: int, raw: bytes) -> None:
        """A packet reaches the other end."""
        receiver = self.ends[1 - way]
        if not receiver.reset:
            receiver.receive(raw, self.ends[way], self.judges[1 - way])

    def tick(self, seconds: float) -> None:
        self.now += seconds
        for end in self.ends:
            end.scolded = False
        self.waited = self.waited or bool(self.tokens)
        self.settle(self.engine.tick(self.now))

    def resets(self) -> None:
        """The kernel answers the senders of what came without state."""
        for segment in self.kernel.resets:
            self.ends[0 if segment.key == KEY else 1].reset = True
        self.kernel.resets.clear()

    # --- chaos ---

    def chaos(self) -> None:
        below = self.choices.below
        steps = below(70)
        how = below(8)
        restart_at = below(70) if how in (KEEP, LOSE) else -1
        for step in range(steps):
            if step == restart_at:
                self.restart(how)
            self.step(below(16), below(2))
            if self.lost:
                self.resets()
        self.kernel.broken = False

    def step(self, action: int, way: int) -> None:
        choices, end = self.choices, self.ends[way]
        queue = (self.before if choices.below(2) else self.behind)[way]
        if action < 7:
            if queue:
                raw = queue.pop(choices.below(min(3, len(queue))))
                (self.arrive if queue is self.before[way] else self.deliver)(way, raw)
        elif action < 10 and not end.reset:
            end.send(end.nxt if end.nxt <= len(end.text) else end.una, 1 + choices.below(40))
        elif action == 10 and queue:
            queue.pop(choices.below(len(queue)))
        elif action == 11 and queue:
            queue.append(queue[choices.below(len(queue))])
        elif action == 12 and not end.reset:
            low = choices.below(min(end.nxt, len(end.text)) + 1)
            size = min(1 + choices.below(40), end.nxt - low)
            if size > 0:
                end.send(low, size)
        elif action == 13:
            self.attack(way)
        elif not end.reset:
            self.minor(choices.below(6), end)

    def minor(self, action: int, end: End) -> None:
        if action == 0:
            end.send_ack()
        elif action == 1:
            end.read = len(end.got)
            end.send_ack()
        elif action == 2:
            end.alive(self.choices.below(2))
        elif action == 3:
            end.probe()
        elif action == 4:
            self.tick(0.01 * self.choices.below(5))
        elif not self.restarted:
            self.kernel.broken = self.choices.one_in(4)

    def attack(self, way: int) -> None:
        """A blind reset or FIN-less empty segment, at a place that is not the awaited one."""
        end, at = self.ends[way], self.choices.below(70) - 5
        if at in (end.nxt, self.ends[1 - way].rcv_nxt):
            return
        ack = end.peer_base + end.rcv_nxt
        flags = RST | (ACK if self.choices.below(2) else 0)
        raw = packet(end.here, end.there, end.base + at, ack, flags, window=at + 100, ident=FORGED)
        self.before[way].append(raw)

    # --- calm ---

    def calm(self) -> None:
        """Nothing is lost any more. Everything has to come to its end, with a bounded number of time-outs."""
        self.pump()
        if self.choices.one_in(8):
            self.ends[self.choices.below(2)].die()
        for _ in range(ROUNDS):
            self.pump()
            self.tick(0.02)
            self.pump()
            if all(end.done for end in self.ends):
                break
            self.tick(1.0)
            for end in self.ends:
                if not (end.reset or end.dead):
                    self.time_out(end)
        else:
            raise AssertionError(f"a stall: {[(end.una, end.nxt, end.rcv_nxt) for end in self.ends]}")
        self.settle(self.engine.shutdown("the daemon stops"))
        assert not self.tokens, "packets without a verdict"

    def time_out(self, end: End) -> None:
        end.read = len(end.got)
        if end.told < end.free:
            end.send_ack()
        if self.lost or not end.window or any(each.dead for each in self.ends):
            end.alive(self.choices.below(2))
        end.repeat()

    def pump(self) -> None:
        for _ in range(1000):
            moved = False
            for way in (0, 1):
                while self.before[way]:
                    self.arrive(way, self.before[way].pop(0))
                    moved = True
                if self.lost:
                    self.resets()
                while self.behind[way]:
                    self.deliver(way, self.behind[way].pop(0))
                    moved = True
                other = self.ends[1 - way]
                if other.due and not (other.reset or other.dead):
                    other.send_ack()
            if not moved:
                return
        raise AssertionError("a storm of packets")

    def compare(self) -> None:
        if self.lost:
            assert all(end.reset or end.done for end in self.ends), "an end is left hanging"
            return
        for way in (0, 1):
            expected, got = self.edited(way), bytes(self.ends[1 - way].got)
            if any(end.dead for end in self.ends):
                expected = expected[: len(got)]
            if self.judges[way].strict:
                assert got == expected, f"received {got!r} instead of {expected!r}"
            else:
                choices = zip(got, expected, self.ends[way].text[: len(got)], strict=True)
                assert all(byte in either for byte, *either in choices)
        if not (self.restarted or self.waited):
            assert self.script.late == 0, "an edit came too late though no time has passed"


def play(choices: Choices, story: list[str] | None = None) -> World:
    """Run one case. Raises AssertionError, or whatever the engine raises."""
    world = World(choices, story)
    world.handshake()
    world.chaos()
    world.calm()
    world.compare()
    return world
