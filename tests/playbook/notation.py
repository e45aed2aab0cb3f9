"""The interpreter of the plays in *.play.

    == name of the play                     # and what follows up to the next one; "#" begins a comment
    same lengths only                       the protocol does not ask for edits that change a length
    isn client 4294967290                   sequence number of a SYN, from here on
    edit server 5:8 "WIDER"                 the helper replaces these bytes as soon as it has all of them
    server 0:10 "abcdefghij" ack 5          an end sends; offsets count from the first byte after its SYN
    -> 0:12 "abcdeWIDERij"                  what leaves for it; what is not said is as it was sent
    -> same | held | dropped | reset        or: unchanged; no verdict yet; dropped; and its sender is reset
    wait 0.03                               time passes; "->" lines follow for what is set free, oldest first
    restart | restart without state         a new engine; what was held is lost with the old one
    counter late_edit 1                     the engine's counter is exactly that
    protected | not protected               whether the kernel fails closed for this flow

A packet is its place, "at" or "from:to", then any of: "text" FIN SYN RST ack N sack A:B mss N scale N
window N (64240 unless said); "filler" is text that nobody reads; behind "->" also "may fragment" (DF is
cleared), "nosack" and "without FIN". A play begins with a handshake, unless its first packet is a SYN.
Which end is inside is not said: a play holds for either. Everything else has to be said: a packet without
"->" lines, or a play without any, is an error.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from nfreaim.core.address import End, flow_id
from nfreaim.core.tcp.offsets import Edit
from nfreaim.core.tcp.segment import ACK, FIN, RST, SYN
from nfreaim.core.verdict import Verdict, Verdicts
from tests.script_helper import Plan, planned
from tests.tcp.packets import Packet, checksum_error, mss, near, packed, packet, sack
from tests.unit.fakes import CLIENT, SERVER, Router

HERE = Path(__file__).parent
WAYS = {"client": 0, "server": 1}
FLAGS = {"FIN": FIN, "SYN": SYN, "RST": RST}
WORD = re.compile(r'"([^"]*)"|(may fragment)|(\S+)')
KEY = packed(CLIENT.address) + packed(SERVER.address) + struct.pack("!HH", CLIENT.port, SERVER.port)


class Wrong(Exception):
    """The play cannot be understood, or says too little."""


@dataclass(frozen=True)
class Said:
    """A packet in offsets. *end* only repeats what the text's length says."""

    at: int
    data: bytes = b""
    flags: int = 0
    ack: int | None = None
    sack: tuple[tuple[int, int], ...] = ()
    mss: int | None = None
    window: int = 64240
    scale: int | None = None
    fragments: bool = False


def said(text: str, as_sent: Said | None = None) -> Said:
    """*text* as a packet; what it leaves out is as in *as_sent*."""
    place, _, rest = text.partition(" ")
    start, _, end = place.partition(":")
    values: dict[str, Any] = {"at": int(start), "data": b"", "fragments": False}
    sack: list[tuple[int, int]] = []
    words = iter(WORD.findall(rest))
    for quoted, fragments, word in words:
        if fragments:
            values["fragments"] = True
        elif word == "without":
            values["flags"] = (as_sent or Said(0)).flags & ~FLAGS[next(words)[2]]
        elif word in FLAGS:
            values["flags"] = values.get("flags", 0) | FLAGS[word]
        elif word in ("ack", "mss", "window", "scale"):
            values[word] = int(next(words)[2])
        elif word == "sack":
            left, right = next(words)[2].split(":")
            sack.append((int(left), int(right)))
        elif word == "filler":
            values["data"] = b"." * (int(end) - int(start))
        elif word == "nosack":
            values["sack"] = ()
        elif not word and "data" in values:
            values["data"] = quoted.encode()
        else:
            raise Wrong(f"no part of a packet: {word}")
    if sack:
        values["sack"] = tuple(sack)
    found = replace(as_sent, **values) if as_sent else Said(**values)
    if end and int(end) != found.at + len(found.data):
        raise Wrong(f"{place} does not fit {found.data!r}")
    return found


class Stage:
    """One play being played."""

    def __init__(self, inside: End = End.SERVER) -> None:
        self.plan = Plan()
        self.inside = inside
        self.resizes = frozenset(End)
        self.router = self.fresh()
        self.isn = [1000, 5000]
        self.begun = False
        self.token = 0
        self.waiting: dict[int, tuple[int, Said, bytes]] = {}

    def fresh(self) -> Router:
        """A router whose helpers follow the plan."""
        return Router(spec=planned(self.plan, self.resizes))

    def line(self, text: str) -> Iterator[str] | None:
        """Play one line; what came of it, in the notation, or None if nothing can come of it."""
        verb, _, rest = text.partition(" ")
        if text == "same lengths only":
            self.resizes = frozenset()
            self.router = self.fresh()
        elif verb in WAYS:
            if not self.begun and "SYN" not in rest:
                for way, syn in ((0, "-1 SYN"), (1, "-1 SYN ack 0"), (0, "0 ack 0")):
                    list(self.send(way, said(syn)))
            self.begun = True
            return self.send(WAYS[verb], said(rest))
        elif verb == "wait":
            self.router.now += float(rest)
            return self.told(self.router.engine.tick(self.router.now))
        elif text in ("restart", "restart without state"):
            self.restart("without" not in text)
        elif verb == "isn":
            end, number = rest.split()
            self.isn[WAYS[end]] = int(number)
        elif verb == "edit":
            end, place, new = rest.split(" ", 2)
            start, stop = map(int, place.split(":"))
            self.plan.edits[WAYS[end]].append(Edit(start, stop, new.strip('"').encode()))
        elif verb == "counter":
            name, number = rest.split()
            assert getattr(self.router.engine.counters, name) == int(number), text
        elif text in ("protected", "not protected"):
            assert (KEY in self.router.kernel.protected) == (text == "protected"), text
        else:
            raise Wrong(f"not understood: {text}")
        return None

    def restart(self, keep: bool) -> None:
        fresh = self.fresh()
        fresh.kernel.protected, fresh.now = self.router.kernel.protected, self.router.now
        if keep:
            for record in list(fresh.kernel.protected.values()):
                fresh.engine.restore(record, fresh.now)
        self.router = fresh
        self.waiting.clear()

    def send(self, way: int, sent: Said) -> Iterator[str]:
        raw = self.build(way, sent)
        self.token += 1
        self.waiting[self.token] = (way, sent, raw)
        resets = len(self.router.kernel.resets)
        skewed = KEY in self.router.kernel.protected
        inside = way == self.inside
        verdicts = self.router.engine.process(raw, self.token, inside, self.router.now, skewed)
        yield from self.told(verdicts)
        if self.token in self.waiting:
            yield "held"
        if len(self.router.kernel.resets) > resets:
            assert self.router.kernel.resets[-1].raw == raw
            yield "reset"

    def told(self, verdicts: Verdicts) -> Iterator[str]:
        for token, verdict in verdicts:
            yield self.outcome(*self.waiting.pop(token), verdict)

    def outcome(self, way: int, sent: Said, raw: bytes, verdict: Verdict) -> str:
        if not verdict.accept:
            return "dropped"
        if verdict.payload is None:
            return "same"
        left = self.read(way, verdict.payload)
        assert checksum_error(verdict.payload) == checksum_error(raw) == 0
        parts = [f"{left.at}:{left.at + len(left.data)}" if left.data else str(left.at)]
        parts += [f'"{left.data.decode()}"'] if left.data else []
        parts += [name for name, bit in FLAGS.items() if left.flags & bit and not sent.flags & bit]
        parts += [f"ack {left.ack}"] if left.ack != sent.ack else []
        parts += [f"sack {a}:{b}" for a, b in left.sack] if left.sack != sent.sack else []
        parts += ["nosack"] if sent.sack and not left.sack else []
        parts += [f"mss {left.mss}"] if left.mss != sent.mss else []
        parts += [
            f"without {name}" for name, bit in FLAGS.items() if sent.flags & bit and not left.flags & bit
        ]
        parts += ["may fragment"] if left.fragments else []
        assert said(" ".join(parts), sent) == left, "something was changed that no play can say"
        return " ".join(parts)

    def build(self, way: int, sent: Said) -> bytes:
        base, other = self.isn[way] + 1, self.isn[1 - way] + 1
        options = b"" if sent.mss is None else mss(sent.mss)
        options += b"" if sent.scale is None else bytes([3, 3, sent.scale, 1])
        if sent.sack:
            options += sack(*(other + edge for block in sent.sack for edge in block))
        ends = (CLIENT, SERVER) if way == 0 else (SERVER, CLIENT)
        ack = 0 if sent.ack is None else other + sent.ack
        flags = sent.flags | (0 if sent.ack is None else ACK)
        return packet(*ends, base + sent.at, ack, flags, sent.data, tcp_options=options, window=sent.window)

    def read(self, way: int, raw: bytes) -> Said:
        out = Packet(raw)
        options = out.options
        return Said(
            self.offset(way, out.seq),
            out.payload,
            out.flags & (FIN | SYN | RST),
            self.offset(1 - way, out.ack) if out.flags & ACK else None,
            tuple((self.offset(1 - way, low), self.offset(1 - way, high)) for low, high in out.blocks),
            int.from_bytes(options[2], "big") if 2 in options else None,
            out.window,
            options[3][0] if 3 in options else None,
            not raw[6] & 0x40,
        )

    def offset(self, way: int, number: int) -> int:
        return near(number - self.isn[way] - 1, 0)


def plays() -> dict[str, list[str]]:
    """The lines of every play, by its name."""
    found: dict[str, list[str]] = {}
    for path in sorted(HERE.glob("*.play")):
        for number, line in enumerate(path.read_text().splitlines(), 1):
            text = re.sub(r"(^|\s)#.*", "", line).strip()
            if text.startswith("== "):
                if text[3:] in found:
                    raise Wrong(f"{path.name}:{number}: a second {text}")
                lines = found.setdefault(text[3:], [])
            elif text:
                lines.append(text)
    return found


def perform(lines: list[str], inside: End = End.SERVER) -> None:
    """Play it. Raises AssertionError where something else happens, Wrong where the play says too little."""
    stage, asserted = Stage(), False
    outcome: Iterator[str] = iter(())
    for line in lines:
        if line.startswith("->"):
            expected, found = line[2:].strip(), next(outcome, "nothing more")
            assert found == expected, f"{line}: it was {found}"
            asserted = True
            continue
        more = next(outcome, None)
        if more is not None:
            raise Wrong(f"before {line}: not said: -> {more}")
        outcome = stage.line(line) or iter(())
        asserted = asserted or line.split()[0] == "counter"
    more = next(outcome, None)
    if more is not None:
        raise Wrong(f"at the end: not said: -> {more}")
    if not asserted:
        raise Wrong("a play that asserts nothing")
    assert not stage.waiting, "packets without a verdict at the end"
    assert flow_id(KEY).client == CLIENT
