"""A lab with nfreaim running in it, and the questions that tests ask of both.

Nothing here knows how nfreaim works inside: it looks at rules, counters and the log, as an operator would.
"""

from __future__ import annotations

import re
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import NamedTuple, TypeVar

from tests.lab import kernel_sets
from tests.lab.net import SERVER, Daemon, Lab, Variant
from tests.lab.standin import Client, Server, Transfer
from tests.oscar import rendezvous as rdv
from tests.oscar.icbm import parse_icbm
from tests.oscar.rendezvous import Rendezvous
from tests.oscar.snac import Snac

T = TypeVar("T")

INSTALL = ("rules/nfreaim-rules", "install", "--lan", "lan", "--wan", "wan")
HOG = """
import sys
from netfilterqueue import NetfilterQueue
queue = NetfilterQueue()
queue.bind(int(sys.argv[1]), lambda packet: packet.accept())
print("bound", flush=True)
queue.run()
"""
"""A program that takes the queue that is its argument."""
_PIN = re.compile(r"add nfreaim_pin (\S+),tcp:(\d+),(\S+) timeout (\d+) packets \d+ bytes (\d+) comment")
_LEADS = re.compile(r"-A NFREAIM_D\d+ .* --bytes-eq (\d+) .*-j DNAT --to-destination ([\d.]+)(?::(\d+))?$")


class SeenPinhole(NamedTuple):
    """A pinhole as the kernel has it: endpoints as text, and the only admitted peer or ""."""

    outside: str
    inside: str
    peer: str = ""


@dataclass
class Scene:
    """A running lab; *daemons* by router."""

    lab: Lab
    daemons: dict[str, Daemon] = field(default_factory=dict)
    servers: list[Server] = field(default_factory=list)

    @property
    def daemon(self) -> Daemon:
        """The one on router A."""
        return self.daemons["A"]

    def server(self, mode: str = "oos", address: str = SERVER, write: str = "oos") -> Server:
        """A stand-in server, ready."""
        server = Server(self.lab, mode, {"name": write}, address)
        server.wait_ready()
        return server

    def clients(
        self, server: Server, *who: tuple[str, str] | tuple[str, str, int], profile: str = "libpurple"
    ) -> list[Client]:
        """Clients, signed on: (node, screen name) and, if it matters, the first port to listen on."""
        made = [Client(self.lab, one[0], one[1], profile, *one[2:]) for one in who]
        for end in (server, *made):
            end.wait_ready()
        for waiting in [client.start("sign_on", server=server.address) for client in made]:
            answer = waiting.result(40)
            assert answer["ok"], answer
        return made

    def wait_for_positions(self) -> None:
        """Until router A's daemon has written down where flows stand, and nothing changes there any more."""
        file, seen = self.lab.dir / "run-A" / "nfreaim" / "flows" / "places", b""
        eventually(file.exists)
        while (now := file.read_bytes()) != seen or not now:
            seen = now
            time.sleep(1.0)

    def pinholes(self, router: str = "A") -> set[SeenPinhole]:
        """The pinholes in the router's kernel: entries of the set with the rules that they lead to."""
        if kernel_sets.NFT:
            return {SeenPinhole(*found) for found in kernel_sets.leads(self.lab, router)}
        pins = self.lab.run(router, "ipset", "save", "nfreaim_pin", check=False).stdout
        saved = self.lab.run(router, "iptables-legacy-save", "-t", "nat").stdout.splitlines()
        leads = {match[1]: match for line in saved if (match := _LEADS.match(line))}
        found: set[SeenPinhole] = set()
        for address, port, peer, _, data in _PIN.findall(pins):
            lead = leads.get(data)
            assert lead is not None, f"{address}:{port} leads nowhere\n{pins}\n{saved}"
            inside = f"{lead[2]}:{lead[3] or port}"
            pinhole = SeenPinhole(f"{address}:{port}", inside, "" if peer.endswith("/1") else peer)
            found.add(pinhole)
        return found

    def pinhole_of(self, inside: str) -> SeenPinhole | None:
        """The pinhole that leads to this inside endpoint."""
        return next((pinhole for pinhole in self.pinholes() if pinhole.inside == inside), None)

    def queued(self, router: str = "A") -> int:
        """Packets ever queued, in all queues."""
        return sum(self.lab.queue_state(router).values())

    def offloaded(self, router: str = "A") -> list[str]:
        """Members of the set of flows that skip the queue, without their time-outs."""
        return kernel_sets.entries(self.lab, router, "nfreaim_off")

    def restart(self, router: str = "A", settings: str = "", wait: bool = True) -> Daemon:
        """Start another daemon on this router and remember it as the router's own."""
        self.daemons[router] = start(self.lab, router, settings, wait)
        return self.daemons[router]


def start(
    lab: Lab, router: str, settings: str = "", wait: bool = True, options: tuple[str, ...] = ()
) -> Daemon:
    """Start nfreaim with a configuration file of these *settings* (TOML), and further *options*."""
    path = lab.log_file(f"settings-{router}").with_suffix(".toml")
    path.write_text(settings)
    return lab.start_alg(router, ("--config", str(path), *options), wait)


@contextmanager
def scene(
    *routers: str, settings: str = "", variants: tuple[Variant, Variant] = ("legacy", "legacy")
) -> Iterator[Scene]:
    """A lab with nfreaim on *routers* (default: A)."""
    with Lab(*variants) as lab:
        made = Scene(lab)
        for router in routers or ("A",):
            made.restart(router, settings, wait=False)
        for daemon in made.daemons.values():
            daemon.wait_ready()
        yield made


def nfreaim(lab: Lab, router: str, *words: str) -> str:
    """Output of an nfreaim sub-command on a router, whatever its exit status."""
    return lab.run(router, sys.executable, "-m", "nfreaim", *words, check=False).stdout


def eventually(look: Callable[[], T], seconds: float = 15.0) -> T:
    """What *look* returns as soon as it is true; AssertionError if it does not become so."""
    deadline = time.monotonic() + seconds
    while not (seen := look()):
        assert time.monotonic() < deadline, f"still {seen!r} after {seconds} s"
        time.sleep(0.02)
    return seen


def announced(client: Client, cookie: str) -> Rendezvous:
    """The proposal with that cookie as this client received it; waits for it."""

    def look() -> Rendezvous | None:
        for body in client.call("received", family=4, subtype=7)["bodies"]:
            block = parse_icbm(Snac(4, 7, bytes.fromhex(body))).rendezvous()
            if block is not None and block.cookie.hex() == cookie and block.kind == rdv.PROPOSE:
                return block
        return None

    block = eventually(look)
    assert block is not None
    return block


def opened(made: Scene, client: Client, other: Client, port: int, **more: object) -> Transfer:
    """A proposal that nobody answers, with its pinhole there."""
    transfer = Transfer(client, other, "file", **more)
    eventually(lambda: made.pinhole_of(f"10.0.0.5:{port}"))
    return transfer
