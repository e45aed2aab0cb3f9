"""From a pinhole's first to its last moment, as the router's kernel and the log show it."""

from __future__ import annotations

import fcntl
import hashlib
import json
import random
import re

import pytest

from tests.lab import kernel_sets, peer
from tests.lab.firewall import RULES
from tests.lab.namespace import socket_in
from tests.lab.scene import INSTALL, Scene, SeenPinhole, announced, eventually, nfreaim, opened, scene
from tests.lab.standin import Client, Transfer
from tests.oscar import rendezvous as rdv
from tests.oscar.peer_headers import ACK, oft_header
from tests.oscar.profiles import PROFILES, Offer

OUTSIDE = "203.0.113.1"


def closing(made: Scene, port: int) -> str:
    """Why the pinhole of that port was closed, according to the log, once it has gone from the kernel."""
    eventually(lambda: made.pinhole_of(f"10.0.0.5:{port}") is None)
    line = rf"pinhole closed: {OUTSIDE}:{port} -> 10\.0\.0\.5:{port}: (.*)"
    found = eventually(lambda: re.findall(line, made.daemon.log_text()))
    assert len(found) == 1, found
    return str(found[0])


def forget(made: Scene, port: int) -> None:
    """Let conntrack lose the control connection of the pinhole at *port*; no packet tells anybody."""
    told = json.loads(nfreaim(made.lab, "A", "status", "--json"))["pinholes"]
    (control,) = (one["flow"]["client"] for one in told if one["inside"] == f"10.0.0.5:{port}")
    made.lab.run("A", *f"conntrack -D -p tcp -s 10.0.0.5 --sport {control.split(':')[1]}".split())


def test_every_end_of_an_agreement_closes_its_pinhole_and_no_other() -> None:
    endings = {
        5200: ("cancel", "cancelled"),
        5210: ("decline", "declined"),
        5220: ("signoff", "signed off"),
        5230: ("close", "control connection closed"),
        5240: ("reset", "control connection lost"),
        5250: ("kill", "control connection closed"),
        5260: ("forget", "control connection lost"),
    }
    with scene() as made:
        bob, *clients = made.clients(
            made.server(), ("bob", "Bobby Tables"), *(("alice", f"Alice {port}", port) for port in endings)
        )
        bob.call("policy", action="ignore")
        open_ones = {
            port: opened(made, client, bob, port) for client, port in zip(clients, endings, strict=True)
        }
        everything = {SeenPinhole(f"{OUTSIDE}:{port}", f"10.0.0.5:{port}") for port in endings}
        assert made.pinholes() == everything
        shown = nfreaim(made.lab, "A", "status")
        assert "pinholes (7)" in shown
        columns = r" +send-file +oscar +awaits anybody +\d+ s +\d{3} s "
        assert re.search(r"^ +203\.0\.113\.1:5200 +10\.0\.0\.5:5200" + columns, shown, re.MULTILINE)
        assert re.search(r"^ +5190 +0 +\d+ +0 +0$", shown, re.MULTILINE)
        for client, (port, (ending, reason)) in zip(clients, endings.items(), strict=True):
            if ending == "cancel":
                client.call("cancel", cookie=open_ones[port].cookie)
            elif ending == "decline":
                bob.call("decline", to=client.name, cookie=open_ones[port].cookie)
            elif ending == "kill":
                client.process.kill()
            elif ending == "forget":
                forget(made, port)
            else:
                client.call("sign_off", how=ending)
            assert closing(made, port) == reason, ending
            everything.remove(SeenPinhole(f"{OUTSIDE}:{port}", f"10.0.0.5:{port}"))
            assert made.pinholes() == everything


def test_proposal_to_somebody_who_is_not_there_leaves_no_pinhole() -> None:
    with scene() as made:
        alice, carol, dora = made.clients(
            made.server(), ("alice", "alice", 5200), ("carol", "carol"), ("bob", "dora")
        )
        dora.call("sign_off")
        Transfer(alice, dora, "im")
        assert closing(made, 5200) == "the server could not deliver the proposal"
        assert Transfer(alice, carol, "im").outcome().first_attempt


def test_pinholes_end_by_deadline_agreement_and_claim_and_transfers_outlive_them() -> None:
    settings = (
        "[pinholes]\nlifetime = 6\nclaim_grace = 1\naccept_grace = 1\n[services]\ndeny = ['direct-im']\n"
    )
    with scene(settings=settings) as made:
        bob, late, agreed, claimed = made.clients(
            made.server(),
            ("bob", "Bobby Tables"),
            *(("alice", f"Alice {port}", port) for port in (5200, 5210, 5220)),
        )
        bob.call("policy", action="ignore")
        opened(made, late, bob, 5200)
        waiting = opened(made, agreed, bob, 5210)
        slow = opened(made, claimed, bob, 5220, size=3_000_000, seed=5)
        accept = PROFILES["libpurple"].accept(agreed.name, bytes.fromhex(waiting.cookie), rdv.SEND_FILE)
        bob.call("send_snac", family=4, subtype=6, body=accept.hex())
        with socket_in(made.lab, "bob") as caller:
            caller.connect((OUTSIDE, 5220))
            prompt = peer.begin_to_receive(caller, bytes.fromhex(slow.cookie))
            assert closing(made, 5220) == "done"
            received = peer.receive_the_rest(caller, bytes.fromhex(slow.cookie), prompt)
        assert received == hashlib.sha256(random.Random(5).randbytes(3_000_000)).hexdigest()
        with socket_in(made.lab, "bob") as caller:
            caller.settimeout(1.0)
            with pytest.raises(TimeoutError):
                caller.connect((OUTSIDE, 5220))
        assert closing(made, 5210) == "deadline"
        assert closing(made, 5200) == "deadline"
        refused = Transfer(late, bob, "im", text="utterly confidential", patience=1)
        assert not refused.outcome().ok
        log = made.daemon.log_text()
        assert "left alone: direct-im" in log
        assert "service direct-im is switched off" in log
        events = re.findall(r"pinhole (\w+): 203\.0\.113\.1:(\d+) ->", log)
        assert sorted(events) == [
            *(("claimed", "5220"),),
            *(("closed", port) for port in ("5200", "5210", "5220")),
            *(("opened", port) for port in ("5200", "5210", "5220")),
        ]
        assert "5220 by 203.0.113.20" in log
        for secret in ("Bobby", "Tables", "Alice", "confidential", "f.bin", waiting.cookie):
            assert secret not in log
        assert not announced_privately(bob, slow.cookie)


def test_end_of_an_earlier_peers_connection_takes_the_next_pinhole_of_its_port_from_nobody() -> None:
    with scene(settings="[pinholes]\nclaim_grace = 1\n") as made:
        alice, bob, carol = made.clients(made.server(), *((name, name) for name in ("alice", "bob", "carol")))
        for client in (bob, carol):
            client.call("policy", action="ignore")

        def offer(cookie: bytes, to: str) -> None:
            proposed = Offer(cookie, rdv.SEND_FILE, "10.0.0.5", 5500)
            body = PROFILES["libpurple"].proposal(to, proposed)
            alice.call("send_snac", family=4, subtype=6, body=body.hex())
            eventually(lambda: made.pinhole_of("10.0.0.5:5500"))

        def claims(peer: str) -> int:
            return made.daemon.log_text().count(
                f"pinhole claimed: 203.0.113.1:5500 -> 10.0.0.5:5500 by {peer}\n"
            )

        with socket_in(made.lab, "alice") as listener, socket_in(made.lab, "bob") as first:
            listener.bind(("0.0.0.0", 5500))
            listener.listen(4)
            offer(b"1111111\0", "bob")
            first.connect(("203.0.113.1", 5500))
            accepted, _ = listener.accept()
            first.sendall(oft_header(ACK, b"1111111\0", 1, 1, "x"))
            made.daemon.wait_log("pinhole closed: 203.0.113.1:5500")
            offer(b"2222222\0", "carol")
            for end in (first, accepted):
                end.close()
            with socket_in(made.lab, "carol") as second:
                second.connect(("203.0.113.1", 5500))
                second.sendall(oft_header(ACK, b"2222222\0", 1, 1, "x"))
                eventually(lambda: claims("203.0.113.2"))
            assert claims("203.0.113.20") == 1
            eventually(lambda: {pinhole.peer for pinhole in made.pinholes()} <= {"203.0.113.2"})


def announced_privately(client: Client, cookie: str) -> bool:
    return any(
        (address or "").startswith("10.") for address in map(announced(client, cookie).address, (2, 3, 4))
    )


def test_pinhole_for_an_answer_admits_only_the_peer_that_asked() -> None:
    """Carol proposes, alice cannot reach her and counter-proposes: alice's router was told who she is."""
    with scene() as made:
        alice, carol = made.clients(made.server(), ("alice", "alice", 5200), ("carol", "carol"))
        outcome = Transfer(carol, alice, "file").outcome()
        assert outcome.ok, outcome
        assert outcome.attempt == "redirect"
        assert made.pinholes() == {SeenPinhole(f"{OUTSIDE}:5200", "10.0.0.5:5200", "203.0.113.2")}
        with socket_in(made.lab, "server") as stranger:
            stranger.settimeout(1.0)
            with pytest.raises(TimeoutError):
                stranger.connect((OUTSIDE, 5200))


@kernel_sets.legacy_only("nftables has no lock that another program could hold")
def test_firewall_that_is_locked_costs_only_the_pinhole_that_needs_a_new_rule() -> None:
    with scene() as made, (made.lab.dir / "run-A" / "xtables.lock").open("a") as lock:
        bob, one, two, amy = made.clients(
            made.server("aol"),
            ("bob", "bob"),
            ("alice", "one", 5200),
            ("alice", "two", 5210),
            ("amy", "amy", 5200),
        )
        bob.call("policy", action="ignore")
        open_one = opened(made, one, bob, 5200)
        fcntl.flock(lock, fcntl.LOCK_EX)
        untouched = Transfer(amy, bob, "file")  # her port is taken outside: hers would lead to another one
        made.daemon.wait_log("left alone: send-file")
        opened(made, two, bob, 5210)
        one.call("cancel", cookie=open_one.cookie)
        assert closing(made, 5200) == "cancelled"
        fcntl.flock(lock, fcntl.LOCK_UN)
        assert "the firewall refused: another program holds /run/xtables.lock" in made.daemon.log_text()
        assert announced(bob, untouched.cookie).address(2) == "10.0.0.6"


@kernel_sets.legacy_only("a table of nftables is back before anybody asks for a pinhole")
def test_operators_firewall_that_is_loaded_again_without_our_rules_is_survived() -> None:
    with scene() as made:
        bob, carol, one, two = made.clients(
            made.server("aol"),
            ("bob", "bob"),
            ("carol", "carol"),
            ("alice", "one", 5200),
            ("alice", "two", 5210),
        )
        bob.call("policy", action="ignore")
        open_one = opened(made, one, bob, 5200)
        made.lab.run("A", "iptables-legacy-restore", stdin=RULES["legacy"])
        made.lab.run("A", "iptables-legacy", "-t", "mangle", "-F", "NFREAIM_ENTRY")  # it names the set, too
        made.lab.run("A", "ipset", "destroy", "nfreaim_pin")
        untouched = Transfer(two, bob, "file")
        made.daemon.wait_log("chain NFREAIM is missing")
        assert announced(bob, untouched.cookie).address(2) == "10.0.0.5"
        one.call("cancel", cookie=open_one.cookie)
        made.daemon.wait_log("5200: cancelled; still in the kernel")
        made.lab.run("A", *INSTALL)
        again = eventually(lambda: Transfer(one, carol, "file").outcome())
        assert again.first_attempt, again
        assert made.pinhole_of("10.0.0.5:5200")
