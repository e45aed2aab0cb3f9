"""IRC's DCC: two clients agree in text on a direct connection for a chat or a file. How to write a helper.

A line is ``[@tags ][:nick!user@host ]COMMAND params`` and ends with LF, mostly CR LF (RFC 2812, 2.3; tags:
IRCv3). DCC stands in the text of a PRIVMSG or NOTICE, between two bytes 01, here ^A (Troy Rollo, "A
description of the DCC protocol"; RESUME, ACCEPT, quotes and port 0 are from mIRC). An address is one number::

    PRIVMSG bob :^ADCC SEND "a file.txt" 167772165 5000 3000^A      I listen at 10.0.0.5, port 5000
    PRIVMSG bob :^ADCC CHAT chat 167772165 5001^A
    PRIVMSG alice :^ADCC RESUME file.txt 5000 1024^A                answer to SEND: go on at byte 1024
    PRIVMSG bob :^ADCC ACCEPT file.txt 5000 1024^A                  answer to that: so be it

Who offers listens. So an offer that leaves must name the router, and a pinhole must stand behind what it
names (``_outgoing``). An offer that arrives and names a pinhole of ours comes from the same network, and must
name the host again (``_incoming``). RESUME and ACCEPT name a port as their writer knows it; they count for
the nick that was offered to, or for what its owner calls himself since. All else leaves as it came: port 0
(the receiver is to listen, and will make an ordinary offer), IPv6, any other form.

DCC has no word for "no": an agreement ends by its deadline, the sign-off or the end of the connection. It has
no greetings, by which a pinhole could tell the right peer from others: who gets a file waits for its first
byte in silence, and a chat begins with any text, from either side.
"""

from __future__ import annotations

import re
from hashlib import blake2b
from ipaddress import IPv4Address
from typing import Final, Literal, NamedTuple

from nfreaim.core.address import Direction, End, Endpoint
from nfreaim.core.announced import own
from nfreaim.core.helper import Action, Expectation, HelperSpec, Nat, Refused, Report, Scan, Service
from nfreaim.core.tcp.offsets import Edit
from nfreaim.errors import Foreign, Malformed
from nfreaim.helpers.irc_redaction import IrcRedactor

# "++" and "*+" never give back what they took: a hostile line takes no longer to read than another.
_MESSAGE: Final = re.compile(
    rb"(?:@[^ ]++ ++)?(?::(?P<nick>[^ !]++)(?P<user>[^ ]*+) ++)?"
    rb"(?P<command>(?P<talk>(?:PRIVMSG|NOTICE)(?= ))|[A-Z]++|[0-9]{3})(?=[ \r\n])"
    # and of a DCC message what comes before the first byte that an edit may concern
    rb"(?(talk)(?: ++(?P<target>[^ ]++) ++:?\x01DCC ++(?P<verb>[ST]?SEND|S?CHAT|RESUME|ACCEPT) ++"
    rb"(?:\"[^\"\r\n\0\x01]++\"|[^ \"\r\n\0\x01][^ \r\n\0\x01]*+) ++)?)",
    re.IGNORECASE,
)
_PORT: Final = re.compile(rb"(?P<port>0|[1-9][0-9]{0,4})(?=[ \x01\r\n])")
_ENDPOINT: Final = re.compile(rb"(?P<address>[1-9][0-9]{0,9})(?P<gap> ++)" + _PORT.pattern)
_UNFINISHED: Final = re.compile(rb"[0-9]{0,10}(?: ++[0-9]*+(?:[ \x01\r].*+)?)?", re.DOTALL)
_FIRST: Final = (b"CAP ", b"PASS ", b"NICK ", b"USER ")
_TLS: Final = {(Direction.ORIGINAL, b"STARTTLS"), (Direction.REPLY, b"670")}
_OVER: Final = {(Direction.ORIGINAL, b"QUIT"), (Direction.REPLY, b"ERROR")}
_RENAMES: Final = {(Direction.REPLY, b"NICK"), (Direction.REPLY, b"QUIT")}
_WAYS: Final[tuple[tuple[Literal["out", "in"], Action], ...]] = ("out", "rewritten"), ("in", "mapped-back")
_LONGEST, _LONGEST_TAGGED = 512, 8191  # bytes of a line, with its CR LF
_REMEMBERED: Final = 16  # answers of one flow whose port has to be changed: two for each offer


class IrcHelper:
    """Reads one connection between a client and an IRC server.

    A web page can make a browser send any text, and whose server it goes to can answer 001. So a flow counts
    only if it is IRC from the first byte on: the client begins with CAP, PASS, NICK or USER, every line up to
    the server's 001 is a message (no header of HTTP is), and NICK and USER are among them. If not, it is
    Foreign, which ends the reading for good; so does TLS, which cannot be read.
    """

    __slots__ = ("_answers", "_awaited", "_lines", "established")

    def __init__(self, midstream: bool) -> None:
        self.established = midstream
        self._awaited = frozenset({b"NICK", b"USER"})
        self._lines = _Lines(midstream), _Lines(midstream)  # by direction
        self._answers: dict[bytes, bytes] = {}

    def scan(self, direction: Direction, data: bytes, start: int, nat: Nat) -> Scan | None:
        """See core.helper.Helper: every byte comes here once and in order, and segments mean nothing."""
        if nat.server_inside:
            raise Foreign("its server is inside: what that relays is not its own to open")
        lines = self._lines[direction]
        edits: list[Edit] = []
        ended = lines.feed(data, start)
        if ended and not nat.may_read(direction):
            if not self.established:  # a line that is not looked at may be of another protocol
                raise Malformed("its sign-on takes too long to read")
            ended = []
        for at, line in ended:
            message = _MESSAGE.match(line)
            said = direction, message["command"].upper() if message else b""
            if said in _TLS:
                raise Foreign("goes on as TLS")
            if not self.established:
                self._sign_on(direction, at, message, nat)
            elif said in _OVER and message and not message["user"]:  # a user's name: relayed, if it is real
                nat.withdraw_all("signed off")
            elif said in _RENAMES and message and message["user"]:
                self._rename(message)
            elif dcc := _dcc_of(direction, at, message):
                edits += self._dcc(dcc, nat)
        if not self.established and not _may_begin(direction, lines.at, lines.kept or b""):
            raise Foreign("does not begin as IRC does")
        nat.set_buffered(sum(len(each.kept or b"") for each in self._lines))
        hold = self._hold(direction, lines, nat)
        return Scan(tuple(edits), hold) if edits or hold is not None else None

    def skips(self, direction: Direction, raw: bytes, start: int, nat: Nat) -> bool:
        """See core.helper.Helper: not asked where lengths may change, for such flows take no fast path."""
        return False

    def positions(self) -> tuple[bytes, bytes]:
        """See core.helper.Resumable: whether each direction stands inside a line."""
        return bytes([self._lines[0].kept != b""]), bytes([self._lines[1].kept != b""])

    def resume(self, positions: tuple[bytes, bytes] | None, starts: tuple[int, int]) -> None:
        """See core.helper.Resumable: the rest of a line that was begun is skipped."""
        if positions is not None and not {b"\0", b"\1"}.issuperset(positions):
            raise ValueError("no positions between lines or inside them")
        self.established = True
        for lines, position in zip(self._lines, positions or (b"", b""), strict=True):
            lines.sure, lines.kept = positions is not None, b"" if position == b"\0" else None

    def resync(self, direction: Direction, data: bytes, start: int, now: float, joined: bool) -> bool:
        """See core.helper.Resumable: nothing in a line can look like its LF, so behind one a line begins."""
        lines = self._lines[direction]
        lines.sure = b"\n" in data or (joined and lines.sure)
        lines.kept = b"" if data.endswith(b"\n") else None
        return self._lines[0].sure and self._lines[1].sure

    def _sign_on(self, direction: Direction, at: int, message: re.Match[bytes] | None, nat: Nat) -> None:
        """A whole line before the flow is established, at stream offset *at*."""
        if message is None or not _may_begin(direction, at, message.string):
            raise Foreign("a line before sign-on is not IRC")
        if direction is Direction.ORIGINAL:
            self._awaited -= {message["command"].upper()}
        elif message["command"] == b"001":
            if self._awaited or message["user"]:
                raise Foreign("welcomes somebody who did not sign on, or in a user's name")
            self.established = True
            nat.established()

    def _hold(self, direction: Direction, lines: _Lines, nat: Nat) -> int | None:
        """From where on an edit could concern the line whose end is missing; what is before need not wait."""
        relevant = self.established and (direction is Direction.ORIGINAL or nat.has_pinholes())
        message = _MESSAGE.match(lines.kept) if relevant and lines.kept else None
        possible = message and message["verb"] and _UNFINISHED.fullmatch(message.string, message.end())
        return lines.at + message.end() if message and possible else None

    def _rename(self, message: re.Match[bytes]) -> None:
        """A user has another nick, or none: what was agreed is with him, not with who takes the old one."""
        words = message.string[message.end() :].split()
        new = words[0].removeprefix(b":").lower() if words and message["command"].upper() == b"NICK" else b""
        old = _hashed(message["nick"].lower())
        for name in [name for name in self._answers if name.startswith(old)]:
            change = self._answers.pop(name)
            if new:
                self._answers[_hashed(new) + name[len(old) :]] = change

    def _dcc(self, dcc: _Dcc, nat: Nat) -> list[Edit]:
        """What becomes of one DCC message: the edit that it needs. Whatever speaks against one is Refused."""
        editable = nat.editable(dcc.direction, dcc.start)
        if not dcc.gap:  # RESUME or ACCEPT: name the port as its reader knows it
            change = self._answers.get(_answer(dcc.direction, dcc.verb, dcc.peer, dcc.named.port))
            return dcc.leaves(nat, "port of an offer", _unpacked(change)) if change and editable else []
        nat.count("proposals")
        try:
            if not editable:
                raise Refused("its address had left before its end came")
            decide = _outgoing if dcc.direction is Direction.ORIGINAL else _incoming
            before, after, reason = decide(dcc, nat)
        except Refused as refusal:
            return dcc.leaves(nat, str(refusal))
        if before.port != after.port:  # then ACCEPT will follow the offer, and RESUME come against it
            back = Direction(1 - dcc.direction)
            change = _packed(before, after)
            self._answers[_answer(dcc.direction, b"ACCEPT", dcc.peer, before.port)] = change
            self._answers[_answer(back, b"RESUME", dcc.peer, after.port)] = change[6:] + change[:6]
            while len(self._answers) > _REMEMBERED:
                del self._answers[next(iter(self._answers))]
        return dcc.leaves(nat, reason, (before, after))


def _answer(direction: Direction, verb: bytes, peer: bytes, port: int) -> bytes:
    """The name of an answer, which begins with that of the peer."""
    return b"%b%d%b%d" % (_hashed(peer), direction, verb, port)


def _hashed(nick: bytes) -> bytes:
    """A nick in 8 bytes: it may fill a line, and many flows remember answers."""
    return blake2b(nick, digest_size=8).digest()


def _packed(before: Endpoint, after: Endpoint) -> bytes:
    """Both endpoints in 12 bytes; two Endpoints with their texts take 300."""
    return b"".join(IPv4Address(end.address).packed + end.port.to_bytes(2, "big") for end in (before, after))


def _unpacked(change: bytes) -> tuple[Endpoint, Endpoint]:
    before, after = (
        Endpoint(str(IPv4Address(half[:4])), int.from_bytes(half[4:], "big"))
        for half in (change[:6], change[6:])
    )
    return before, after


class _Lines:
    """Cuts one direction into lines. What is too long for a line counts as an empty one.

    kept  the beginning of a line whose end is missing, from stream offset *at* on; None: the beginning is
          not known, and the rest of the line is skipped
    sure  whether it is known where lines begin; not so after a crash (see ``resync``)
    """

    __slots__ = ("at", "kept", "sure")

    def __init__(self, midstream: bool) -> None:
        self.kept: bytes | None = None if midstream else b""
        self.at, self.sure = 0, True

    def feed(self, data: bytes, start: int) -> list[tuple[int, bytes]]:
        """The lines that end in *data*, the bytes from offset *start* on: of each its offset and bytes."""
        kept, known = self.kept or b"", self.kept is not None
        *ended, rest = (kept + data).split(b"\n")
        self.at = start - len(kept)
        lines: list[tuple[int, bytes]] = []
        for line in ended:
            if known:
                lines.append((self.at, line + b"\n" if len(line) < _longest(line) else b""))
            self.at, known = self.at + len(line) + 1, True
        if known and len(rest) >= _longest(rest):
            lines.append((self.at, b""))
            known = False
        self.kept = rest if known else None
        return lines


class _Dcc(NamedTuple):
    """One DCC message. Its address and port, or its port alone, are the stream bytes [start, end).

    peer   the other party's nick in lower case
    named  the endpoint in it, with *gap* between address and port; both are empty if only a port is named
    """

    direction: Direction
    verb: bytes
    peer: bytes
    named: Endpoint
    gap: bytes
    start: int
    end: int

    @property
    def service(self) -> str:
        return "dcc-chat" if self.verb.endswith(b"CHAT") else "dcc-send"

    @property
    def agreement(self) -> bytes:
        """The same offer to the same nick, made again, is the same agreement."""
        return blake2b(b"%s %d %s" % (self.verb, self.named.port, self.peer), digest_size=8).digest()

    def leaves(self, nat: Nat, reason: str, change: tuple[Endpoint, Endpoint] | None = None) -> list[Edit]:
        """It leaves as it came or, if *change* says what becomes of what, with other digits, perhaps more."""
        way, action = _WAYS[self.direction]
        action, stage = action if change else "left", 1 if self.gap else 2
        before, after = change or (self.named, self.named)
        nat.count(action.replace("-", "_"))
        nat.report(
            Report(way, self.service, stage, self.agreement, before, after, action=action, reason=reason)
        )
        if after == self.named:
            return []
        address = b"%d%s" % (int(IPv4Address(after.address)), self.gap) if self.gap else b""
        return [Edit(self.start, self.end, address + b"%d" % after.port)]


def _outgoing(dcc: _Dcc, nat: Nat) -> tuple[Endpoint, Endpoint, str]:
    """A client's offer: have a pinhole opened, and announce it. What may be opened is for nat to say."""
    if not dcc.named.port:
        raise Refused("passive: the receiver is to listen")
    whose = own(dcc.named, nat)  # mIRC announces the outside address if told to ask the server for it
    wanted = Expectation(dcc.agreement, dcc.service, whose.inside, announced=whose.outside)
    return whose.inside, nat.expect(wanted), whose.reason


def _incoming(dcc: _Dcc, nat: Nat) -> tuple[Endpoint, Endpoint, str]:
    """An offer to a client: if it names one of our pinholes, name the host behind it."""
    if inside := nat.inside_of(dcc.named):
        return dcc.named, inside, "pinhole of this router"
    raise Refused("names no pinhole of this router")


def _longest(line: bytes) -> int:
    return _LONGEST_TAGGED if line.startswith(b"@") else _LONGEST


def _may_begin(direction: Direction, at: int, text: bytes) -> bool:
    """Whether a line before sign-on may begin with *text*, at stream offset *at*."""
    if direction is Direction.ORIGINAL and at == 0:
        head = text[:5].upper()
        return any(head.startswith(word) or word.startswith(head) for word in _FIRST)
    return not text or text[:1].isalnum() or text[:1] in b"@:"


def _dcc_of(direction: Direction, at: int, message: re.Match[bytes] | None) -> _Dcc | None:
    """The DCC message in the line at stream offset *at*, or None."""
    if message is None or not message["verb"]:
        return None
    verb = message["verb"].upper()
    answer = verb in (b"RESUME", b"ACCEPT")
    found = (_PORT if answer else _ENDPOINT).match(message.string, message.end())
    if found is None or int(found["port"]) > 0xFFFF or (not answer and int(found["address"]) > 0xFFFFFFFF):
        return None
    address, gap = ("", b"") if answer else (str(IPv4Address(int(found["address"]))), found["gap"])
    peer = (message["target"] if direction is Direction.ORIGINAL else message["nick"] or b"").lower()
    named = Endpoint(address, int(found["port"]))
    return _Dcc(direction, verb, peer, named, gap, start=at + found.start(), end=at + found.end())


IRC: Final = HelperSpec(
    name="irc",
    ports=(6667,),
    load=lambda: IrcHelper,
    load_redactor=lambda: IrcRedactor,
    services={"dcc-chat": Service(), "dcc-send": Service()},
    resizes=frozenset({End.CLIENT}),  # where it asks for edits that change a length
)
