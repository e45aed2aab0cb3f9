"""``python -m stress.load``: floods and crowds at full size, and beside each a legitimate client. Minutes.

Prints a line for each load: what gave way, what the kernel dropped, the daemon's memory. Any failure of the
legitimate clients, memory beyond the bound or a drop that is not shown ends it with an exception.
"""

from __future__ import annotations

import json
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from nfreaim.core.firewall.policy import PinholePolicy
from nfreaim.core.tcp.segment import SYN
from stress.beside import FLOODS, run
from tests.lab.home import forward
from tests.lab.net import SECOND_SERVER, SERVER, WAN, Lab
from tests.lab.scene import Scene, eventually, nfreaim
from tests.lab.standin import Client, Transfer
from tests.oscar import icbm

SILENT = "203.0.113.77"  # nobody has this address: what is sent there is never answered
CROWD = 5190  # port of the crowd's servers, at addresses of their own
QUEUE = 4096  # newcomers' packets that the kernel keeps for the daemon
ANSWERED = 40_000  # more, and the router itself has no port left for connections to that server
MOST_MEMORY = 256.0  # MiB; the unit allows 768
SESSIONS = (10_000, 10_000)  # at each of two servers: a process may have 20,000 files


@dataclass
class Watch:
    """A scene under load, with the clients that must not notice."""

    made: Scene
    clients: list[Client] = field(default_factory=list)

    def document(self) -> dict[str, Any]:
        """What ``nfreaim status --json`` says."""
        found = json.loads(nfreaim(self.made.lab, "A", "status", "--json"))
        assert isinstance(found, dict)
        return found

    def memory(self) -> float:
        """Resident MiB of the daemon."""
        with open(f"/proc/{self.made.daemon.pid}/status") as file:
            found = re.search(r"VmRSS:\s+(\d+) kB", file.read())
        assert found
        return int(found[1]) / 1024

    def dropped(self) -> int:
        """Packets that the kernel dropped because a queue was full: its own statistics."""
        text = self.made.lab.run("A", "cat", "/proc/net/netfilter/nfnetlink_queue").stdout
        return sum(int(line.split()[5]) for line in text.splitlines())

    def works(self) -> None:
        """The clients that signed on long ago chat and send a file."""
        alice, bob = self.clients
        chat(alice, bob)
        chat(bob, alice)
        assert (outcome := Transfer(alice, bob, "file", size=300_000).outcome()).first_attempt, outcome

    def newcomer(self, name: str) -> None:
        """Somebody signs on now, and sends a file."""
        (client,) = self.made.clients(self.made.servers[0], ("alice", name, 6000))
        assert (outcome := Transfer(client, self.clients[1], "file", size=100_000).outcome()).first_attempt, (
            outcome
        )
        client.stop()

    def say(self, what: str, began: float) -> None:
        document = self.document()
        counters = document["counters"]
        shown = " ".join(
            f"{name}={counters[name]}"
            for name in ("packets", "flows", "evicted_flows", "evicted_half_open", "left", "late_edit")
            if counters[name]
        )
        print(
            f"LOAD {what}: {time.monotonic() - began:.0f} s, {self.memory():.1f} MiB, "
            f"{document['flows']['known']} flows, {len(document['pinholes'])} pinholes, "
            f"{self.dropped()} dropped, {shown}",
            flush=True,
        )
        assert self.memory() < MOST_MEMORY


def chat(one: Client, other: Client) -> None:
    """A text message through the server (ICBM channel 1), and it arrives."""
    before = len(other.call("received", family=4, subtype=7)["bodies"])
    body = icbm.icbm_to_server(b"1234567\0", icbm.TEXT, other.name, icbm.text(b"hello"))
    one.call("send_snac", family=4, subtype=6, body=body.hex())
    eventually(lambda: len(other.call("received", family=4, subtype=7)["bodies"]) > before)


@contextmanager
def watch() -> Iterator[Watch]:
    """Router A with nfreaim, and a server behind it; alice and bob are signed on to the outside one."""
    with Lab(home_server=True) as lab:
        forward(lab)
        made = Scene(lab)
        made.restart("A", "[pinholes]\nper_flow = 1024\n")
        made.servers.append(made.server())
        made.clients(made.servers[0])
        yield Watch(made, made.clients(made.servers[0], ("alice", "alice", 5200), ("bob", "bob")))


def flood(
    lab: Lab, node: str, sources: str, target: str, count: int, flags: int = SYN
) -> subprocess.Popen[bytes]:
    """See stress.flood."""
    words = (sources, target, str(count), str(flags))
    return lab.spawn(node, sys.executable, "-m", "stress.flood", *words, pipes=True)


def crowd(lab: Lab, node: str, *words: str) -> tuple[subprocess.Popen[bytes], str]:
    """A process of stress.crowd, and what it says when it is ready."""
    process = lab.spawn(node, sys.executable, "-m", "stress.crowd", *words, pipes=True)
    assert process.stdout is not None
    line = process.stdout.readline().decode().strip()
    assert line.startswith("ready"), (words, line)
    return process, line


def beside(seen: Watch, what: str, *floods: subprocess.Popen[bytes]) -> None:
    """The clients go on while these processes run, and afterwards; a newcomer, too."""
    began = time.monotonic()
    rounds = 0
    while any(process.poll() is None for process in floods) or not rounds:
        seen.works()
        rounds += 1
    for process in floods:
        assert process.wait() == 0
    eventually(lambda: sum(queue["waiting"] for queue in seen.document()["queues"]) < 100, 60.0)
    seen.works()
    seen.newcomer("newcomer")
    seen.say(f"{what}, {rounds} rounds of chat and transfer meanwhile", began)


def overflow(seen: Watch, count: int) -> None:
    """The daemon hangs and the newcomers' queue runs over: everything goes on, and the drops are shown."""
    daemon, before, began = seen.made.daemon.process, seen.dropped(), time.monotonic()
    daemon.send_signal(signal.SIGSTOP)
    try:
        # The rules let so many a second in, and fewer behind another flood.
        while seen.dropped() <= before:
            assert time.monotonic() < began + 60, "the queue did not run over"
            process = flood(seen.made.lab, "amy", "10.0.0.128/25", f"{SILENT}:5190", count)
            assert process.wait(120) == 0
    finally:
        daemon.send_signal(signal.SIGCONT)
    lost = seen.dropped() - before
    eventually(
        lambda: (
            f"dropped {before + lost} packets before they were read" in nfreaim(seen.made.lab, "A", "status")
        )
    )
    seen.works()
    daemon.send_signal(signal.SIGUSR1)
    seen.made.daemon.wait_log(f"packets dropped by the kernel since the start: {before + lost} queue full")
    seen.newcomer("newcomer")
    seen.say(f"queue overflow by {count} packets, {lost} lost", began)


def main() -> None:
    with watch() as seen:
        lab = seen.made.lab
        began = time.monotonic()
        seen.works()
        seen.say("nothing", began)
        beside(
            seen,
            "100,000 SYNs without an answer, half of them from outside",
            flood(lab, "amy", "10.0.0.128/25", f"{SILENT}:5190", 50_000),
            flood(lab, "carol", "192.168.7.128/25", f"{WAN['A']}:5190", 50_000),
        )
        beside(
            seen,
            "40,000 SYNs that a server answers",
            flood(lab, "amy", "10.0.0.128/25", f"{SERVER}:5190", ANSWERED),
        )
        overflow(seen, 60_000)
        sessions(seen)
        rendezvous(seen)
        seen.made.daemon.stop()
        print(seen.made.daemon.log_text().splitlines()[-1])
    for name in FLOODS:
        run(name, 12.0)


def sessions(seen: Watch) -> None:
    began, lab = time.monotonic(), seen.made.lab
    lab.run("server", "ip", "address", "add", "203.0.113.11/24", "dev", "eth0")
    for address, count in zip((SECOND_SERVER, "203.0.113.11"), SESSIONS, strict=True):
        crowd(lab, "server", "serve", address, str(CROWD))
        crowd(lab, "amy", "idle", address, str(CROWD), str(count))
    seen.works()
    seen.newcomer("newcomer")
    seen.say(f"{sum(SESSIONS)} signed-on sessions", began)
    beside(seen, "beside them a flood", flood(lab, "amy", "10.0.0.128/25", f"{SERVER}:5190", ANSWERED))


def rendezvous(seen: Watch) -> None:
    """Files offered at once, up to the bounds of a connection and of all; what is beyond is left alone."""
    began, lab = time.monotonic(), seen.made.lab
    total = PinholePolicy().total
    for first, last in ((100, 224), (225, 234)):
        more = "for n in $(seq $0 $1); do ip address add 10.0.0.$n/24 dev eth0; done"
        lab.run("amy", "sh", "-ec", more, str(first), str(last))
        offered = 8 * (last - 99)
        crowd(lab, "amy", "offer", SECOND_SERVER, str(CROWD), f"10.0.0.{first}-10.0.0.{last}", "8")
        eventually(lambda: len(seen.document()["pinholes"]) >= min(offered, total), 120.0)  # noqa: B023
        if offered < total:
            seen.works()
        chat(*seen.clients)
        seen.say(f"{offered} files offered at once", began)
    left = seen.document()["counters"]["left"]
    assert offered - total <= left <= offered - total + 1, left


if __name__ == "__main__":
    main()
