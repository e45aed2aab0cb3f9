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
name the host again (``_incoming``). RESUME and ACCEPT name a port as their writer knows it (``_answer``). All
else leaves as it came: port 0 (the receiver is to listen, and will make an ordinary offer), IPv6, what is not
exactly of this form.

What ends an agreement: its deadline, the sign-off, the end of the connection; DCC has no word for "no". There
are no greetings, by which a pinhole could tell the right peer from others: who gets a file is silent until it
begins to come, and a chat begins with any text, from either side.
"""

from __future__ import annotations

import re
from hashlib import blake2b
from ipaddress import IPv4Address
from typing import Final, NamedTuple

from nfreaim.core.address import Direction, End, Endpoint
from nfreaim.core.helper import Action, Expectation, HelperSpec, Nat, Refused, Report, Scan, Service
from nfreaim.core.tcp.offsets import Edit
from nfreaim.errors import Foreign

# "++" and "*+" never give back what they took: a hostile line takes no longer to read than another.
_MESSAGE: Final = re.compile(
    rb"(?:@[^ ]++ ++)?(?::(?P<nick>[^ !]++)(?P<user>[^ ]*+) ++)?(?P<command>[A-Za-z]++|[0-9]{3})(?=[ \r\n])"
)
_DCC: Final = re.compile(  # from the command's end to the first byte that an edit may concern
    rb" ++(?P<target>[^ ]++) ++:?\x01DCC ++(?P<verb>[ST]?SEND|S?CHAT|RESUME|ACCEPT) ++"
    rb"(?:\"[^\"\r\n\0\x01]++\"|[^ \"\r\n\0\x01][^ \r\n\0\x01]*+) ++",
    re.IGNORECASE,
)
_PORT: Final = re.compile(rb"(?P<port>0|[1-9][0-9]{0,4})(?=[ \x01\r\n])")
_ENDPOINT: Final = re.compile(rb"(?P<address>[1-9][0-9]{0,9})(?P<gap> ++)" + _PORT.pattern)
_UNFINISHED: Final = re.compile(rb"[0-9]{0,10}(?: ++[0-9]*+(?:[ \x01\r].*+)?)?", re.DOTALL)
_NOTEWORTHY: Final = (  # by direction: whole lines without this are of no interest
    re.compile(rb"\x01|^(?:[@:][^ \n]*+ ++)*+(?:QUIT|STARTTLS)", re.IGNORECASE | re.MULTILINE),
    re.compile(rb"\x01|^(?:[@:][^ \n]*+ ++)*+(?:ERROR|670)", re.IGNORECASE | re.MULTILINE),
)
_FIRST: Final = (b"CAP ", b"PASS ", b"NICK ", b"USER ")
_TLS: Final = {(Direction.ORIGINAL, b"STARTTLS"), (Direction.REPLY, b"670")}
_OVER: Final = {(Direction.ORIGINAL, b"QUIT"), (Direction.REPLY, b"ERROR")}
_LONGEST, _LONGEST_TAGGED = 512, 8191  # bytes of a line, with its CR LF
_REMEMBERED: Final = 32  # answers of one flow whose port has to be changed


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
        self._answers: dict[tuple[Direction, bytes, bytes, int], tuple[Endpoint, Endpoint]] = {}

    def scan(self, direction: Direction, data: bytes, start: int, nat: Nat) -> Scan | None:
        """See core.helper.Helper: every byte comes here once and in order, and segments mean nothing."""
        if nat.server_inside:
            raise Foreign("its server is inside: what that relays is not its own to open")
        lines = self._lines[direction]
        edits: list[Edit] = []
        for at, line in lines.feed(data, start):
            message = _MESSAGE.match(line)
            said = direction, message["command"].upper() if message else b""
            if said in _TLS:
                raise Foreign("goes on as TLS")
            if not self.established:
                self._sign_on(direction, at, message, nat)
            elif said in _OVER:
                nat.withdraw_all("signed off")
            elif message and (dcc := _dcc_of(direction, message, at)):
                edits += self._dcc(dcc, nat)
        if not self.established and not _may_begin(direction, lines.at, lines.kept):
            raise Foreign("does not begin as IRC does")
        nat.set_buffered(sum(len(each.kept) for each in self._lines))
        hold = self._hold(direction, nat) if lines.kept else None
        return Scan(tuple(edits), hold) if edits or hold is not None else None

    def skips(self, direction: Direction, raw: bytes, start: int, nat: Nat) -> bool:
        """See core.helper.Helper: nearly everything that is ever said comes in whole lines, and is talk."""
        whole = self.established and not self._lines[direction].inside() and raw.endswith(b"\n")
        return whole and not _NOTEWORTHY[direction].search(raw)

    def positions(self) -> tuple[bytes, bytes]:
        """See core.helper.Resumable: whether each direction stands inside a line."""
        return bytes([self._lines[0].inside()]), bytes([self._lines[1].inside()])

    def resume(self, positions: tuple[bytes, bytes] | None, starts: tuple[int, int]) -> None:
        """See core.helper.Resumable: the rest of a line that was begun is skipped."""
        if positions is not None and not {b"\0", b"\1"}.issuperset(positions):
            raise ValueError("no positions between lines or inside them")
        self.established = True
        for lines, position in zip(self._lines, positions or (b"", b""), strict=True):
            lines.sure, lines.lost = positions is not None, position != b"\0"

    def resync(self, direction: Direction, data: bytes, start: int, now: float, joined: bool) -> bool:
        """See core.helper.Resumable: nothing in a line can look like its LF, so behind one a line begins."""
        lines = self._lines[direction]
        lines.sure = b"\n" in data or (joined and lines.sure)
        lines.lost = not data.endswith(b"\n")
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

    def _hold(self, direction: Direction, nat: Nat) -> int | None:
        """From where on an edit could concern the line whose end is missing; what is before need not wait."""
        lines = self._lines[direction]
        message = _MESSAGE.match(lines.kept)
        head = message and _head_of(message)
        relevant = self.established and (direction is Direction.ORIGINAL or nat.has_pinholes())
        if not relevant or not head or not _UNFINISHED.fullmatch(lines.kept, head.end()):
            return None
        return lines.at + head.end()

    def _dcc(self, dcc: _Dcc, nat: Nat) -> list[Edit]:
        if not dcc.address:
            return self._answer(dcc, nat)
        nat.count("proposals")
        if not nat.editable(dcc.direction, dcc.start):
            return dcc.left(nat, "its address had left before its end came")
        return self._outgoing(dcc, nat) if dcc.direction is Direction.ORIGINAL else self._incoming(dcc, nat)

    def _outgoing(self, dcc: _Dcc, nat: Nat) -> list[Edit]:
        """A client's offer: have a pinhole opened, then announce it. What may be opened is for nat to say."""
        if not dcc.port:
            return dcc.left(nat, "passive: the receiver is to listen")
        own = dcc.address == nat.inside.address
        if not own and not nat.is_ours(dcc.address):  # which mIRC announces if told to ask the server for it
            return dcc.left(nat, "not the sender's own address")
        inside = Endpoint(nat.inside.address, dcc.port)
        try:
            outside = nat.expect(Expectation(dcc.agreement, dcc.service, inside))
        except Refused as refusal:
            return dcc.left(nat, str(refusal))
        reason = "own address" if own else "own outside address"
        return self._moved(dcc, (inside, outside), nat, reason)

    def _incoming(self, dcc: _Dcc, nat: Nat) -> list[Edit]:
        """An offer to a client: if it names one of our pinholes, name the host behind it."""
        announced = Endpoint(dcc.address, dcc.port)
        inside = nat.inside_of(announced)
        if inside is None:
            return dcc.left(nat, "names no pinhole of this router")
        return self._moved(dcc, (announced, inside), nat, "pinhole of this router")

    def _moved(self, dcc: _Dcc, change: tuple[Endpoint, Endpoint], nat: Nat, reason: str) -> list[Edit]:
        """Edit an offer. If its port changes, ACCEPT will follow it, and RESUME come against it."""
        before, after = change
        if before.port != after.port:
            back = Direction(1 - dcc.direction)
            self._answers[dcc.direction, b"ACCEPT", dcc.peer, before.port] = before, after
            self._answers[back, b"RESUME", dcc.peer, after.port] = after, before
            while len(self._answers) > _REMEMBERED:
                del self._answers[next(iter(self._answers))]
        return dcc.changed(nat, change, reason)

    def _answer(self, dcc: _Dcc, nat: Nat) -> list[Edit]:
        """RESUME or ACCEPT: name the port as its reader knows it."""
        change = self._answers.get((dcc.direction, dcc.verb, dcc.peer, dcc.port))
        if change is None or not nat.editable(dcc.direction, dcc.start):
            return []
        return dcc.changed(nat, change, "port of an offer")


class _Lines:
    """Cuts one direction into lines. What is too long for a line counts as an empty one.

    kept  the beginning of a line whose end is missing, from stream offset *at* on
    lost  inside a line whose beginning is not known: the rest of it is skipped
    sure  whether it is known where lines begin; not so after a crash (see ``resync``)
    """

    __slots__ = ("at", "kept", "lost", "sure")

    def __init__(self, lost: bool) -> None:
        self.kept, self.at, self.lost, self.sure = b"", 0, lost, True

    def inside(self) -> bool:
        return self.lost or bool(self.kept)

    def feed(self, data: bytes, start: int) -> list[tuple[int, bytes]]:
        """The lines that end in *data*, the bytes from offset *start* on: of each its offset and bytes."""
        data, start, pos = self.kept + data, start - len(self.kept), 0
        longest = _LONGEST_TAGGED if data.startswith(b"@") else _LONGEST
        lines: list[tuple[int, bytes]] = []
        while end := data.find(b"\n", pos) + 1:
            if not self.lost:
                lines.append((start + pos, data[pos:end] if end - pos <= longest else b""))
            self.lost, pos = False, end
            longest = _LONGEST_TAGGED if data.startswith(b"@", pos) else _LONGEST
        self.kept, self.at = b"" if self.lost else data[pos:], start + pos
        if len(self.kept) >= longest:
            lines.append((self.at, b""))
            self.kept, self.lost = b"", True
        return lines


class _Dcc(NamedTuple):
    """One DCC message. Its address and port, or its port alone, are the stream bytes [start, end).

    peer     the other party's nick in lower case
    address  as written, with *gap* before the port; empty if only a port is named
    """

    direction: Direction
    verb: bytes
    peer: bytes
    address: str
    gap: bytes
    port: int
    start: int
    end: int

    @property
    def service(self) -> str:
        return "dcc-chat" if self.verb.endswith(b"CHAT") else "dcc-send"

    @property
    def agreement(self) -> bytes:
        """The same offer to the same nick, made again, is the same agreement."""
        return blake2b(b"%s %d %s" % (self.verb, self.port, self.peer), digest_size=8).digest()

    def left(self, nat: Nat, reason: str) -> list[Edit]:
        """It leaves as it came."""
        written = Endpoint(self.address, self.port)
        return self._report(nat, "left", (written, written), reason)

    def changed(self, nat: Nat, change: tuple[Endpoint, Endpoint], reason: str) -> list[Edit]:
        """It leaves with other digits, and perhaps more of them: what follows in TCP is the engine's care."""
        outgoing = self.direction is Direction.ORIGINAL
        self._report(nat, "rewritten" if outgoing else "mapped-back", change, reason)
        address, port = change[1]
        if address == self.address and port == self.port:
            return []
        digits = b"%d%s" % (int(IPv4Address(address)), self.gap) if self.address else b""
        return [Edit(self.start, self.end, digits + b"%d" % port)]

    def _report(self, nat: Nat, action: Action, change: tuple[Endpoint, Endpoint], reason: str) -> list[Edit]:
        nat.count(action.replace("-", "_"))
        nat.report(
            Report(
                direction="out" if self.direction is Direction.ORIGINAL else "in",
                service=self.service,
                stage=1 if self.address else 2,
                agreement=self.agreement,
                before=change[0],
                after=change[1],
                action=action,
                reason=reason,
            )
        )
        return []


def _may_begin(direction: Direction, at: int, text: bytes) -> bool:
    """Whether a line before sign-on may begin with *text*, at stream offset *at*."""
    if direction is Direction.ORIGINAL and at == 0:
        head = text[:5].upper()
        return any(head.startswith(word) or word.startswith(head) for word in _FIRST)
    return not text or text[:1].isalnum() or text[:1] in b"@:"


def _head_of(message: re.Match[bytes]) -> re.Match[bytes] | None:
    """The part of a DCC message before what an edit may concern."""
    talk = message["command"].upper() in (b"PRIVMSG", b"NOTICE")
    return _DCC.match(message.string, message.end()) if talk else None


def _dcc_of(direction: Direction, message: re.Match[bytes], at: int) -> _Dcc | None:
    """The DCC message in the line at stream offset *at*, or None."""
    head = _head_of(message)
    if head is None:
        return None
    verb = head["verb"].upper()
    answer = verb in (b"RESUME", b"ACCEPT")
    found = (_PORT if answer else _ENDPOINT).match(message.string, head.end())
    if found is None or int(found["port"]) > 0xFFFF or (not answer and int(found["address"]) > 0xFFFFFFFF):
        return None
    address, gap = ("", b"") if answer else (str(IPv4Address(int(found["address"]))), found["gap"])
    peer = (head["target"] if direction is Direction.ORIGINAL else message["nick"] or b"").lower()
    place = at + found.start(), at + found.end()
    return _Dcc(direction, verb, peer, address, gap, int(found["port"]), *place)


IRC: Final = HelperSpec(
    name="irc",
    ports=(6667,),
    load=lambda: IrcHelper,
    services={"dcc-chat": Service(), "dcc-send": Service()},
    resizes=frozenset({End.CLIENT}),  # where it asks for edits that change a length
)
