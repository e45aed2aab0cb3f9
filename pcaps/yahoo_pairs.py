"""Make the captures of pcaps/yahoo/: `python -m pcaps.yahoo_pairs`; `--check` tells if they are unchanged.

The engine has no part in this: what must leave follows from the packets that a scene says must leave. As in
pcaps/irc/, the sequence numbers behind a longer packet and what acknowledges it follow.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from pcaps import pairs
from pcaps.irc_pairs import Connection, Scene
from pcaps.scenes import ALICE, AMY, ROUTER_A
from tests.golden import load
from tests.yahoo.ymsg import (
    FILETRANSFER,
    LOGOFF,
    MESSAGE,
    P2PFILEXFER,
    V9,
    V10,
    V16,
    offer,
    relayed,
    sign_on,
    url,
    ymsg,
)

FOLDER = Path(__file__).parent / "yahoo"
SERVER = ("203.0.113.9", 5050)
LAN = "10.0.0.0/24"


@dataclass(frozen=True, slots=True)
class Case:
    """A pair of captures of router A, which *scene* makes."""

    name: str
    scene: Callable[[Scene], None]

    @property
    def before(self) -> Path:
        return FOLDER / f"{self.name}.in.pcap"

    @property
    def after(self) -> Path:
        return FOLDER / f"{self.name}.out.pcap"


def signed_on(scene: Scene, host: str, port: int, version: int = V9) -> Connection:
    """A client in the shortest form."""
    connection = scene.connect(host, port)
    hello, challenge, answer, welcome = sign_on(version)
    connection.say(hello)
    connection.hear(challenge)
    connection.say(answer)
    connection.hear(welcome)
    return connection


def text(words: bytes) -> bytes:
    return ymsg(MESSAGE, [(1, b"alice1"), (5, b"bob1"), (14, words)])


def offers(scene: Scene) -> None:
    """Offers of every version of the framing, alone and several in one segment, as 1 and as 6."""
    for port, version in ((49101, V9), (49102, V10), (49103, V16)):
        alice = signed_on(scene, ALICE, port, version)
        for own in (5555, 5556):
            alice.say(offer(url(ALICE, own), version=version), offer(url(ROUTER_A, own), version=version))
        several = [
            text(b"here it comes")
            + offer(url(host, 5557), kind=b"6")
            + offer(url(host, 5558, b"/Messenger.a.\xe4 b"))
            for host in (ALICE, ROUTER_A)
        ]
        alice.say(several[0], several[1])
        alice.say(ymsg(LOGOFF, version=version))
        alice.close()


def cuts(scene: Scene) -> None:
    """An offer in two pieces, cut before its length, inside it, behind it, and before the address."""
    alice = signed_on(scene, ALICE, 49104)
    for port, at in ((5555, 5), (5556, 9), (5557, 15), (5558, 86)):
        comes, leaves = offer(url(ALICE, port)), offer(url(ROUTER_A, port))
        alice.say(comes, leaves, cuts=(at,))
    alice.close()


def same_lan(scene: Scene) -> None:
    """Both offer each other a file at port 5555; amy's is 40000 outside."""
    alice, amy = signed_on(scene, ALICE, 49105), signed_on(scene, AMY, 49105)
    alice.say(offer(url(ALICE, 5555)), offer(url(ROUTER_A, 5555)))
    amy.hear(relayed(offer(url(ROUTER_A, 5555))), relayed(offer(url(ALICE, 5555))))
    amy.say(offer(url(AMY, 5555)), offer(url(ROUTER_A, 40000)))
    alice.hear(relayed(offer(url(ROUTER_A, 40000))), relayed(offer(url(AMY, 5555))))
    alice.close()
    amy.close()


def left(scene: Scene) -> None:
    """What has to stay: port 80, other hosts, system ports, what no server relays, uploads, text, damage."""
    alice = signed_on(scene, ALICE, 49106)
    for host, port in (
        (ALICE, None),
        (ALICE, 80),
        (ALICE, 22),
        (ALICE, 3389),
        (AMY, 5555),
        ("127.0.0.1", 5555),
    ):
        alice.say(offer(url(host, port)))
    for name, golden in load("yahoo").items():
        if not golden.expected and golden.direction == "C>S":
            alice.say(golden.data)
            if name.startswith("negotiated"):
                alice.hear(golden.data)
    alice.say(ymsg(FILETRANSFER, [(1, b"alice1"), (5, b"bob1"), (20, url("198.51.100.7", None))]))
    alice.say(text(offer(url(ALICE, 5555)).replace(b"\xc0\x80", b"\xc0 ")))
    alice.say(ymsg(P2PFILEXFER, [(20, url(ALICE, 5555))] * 2))
    alice.say(ymsg(P2PFILEXFER, [(5, b"bob1"), (13, b"3"), (49, b"PEERTOPEER")]))
    alice.hear(relayed(offer(url("198.51.100.7", 5555))))
    alice.close()


def imitation(scene: Scene) -> None:
    """A browser's request with a session in it, answered like one; and one that begins as a packet does."""
    hello, challenge, answer, welcome = sign_on()
    for port, method in ((49107, b"POST"), (49108, b"YMSG")):
        alice = scene.connect(ALICE, port)
        alice.say(b"%s / HTTP/1.1\r\nHost: x\r\nContent-Length: 999\r\n\r\n" % method)
        alice.say(hello + answer)
        alice.hear(challenge + welcome)
        alice.say(offer(url(ALICE, 5555)))
        alice.close()


CASES = (
    Case("offers", offers),
    Case("cuts", cuts),
    Case("same-lan", same_lan),
    Case("left", left),
    Case("imitation", imitation),
)


def make(case: Case, before: Path, after: Path) -> None:
    """Write the pair of a case."""
    pairs.play(case.scene, lambda expected: Scene(expected, SERVER), before, after)


def differences() -> list[str]:
    """What the folder holds otherwise than this file makes it, one line per capture."""
    return pairs.differences("pcaps.yahoo_pairs", CASES, make, FOLDER.glob("*.pcap"))


if __name__ == "__main__":
    sys.exit(pairs.command(FOLDER, CASES, make, differences))
