"""Scenarios (a), (b), (c): the same traffic through each contender, in turn, round after round.

Each contender has a network of its own for the whole run, so that in each scenario one follows the other:
what the neighbours on the machine do changes within seconds, and is none of the business of a ratio.
Endpoints and kernel run on one CPU. In (c) with one client the contender does, too; with many it has another.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass

from bench import contenders, gauge
from bench.contenders import CPU, FTP_PORT, PEER_PORT, PORT, Contender, Process, end, start
from nfreaim.host.netfilter import queue_stats
from tests.lab.net import ADDRESS, SERVER, WAN, Lab

SINK_PORT = 7000
LISTEN = 30700
BULK = 400 << 20
QUEUED_BULK = 40 << 20  # through userspace it takes ten times as long
SCAPY_BULK = 1 << 20  # and with scapy ten thousand times
SMALL, SMALL_FILES = 16 << 10, 1500  # 0.4 s: shorter than that, one neighbour on the machine decides
TALK_SECONDS = 1.5

Figures = dict[str, float]


@dataclass(frozen=True)
class Scenario:
    """One thing to measure. *higher*: more is better; *leave_out*: contenders it makes no sense for."""

    name: str
    unit: str
    measure: Callable[[Lab, str, Process | None], Figures]
    higher: bool
    leave_out: frozenset[str] = frozenset()


def load(
    lab: Lab, node: str, what: str, address: str, port: int, *words: object, seconds: float = 120.0
) -> Figures:
    """Run one load program to its end; its figures."""
    command = contenders.load_command(what, address, port, *words)
    run = lab.run(node, "taskset", "-c", str(CPU), *command, seconds=seconds)
    figures: Figures = json.loads(run.stdout)
    return figures


def serve(lab: Lab, node: str, address: str, *ports: int) -> Process:
    """The far end of the traffic on *node*."""
    return start(lab, node, *contenders.server_command(address, *ports))


def hold(lab: Lab, node: str, sources: str, each: int, base: int) -> Process:
    """Sessions that keep pinholes open."""
    return start(lab, node, *contenders.load_command("hold", SERVER, PORT, sources, each, base))


def peer(size: int, most: int) -> Callable[[Lab, str, Process | None], Figures]:
    """A peer link: bob connects in and fetches from alice where the contender lets him, else she from him."""

    def measure(lab: Lab, name: str, process: Process | None) -> Figures:
        gauge.pin(process, CPU)
        count = most // 10 or 1 if name in _SLOW else most
        with ExitStack() as stack:
            if name in ("plain NAT", "kernel FTP helper"):
                if name == "kernel FTP helper" and count == 1:
                    taken = load(lab, "alice", "ftp", SERVER, FTP_PORT, size, LISTEN)["seconds"]
                else:
                    taken = load(lab, "alice", "fetch", ADDRESS["bob"], PEER_PORT, size, count)["seconds"]
            else:
                if name in OURS:
                    alice = ADDRESS["alice"]
                    holder = hold(lab, "alice", f"{alice}-{alice}", 1, PEER_PORT)
                    stack.callback(end, holder)
                taken = load(lab, "bob", "fetch", WAN["A"], PEER_PORT, size, count)["seconds"]
        return {"value": size * count / taken / 1e6}

    return measure


def bulk(lab: Lab, name: str, process: Process | None) -> Figures:
    """What is not OSCAR on the server port."""
    gauge.pin(process, CPU)
    size = BULK if name in ("plain NAT", "kernel FTP helper", "nfreaim", "asyncio relay") else QUEUED_BULK
    size = SCAPY_BULK if name in ONCE else size
    taken = load(lab, "alice", "bulk", SERVER, PORT, size)["seconds"]
    return {"value": size / taken / 1e6}


def talk(clients: int) -> Callable[[Lab, str, Process | None], Figures]:
    """Text messages to and fro, one in flight per client."""

    def measure(lab: Lab, name: str, process: Process | None) -> Figures:
        gauge.pin(process, CPU if clients == 1 else CPU + 1)
        drops = queue_drops(lab)
        figures = talked(lab, clients, TALK_SECONDS, process)
        figures["drops"] = queue_drops(lab) - drops
        figures["value"] = figures["p50"] * 1e6 if clients == 1 else figures["rate"]
        return figures

    return measure


def talked(lab: Lab, clients: int, seconds: float, process: Process | None) -> Figures:
    """What came of such messages: "rate" a second, "p50" in seconds, "cpu" in µs of *process* for each."""
    pid = process.pid if process else 0
    figures = load(lab, "alice", "talk", SERVER, PORT, clients, seconds, pid)
    figures["cpu"] *= 1e6 / figures["trips"]
    figures["rate"] = figures["trips"] / figures["seconds"]
    return figures


def queue_drops(lab: Lab) -> int:
    """Packets that the kernel dropped because the queue or its socket was full."""
    text = lab.run("A", "cat", "/proc/net/netfilter/nfnetlink_queue").stdout
    return sum(it.dropped_full + it.dropped_socket for it in map(queue_stats.parse, text.splitlines()))


OURS = frozenset({"nfreaim", contenders.UNVERIFIED, contenders.BLIND_GATE})
ONCE = frozenset({"scapy on every packet"})  # explains the design; not measured again in later rounds
_GATE_ONLY = frozenset({contenders.BLIND_GATE})
_PEER_ONLY = frozenset({"do-nothing queue", "scapy on every packet"})
_SLOW = frozenset({"scapy on every packet", "mitmproxy"})
_STATIC = frozenset({"static forward", contenders.UNVERIFIED}) | _GATE_ONLY
SCENARIOS = (
    Scenario("a: peer link, one file", "MB/s", peer(BULK, 1), True, _PEER_ONLY | _GATE_ONLY),
    Scenario(
        "a: peer link, small files",
        "MB/s",
        peer(SMALL, SMALL_FILES),
        True,
        _PEER_ONLY | {"kernel FTP helper"},
    ),
    Scenario("b: bulk on 5190, not OSCAR", "MB/s", bulk, True, _STATIC),
    Scenario("c: messages, 1 client", "µs", talk(1), False, _STATIC),
    Scenario("c: messages, 200 clients", "1/s", talk(200), True, _STATIC),
    Scenario("c: messages, 2000 clients", "1/s", talk(2000), True, _STATIC | _SLOW),
)

Table = dict[str, dict[str, list[Figures]]]


@contextmanager
def stand(contender: Contender) -> Iterator[tuple[Lab, Process | None]]:
    """A network with both ends of the traffic, and *contender* on its router A."""
    with Lab() as lab, ExitStack() as stack:
        for node, address, ports in (
            ("server", SERVER, (PORT, SINK_PORT, FTP_PORT)),
            ("alice", ADDRESS["alice"], (PEER_PORT,)),
            ("bob", ADDRESS["bob"], (PEER_PORT,)),
        ):
            stack.callback(end, serve(lab, node, address, *ports))
        yield lab, stack.enter_context(contender(lab))


def run(rounds: int, scenarios: Sequence[Scenario], taking_part: dict[str, Contender]) -> Table:
    """Every scenario through every contender: figures by scenario and contender, one for each round."""
    table: Table = {scenario.name: {} for scenario in scenarios}
    with ExitStack() as stack:
        stands = {name: stack.enter_context(stand(contender)) for name, contender in taking_part.items()}
        contenders.settle()
        for number in range(rounds):
            for scenario in scenarios:
                for name, (lab, process) in stands.items():
                    if name in scenario.leave_out or (number and name in ONCE):
                        continue
                    figures = scenario.measure(lab, name, process)
                    table[scenario.name].setdefault(name, []).append(figures)
                    value = f"{figures['value']:10.0f} {scenario.unit}"
                    print(f"round {number + 1}  {scenario.name:28} {name:28} {value}", flush=True)
    return table
