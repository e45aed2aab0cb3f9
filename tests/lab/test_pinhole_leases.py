"""Pinholes beyond the daemon and beyond their number: nothing stays open for long, and nobody takes all."""

from __future__ import annotations

import contextlib
import json
import re
import signal
import socket
import threading
from collections.abc import Iterator

import pytest

from tests.lab import kernel_sets
from tests.lab.namespace import socket_in
from tests.lab.net import ADDRESS, WAN
from tests.lab.scene import Scene, eventually, nfreaim, opened, scene
from tests.lab.slipstream import HOST_ONLINE, SIGN_ON, proposal
from tests.lab.sockets import exactly, listener
from tests.lab.standin import IcqClient, Transfer

OUTSIDE = WAN["A"]
_SECONDS = re.compile(r"^add nfreaim_\w+ \S+ timeout (\d+)\b", re.MULTILINE)


def seconds_left(made: Scene) -> list[int]:
    """What each entry has left in the kernel."""
    names = ("nfreaim_pin", "nfreaim_any") if kernel_sets.NFT else ("nfreaim_pin",)
    text = "".join(kernel_sets.saved(made.lab, "A", name) for name in names)
    return [int(one) for one in _SECONDS.findall(text)]


def reach(made: Scene, port: int) -> bool:
    """Whether a host outside can connect to the router's *port*."""
    with socket_in(made.lab, "bob") as caller:
        caller.settimeout(1.0)
        try:
            caller.connect((OUTSIDE, port))
        except TimeoutError:
            return False
    return True


def test_pinholes_outlive_a_daemon_that_does_not_come_back_by_seconds() -> None:
    """That of an ICQ session, which has no deadline, and that of a proposal, which has ten minutes."""
    with scene() as made:
        server = made.server()
        bob, alice = made.clients(server, ("bob", "bob"), ("alice", "alice", 5200))
        bob.call("policy", action="ignore")
        icq = IcqClient(made.lab, "alice", "100003", "xor")
        icq.wait_ready()
        icq.sign_on(server)
        opened(made, alice, bob, 5200)
        eventually(lambda: len(made.pinholes()) == 2)
        assert "while connected" in nfreaim(made.lab, "A", "status")
        for _ in range(3):
            assert len(seconds_left(made)) == (2 if kernel_sets.NFT else 4)  # ipset knows no "everybody"
            assert max(seconds_left(made)) <= 25
        made.daemon.kill()
        assert reach(made, 5200), "a daemon that is restarted has to find it"
        ends = [one["left"] for one in json.loads(nfreaim(made.lab, "A", "status", "--json"))["pinholes"]]
        assert len(ends) == 2
        assert max(ends) <= 25
        eventually(lambda: not made.pinholes(), 30.0)
        assert not reach(made, 5200)


def test_a_restarted_daemon_finds_its_pinholes_and_renews_them() -> None:
    with scene() as made:
        bob, alice = made.clients(made.server(), ("bob", "bob"), ("alice", "alice", 5200))
        bob.call("policy", action="ignore")
        opened(made, alice, bob, 5200)
        before = made.pinholes()
        made.daemon.kill()
        eventually(lambda: min(seconds_left(made)) < 18, 20.0)
        made.restart()
        assert made.pinholes() == before
        eventually(lambda: min(seconds_left(made)) >= 23)
        assert reach(made, 5200)


def test_a_daemon_that_stood_still_opens_its_pinholes_again_and_blames_nobody() -> None:
    with scene() as made:
        bob, alice, dora = made.clients(
            made.server(), ("bob", "bob"), ("alice", "alice", 5200), ("alice", "dora", 5210)
        )
        bob.call("policy", action="ignore")
        opened(made, alice, bob, 5200)
        before = made.pinholes()
        made.daemon.process.send_signal(signal.SIGSTOP)
        eventually(lambda: not made.pinholes(), 30.0)
        made.daemon.process.send_signal(signal.SIGCONT)
        eventually(lambda: made.pinholes() == before)
        made.daemon.wait_log("1 pinholes were closed for a while")
        opened(made, dora, bob, 5210)
        assert "somebody else" not in made.daemon.log_text()


def test_what_the_rules_script_closes_is_closed_for_good_only_without_a_daemon() -> None:
    with scene() as made:
        bob, alice = made.clients(made.server(), ("bob", "bob"), ("alice", "alice", 5200))
        bob.call("policy", action="ignore")
        opened(made, alice, bob, 5200)
        made.lab.run("A", "rules/nfreaim-rules", "close")
        made.daemon.wait_log("somebody else changed our rules (entries removed): restored, with 1 entries")
        assert reach(made, 5200)
        made.daemon.kill()
        made.lab.run("A", "rules/nfreaim-rules", "close")
        assert not made.pinholes()
        assert not reach(made, 5200)
        made.restart()
        assert not made.pinholes()
        made.lab.run("A", "ipset", "destroy", "nfreaim_off", check=False)
        made.lab.run("A", "rules/nfreaim-rules", "close")


# --- nobody takes all ---------------------------------------------------------------------------------------


@contextlib.contextmanager
def sink(made: Scene) -> Iterator[None]:
    """A server on bob that greets whoever comes, and reads no further."""
    kept: list[socket.socket] = []
    ears = listener(made, "bob", ADDRESS["bob"])
    ears.listen(64)

    def serve() -> None:
        with contextlib.suppress(OSError):
            while True:
                end, _ = ears.accept()
                kept.append(end)
                exactly(end, len(SIGN_ON))
                end.sendall(SIGN_ON + HOST_ONLINE)

    threading.Thread(target=serve, daemon=True).start()
    yield
    ears.shutdown(socket.SHUT_RDWR)
    for end in (ears, *kept):
        end.close()


@pytest.mark.parametrize("workers", [1, 2])
def test_one_machine_with_an_address_for_each_pinhole_gives_way_to_another_host(workers: int) -> None:
    """Each of its addresses has one pinhole, no more than alice asks for: what counts is the machine."""
    with scene(settings=f"workers = {workers}\n[pinholes]\ntotal = 12\n") as made, sink(made):
        carol, alice = made.clients(made.server(), ("carol", "carol"), ("alice", "alice", 5200))
        carol.call("policy", action="ignore")
        ends = []
        for last in range(100, 116):
            address = f"10.0.0.{last}"
            made.lab.run("amy", "ip", "address", "add", f"{address}/24", "dev", "eth0")
            end = socket_in(made.lab, "amy")
            end.settimeout(10)
            end.bind((address, 0))
            end.connect((ADDRESS["bob"], 5190))
            end.sendall(SIGN_ON)
            exactly(end, len(SIGN_ON + HOST_ONLINE))
            end.sendall(proposal(address, 7000 + last, number=2))
            ends.append(end)
        eventually(lambda: len(made.pinholes()) == 12)
        made.daemon.wait_log("12 pinholes in all (total); no host has two more than this one")
        transfer = Transfer(alice, carol, "file")
        eventually(lambda: made.pinhole_of("10.0.0.5:5200"))
        assert len(made.pinholes()) == 12
        made.daemon.wait_log("10.0.0.100:7100: gave way to 10.0.0.5, which has fewer")
        assert '"evicted_pinholes": 1' in nfreaim(made.lab, "A", "status", "--json")
        alice.call("cancel", cookie=transfer.cookie)
        eventually(lambda: not made.pinhole_of("10.0.0.5:5200"))
        for end in ends:
            end.close()
