"""A LAN host, amy, that speaks in another one's name, alice's: all ways in which such a session may go on.

What amy wants is a pinhole to alice.
"""

from __future__ import annotations

import contextlib
import os
import sys
import time
from dataclasses import dataclass
from typing import Literal

from tests.attacks import network
from tests.attacks.forged_session import FORGETTING, Session
from tests.attacks.kit import say, verdict
from tests.lab.capture import Capture
from tests.lab.forged import Forger, Sender
from tests.lab.impair import offloads_off
from tests.lab.net import ADDRESS, Lab
from tests.lab.scene import Scene, eventually, scene
from tests.lab.standin import Transfer
from tests.tcp.packets import RST


@dataclass(frozen=True)
class Case:
    """How a session goes on until amy asks.

    between   what happens first: nothing, conntrack is flushed, flushed and the connection picked up by more
              packets of both sides, or time passes until conntrack has forgotten it
    firewall  alice's own drops whatever she did not ask for
    standing  amy asks for an ICQ client's pinhole
    """

    between: Literal["nothing", "flushed", "picked up", "time"]
    firewall: bool = False
    standing: bool = False

    def __str__(self) -> str:
        wall = "firewall, " if self.firewall else ""
        return f"{wall}{self.between}, {'ICQ' if self.standing else 'file'}"


CASES = (
    Case("nothing"),
    Case("nothing", firewall=True),
    Case("nothing", firewall=True, standing=True),
    Case("flushed"),
    Case("flushed", standing=True),
    Case("flushed", firewall=True),
    Case("picked up"),
    Case("picked up", standing=True),
    Case("picked up", firewall=True),
    Case("time"),
    Case("time", standing=True),
    Case("time", firewall=True),
)
_PORTS = {case: network.PORT + number for number, case in enumerate(CASES)}


def _begin(lab: Lab, stack: contextlib.ExitStack, case: Case, options: bytes) -> Session:
    """A session of its own for this case, with a server of its own, signed on."""
    number = CASES.index(case)
    own, address = (ADDRESS["alice"], 34567 + number), f"203.0.113.{101 + number}"
    if case.firewall:
        drop = f"-t raw -A PREROUTING -p tcp --dport {own[1]} -j DROP"
        lab.run("alice", "iptables-legacy", *drop.split())
    server = stack.enter_context(Forger(lab, "bob", (address, 5190)))
    made = Session(stack.enter_context(Sender(lab, "amy")), server, own, options)
    made.sign_on()
    return made


def _play(made: Scene, options: bytes) -> dict[Case, str]:
    """What a host outside hears from alice in the cases that opened something."""
    lab = made.lab
    with contextlib.ExitStack() as stack:
        open_ones = {case: _begin(lab, stack, case, options) for case in CASES if case.between != "time"}
        for case, one in open_ones.items():
            if case.between == "nothing":
                one.ask(_PORTS[case], case.standing)
        time.sleep(0.5)
        lab.run("A", "conntrack", "-F", check=False)
        for case, one in open_ones.items():
            if case.between == "picked up":
                one.pick_up()
        for case, one in open_ones.items():
            if case.between != "nothing":
                one.ask(_PORTS[case], case.standing)
        late = {case: _begin(lab, stack, case, options) for case in CASES if case.between == "time"}
        time.sleep(FORGETTING)
        for case, one in late.items():
            say(f"{case}: {network.conntrack(lab, '--orig-port-src', str(one.own[1])) or 'forgotten'}")
            one.ask(_PORTS[case], case.standing)
        time.sleep(2.0)
        found: dict[Case, str] = {}
        for case, port in _PORTS.items():
            if f"-> {ADDRESS['alice']}:{port} for" in made.daemon.log_text():
                found[case] = repr(network.reach(lab, "server", port, seconds=2))
                say(f"{case}: a host outside hears {found[case]}")
        return found


def attack(options: bytes = b"") -> None:
    """Play all cases with each number of workers; *options* are on each segment of amy's server."""
    found: dict[str, list[str]] = {}
    for workers in sys.argv[2:] or ("1", "2"):
        os.environ["NFREAIM_WORKERS"] = workers
        with scene() as made:
            offloads_off(made.lab)
            network.service(made.lab, "alice", *_PORTS.values())
            alice, bob = made.clients(made.server(), ("alice", "Alice"), ("bob", "Bobby"))
            bob.call("policy", action="ignore")
            Transfer(alice, bob, "file")
            eventually(made.pinholes)  # alice's own
            with Capture(made.lab, "A", "p-alice") as air:
                opened = _play(made, options)
                resets = sum(not p.leaving and bool(p.flags & RST) for p in list(air.packets))
            say(f"{workers} workers: {resets} resets of alice's, {len(opened)} of {len(CASES)} cases opened")
            found[workers] = [f"{case}: {heard}" for case, heard in opened.items()]
    text = "; ".join(f"{workers} workers: {len(cases)} of {len(CASES)}" for workers, cases in found.items())
    opened_ones = [case for cases in found.values() for case in cases]
    some = max(opened_ones, key=lambda case: "service" in case, default="")
    verdict(bool(some), f"pinholes to another host: {text}{', e.g. ' if some else ''}{some}")
