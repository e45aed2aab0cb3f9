"""Make the captures of pcaps/xmpp/: `python -m pcaps.xmpp_pairs`; `--check` tells whether they are unchanged.

The engine has no part in this: a recorded capture's output follows from a table of texts, a synthetic one's
from the stanzas that its scene says must leave. As in irc_pairs.py, what is behind an edit is renumbered.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from pcaps import pairs
from pcaps.scenes import ALICE, AMY, ROUTER_A
from tests.tcp.captures import Conversation, Frames, Side
from tests.xmpp.texts import ENDING, OLD_SIGN_ON, S2C, SIGN_ON, TLS, candidate, jingle, query, streamhost

FOLDER = Path(__file__).parent / "xmpp"
PORT = 5222
SERVER, HOME = ("203.0.113.9", PORT), ("10.0.0.9", PORT)
LAN = "10.0.0.0/24"
BOB = "203.0.113.20"
_START = 1_700_000_000.0
_PAUSE = 0.2  # seconds between two stanzas: nobody takes them for one write
_PROXY = b"<streamhost jid='proxy.example.test' host='203.0.113.50' port='1080'/>"


@dataclass(frozen=True, slots=True)
class Case:
    """A pair of captures of router A; as in irc_pairs.py."""

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
    """Connections on one clock; *expected*: with the stanzas that must leave instead of those that come."""

    def __init__(self, expected: bool) -> None:
        self.expected = expected
        self.frames: Frames = []
        self.time = _START

    def connect(self, host: str, port: int, server: tuple[str, int] = SERVER) -> Connection:
        return Connection(self, host, port, server)

    def sign_on(
        self, host: str, port: int, server: tuple[str, int] = SERVER, old: bool = False
    ) -> Connection:
        """A client in the shortest form."""
        connection = self.connect(host, port, server)
        for way, text in OLD_SIGN_ON if old else SIGN_ON:
            (connection.hear if way == S2C else connection.say)(text)
        return connection


class Connection:
    """A connection to a server."""

    def __init__(self, scene: Scene, host: str, port: int, server: tuple[str, int]) -> None:
        self._scene = scene
        self._tcp = Conversation((host, port), server, step=0.002, timestamps=True)
        self._play(self._tcp.open)

    def say(self, text: bytes, leaves: bytes = b"", cut: bytes = b"") -> None:
        """The client sends *text*; it must leave as *leaves* (nothing: as it came).

        Given *cut*, in two pieces, of which the second begins behind the first byte of this.
        """
        self._send("client", text, leaves, cut)

    def hear(self, text: bytes, arrives: bytes = b"") -> None:
        """The server sends *text*, which must arrive as *arrives*."""
        self._send("server", text, arrives)

    def close(self) -> None:
        self._play(self._tcp.close)

    def _send(self, side: Side, text: bytes, leaves: bytes, cut: bytes = b"") -> None:
        changed = leaves if leaves and self._scene.expected else text
        # A cut within the address: as many bytes of the new one are before it.
        cuts = ((changed if cut in changed else text).index(cut) + 1,) if cut else ()
        self._play(lambda: self._tcp.send(side, changed, cuts=cuts))
        self._scene.time += _PAUSE

    def _play(self, act: Callable[[], object]) -> None:
        done = len(self._tcp.frames)
        self._tcp.time = self._scene.time
        act()
        self._scene.time = self._tcp.time
        self._scene.frames += self._tcp.frames[done:]


def ends(sender: str, receiver: str = "") -> bytes:
    """The attributes of a stanza: the client's, or as the server hands it on to *receiver*."""
    if not receiver:
        return b"to='%b@example.test/pc'" % sender.encode()
    return b"from='%b@example.test/pc' to='%b@example.test/pc'" % (sender.encode(), receiver.encode())


def forms(host: str) -> list[bytes]:
    """An offer in every form, as a client with this address would write it."""
    own = host.encode()
    return [
        query(streamhost(host, 5500)),
        query(b'<streamhost port="5501" host="%b" jid="a@b/c" />' % own),
        query(b"<streamhost\n host = '%b'\n port='5502'></streamhost>" % own),
        query(_PROXY, streamhost(host, 5503), streamhost("192.168.122.1", 5503), streamhost("fe80::1", 5503)),
        b"<presence/>" + query(streamhost(host, 5504)) + b" <presence/>",
        jingle(candidate(host, 5505), candidate("192.168.122.1", 5505)),
        jingle(candidate(host, 5506, kind=b""), action=b"transport-replace"),
    ]


def offers(scene: Scene) -> None:
    """Every form of an offer, each in a segment; then the sign-off."""
    alice = scene.sign_on(ALICE, 49001)
    for text, leaves in zip(forms(ALICE), forms(ROUTER_A), strict=True):
        alice.say(text, leaves)
    alice.say(ENDING)
    alice.hear(ENDING)
    alice.close()


def cuts(scene: Scene) -> None:
    """An offer in two pieces: cut before its tag, inside the tag, the address and the port, and behind it."""
    alice = scene.sign_on(ALICE, 49002)
    for number, cut in enumerate((b"><stream", b"<stream", b"jid=", b"0.0.5'", b"50", b"/></", b"</query")):
        text, leaves = (query(streamhost(host, 5500 + number)) for host in (ALICE, ROUTER_A))
        alice.say(text, leaves, cut)
    alice.close()


def same_lan(scene: Scene) -> None:
    """Both offer each other a file on port 5500; amy's is 40000 outside."""
    alice, amy = scene.sign_on(ALICE, 49003), scene.sign_on(AMY, 49003, old=True)
    for writer, reader, names, host, port in (
        (alice, amy, ("alice", "amy"), ALICE, 5500),
        (amy, alice, ("amy", "alice"), AMY, 40000),
    ):
        inside, outside = streamhost(host, 5500), streamhost(ROUTER_A, port)
        said, told = ends(names[1]), ends(*names)
        writer.say(query(_PROXY, inside, ends=said), query(_PROXY, outside, ends=said))
        reader.hear(query(_PROXY, outside, ends=told), query(_PROXY, inside, ends=told))
        writer.say(
            jingle(candidate(host, 5500), ends=said),
            jingle(candidate(ROUTER_A, port), ends=said),
        )
        reader.hear(
            jingle(candidate(ROUTER_A, port), ends=told),
            jingle(candidate(host, 5500), ends=told),
        )
    alice.close()
    amy.close()


def left(scene: Scene) -> None:
    """What has to stay: other hosts, names, system ports, results, text, other namespaces and prefixes."""
    alice = scene.sign_on(ALICE, 49004)
    alice.say(query(streamhost(AMY)) + query(_PROXY) + query(streamhost("alice.lan"), streamhost("fe80::1")))
    alice.say(query(streamhost(ALICE, 22)) + query(streamhost(ALICE, 3389)))
    alice.say(query(streamhost(ALICE, 70000)) + query(b"<streamhost host='&#49;0.0.0.5' port='5500'/>"))
    alice.say(query().replace(b"'set'", b"'result'") + query().replace(b"/bytestreams", b"/bytestream"))
    alice.say(b"<message to='a@b'><body>%b</body></message>" % query().replace(b"<", b"&lt;"))
    alice.say(b"<message to='a@b'><x xmlns='urn:xmpp:forward:0'>%b</x></message>" % query())
    alice.say(query(b"<bs:streamhost xmlns:bs='x' host='10.0.0.5' port='5500'/>"))
    alice.say(jingle(candidate(kind=b" type='assisted'"), candidate(AMY)))
    alice.hear(query(streamhost(ALICE), streamhost(BOB), ends=ends("bob", "alice")))
    alice.close()


def imitation(scene: Scene) -> None:
    """A browser's request with a session in it, answered like one."""
    session = b"".join(text for way, text in SIGN_ON if way != S2C) + query()
    answer = b"".join(text for way, text in SIGN_ON if way == S2C)
    for port, begin in (
        (49005, b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 999\r\n\r\n"),
        (49006, b"\r\n"),
    ):
        alice = scene.connect(ALICE, port)
        alice.say(begin)
        alice.say(session)
        alice.hear(answer)
        alice.say(session + query())
        alice.close()


def encrypted(scene: Scene) -> None:
    """STARTTLS: an offer in clear text behind it stays, as would TLS; and compression."""
    turns = (
        (b"<starttls %b/>" % TLS, b"<proceed %b/>" % TLS),
        (
            b"<compress xmlns='http://jabber.org/protocol/compress'><method>zlib</method></compress>",
            b"<compressed xmlns='http://jabber.org/protocol/compress'/>",
        ),
    )
    for port, (asks, answers) in zip((49007, 49008), turns, strict=True):
        alice = scene.connect(ALICE, port)
        alice.say(SIGN_ON[0][1])
        alice.hear(SIGN_ON[1][1])
        alice.say(asks)
        alice.hear(answers)
        for way, text in SIGN_ON:
            (alice.hear if way == S2C else alice.say)(text)
        alice.say(query())
        alice.say(b"\x16\x03\x01\x02\0\x01\0")
        alice.close()


def home(scene: Scene) -> None:
    """A server inside, which bob reached from outside: what it relays of inside hosts, and of others."""
    bob = scene.sign_on(BOB, 49009, HOME)
    told, at = ends("alice", "bob"), {ALICE: 5500, AMY: 40000}
    for host, port in at.items():
        bob.hear(query(streamhost(host, 5500), ends=told), query(streamhost(ROUTER_A, port), ends=told))
    bob.hear(query(streamhost("192.168.7.5"), streamhost(BOB), ends=told))
    bob.hear(query(streamhost(ALICE), ends=told.replace(b"alice@example", b"alice@evil")))
    bob.say(query(streamhost(BOB)) + query(streamhost(ALICE)))
    bob.close()


RECORDED = (
    Case(
        "s5b-alice-carol.ra-lan",
        "37e04a66124efd94a39c13ef9cf803a633e7d8c9fc262d402ef226fd390949d4",
        ((53, b"host='10.0.0.5' port='43817'", b"host='203.0.113.1' port='43817'"),),
    ),
    Case(
        "s5b-alice-amy.ra-lan",
        "5f5d2ad8ab5da41892487e55c3b4e7ebdbc99b1b07305a6e6558a096be1b11fa",
        ((115, b"host='10.0.0.5' port='40633'", b"host='203.0.113.1' port='40633'"),),
    ),
)
SYNTHETIC = tuple(
    Case(scene.__name__.replace("_", "-"), scene=scene)
    for scene in (offers, cuts, same_lan, left, imitation, encrypted, home)
)
CASES = RECORDED + SYNTHETIC


def make(case: Case, before: Path, after: Path) -> None:
    """Write the pair of a case; a recorded input is copied from pcaps/xmpp/."""
    if case.scene is not None:
        pairs.play(case.scene, Scene, before, after)
    else:
        pairs.edit(case.before, case.sha256, lambda _: case.edits, before, after)


def differences() -> list[str]:
    """What the folder holds otherwise than this file makes it, one line per capture."""
    return pairs.differences("pcaps.xmpp_pairs", CASES, make, set(FOLDER.glob("*.pcap")))


if __name__ == "__main__":
    sys.exit(pairs.command(FOLDER, CASES, make, differences))
