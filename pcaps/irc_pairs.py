"""Make the captures of pcaps/irc/: `python -m pcaps.irc_pairs`; `--check` tells whether they are unchanged.

The engine has no part in this: a recorded capture's output follows from a table of texts, a synthetic one's
from the lines that its scene says must leave. Both are whole conversations: where a line became longer, the
sequence numbers behind it and what acknowledges it follow. A packet that became longer may be fragmented.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from pcaps import pairs
from pcaps.scenes import ALICE, AMY, ROUTER_A
from tests.tcp.captures import Conversation, Frames, Side

FOLDER = Path(__file__).parent / "irc"
PORT = 6667
SERVER = ("203.0.113.9", PORT)
LAN = "10.0.0.0/24"
_START = 1_700_000_000.0
_PAUSE = 0.2  # seconds between two lines: nobody takes them for one write
_NUMBER = {ALICE: b"167772165", AMY: b"167772166", ROUTER_A: b"3405803777"}


@dataclass(frozen=True, slots=True)
class Case:
    """A pair of captures of router A.

    sha256  of a recorded input, which cannot be made again
    edits   of a recorded one: by frame, what must leave in place of what
    scene   makes a synthetic one
    """

    name: str
    sha256: str = ""
    edits: pairs.Edits = ()
    scene: Callable[[Scene], None] | None = None

    @property
    def before(self) -> Path:
        return FOLDER / f"{self.name}.in.pcap"

    @property
    def after(self) -> Path:
        return FOLDER / f"{self.name}.out.pcap"


class Scene:
    """Connections on one clock, to *server* unless another is named; *expected*: with what must leave instead
    of what comes.
    """

    def __init__(self, expected: bool, server: tuple[str, int] = SERVER) -> None:
        self.expected = expected
        self.server = server
        self.frames: Frames = []
        self.time = _START

    def connect(self, host: str, port: int, server: tuple[str, int] | None = None) -> Connection:
        return Connection(self, host, port, server or self.server)

    def sign_on(self, host: str, port: int, nick: bytes) -> Connection:
        """A client in the shortest form."""
        connection = self.connect(host, port)
        connection.say(b"NICK %s\r\nUSER %s 0 * :%s\r\n" % (nick, nick, nick))
        connection.hear(b":irc.example.test 001 %s :Welcome\r\n" % nick)
        return connection


class Connection:
    """A connection to the server."""

    def __init__(self, scene: Scene, host: str, port: int, server: tuple[str, int]) -> None:
        self._scene = scene
        self._tcp = Conversation((host, port), server, step=0.002, timestamps=True)
        self._play(self._tcp.open)

    def say(self, text: bytes, leaves: bytes = b"", cuts: tuple[int, ...] = ()) -> None:
        """The client sends *text*, in pieces; it must leave as *leaves* (nothing: as it came)."""
        self._send("client", text, leaves, cuts)

    def hear(self, text: bytes, arrives: bytes = b"", cuts: tuple[int, ...] = ()) -> None:
        """The server sends *text*, which must arrive as *arrives*."""
        self._send("server", text, arrives, cuts)

    def close(self) -> None:
        self._play(self._tcp.close)

    def _send(self, side: Side, text: bytes, leaves: bytes, cuts: tuple[int, ...]) -> None:
        """Cuts are offsets into what comes: an edit by more bytes leaves as many of them before a cut."""
        changed = leaves if leaves and self._scene.expected else text
        assert not cuts or len(changed) >= len(text)
        self._play(lambda: self._tcp.send(side, changed, cuts=cuts))
        self._scene.time += _PAUSE

    def _play(self, act: Callable[[], object]) -> None:
        done = len(self._tcp.frames)
        self._tcp.time = self._scene.time
        act()
        self._scene.time = self._tcp.time
        self._scene.frames += self._tcp.frames[done:]


def dcc(text: bytes, to: bytes = b"bob", command: bytes = b"PRIVMSG") -> bytes:
    return b"%s %s :\x01DCC %s\x01\r\n" % (command, to, text)


def relayed(nick: bytes, line: bytes) -> bytes:
    return b":%s!%s@203.0.113.1 %s" % (nick, nick, line)


def _send(host: str, port: int, name: bytes = b"file.bin") -> bytes:
    return b"SEND %s %s %d 3000" % (name, _NUMBER[host], port)


def offers(scene: Scene) -> None:
    """Every form of an offer, alone and several in one segment."""
    alice = scene.sign_on(ALICE, 49001, b"alice")

    def forms(host: str) -> list[bytes]:
        number = _NUMBER[host]
        return [
            dcc(_send(host, 5500)),
            dcc(b"CHAT chat %s 5501" % number),
            dcc(_send(host, 5502, b'"a long file.bin"')),
            dcc(b"send file.bin %s 5503 3000" % number, command=b"notice"),
            b"@label=7 :alice " + dcc(_send(host, 5504)),
            dcc(b"TSEND file.bin %s 5505" % number).replace(b"\r\n", b"\n"),
            b"PRIVMSG bob :here it comes\r\n" + dcc(_send(host, 5506)) + dcc(b"SCHAT chat %s 5507" % number),
        ]

    for text, leaves in zip(forms(ALICE), forms(ROUTER_A), strict=True):
        alice.say(text, leaves)
    alice.say(b"QUIT\r\n")
    alice.close()


def cuts(scene: Scene) -> None:
    """An offer in two pieces, cut before its address, inside it, and inside the port."""
    alice = scene.sign_on(ALICE, 49002, b"alice")
    for port in (5500, 5501, 5502):
        text, leaves = dcc(_send(ALICE, port)), dcc(_send(ROUTER_A, port))
        at = {5500: 20, 5501: text.index(_NUMBER[ALICE]) + 4, 5502: text.index(b"%d" % port) + 2}[port]
        alice.say(text, leaves, cuts=(at,))
    alice.close()


def same_lan(scene: Scene) -> None:
    """Both offer each other a file on port 5500; amy's is 40000 outside, and hers is resumed."""
    alice, amy = scene.sign_on(ALICE, 49003, b"alice"), scene.sign_on(AMY, 49003, b"amy")
    alice.say(dcc(_send(ALICE, 5500), b"amy"), dcc(_send(ROUTER_A, 5500), b"amy"))
    told, arrives = (relayed(b"alice", dcc(_send(host, 5500), b"amy")) for host in (ROUTER_A, ALICE))
    amy.hear(told, arrives)
    amy.say(dcc(_send(AMY, 5500), b"alice"), dcc(_send(ROUTER_A, 40000), b"alice"))
    alice.hear(
        relayed(b"amy", dcc(_send(ROUTER_A, 40000), b"alice")),
        relayed(b"amy", dcc(_send(AMY, 5500), b"alice")),
    )
    inside, outside = (b"%s file.bin 5500 1000", b"%s file.bin 40000 1000")
    for verb, writer, reader, names in (
        (b"RESUME", alice, amy, (b"alice", b"amy")),
        (b"ACCEPT", amy, alice, (b"amy", b"alice")),
    ):
        writer.say(dcc(inside % verb, names[1]), dcc(outside % verb, names[1]))
        reader.hear(
            relayed(names[0], dcc(outside % verb, names[1])), relayed(names[0], dcc(inside % verb, names[1]))
        )
    alice.close()
    amy.close()


def left(scene: Scene) -> None:
    """What has to stay: passive offers, other hosts, system ports, text, what is not quite DCC."""
    alice = scene.sign_on(ALICE, 49004, b"alice")
    alice.say(dcc(_send(ALICE, 0) + b" 17"))
    alice.say(dcc(_send(AMY, 5500)))
    alice.say(dcc(_send(ALICE, 22)) + dcc(_send(ALICE, 3389)) + dcc(b"SEND file.bin 167772165 70000 3000"))
    alice.say(b"PRIVMSG bob :DCC SEND file.bin 167772165 5500 3000\r\n")
    alice.say(dcc(b"SEND a long file.bin 167772165 5500 3000") + dcc(b"SEND file.bin 10.0.0.5 5500 3000"))
    alice.say(dcc(b"RESUME file.bin 5500 1000") + dcc(b"SEND file.bin \x02\x03 5500 1"))
    alice.hear(relayed(b"bob", dcc(b"SEND file.bin 3405803796 5500 3000", b"alice")))
    alice.close()


def imitation(scene: Scene) -> None:
    """A browser's request with a session in it, answered like one; and one that begins as a session does."""
    session = b"NICK alice\r\nUSER alice 0 * :alice\r\n" + dcc(_send(ALICE, 5500))
    welcome = b":irc.example.test 001 alice :Welcome\r\n"
    for port, method in ((49005, b"POST"), (49006, b"NICK")):
        alice = scene.connect(ALICE, port)
        alice.say(b"%s / HTTP/1.1\r\nHost: irc.example.test\r\nContent-Length: 999\r\n\r\n" % method)
        alice.say(session)
        alice.hear(welcome)
        alice.say(session + session)
        alice.close()


RECORDED = (
    Case(
        "weechat-plain-alice-carol.ra-lan",
        "3dffa51dcf1552c591129960738fffa4be227a7ea516341a19633de53b1dd92c",
        ((20, b"167772165 35953", b"3405803777 35953"),),
    ),
    Case(
        "weechat-alice-bob.ra-lan",
        "ea256f63719f90b395bf7c87b492b95d8e61d887305030f918db90b3b7333e4b",
        ((17, b"167772165 36905", b"3405803777 36905"),),
    ),
)
SYNTHETIC = (
    Case("offers", scene=offers),
    Case("cuts", scene=cuts),
    Case("same-lan", scene=same_lan),
    Case("left", scene=left),
    Case("imitation", scene=imitation),
)
CASES = RECORDED + SYNTHETIC
# What the kernel's own helper made of the same conversation, recorded behind the router.
KERNELS = FOLDER / "weechat-alice-bob.ra-wan.pcap"


def make(case: Case, before: Path, after: Path) -> None:
    """Write the pair of a case; a recorded input is copied from pcaps/irc/."""
    if case.scene is not None:
        pairs.play(case.scene, Scene, before, after)
    else:
        pairs.edit(case.before, case.sha256, lambda _: case.edits, before, after)


def differences() -> list[str]:
    """What the folder holds otherwise than this file makes it, one line per capture."""
    return pairs.differences("pcaps.irc_pairs", CASES, make, set(FOLDER.glob("*.pcap")) - {KERNELS})


if __name__ == "__main__":
    sys.exit(pairs.command(FOLDER, CASES, make, differences))
