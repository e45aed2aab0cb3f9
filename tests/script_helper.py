"""The protocol of core's tests: lines of words, and edits that a test plans. A HelperSpec like any other.

    hello                               the first line of either end; both together establish the flow
    offer NAME SERVICE TEXT @ADDRESS TEXT   a peer may connect to ADDRESS: 0a000005:1446, or 10.0.0.5:5190
    accept NAME, cancel NAME, bye       the peer accepted; one agreement, or all of them, are over
    server ADDRESS                      the client shall go on at this server
    text TEXT                           means nothing

An address is replaced in the notation it has: hexadecimal ones keep their length, dotted ones need not.
Anything else is no line of this protocol. A helper with a Plan reads no lines and is established at once.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from ipaddress import IPv4Address
from typing import Final

from nfreaim.core.address import Direction, End, Endpoint
from nfreaim.core.helper import (
    Action,
    Expectation,
    HelperFactory,
    HelperSpec,
    Nat,
    Refused,
    Report,
    Scan,
    Service,
)
from nfreaim.core.tcp.offsets import Edit
from nfreaim.errors import Foreign, Malformed

HELLO: Final = b"hello\n"
TEXT: Final = b"text " + b"a" * 80 + b"\n"
WORDS: Final = (b"hello", b"offer", b"accept", b"cancel", b"bye", b"server", b"text")
LONGEST: Final = 8192  # bytes of a line; more of it is not read
KEPT: Final = (
    5  # bytes of a line whose rest is still to come that a position has; less than any address's place
)
MIDST: Final = 255  # in place of their number: the line is longer, and its rest says nothing


@dataclass
class Plan:
    """Edits to make, by direction: each as soon as all its bytes have come, and none over bytes that left.

    made  those that were; *late*: how many were not
    """

    edits: tuple[list[Edit], list[Edit]] = field(default_factory=lambda: ([], []))
    made: tuple[list[Edit], list[Edit]] = field(default_factory=lambda: ([], []))
    late: int = 0

    def scan(self, direction: Direction, end: int, nat: Nat) -> Scan:
        """What to do with a stream of which everything before offset *end* has come."""
        pending, edits = self.edits[direction], list[Edit]()
        hold = None
        while pending and pending[0].start < end:
            if not nat.editable(direction, pending[0].start):
                del pending[0]
                self.late += 1
            elif pending[0].end > end:
                hold = pending[0].start
                break
            else:
                edits.append(pending.pop(0))
        if edits and self.expects(edits):
            self.made[direction].extend(edits)
        return Scan(tuple(edits), hold)

    def expects(self, edits: Sequence[Edit]) -> bool:
        """Whether the engine is expected to make *edits*."""
        return True


class ScriptHelper:
    """Reads lines, or follows its *plan*.

    kept  of each direction, what has come of a line whose end is missing; *skip*: the rest of it is not read
    """

    plan: Plan | None = None

    def __init__(self, midstream: bool = False) -> None:
        self.established = midstream or self.plan is not None
        self.kept = [b"", b""]
        self.skip = [False, False]
        self.begun = [self.established] * 2
        self.ends = [0, 0]  # segments that ended with a line, as seen by ``resync``

    def scan(self, direction: Direction, data: bytes, start: int, nat: Nat) -> Scan | None:
        if self.plan is not None:
            return self.plan.scan(direction, start + len(data), nat)
        edits: list[Edit] = []
        at = start - len(self.kept[direction])
        *lines, rest = (self.kept[direction] + data).split(b"\n")
        for line in lines:
            if not self.skip[direction]:
                edits += self._line(direction, line, at, nat)
            self.skip[direction] = False
            at += len(line) + 1
        if self.skip[direction]:
            rest = b""
        self._check(direction, rest)
        if len(rest) > LONGEST:
            nat.count("malformed_messages")
            self.skip[direction], rest = True, b""
        if rest != self.kept[direction]:
            self.kept[direction] = rest
            nat.set_buffered(sum(map(len, self.kept)))
        return Scan(tuple(edits), self._hold(direction, rest, at, nat))

    def skips(self, direction: Direction, raw: bytes, start: int, nat: Nat) -> bool:
        plain = raw.startswith(b"text", start) and raw.find(b"\n", start) == len(raw) - 1
        return plain and self.plan is None and self.begun[direction] and self._at_line(direction)

    def _at_line(self, direction: Direction) -> bool:
        return not self.kept[direction] and not self.skip[direction]

    def _check(self, direction: Direction, line: bytes) -> None:
        """Raise Malformed, or Foreign at the beginning of a flow, unless *line* or its rest can be a line."""
        words = WORDS if self.begun[direction] else WORDS[:1]
        if not any(line.startswith(word[: len(line)]) for word in words):
            raise (Malformed if self.begun[direction] else Foreign)("no line of this protocol")

    def _line(self, direction: Direction, line: bytes, at: int, nat: Nat) -> list[Edit]:
        """Do what the *line* at stream offset *at* says; its edits."""
        self._check(direction, line)
        words = line.split()
        if not self.begun[direction]:
            if line != HELLO[:-1]:
                raise Foreign("no greeting")
            self.begun[direction] = True
            if all(self.begun) and not self.established:
                self.established = True
                nat.established()
        elif words[0] == b"offer" and b" @" in line:
            return self._offer(direction, line, at, nat)
        elif words[0] == b"server" and len(words) == 2:
            return self._server(direction, line, at, nat)
        elif words[0] == b"accept":
            nat.accepted(words[-1])
        elif words[0] == b"cancel":
            nat.withdraw(words[-1], "cancelled")
        elif words[0] == b"bye":
            nat.withdraw_all("signed off")
        return []

    def _hold(self, direction: Direction, line: bytes, at: int, nat: Nat) -> int | None:
        """Where the address begins in a *line* whose end is missing, if any of it has come and it matters."""
        concerns = self._outwards(direction, nat) or nat.has_pinholes()
        place = line.find(b" @") + 2
        if line.startswith(b"server"):
            place, concerns = 7, nat.server_inside and direction is Direction.REPLY
        elif not line.startswith(b"offer") or place < 2 or b" relay" in line[place:]:
            return None
        return at + place if concerns and self.established and len(line) > place else None

    @staticmethod
    def _outwards(direction: Direction, nat: Nat) -> bool:
        return (direction is Direction.REPLY) is nat.server_inside

    def _offer(self, direction: Direction, line: bytes, at: int, nat: Nat) -> list[Edit]:
        words, place = line.split(), line.index(b" @") + 2
        old = line[place:].split(b" ")[0]
        outwards = self._outwards(direction, nat)
        concerns = self.established and (outwards or nat.has_pinholes())
        if len(words) < 4 or b" relay" in line[place:] or not concerns:
            return []
        nat.count("proposals")
        service, before = words[2].decode("latin-1"), endpoint(old)
        after, reason = before, ""
        if not nat.editable(direction, at + place):
            reason = "its addresses had left before its end came"
        elif outwards:
            try:
                after = nat.expect(Expectation(words[1], service, before))
            except Refused as error:
                reason = str(error)
        else:
            after = nat.inside_of(before) or before
        action: Action = "left" if reason or after == before else "rewritten" if outwards else "mapped-back"
        nat.count(action.replace("-", "_"))
        nat.report(Report("out" if outwards else "in", service, 0, words[1], before, after, action, reason))
        new = address(after, b"." in old)
        return [] if new == old else [Edit(at + place, at + place + len(old), new)]

    def _server(self, direction: Direction, line: bytes, at: int, nat: Nat) -> list[Edit]:
        """A redirect: of our client, it is followed; of our server, it is to name what clients reach."""
        named = endpoint(line[7:])
        if direction is Direction.ORIGINAL:
            return []
        if not nat.server_inside:
            with suppress(Refused):
                nat.watch_server(named)
            return []
        if not nat.is_home(named.address):
            return []
        late = not nat.editable(direction, at + 7)
        nat.count("redirects_left" if late else "redirects")
        new = address(nat.reached(), b"." in line)
        return [] if late or new == line[7:] else [Edit(at + 7, at + len(line), new)]

    # --- core.helper.Resumable ---

    def positions(self) -> tuple[bytes, bytes]:
        return self._position(0), self._position(1)

    def _position(self, way: int) -> bytes:
        kept = self.kept[way]
        if self.skip[way] or len(kept) > KEPT:
            return bytes([MIDST]).ljust(1 + KEPT, b"\0")
        return bytes([len(kept)]) + kept.ljust(KEPT, b"\0")

    def resume(self, positions: tuple[bytes, bytes] | None, starts: tuple[int, int]) -> None:
        self.established, self.begun, self.ends = True, [True, True], [0, 0]
        self.kept, self.skip = [b"", b""], [False, False]
        for way, position in enumerate(positions or ()):
            count = position[0] if len(position) == 1 + KEPT else KEPT + 1
            kept = position[1 : 1 + count]
            whole = any(word.startswith(kept[: len(word)]) for word in WORDS)
            if count != MIDST and not (count <= KEPT and whole and kept.ljust(KEPT, b"\0") == position[1:]):
                raise ValueError("no position of this protocol")
            self.skip[way] = count == MIDST
            self.kept[way] = b"" if self.skip[way] else kept

    def resync(self, direction: Direction, data: bytes, start: int, now: float, joined: bool) -> bool:
        """A boundary is certain where a second segment ends with a line; never, if there is a plan."""
        if self.plan is not None:
            return False
        self.kept[direction], self.skip[direction] = b"", not data.endswith(b"\n")
        self.ends[direction] += data.endswith(b"\n")
        return min(self.ends) >= 2 and not any(self.skip)


def endpoint(text: bytes) -> Endpoint:
    """The endpoint that *text* means, in either notation. Raises Malformed."""
    host, _, port = text.partition(b":")
    try:
        if b"." in host:
            return Endpoint(str(IPv4Address(host.decode("ascii"))), int(port))
        return Endpoint(str(IPv4Address(bytes.fromhex(host.decode("ascii")))), int(port, 16))
    except ValueError as error:
        raise Malformed(f"no address: {text!r}") from error


def address(at: Endpoint, dotted: bool = False) -> bytes:
    """*at* in the notation of 13 characters, or *dotted*."""
    if dotted:
        return str(at).encode()
    return b"%s:%04x" % (bytes(map(int, at.address.split("."))).hex().encode(), at.port)


def offer(
    name: bytes = b"1234567",
    service: str = "send-file",
    at: Endpoint = Endpoint("10.0.0.5", 5190),  # noqa: B008
    dotted: bool = False,
    *,
    before: int = 71,
    behind: int = 33,
    tail: bytes = b"",
) -> bytes:
    """A line that offers a connection to *at*. *before*, *behind*: how many bytes surround the address."""
    head = b"offer %s %s " % (name, service.encode())
    line = head.ljust(before - 2, b"x") + b" @" + address(at, dotted) + tail
    return line + b" ".ljust(behind - 1, b"y") + b"\n"


def script(
    make: HelperFactory = ScriptHelper,
    resizes: frozenset[End] = frozenset({End.SERVER}),
    name: str = "script",
) -> HelperSpec:
    """The protocol of *name*, read by *make*; lengths may change where the inside end is one of *resizes*."""
    return HelperSpec(
        name=name,
        ports=(5190,),
        load=lambda: make,
        services={"send-file": Service(), "direct-im": Service()},
        resizes=resizes,
        counters={"redirects": "redirects made", "redirects_left": "redirects left alone"},
    )


def planned(plan: Plan, resizes: frozenset[End] = frozenset({End.SERVER})) -> HelperSpec:
    """The protocol, read by helpers that follow this *plan*, all of them."""

    class Told(ScriptHelper):
        pass

    Told.plan = plan
    return script(Told, resizes)
