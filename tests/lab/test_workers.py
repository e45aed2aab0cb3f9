"""Two processes that read: the kernel spreads the clients over them, and they are one daemon all the same."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

from tests.lab import home, kernel_sets
from tests.lab.flows import home_flow
from tests.lab.namespace import socket_in
from tests.lab.net import SERVER, WAN, Lab
from tests.lab.scene import HOG, Scene, SeenPinhole, eventually, nfreaim, start
from tests.lab.standin import Server, Transfer
from tests.lab.stream import Plan

SETTINGS = "workers = 2\n"
GATE, READERS, NEWCOMERS = 5254, (5191, 5192), 32
INSTALL = ("rules/nfreaim-rules", "install", "--lan", "lan", "--wan", "wan", "--workers", "2")


def reader_of(lab: Lab, node: str, address: str) -> int:
    """The queue that the kernel hands *node*'s connections to *address* to: a SYN is enough to see it."""
    before = lab.queue_state("A")
    with contextlib.closing(socket_in(lab, node)) as probe, contextlib.suppress(OSError):
        probe.connect((address, 5190))
    after = lab.queue_state("A")
    (found,) = (queue for queue in READERS if after[queue + NEWCOMERS] > before[queue + NEWCOMERS])
    return found


def outside_address(lab: Lab, wanted: Callable[[str], bool]) -> str:
    """An address of the server's node that is *wanted*; there are enough, as every other one will do."""
    for address in (SERVER, *(f"203.0.113.{last}" for last in range(30, 60))):
        if address != SERVER:
            lab.run("server", "ip", "address", "add", f"{address}/24", "dev", "eth0")
        if wanted(address):
            return address
    raise AssertionError("all connections are handed to the same reader")


def apart(lab: Lab) -> str:
    """An address that alice and amy reach by different readers."""
    return outside_address(
        lab, lambda address: reader_of(lab, "alice", address) != reader_of(lab, "amy", address)
    )


def status(lab: Lab) -> dict[str, Any]:
    document: dict[str, Any] = json.loads(nfreaim(lab, "A", "status", "--json"))
    return document


def processes(lab: Lab) -> list[int]:
    """Every process of nfreaim's on router A."""
    pids = subprocess.run(["ip", "netns", "pids", lab.ns("A")], capture_output=True, text=True, timeout=30)
    found = []
    for pid in pids.stdout.split():
        with contextlib.suppress(OSError):
            if b"nfreaim\0" in Path(f"/proc/{pid}/cmdline").read_bytes():
                found.append(int(pid))
    return found


@contextmanager
def divided(settings: str = SETTINGS, **options: Any) -> Iterator[Scene]:
    with Lab(**options) as lab:
        made = Scene(lab)
        made.restart(settings=settings)
        yield made


def test_clients_of_both_readers_reach_everybody_and_each_other_and_nothing_stays() -> None:
    with Lab() as lab:
        before = lab.firewall_rules("A")
        made = Scene(lab, {"A": start(lab, "A", SETTINGS, wait=False), "B": start(lab, "B", wait=False)})
        for daemon in made.daemons.values():
            daemon.wait_ready(30.0)
        server = made.server(address=apart(lab))
        who = ("alice", "amy", "bob", "carol")
        clients = dict(zip(who, made.clients(server, *((node, node) for node in who)), strict=True))
        pairs = [(one, other) for one in who[:2] for other in who if one != other]
        pairs += [(other, one) for one, other in pairs if other not in who[:2]]
        running = {
            (*pair, kind): Transfer(clients[pair[0]], clients[pair[1]], kind)
            for pair in pairs
            for kind in ("file", "im")
        }
        outcomes = {key: transfer.outcome() for key, transfer in running.items()}
        log = made.daemon.log_text()
        assert {key: one.reason for key, one in outcomes.items() if not one.first_attempt} == {}, log
        assert outcomes["alice", "amy", "file"].peer.startswith("10.0.0.6"), "not by the LAN"
        seen = lab.queue_state("A")
        assert min(seen[queue] for queue in READERS) > 100, seen
        assert seen[GATE] > 0, "first bytes of peers are looked at by the main process"

        def told() -> dict[str, Any] | None:
            document = status(lab)
            handled = sum(worker["packets"] for worker in document["workers"])
            whole = handled and handled == document["counters"]["packets"]
            read = {one["host"] for one in document["sessions"] if one["state"] == "established"}
            return document if whole and read == {"10.0.0.5", "10.0.0.6"} else None

        document = eventually(told)  # readers send what they know once a second
        assert document is not None, status(lab)["sessions"]
        assert [worker["queue"] for worker in document["workers"]] == list(READERS)
        assert document["counters"]["peers_verified"] >= 8
        assert "pinhole-claimed" in {event["event"] for event in document["events"]}
        main = made.daemons["A"].process.pid
        assert {worker["pid"] for worker in document["workers"]} | {main} == set(processes(lab))
        check = nfreaim(lab, "A", "check", "--lan", "lan", "--wan", "wan", "--workers", "2")
        assert {f"ok   queue {queue} is served by nfreaim" for queue in (GATE, *READERS)} <= set(
            check.splitlines()
        )
        # What is no file is refused, whichever reader the pinhole was opened for.
        clients["bob"].call("policy", action="ignore")
        for number, node in enumerate(("alice", "amy")):
            offer = Transfer(clients[node], clients["bob"], "file", size=10)
            pinhole = eventually(partial(pinholes_of, made, inside(node)))
            address, port = pinhole[0].outside.split(":")
            with contextlib.closing(socket_in(lab, "bob")) as stranger, contextlib.suppress(OSError):
                stranger.connect((address, int(port)))
                stranger.sendall(b"GET / HTTP/1.1\r\n\r\n" + bytes(300))
                while stranger.recv(1000):  # who offers a file speaks first, to whoever calls
                    continue
            eventually(lambda: made.daemon.log_text().count("peer refused") > number)  # noqa: B023
            del offer
        assert made.daemons["A"].stop() == 0
        assert lab.firewall_rules("A") == before
        assert processes(lab) == []
        assert lab.run("A", "ls", "/run").stdout.replace("xtables.lock\n", "") == ""


def pinholes_of(made: Scene, host: str) -> list[SeenPinhole]:
    return [pinhole for pinhole in made.pinholes() if pinhole.inside == host]


def inside(node: str) -> str:
    return {"alice": "10.0.0.5:5190", "amy": "10.0.0.6:5190"}[node]


def test_a_redirect_that_one_reader_sees_is_followed_by_the_other() -> None:
    with divided() as made:
        lab = made.lab
        first = reader_of(lab, "alice", SERVER)
        other = outside_address(lab, lambda address: reader_of(lab, "alice", address) != first)
        server = Server(lab, announce=f"{other}:5191", also=f"{other}:5191")
        alice, bob = made.clients(server, ("alice", "alice"), ("bob", "bob"))
        before = lab.queue_state("A")
        assert Transfer(alice, bob, "file").outcome().first_attempt, made.daemon.log_text()
        after = lab.queue_state("A")
        (second,) = {*READERS} - {first}
        assert after[second] > before[second], "the session is with the other reader"
        # What somebody else takes away is put back as it was: spread over both.
        if kernel_sets.NFT:
            lab.run("A", *"nft flush chain ip nfreaim queue_known".split())
            made.daemon.wait_log("restored")
            assert "5191-5192" in lab.run("A", *"nft list chain ip nfreaim queue_known".split()).stdout
        else:
            lab.run("A", "iptables-legacy", "-t", "raw", "-F", "NFREAIM")
            made.daemon.wait_log("restored")
            assert "--queue-balance 5191:5192" in lab.run("A", "iptables-legacy-save", "-t", "raw").stdout
        assert made.daemon.stop() == 0


def test_one_reader_is_killed_and_goes_on_exactly_where_it_was() -> None:
    with divided(SETTINGS + "ports = [5190, 5191]\n", home_server=True) as made:
        lab = made.lab
        home.forward(lab)
        home.forward(lab, port=5191)
        mine = reader_of(lab, "server", WAN["A"])
        for last in range(60, 90):  # bob's address decides who reads him
            lab.run("bob", "ip", "address", "add", f"203.0.113.{last}/24", "dev", "eth0")
            lab.run("bob", *f"ip route replace 203.0.113.0/24 dev eth0 src 203.0.113.{last}".split())
            if reader_of(lab, "bob", WAN["A"]) != mine:
                break
        server = made.server()
        (alice, carol) = made.clients(server, ("alice", "alice", 5200), ("carol", "carol"))
        carol.call("policy", action="ignore")
        Transfer(alice, carol, "file")
        pinholes = eventually(made.pinholes)
        plan = Plan(frames=250, redirects=30, pause=0.01)
        flows = [
            home_flow(lab, client=who, port=port, server_plan=plan)
            for who, port in (("bob", 5190), ("server", 5191))
        ]
        eventually(lambda: len(status(lab)["flows"]["edited"]) == 2)
        victim = {worker["queue"]: worker["pid"] for worker in status(lab)["workers"]}
        (theirs,) = {*READERS} - {mine}
        os.kill(victim[theirs], signal.SIGKILL)
        (_, cut), (_, whole) = [flow.exact() for flow in flows]
        assert cut["rewritten"] > 0
        assert cut["rewritten"] + cut["left"] == 30
        assert (whole["rewritten"], whole["left"]) == (30, 0), "the other reader has nothing to do with it"
        assert made.pinholes() == pinholes
        made.daemon.wait_log("has ended and is started anew", 30)
        assert "pinhole closed" not in made.daemon.log_text()
        now = {worker["queue"]: worker["pid"] for worker in status(lab)["workers"]}
        assert now[mine] == victim[mine], "the other one is none the wiser"
        assert now[theirs] != victim[theirs]
        assert made.daemon.stop() == 0


def test_a_killed_main_process_leaves_no_process_and_the_next_one_goes_on() -> None:
    with Lab() as lab:
        lab.run("A", *INSTALL)
        made = Scene(lab)
        made.restart(settings=SETTINGS)
        server = made.server(address=apart(lab))
        alice, amy, bob = made.clients(server, ("alice", "alice"), ("amy", "amy", 5300), ("bob", "bob"))
        flows = Path(lab.dir / "run-A" / "nfreaim" / "flows")
        eventually(lambda: len(list(flows.glob("*-of-2/*.json"))) == 2)
        made.daemon.kill()
        eventually(lambda: processes(lab) == [], 5.0)
        daemon = made.restart(settings=SETTINGS)
        for client in (alice, amy):
            assert Transfer(client, bob, "file").outcome().first_attempt, daemon.log_text()
        assert daemon.log_text().count("read again, nothing was missed") == 2
        assert daemon.stop() == 0
        assert processes(lab) == []
        daemon = made.restart(settings=SETTINGS)
        assert Transfer(alice, amy, "file").outcome().first_attempt, daemon.log_text()


def test_a_queue_that_is_taken_ends_the_start_with_its_number_and_nothing_stays() -> None:
    with Lab() as lab:
        before = lab.firewall_rules("A")
        other = lab.spawn("A", sys.executable, "-c", HOG, "5192", pipes=True)
        assert other.stdout is not None
        assert other.stdout.readline() == b"bound\n"
        daemon = start(lab, "A", SETTINGS, wait=False)
        assert daemon.process.wait(30) == 1
        assert "worker 2 cannot begin: queue 5192 cannot be bound" in daemon.log_text()
        assert lab.firewall_rules("A") == before
        eventually(lambda: processes(lab) == [])
