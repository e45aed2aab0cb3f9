"""Both sides of a router as a capture shows them: a client's session, its offer, and who connects then."""

from __future__ import annotations

from pathlib import Path

from tests.tcp.captures import Conversation, Frames, write_pcap
from tests.tcp.packets import ACK, RST, SYN

ALICE, ROUTER, SERVER, BOB = "10.0.0.5", "203.0.113.1", "203.0.113.9", "203.0.113.20"
PORT = 5500
SYN_ACK = SYN | ACK
_NUMBERS = {ALICE: b"167772165", ROUTER: b"3405803777"}
_TTL = 14 + 8  # of a frame
_ISN = 0x10203040


def beyond(frames: Frames, later: float = 0.0001) -> Frames:
    """*frames* as they are on the router's other side."""
    return [
        (time + later, frame[:_TTL] + bytes([frame[_TTL] - 1]) + frame[_TTL + 1 :]) for time, frame in frames
    ]


class TwoSides:
    """Builds the capture. *announced*: what the router makes of alice's address in her offer."""

    def __init__(self, announced: str = ALICE, router: str = ROUTER) -> None:
        self.router = router
        self.lan, self.wan = (
            _session(client, address) for client, address in ((ALICE, ALICE), (router, announced))
        )
        self.wan = beyond(self.wan)
        self.time = self.lan[-1][0] + 0.1
        self._connections = 0

    def calls(self, *steps: str, port: int = PORT, lan: bool = True) -> TwoSides:
        """Bob connects to the router: *steps* are those of a connection ("syn", "syn-ack", "ack", "data",
        "rst"); *lan*: the router leads it on."""
        self._connections += 1
        caller = (BOB, 50000 + self._connections)
        outer = _connection(caller, (self.router, port), steps, self.time, self._connections)
        if lan:
            inner = _connection(caller, (ALICE, PORT), steps, self.time, self._connections)
            self.lan += beyond(inner)
        self.wan += outer
        self.time += 1.0
        return self

    def tries(self, goal: tuple[str, int], *steps: str) -> TwoSides:
        """Alice connects to *goal*."""
        self._connections += 1
        port = 50000 + self._connections
        self.lan += _connection((ALICE, port), goal, steps, self.time, self._connections)
        self.wan += beyond(_connection((self.router, port), goal, steps, self.time, self._connections))
        self.time += 1.0
        return self

    def write(self, path: Path, lan: bool = True, wan: bool = True) -> Path:
        """Write the capture of these sides."""
        frames = (self.lan if lan else []) + (self.wan if wan else [])
        write_pcap(path, sorted(frames))
        return path


def _session(client: str, announced: str) -> Frames:
    talk = Conversation((client, 40123), (SERVER, 6667), seqs=(_ISN, 7)).open()
    talk.send("client", b"NICK alice\r\nUSER alice 0 * :Alice\r\n")
    talk.send("server", b":irc.test 001 alice :Welcome\r\n")
    number = _NUMBERS.get(announced) or b"%d" % int.from_bytes(bytes(map(int, announced.split("."))), "big")
    return talk.send("client", b"PRIVMSG bob :\x01DCC SEND f %s %d 3\x01\r\n" % (number, PORT)).frames


def _connection(
    client: tuple[str, int], server: tuple[str, int], steps: tuple[str, ...], start: float, number: int
) -> Frames:
    talk = Conversation(client, server, seqs=(_ISN + number, 9), start=start, step=0.4)
    for step in steps:
        if step == "syn":
            talk.emit("client", SYN)
            talk._next["client"] -= 1  # until it is answered, the client begins with the same number
        elif step == "syn-ack":
            talk._next["client"] += 1
            talk.emit("server", SYN_ACK)
        elif step == "ack":
            talk.emit("client", ACK)
        elif step == "rst":
            talk.emit("server", RST | ACK)
        else:
            talk.emit("server", ACK, b"a file")
    return talk.frames
