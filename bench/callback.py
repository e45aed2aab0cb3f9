"""The Python part of a queued packet: our callback against one that only accepts, on the same packets.

The packet object is a stand-in with the binding's interface, so that nothing but Python is timed: payload
copied out, read, verdict given. Both callbacks run in turn, round after round, on one core.
"""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Callable
from functools import partial
from ipaddress import IPv4Network
from typing import Protocol

from nfreaim.core.engine import Engine
from nfreaim.core.firewall.policy import PinholePolicy
from nfreaim.core.firewall.table import PinholeTable
from nfreaim.core.null import NullConntrack, NullFirewall, NullWatcher, null_backend
from nfreaim.helpers import HELPERS
from nfreaim.host.netfilter.packet_queue import PacketQueue
from tests.golden import load
from tests.oscar.flap import numbered
from tests.oscar.signon import HOST_ONLINE, SIGNON, hello
from tests.tcp.packets import ACK, PSH, SYN
from tests.tcp.packets import packet as tcp_packet

ROUNDS = 15
REPEAT = 20_000
CLIENT, SERVER = ("10.0.0.5", 41134), ("203.0.113.9", 5190)
SWITCHBOARD = ("203.0.113.9", 1864)
AIM_TEXT, MSN_TEXT = "text message, one segment", "MSN text message, one segment"
TARGET = "(i) Python part of a chat message of MSN, to one of AIM"
_MSN_PAYLOAD = (
    b"MIME-Version: 1.0\r\nContent-Type: text/plain; charset=UTF-8\r\n"
    b"X-MMS-IM-Format: FN=Arial; EF=; CO=0; CS=0; PF=22\r\n\r\nHello, how are you today?"
)


HARDWARE = bytes.fromhex("02000a000005")
"""The hardware address that the inside host's packets come from."""


class Packet:
    """What the callback needs of netfilterqueue.Packet, at the least cost.

    edited  it left with other bytes
    """

    __slots__ = ("edited", "hook", "payload")

    def __init__(self, payload: bytes, hook: int) -> None:
        self.payload = payload
        self.hook = hook
        self.edited = False

    def get_payload(self) -> bytes:
        return bytes(memoryview(self.payload))  # the binding copies, too

    def set_payload(self, payload: bytes) -> None:
        self.edited = payload != self.payload

    def get_hw(self) -> bytes | None:
        return HARDWARE if self.hook == 0 else None

    def get_mark(self) -> int:
        return 0

    def accept(self) -> None:
        pass


class Maker(Protocol):
    """Makes the next packet that one side of a flow sends."""

    def __call__(self, side: str, payload: bytes, flags: int = ACK | PSH) -> Packet: ...


def flow(
    server: tuple[str, int] = SERVER,
    sign_on: tuple[tuple[str, bytes], ...] = (
        ("server", SIGNON),
        ("client", hello(1)),
        ("server", HOST_ONLINE),
    ),
) -> tuple[PacketQueue, Maker]:
    """A queue with one signed-on flow, and a maker of that flow's next packets."""
    backend = null_backend(NullConntrack("203.0.113.1", IPv4Network("10.0.0.0/24")))
    table = PinholeTable(PinholePolicy(), NullFirewall(), NullWatcher())
    specs = {port: spec for spec in HELPERS for port in spec.ports}
    engine = Engine(specs, table, backend, NullWatcher())
    queue = PacketQueue(0, engine, partial(time.clock_gettime, time.CLOCK_BOOTTIME))
    ends = {"client": (CLIENT, server), "server": (server, CLIENT)}
    seqs = {"client": 1000, "server": 9000}

    def packet(side: str, payload: bytes, flags: int = ACK | PSH) -> Packet:
        ack = seqs["server" if side == "client" else "client"] if flags & ACK else 0
        raw = tcp_packet(*ends[side], seqs[side], ack, flags, payload)
        seqs[side] += len(payload) + bool(flags & SYN)
        return Packet(raw, 0 if side == "client" else 4)

    queue._handle(packet("client", b"", SYN))
    queue._handle(packet("server", b"", SYN | ACK))
    queue._handle(packet("client", b"", ACK))
    for side, payload in sign_on:
        queue._handle(packet(side, payload))
    unread = [one for one in engine.flows.streams.values() if not one.flow.reading.helper.established]
    if unread or not engine.flows.streams:
        raise RuntimeError("the flow is not past sign-on: what passes unread would be measured")
    return queue, packet


def cases() -> dict[str, tuple[PacketQueue, list[Packet]]]:
    """Packets of known flows that change nothing, by what they carry; each list is one pass."""
    text = load()["text-message"].data
    made = {}
    queue, packet = flow()
    made["empty ACK"] = (queue, [packet("client", b"", ACK) for _ in range(REPEAT)])
    queue, packet = flow()
    made[AIM_TEXT] = (
        queue,
        [packet("client", numbered(text, 2 + number)) for number in range(REPEAT)],
    )
    queue, packet = flow(
        SWITCHBOARD,
        (("client", b"USR 1 alice1@lab.test token\r\n"), ("server", b"USR 1 OK alice1@lab.test alice\r\n")),
    )
    made[MSN_TEXT] = (
        queue,
        [
            packet("client", b"MSG %d N %d\r\n" % (2 + number, len(_MSN_PAYLOAD)) + _MSN_PAYLOAD)
            for number in range(REPEAT)
        ],
    )
    queue, packet = flow()
    frames = [numbered(text, 0x66 + number) for number in range(REPEAT // 5)]
    made["text message, cut 1+1+2+2+n"] = (
        queue,
        [
            packet("server", piece)
            for frame in frames
            for piece in (frame[:1], frame[1:2], frame[2:4], frame[4:6], frame[6:])
        ],
    )
    return made


def do_nothing(packet: Packet) -> None:
    packet.accept()


def seconds(callback: Callable[[Packet], None], packets: list[Packet]) -> float:
    begin = time.perf_counter()
    for packet in packets:
        callback(packet)
    return time.perf_counter() - begin


def main() -> dict[str, float]:
    """Print and return, for each case, the microseconds above the do-nothing callback (median of rounds)."""
    print("Python part of one packet, microseconds above a do-nothing callback of the same run (target: 3)")
    print(f"{'':32}{'median':>8}{'least':>8}{'most':>8}   ratio to do-nothing")
    result = {}
    chunk = REPEAT // ROUNDS // 5 * 5
    for name, (queue, packets) in cases().items():
        queue._until = math.inf  # one turn: the exception at its end belongs to the loop
        above, ratios = [], []
        for number in range(ROUNDS):
            part = packets[number * chunk : (number + 1) * chunk]
            nothing = seconds(do_nothing, part)
            ours = seconds(queue._handle, part)
            above.append((ours - nothing) / len(part) * 1e6)
            ratios.append(ours / nothing)
        result[name] = statistics.median(above)
        ratio = statistics.median(ratios)
        print(f"{name:32}{result[name]:8.2f}{min(above):8.2f}{max(above):8.2f}   {ratio:.1f}")
    return result
