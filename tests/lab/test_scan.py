"""What somebody outside finds who looks at every port, and what he can do to a pinhole of others."""

from __future__ import annotations

import hashlib
import random
import re

import pytest

from tests.lab.namespace import socket_in
from tests.lab.net import ADDRESS, SECOND_SERVER, WAN
from tests.lab.peer import begin_to_receive, receive_the_rest
from tests.lab.scanner import scan
from tests.lab.scene import SeenPinhole, announced, eventually, opened, scene
from tests.lab.standin import Transfer

OUTSIDE = WAN["A"]
EVERYBODY = SeenPinhole(f"{OUTSIDE}:5200", "10.0.0.5:5200")


def test_scan_of_all_ports_finds_the_one_only_while_it_is_open_and_never_takes_it() -> None:
    with scene(settings="[pinholes]\nclaim_grace = 120\n") as made:
        lab = made.lab
        bob, alice = made.clients(made.server(), ("bob", "bob"), ("alice", "alice", 5200))
        bob.call("policy", action="ignore")
        assert scan(lab, "server", SECOND_SERVER) == set()
        transfer = opened(made, alice, bob, 5200, size=3_000_000, seed=7)
        assert scan(lab, "server", SECOND_SERVER) == {5200}
        assert made.pinholes() == {EVERYBODY}, "a SYN has claimed it"
        assert "claimed" not in made.daemon.log_text()
        with socket_in(lab, "bob") as caller:
            caller.connect((OUTSIDE, 5200))
            cookie = bytes.fromhex(transfer.cookie)
            prompt = begin_to_receive(caller, cookie)
            eventually(lambda: made.pinholes() == {EVERYBODY._replace(peer=ADDRESS["bob"])})
            assert scan(lab, "server", SECOND_SERVER) == set(), "during the transfer"
            received = receive_the_rest(caller, cookie, prompt)
        assert received == hashlib.sha256(random.Random(7).randbytes(3_000_000)).hexdigest()
        with socket_in(lab, "server") as stranger:
            stranger.settimeout(1.0)
            with pytest.raises(TimeoutError):
                stranger.connect((OUTSIDE, 5200))
        with socket_in(lab, "bob") as again, pytest.raises(ConnectionRefusedError):
            again.connect((OUTSIDE, 5200))  # it is let in, and the client listens no more
        alice.call("sign_off", how="signoff")
        eventually(lambda: not made.pinholes())
        assert scan(lab, "bob", ADDRESS["bob"]) == set(), "after the transfer"


def test_the_kernel_closes_at_the_deadline_though_the_daemon_is_dead() -> None:
    with scene(settings="[pinholes]\nlifetime = 4\n") as made:
        bob, alice = made.clients(made.server(), ("bob", "bob"), ("alice", "alice", 5200))
        bob.call("policy", action="ignore")
        opened(made, alice, bob, 5200)
        made.daemon.kill()
        with socket_in(made.lab, "bob") as caller:
            caller.connect((OUTSIDE, 5200))
        eventually(lambda: not made.pinholes())
        with socket_in(made.lab, "bob") as late:
            late.settimeout(1.0)
            with pytest.raises(TimeoutError):
                late.connect((OUTSIDE, 5200))


def test_caps_and_rate_refuse_what_is_too_much_and_the_message_stays_as_it_was() -> None:
    with scene(settings="[pinholes]\ntotal = 2\nrate_per_host = 3\n") as made:
        ports = (5200, 5210, 5220, 5230)
        bob, *clients = made.clients(
            made.server("aol"), ("bob", "bob"), *(("alice", f"alice {port}", port) for port in ports)
        )
        bob.call("policy", action="ignore")
        first = opened(made, clients[0], bob, 5200)
        second = opened(made, clients[1], bob, 5210)
        third = Transfer(clients[2], bob, "file")
        made.daemon.wait_log("2 pinholes in all (total)")
        assert announced(bob, third.cookie).address(2) == "10.0.0.5"
        clients[0].call("cancel", cookie=first.cookie)
        eventually(lambda: made.pinhole_of("10.0.0.5:5200") is None)
        opened(made, clients[3], bob, 5230)
        clients[1].call("cancel", cookie=second.cookie)
        eventually(lambda: made.pinhole_of("10.0.0.5:5210") is None)
        fourth = Transfer(clients[0], bob, "im")
        made.daemon.wait_log("3 pinholes a minute to one host (rate_per_host)")
        assert announced(bob, fourth.cookie).address(2) == "10.0.0.5"
        assert len(re.findall("pinhole opened", made.daemon.log_text())) == 3
