"""Starting, stopping and crashing beside live traffic: what stays in the kernel, what goes on without us."""

from __future__ import annotations

import re
import signal
import sys

import pytest

from nfreaim import __version__
from tests.lab import kernel_sets
from tests.lab.namespace import socket_in
from tests.lab.net import Lab
from tests.lab.scene import HOG, INSTALL, Scene, SeenPinhole, eventually, scene, start
from tests.lab.standin import Client, Transfer

OUTSIDE = "203.0.113.1"


def pinhole(port: int) -> SeenPinhole:
    return SeenPinhole(f"{OUTSIDE}:{port}", f"10.0.0.5:{port}")


def offer(made: Scene, client: Client, other: Client, port: int) -> Transfer:
    """A proposal that nobody answers; returns with its pinhole open."""
    transfer = Transfer(client, other, "file")
    eventually(lambda: pinhole(port) in made.pinholes())
    return transfer


def greeting(made: Scene, port: int) -> bytes:
    """What bob reads first on that port of the router."""
    with socket_in(made.lab, "bob") as caller:
        caller.connect((OUTSIDE, port))
        return caller.recv(4)


def leftovers(made: Scene, router: str) -> set[str]:
    """Files in the router's /run, but for the lock that iptables itself keeps there."""
    return set(made.lab.run(router, "ls", "/run").stdout.split()) - {"xtables.lock"}


def lines_of(lab: Lab, port: int) -> list[str]:
    """What makes the entries of the pinhole at this port again."""
    if kernel_sets.NFT:
        text = lab.run("A", *"nft list map ip nfreaim nfreaim_any".split()).stdout
        found = re.findall(rf"[0-9.]+ \. {port} [^,{{}}]*", text)
        elements = [re.sub(r" expires \S+", "", each).strip() for each in found]
        return [f"add element ip nfreaim nfreaim_any {{ {element} }}" for element in elements]
    saved = lab.run("A", "ipset", "save", "nfreaim_pin").stdout.splitlines()
    return [line for line in saved if line.startswith("add ") and str(port) in line]


def test_what_a_crash_leaves_is_taken_over_while_it_is_needed_and_removed_when_not() -> None:
    with scene() as made:
        lab = made.lab
        foreign = "-t nat -I PREROUTING -i wan -p tcp --dport 7777 -j DNAT --to-destination 10.0.0.6:7777"
        lab.run("A", "iptables-legacy", *foreign.split())
        server = made.server()
        bob, alive, ended = made.clients(
            server, ("bob", "bob"), ("alice", "alive", 5200), ("alice", "ended", 5210)
        )
        bob.call("policy", action="ignore")
        offer(made, alive, bob, 5200)
        offer(made, ended, bob, 5210)
        made.daemon.kill()
        # Two more that a daemon could have left: one past its time, one of a connection that has ended.
        survivor = lines_of(lab, 5200)
        assert survivor
        past = [re.sub(r"until=\S+", "until=1.000", line.replace("5200", "5220")) for line in survivor]
        orphan = [
            re.sub(r"flow=10\.0\.0\.5:\d+", "flow=10.0.0.5:9", line.replace("5200", "5230"))
            for line in survivor
        ]
        restore = ("nft", "-f", "-") if kernel_sets.NFT else ("ipset", "restore")
        lab.run("A", *restore, stdin="\n".join([*past, *orphan, ""]))
        assert made.pinholes() == {pinhole(port) for port in (5200, 5210, 5220, 5230)}

        # Nobody reads, and everything passes: old control connections and new ones, and peer links.
        alive.call("send_snac", family=1, subtype=0x0E, body="")
        carol, dora = made.clients(server, ("carol", "carol"), ("alice", "dora", 5240))
        assert Transfer(bob, dora, "file").outcome().first_attempt
        ended.process.kill()
        eventually(lambda: len(alive.call("received", family=1, subtype=0x0F)["bodies"]) >= 1)

        daemon = made.restart()
        assert made.pinholes() == {pinhole(5200)}
        log = daemon.log_text()
        assert "5210: control connection lost while no daemon ran" in log
        assert "5220: deadline passed while no daemon ran" in log
        assert "5230: control connection lost while no daemon ran" in log
        assert greeting(made, 5200) == b"OFT2"
        (new,) = made.clients(server, ("alice", "new", 5250))
        assert Transfer(new, carol, "file").outcome().first_attempt
        rule = lab.run("A", "iptables-legacy-save", "-t", "nat").stdout
        assert rule.count(foreign.removeprefix("-t nat -I ").replace("-p tcp", "-p tcp -m tcp")) == 1
        # What was taken over ends as any other: this control connection is not read any more, but looked up.
        alive.call("sign_off", how="close")
        eventually(lambda: pinhole(5200) not in made.pinholes())
        daemon.wait_log("5200: control connection lost")


@pytest.mark.parametrize("installed", [False, True], ids=["rules-by-run", "rules-by-script"])
def test_stop_leaves_the_router_as_found_and_the_next_start_works(installed: bool) -> None:
    with Lab("nft", "legacy") as lab:
        made = Scene(lab)
        if installed:
            lab.run("A", *INSTALL)
        before = {router: lab.firewall_rules(router) for router in ("A", "B")}
        files = {router: leftovers(made, router) for router in ("A", "B")}
        for router in ("A", "B"):
            made.restart(router)
        server = made.server()
        alice, bob, carol = made.clients(server, ("alice", "alice", 5200), ("bob", "bob"), ("carol", "carol"))
        if not kernel_sets.NFT:  # the rule for her is prepared
            eventually(lambda: "nfreaim to=192.168.7.5:0" in lab.firewall_rules("B"))
        running = lab.firewall_rules("B")
        bob.call("policy", action="ignore")
        offer(made, alice, bob, 5200)
        made.daemon.process.send_signal(signal.SIGUSR1)
        made.daemon.wait_log("counters: ")
        assert made.daemon.stop() == 0
        assert "5200: daemon stopped" in made.daemon.log_text()
        assert lab.firewall_rules("A") == before["A"]
        # Where the rules stay, another daemon is to come: it finds the sessions that go on meanwhile.
        kept = {"nfreaim"} if installed else set()
        assert leftovers(made, "A") == files["A"] | kept
        assert lab.firewall_rules("B") == running

        made.restart("A")
        (again,) = made.clients(server, ("alice", "again", 5210))
        both = [Transfer(again, carol, "file"), Transfer(carol, again, "im")]
        assert all(transfer.outcome().first_attempt for transfer in both)
        for router, number in (("A", signal.SIGINT), ("B", signal.SIGTERM)):
            made.daemons[router].process.send_signal(number)
            assert made.daemons[router].process.wait(10) == 0
            assert lab.firewall_rules(router) == before[router]
            kept = {"nfreaim"} if installed and router == "A" else set()
            assert leftovers(made, router) == files[router] | kept


def test_second_daemon_on_the_same_queue_gives_up_and_the_first_goes_on() -> None:
    with scene() as made:
        server = made.server()
        alice, bob, carol = made.clients(server, ("alice", "alice", 5200), ("bob", "bob"), ("carol", "carol"))
        bob.call("policy", action="ignore")
        offer(made, alice, bob, 5200)
        before = made.lab.firewall_rules("A")
        second = start(made.lab, "A", wait=False)
        assert second.process.wait(20) == 1
        said = second.log_text()
        assert "queue 5190 cannot be bound" in said
        assert f"nfreaim serves it (process {made.daemon.pid}); stop that one first" in said
        assert "Traceback" not in said
        assert made.lab.firewall_rules("A") == before
        assert Transfer(alice, carol, "im").outcome().first_attempt


def test_start_that_fails_leaves_nothing_behind() -> None:
    with Lab() as lab:
        before = lab.firewall_rules("A")
        hog = lab.spawn("A", sys.executable, "-c", HOG, "5190", pipes=True)
        assert hog.stdout is not None
        assert hog.stdout.readline() == b"bound\n"
        daemon = start(lab, "A", wait=False)
        assert daemon.process.wait(20) == 1
        assert "queue 5190 cannot be bound" in daemon.log_text()
        assert lab.firewall_rules("A") == before
        hog.kill()
        hog.wait(10)
        bad = start(lab, "A", "colour = 'red'\n", wait=False)
        assert bad.process.wait(20) == 2
        assert "unknown key colour" in bad.log_text()
        assert lab.firewall_rules("A") == before


def test_half_of_the_rules_is_completed_and_not_removed_at_the_end() -> None:
    with Lab() as lab:
        lab.run("A", *INSTALL)
        complete = lab.firewall_rules("A")
        lab.run("A", *"iptables-legacy -t raw -F PREROUTING".split())
        daemon = start(lab, "A")
        assert lab.firewall_rules("A") == complete
        assert daemon.stop() == 0
        assert lab.firewall_rules("A") == complete


def test_commands_without_rules_say_in_one_line_what_is_missing() -> None:
    with Lab() as lab:
        program = (sys.executable, "-m", "nfreaim")
        for words, status, said in (
            (("run",), 2, "the rules are not installed and the interfaces are not known"),
            (("run", "--lan", "lan"), 2, "the rules are not installed and the interfaces are not known"),
            (("status",), 3, "are the rules installed?"),
        ):
            result = lab.run("A", *program, *words, check=False)
            assert result.returncode == status, words
            assert result.stdout == ""
            assert result.stderr.count("\n") == 1, result.stderr
            assert said in result.stderr
        lab.run("A", *INSTALL)
        result = lab.run("A", *program, "status", check=False)
        assert result.returncode == 3
        assert result.stderr.startswith("nfreaim: no daemon answers at /run/nfreaim/status; start it: ")
        assert result.stdout.startswith(f"nfreaim {__version__}, no daemon\n\npinholes (0)\n  none\n")


@pytest.mark.parametrize(
    ("settings", "told"),
    [(("--queue", "77"), "queue 5190, not 77"), (("--port", "443"), "ports 5190, not 443")],
)
def test_settings_that_the_installed_rules_do_not_serve_are_refused(
    settings: tuple[str, str], told: str
) -> None:
    with Lab() as lab:
        lab.run("A", *INSTALL)
        before = lab.firewall_rules("A")
        daemon = lab.start_alg("A", settings, wait=False)
        assert daemon.process.wait(10) == 1
        assert f"the installed rules are for {told}" in daemon.log_text()
        assert "Traceback" not in daemon.log_text()
        assert lab.firewall_rules("A") == before
