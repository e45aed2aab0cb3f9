"""A scripted router, one IRC connection through it, and what clients say: for the tests of IRC's helper."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

from nfreaim.core.address import Direction, Endpoint
from nfreaim.core.helper import Expectation, Refused, Report
from nfreaim.helpers.irc import IrcHelper
from tests.unit.helper_session import C2S, S2C, HelperSession

INSIDE, OUTSIDE, SERVER = "10.0.0.5", "203.0.113.1", "203.0.113.9"
NEIGHBOUR = "10.0.0.6"
# The addresses above as DCC writes them.
OWN, ROUTER, OTHER = b"167772165", b"3405803777", b"167772166"
SIGN_ON = b"NICK alice\r\nUSER alice 0 * :Alice\r\n"
WELCOME = b":irc.example.test 001 alice :Welcome to the Internet Relay Network\r\n"


_CLIENT_END, _SERVER_END = Endpoint(INSIDE, 40123), Endpoint(SERVER, 6667)


def dcc(text: bytes, to: bytes = b"bob", command: bytes = b"PRIVMSG") -> bytes:
    return b"%s %s :\x01DCC %s\x01\r\n" % (command, to, text)


SEND = dcc(b"SEND file.bin %s 5500 3000" % OWN)
SENT = SEND.replace(OWN, ROUTER)
TAGS = b"@label=7;+draft/x=\\:y "
LONG_TAGS = b"@t=" + b"x" * 2000 + b" "

# What a client says, and what must leave of it in place of its own address.
OFFERS = [
    SEND,
    dcc(b"CHAT chat %s 5501" % OWN),
    dcc(b"TSEND file.bin %s 5500 3000" % OWN),
    dcc(b"SSEND file.bin %s 5500 3000" % OWN),
    dcc(b"SCHAT chat %s 5500" % OWN),
    dcc(b'SEND "a long file.bin" %s 5500 3000' % OWN),
    dcc(b'SEND "167772165 5501" %s 5500 3000' % OWN),
    dcc(b"SEND 167772165 %s 5500 3000" % OWN),
    dcc(b"SEND file.bin %s 5500" % OWN),
    dcc(b"SEND file.bin %s 5500 3000 17" % OWN),  # answers a passive offer
    dcc(b"SEND  file.bin   %s   5500  3000" % OWN),
    dcc(b"send file.bin %s 5500 3000" % OWN, command=b"privmsg"),
    dcc(b"SEND file.bin %s 5500 3000" % OWN, command=b"NOTICE"),
    dcc(b"SEND file.bin %s 5500 3000" % OWN, to=b"#channel"),
    b":alice!alice@example.test " + SEND,
    TAGS + SEND,
    TAGS + b":alice " + SEND,
    LONG_TAGS + SEND,
    SEND.replace(b"\r\n", b"\n"),
    SEND.replace(b"\x01\r\n", b"\r\n"),  # the closing byte is often forgotten
    SEND.replace(b":\x01", b"\x01"),
]
PROSE = [
    b"PRIVMSG bob :hello\r\n",
    b"PRIVMSG bob :DCC SEND file.bin %s 5500 3000\r\n" % OWN,
    b"PRIVMSG bob :look: \x01DCC SEND file.bin %s 5500 3000\x01\r\n" % OWN,
    b"PRIVMSG bob :\x01ACTION waves\x01\r\n",
    b"PRIVMSG bob :\x01PING 167772165 5500\x01\r\n",
    b"PRIVMSG #channel :%s\r\n" % (b"x" * 400),
    b"JOIN #channel\r\n",
    b"TOPIC #channel :\x01DCC SEND file.bin %s 5500 3000\x01\r\n" % OWN,
    b"\r\n",
    b"\xff\xfe\x80\r\n",
    b"PRIVMSG\r\n",
]
UNFIT = [
    dcc(b"SEND file.bin 10.0.0.5 5500 3000"),
    dcc(b"SEND file.bin ::1 5500 3000"),
    dcc(b"SEND file.bin 0167772165 5500 3000"),
    dcc(b"SEND file.bin 167772165 05500 3000"),
    dcc(b"SEND file.bin 167772165 abc 3000"),
    dcc(b"SEND file.bin 167772165 65536 3000"),
    dcc(b"SEND file.bin 167772165 5500x 3000"),
    dcc(b"SEND file.bin 4294967296 5500 3000"),
    dcc(b"SEND file.bin 99999999999 5500 3000"),
    dcc(b"SEND my file.bin %s 5500 3000" % OWN),
    dcc(b'SEND "my file.bin %s 5500 3000' % OWN),
    dcc(b"SEND fi\0le.bin %s 5500 3000" % OWN),
    dcc(b"SEND fi\rle.bin %s 5500 3000" % OWN),
    dcc(b"SEND"),
    dcc(b"CHAT chat"),
    dcc(b"RESUME file.bin 5500 1000"),
    dcc(b"RESUME file.bin 0 1000 17"),
    dcc(b"ACCEPT file.bin 5500 1000"),
    dcc(b"CLOSE"),
    dcc(b"XSEND file.bin %s 5500 3000" % OWN),
    b"PRIVMSG bob :\x01DCC\x01\r\n",
]


@dataclass
class ScriptedNat:
    """Answers what it is told to, and writes down what it is asked.

    moved     outside port by inside port, where they differ
    pinholes  by outside endpoint, what they lead to
    refusal   why nothing may be opened, if so
    """

    server_inside: bool = False
    moved: dict[int, int] = field(default_factory=dict)
    pinholes: dict[Endpoint, Endpoint] = field(default_factory=dict)
    refusal: str = ""
    ready: int = 0
    expected: list[Expectation] = field(default_factory=list)
    reports: list[Report] = field(default_factory=list)
    counts: Counter[str] = field(default_factory=Counter)
    over: list[str] = field(default_factory=list)
    buffered: int = 0
    left: list[int] = field(default_factory=lambda: [0, 0])
    inside: Endpoint = _CLIENT_END
    outside: Endpoint = _SERVER_END

    def established(self, session: bool = False) -> None:
        self.ready += 1

    def expect(self, expectation: Expectation) -> Endpoint:
        if self.refusal:
            raise Refused(self.refusal)
        self.expected.append(expectation)
        port = expectation.inside.port
        outside = Endpoint(OUTSIDE, self.moved.get(port, port))
        self.pinholes[outside] = expectation.inside
        return outside

    def offered(self, expectation: Expectation) -> None:
        """Its peer may come, and no pinhole is opened."""

    def withdraw(self, agreement: bytes, reason: str) -> None:
        raise AssertionError("IRC has no way to end one agreement")

    def withdraw_all(self, reason: str) -> None:
        self.over.append(reason)
        self.pinholes.clear()

    def accepted(self, agreement: bytes) -> None:
        raise AssertionError("IRC has no way to accept without connecting")

    def has_pinholes(self) -> bool:
        return bool(self.pinholes)

    def has_standing(self) -> bool:
        return False

    def inside_of(self, announced: Endpoint) -> Endpoint | None:
        return self.pinholes.get(announced)

    def is_ours(self, address: str) -> bool:
        return address == OUTSIDE

    def reached(self) -> Endpoint:
        raise Refused("the client is inside")

    def outside_of(self, server: Endpoint) -> Endpoint:
        raise Refused("no rule forwards it")

    def is_home(self, host: str) -> bool:
        return False

    def watch_server(self, server: Endpoint) -> None:
        raise AssertionError("IRC redirects nobody")

    def set_buffered(self, size: int) -> None:
        self.buffered = size

    def may_read(self, direction: Direction) -> bool:
        return True

    def editable(self, direction: Direction, start: int) -> bool:
        return start >= self.left[direction]

    def report(self, report: Report) -> None:
        self.reports.append(report)

    def count(self, counter: str) -> None:
        self.counts[counter] += 1


class Session(HelperSession[ScriptedNat, IrcHelper]):
    def __init__(self, nat: ScriptedNat | None = None, midstream: bool = False) -> None:
        super().__init__(nat or ScriptedNat(), IrcHelper(midstream))

    def signed_on(self) -> Session:
        self.feed(C2S, SIGN_ON)
        self.feed(S2C, WELCOME)
        assert self.helper.established
        return self
