"""What happens to a router in operation, one accident at a time: sessions before it go on, new ones work."""

from __future__ import annotations

import fcntl
import re
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path

from tests.lab import home, kernel_sets
from tests.lab.firewall import RULES
from tests.lab.flows import home_flow
from tests.lab.net import CORE, Lab, LabError
from tests.lab.router import REPO, Router
from tests.lab.scene import INSTALL, Scene, SeenPinhole, announced, eventually, scene
from tests.lab.standin import Client, Server, Transfer
from tests.lab.stream import Plan

OUTSIDE = "203.0.113.1"
SCARCE = """
import os, resource
from nfreaim.core.address import Endpoint
from nfreaim.errors import BackendError
from nfreaim.host.netfilter.iptables import NatTable
nat = NatTable()
for spare in range(20):
    if (child := os.fork()) == 0:
        few = len(os.listdir("/proc/self/fd")) - 1 + spare
        resource.setrlimit(resource.RLIMIT_NOFILE, (few, few))
        try:
            nat.set_destinations({Endpoint("10.0.0.9", 0): 0}, {Endpoint("10.0.0.9", 0)}, {}, b"")
        except BackendError:
            os._exit(3)
        os._exit(0)
    print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
"""
"""Changes the nat table in processes that may open few files; prints their exit statuses."""

PACED = Plan(frames=100, pause=0.02, largest=300)
REDIRECTING = replace(PACED, redirects=30)


def on(made: Scene, command: str) -> None:
    made.lab.run("A", "sh", "-ec", command)


def pinhole(port: int, outside: str = OUTSIDE) -> SeenPinhole:
    return SeenPinhole(f"{outside}:{port}", f"10.0.0.5:{port}")


def opened(made: Scene, client: Client, other: Client, port: int) -> Transfer:
    """A proposal that nobody answers; returns with its pinhole there."""
    transfer = Transfer(client, other, "file")
    eventually(lambda: made.pinhole_of(f"10.0.0.5:{port}"))
    return transfer


def works(*transfers: Transfer) -> None:
    outcomes = [transfer.outcome() for transfer in transfers]
    assert [one for one in outcomes if not one.first_attempt] == []


def new_session(made: Scene, server: Server, other: Client, port: int, name: str = "new") -> None:
    """A client that signs on now and is called back by *other*."""
    (client,) = made.clients(server, ("alice", name, port))
    works(Transfer(client, other, "im"))
    client.stop()


def speak(client: Client) -> None:
    """Let the client send something that the server answers."""
    known = len(client.call("received", family=1, subtype=0x0F)["bodies"])
    client.call("send_snac", family=1, subtype=0x0E, body="")
    eventually(lambda: len(client.call("received", family=1, subtype=0x0F)["bodies"]) > known)


# --- somebody else's hands on the rules ---------------------------------------------------------------------


@kernel_sets.legacy_only("its damages are iptables'; test_nft_reload.py has those of nftables")
def test_rules_and_sets_that_others_remove_come_back_with_every_pinhole() -> None:
    damages = {
        "iptables-legacy -t raw -F; iptables-legacy -t raw -X": "raw: chain NFREAIM missing",
        "iptables-legacy -t mangle -F NFREAIM": "mangle: chain NFREAIM changed",
        "iptables-legacy -t nat -F NFREAIM": "nat: chain NFREAIM changed",
        "ipset flush nfreaim_pin": "restored, with 1 entries: ",
        "iptables-legacy -I FORWARD -i dummy -j DROP": "filter: jump FORWARD > NFREAIM not in its place",
        "for t in raw mangle nat filter; do iptables-legacy -t $t -S |"
        " sed -n 's/^-A \\(.* -j NFREAIM\\)$/\\1/p;T;q' | xargs iptables-legacy -t $t -D; done;"
        "iptables-legacy -t raw -F; iptables-legacy -t mangle -F; ipset flush nfreaim_lan;"
        "ipset destroy nfreaim_srv": "set nfreaim_srv missing",
    }
    with scene() as made:
        server = made.server()
        bob, carol, alice, waiting = made.clients(
            server, ("bob", "bob"), ("carol", "carol"), ("alice", "alice", 5210), ("alice", "waiting", 5200)
        )
        bob.call("policy", action="ignore")
        opened(made, waiting, bob, 5200)
        before = made.lab.firewall_rules("A")
        for damage, told in damages.items():
            seen = made.daemon.log_text().count("somebody else changed our rules")
            on(made, damage)
            eventually(lambda: made.daemon.log_text().count("somebody else changed our rules") > seen)  # noqa: B023
            assert told in made.daemon.log_text(), damage
            on(made, "iptables-legacy -D FORWARD -i dummy -j DROP || true")
            eventually(lambda: made.lab.firewall_rules("A") == before)
        works(Transfer(alice, carol, "file"))
        new_session(made, server, carol, 5220)
        # The operator says something new: that is no damage.
        ports = "--port 5190 --port 5191"
        on(made, f"rules/nfreaim-rules install --lan lan --wan wan {ports}")
        words = "--lan lan --wan wan --protocol oscar:5190,5191 --queue 5190"
        made.daemon.wait_log(f"the rules were installed anew: {words}", 30.0)
        assert "Traceback" not in made.daemon.log_text()
        assert "ERROR" not in made.daemon.log_text()


def test_the_accept_in_an_nft_firewall_that_is_loaded_again_is_restored() -> None:
    with scene(variants=("nft", "legacy")) as made:
        server = made.server()
        bob, alice = made.clients(server, ("bob", "bob"), ("alice", "alice", 5200))
        if not kernel_sets.NFT:  # alice's destination is prepared
            eventually(lambda: "NFREAIM_D" in made.lab.firewall_rules("A"))
        before = made.lab.firewall_rules("A")
        made.lab.run("A", "iptables-nft-restore", stdin=RULES["nft"])
        made.daemon.wait_log("iptables-nft-filter")
        eventually(lambda: made.lab.firewall_rules("A") == before)
        works(Transfer(alice, bob, "file"))
        new_session(made, server, bob, 5210)


COMMITTER = """
set -e
for n in $(seq 1 25); do
    iptables-legacy -w -t nat -A PREROUTING -s 198.51.100.1 -p tcp --dport $((7000 + n)) -j RETURN
    iptables-legacy -w -t nat -A POSTROUTING -s 198.51.100.2 -p tcp --dport $((7000 + n)) -j RETURN
    iptables-nft -t nat -A OUTPUT -d 198.51.100.3 -p tcp --dport $((7000 + n)) -j RETURN
    printf '*nat\\n-A OUTPUT -s 198.51.100.4 -p tcp --dport %d -j RETURN\\nCOMMIT\\n' $((7000 + n)) |
        iptables-legacy-restore -w -n
    iptables-legacy -w -t nat -D POSTROUTING -s 198.51.100.2 -p tcp --dport $((7000 + n)) -j RETURN
done
"""


def test_others_who_commit_at_the_same_time_lose_nothing_and_neither_do_we() -> None:
    with scene(settings="[pinholes]\nrate_per_host = 10000\n") as made:  # however long the others take
        lab, server = made.lab, made.server()
        bob, *alices = made.clients(
            server, ("bob", "bob"), *(("alice", f"a{n}", 5200 + 10 * n) for n in range(4))
        )
        bob.call("policy", action="ignore")
        others = [lab.spawn("A", "sh", "-c", COMMITTER.replace("198.51.100", net)) for net in
                  ("198.51.100", "198.51.101")]  # fmt: skip
        cancelled = 0
        while any(process.poll() is None for process in others):
            transfers = [Transfer(client, bob, "file") for client in alices]
            for client, transfer in zip(alices, transfers, strict=True):
                announced(bob, transfer.cookie)
                client.call("cancel", cookie=transfer.cookie)
                cancelled += 1
        assert [process.wait() for process in others] == [0, 0]
        assert cancelled >= 4
        eventually(lambda: not made.pinholes())
        for number, client in enumerate(alices):
            opened(made, client, bob, 5200 + 10 * number)
        assert made.pinholes() == {pinhole(5200 + 10 * number) for number in range(4)}
        legacy = lab.run("A", "iptables-legacy-save", "-t", "nat").stdout
        nft = lab.run("A", "iptables-nft-save", "-t", "nat").stdout
        for net in ("198.51.100", "198.51.101"):
            assert [len(re.findall(rf"{net}\.{n}/32", legacy)) for n in (1, 2, 4)] == [25, 0, 25]
            assert len(re.findall(rf"{net}\.3/32", nft)) == 25


@kernel_sets.legacy_only("nftables has no lock that another program could hold")
def test_lock_of_iptables_that_somebody_holds_for_a_second_costs_no_session() -> None:
    with scene() as made, (made.lab.dir / "run-A" / "xtables.lock").open("a") as lock:
        server = made.server("aol")
        bob, carol, alice = made.clients(server, ("bob", "bob"), ("carol", "carol"), ("alice", "alice", 5200))
        fcntl.flock(lock, fcntl.LOCK_EX)
        refused = Transfer(alice, bob, "file")
        made.daemon.wait_log("left alone: send-file")
        time.sleep(1.0)
        fcntl.flock(lock, fcntl.LOCK_UN)
        assert announced(bob, refused.cookie).address(2) == "10.0.0.5"
        works(Transfer(alice, carol, "file"))
        new_session(made, server, carol, 5210)


# --- connection tracking, addresses, links ------------------------------------------------------------------


def test_flushed_connection_tracking_ends_no_session_and_no_pinhole() -> None:
    with scene() as made:
        server = made.server()
        bob, carol, alice, waiting = made.clients(
            server, ("bob", "bob"), ("carol", "carol"), ("alice", "alice", 5210), ("alice", "waiting", 5200)
        )
        bob.call("policy", action="ignore")
        opened(made, waiting, bob, 5200)
        on(made, "conntrack -F")
        works(Transfer(alice, carol, "file"))  # its proposal is the first packet after the flush
        time.sleep(3.0)  # the daemon has looked, and did not find the other one's connection
        assert made.pinhole_of("10.0.0.5:5200")
        speak(waiting)
        assert made.pinhole_of("10.0.0.5:5200")
        assert "control connection lost" not in made.daemon.log_text()
        new_session(made, server, carol, 5220)


def test_flushed_connection_tracking_changes_no_byte_of_edited_connections() -> None:
    with Lab(home_server=True) as lab:
        home.forward(lab)
        daemon = lab.start_alg("A")
        flow = home_flow(lab, server_plan=REDIRECTING, client_plan=PACED)
        for _ in range(6):  # amid the data: of a connection that is closing nothing begins anew
            time.sleep(0.2)
            lab.run("A", "conntrack", "-F")
        server, client = flow.exact()
        assert client["rewritten"] > 20, (server, client)
        assert daemon.stop() == 0


def test_new_address_outside_is_used_by_new_sessions_and_pinholes_of_the_old_one_go() -> None:
    new = "203.0.113.77"
    with scene() as made:
        server = made.server()
        bob, carol, alice = made.clients(server, ("bob", "bob"), ("carol", "carol"), ("alice", "alice", 5200))
        bob.call("policy", action="ignore")
        opened(made, alice, bob, 5200)
        on(made, f"ip address del {OUTSIDE}/24 dev wan; ip address add {new}/24 dev wan;"
                 f"ip route replace default via {CORE}")  # fmt: skip
        (again,) = made.clients(server, ("alice", "again", 5210))
        works(Transfer(again, carol, "file"))
        assert f"{new}:5210" in {pinhole.outside for pinhole in made.pinholes()}
        with suppress(LabError):  # the server does not know it from there, and may have said so
            alice.call("send_snac", family=1, subtype=0x0E, body="")
        eventually(lambda: pinhole(5200) not in made.pinholes())


def test_link_that_goes_down_and_comes_back_ends_no_session() -> None:
    with scene() as made:
        server = made.server()
        bob, carol, alice = made.clients(server, ("bob", "bob"), ("carol", "carol"), ("alice", "alice", 5200))
        for link in ("wan", "lan"):
            on(made, f"ip link set {link} down")
            time.sleep(0.5)
            on(made, f"ip link set {link} up; ip route replace default via {CORE}")
            speak(alice)
            works(Transfer(alice, carol, "file"))
        new_session(made, server, bob, 5210)


# --- the daemon's own resources -----------------------------------------------------------------------------


@contextmanager
def tiny_disk(lab: Lab) -> Iterator[Path]:
    """A file system of four pages in the lab's directory."""
    path = lab.dir / "tiny"
    path.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=16k,mode=700", "tmpfs", path], check=True, timeout=30)
    try:
        yield path
    finally:
        subprocess.run(["umount", "-l", path], check=True, timeout=30)


def test_full_disk_costs_edits_and_no_connection_and_is_said_once() -> None:
    with Lab(home_server=True) as lab, tiny_disk(lab) as disk:
        home.forward(lab)
        made = Scene(lab)
        daemon = made.restart(settings=f"state_dir = '{disk}/flows'\n")
        before = home_flow(lab, server_plan=REDIRECTING, client_plan=PACED)
        eventually(lambda: list((disk / "flows").glob("*.json")))
        with suppress(OSError), (disk / "hog").open("wb", buffering=0) as hog:
            while hog.write(bytes(4096)):
                pass
        daemon.wait_log("No space left on device")
        during = home_flow(lab, server_plan=Plan(frames=50, redirects=30))
        assert during.exact()[1]["left"] == 30
        (disk / "hog").unlink()
        after = home_flow(lab, server_plan=Plan(frames=50, redirects=30))
        assert after.exact()[1]["rewritten"] == 30
        client = before.exact()[1]
        assert client["rewritten"] > 0
        assert client["left"] > 0
        assert daemon.log_text().count("edits that change lengths are not made") == 1
        assert "Traceback" not in daemon.log_text()
        eventually(lambda: not list((disk / "flows").glob("*.new")))
        assert daemon.stop() == 0


def test_daemon_that_is_stopped_for_seconds_goes_on_where_it_was() -> None:
    with Lab(home_server=True) as lab:
        home.forward(lab)
        daemon = lab.start_alg("A")
        flow = home_flow(lab, server_plan=REDIRECTING, client_plan=PACED)
        time.sleep(0.5)
        daemon.process.send_signal(signal.SIGSTOP)
        time.sleep(2.0)
        daemon.process.send_signal(signal.SIGCONT)
        assert flow.exact()[1]["rewritten"] > 20
        assert home_flow(lab).exact()[1]["rewritten"] > 0
        assert daemon.stop() == 0


def test_start_without_file_descriptors_says_so_and_leaves_nothing_behind() -> None:
    with Lab() as lab:
        lab.run("A", *INSTALL)
        before = lab.firewall_rules("A")
        for most in (13, 16, 17, 19, 22):  # each lacks another thing: sets, queue, lock, table, its library
            log = lab.log_file(f"limited-{most}")
            command = f"ulimit -n {most}; exec {sys.executable} -m nfreaim run --lan lan --wan wan"
            assert lab.spawn("A", "sh", "-c", command, log=log).wait(20) == 1
            assert most == 22 or "Too many open files" in log.read_text(), log.read_text()
            assert "Traceback" not in log.read_text(), log.read_text()
        assert lab.firewall_rules("A") == before


def test_the_nat_table_is_changed_or_refused_however_few_files_may_be_opened() -> None:
    """The library fails in unforeseen ways if it is given some descriptors and not all that it needs."""
    with Router() as router:
        words = ("--lan", "lan", "--wan", "wan", "--protocol", "one:5190", "--firewall", "legacy")
        router.rules("install", *words)
        ended = router.on("router", "env", f"PYTHONPATH={REPO}", sys.executable, "-c", SCARCE).stdout.split()
    assert {*ended} == {"0", "3"}
    assert ended == sorted(ended, reverse=True)


def test_daemon_that_gets_no_more_file_descriptors_goes_on_with_what_it_has() -> None:
    with scene() as made:
        server = made.server("aol")
        names = ("bob", "bob"), ("carol", "carol"), ("alice", "alice", 5200), ("amy", "amy", 5201)
        bob, carol, alice, amy = made.clients(server, *names)
        pid = made.daemon.pid
        usual = resource.prlimit(pid, resource.RLIMIT_NOFILE)
        taken = {int(path.name) for path in Path(f"/proc/{pid}/fd").iterdir()}
        few = next(number for number in range(len(taken) + 1) if number not in taken)
        resource.prlimit(pid, resource.RLIMIT_NOFILE, (few, usual[1]))
        refused = Transfer(alice, bob, "file")
        made.daemon.wait_log("left alone: send-file")
        assert announced(bob, refused.cookie).address(2) == "10.0.0.5"
        if kernel_sets.NFT:  # its sockets are there, so it needs no other file for that
            on(made, "nft flush chain ip nfreaim from_lan")
        else:
            on(made, "iptables-legacy -t raw -F PREROUTING")
            made.daemon.wait_log("our rules cannot be looked after or restored")
        resource.prlimit(pid, resource.RLIMIT_NOFILE, usual)
        made.daemon.wait_log("somebody else changed our rules")
        # Not alice: her client gives up waiting for a peer in these seconds, and says so unread.
        works(Transfer(amy, carol, "file"))
        new_session(made, server, carol, 5210)
