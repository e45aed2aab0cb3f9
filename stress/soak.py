"""Runs the campaign: connections of every kind, one fault after another, and after each the same questions.

``python -m stress.soak SECONDS [SEED]``. Existing connections must deliver every byte as sent, sessions must
still be answered, new ones must sign on and be called back, and in the end nothing may be left.
"""

from __future__ import annotations

import random
import re
import subprocess
import sys
import time
import traceback
from collections import Counter
from dataclasses import replace
from typing import Any

from stress import faults
from stress.faults import RUNNING, Router
from tests.lab import home
from tests.lab.flows import Flow, home_flow
from tests.lab.net import SECOND_SERVER, WAN, Lab
from tests.lab.scene import Scene, eventually
from tests.lab.standin import Client, Server, Transfer
from tests.lab.stream import Plan

PACED = Plan(frames=60, pause=0.03, largest=300)
OTHER_ADDRESS = "203.0.113.77"


def exact(flow: Flow, flushed: bool) -> tuple[dict[str, Any], dict[str, Any]] | None:
    """What both ends say; AssertionError unless each received every byte as it was sent, to a clean end.

    *flushed*: for connection tracking a FIN begins no connection, with or without nfreaim. If it comes first
    after a flush, or is sent again together with data, it never arrives: None, that connection was cut off.
    """
    server, client = flow.results(150.0)
    if flushed and "TimeoutError" in (server["error"], client["error"]):
        return None
    assert (server["error"], client["error"]) == ("", ""), (server, client)
    assert client["received"] == server["sent"], (server, client)
    assert server["received"] == client["sent"], (server, client)
    return server, client


class Session:
    """Somebody inside who is signed on."""

    def __init__(self, campaign: Campaign, port: int) -> None:
        self.campaign = campaign
        self.client = Client(campaign.lab, "alice", f"alice{port}", first_port=port)
        self.client.wait_ready(60.0)
        self.client.sign_on(campaign.server)

    def answered(self) -> None:
        known = len(self.client.call("received", family=1, subtype=0x0F)["bodies"])
        self.client.call("send_snac", family=1, subtype=0x0E, body="")
        eventually(lambda: len(self.client.call("received", family=1, subtype=0x0F)["bodies"]) > known, 60.0)

    def called_back(self) -> None:
        outcome = Transfer(self.client, self.campaign.bob, "im", patience=20).outcome(90.0)
        # Bob reaches carol's like without help, so it counts that he did at the first attempt.
        assert outcome.ok, outcome
        assert outcome.first_attempt, outcome

    def end(self) -> None:
        self.client.call("sign_off")
        self.client.stop()


class Campaign:
    """One lab, one daemon, one seed."""

    def __init__(self, lab: Lab, router: Router, chance: random.Random) -> None:
        self.lab, self.router, self.chance = lab, router, chance
        self.scene = Scene(lab)
        self.counts: Counter[str] = Counter()
        self.server = Server(lab)
        self.server.wait_ready(60.0)
        self.bob = Client(lab, "bob", "bob")
        self.bob.wait_ready(60.0)
        self.bob.sign_on(self.server)
        self.port = 20000
        self.session = self._session()

    def _session(self) -> Session:
        self.port = 20000 + (self.port + 10) % 2000
        self.counts["sessions signed on"] += 1
        return Session(self, self.port)

    def round(self) -> None:
        fault = self.chance.choices(list(RUNNING), list(RUNNING.values()))[0]
        self.counts[f"fault {fault.__name__}"] += 1
        flows = self._flows(edited=fault is not faults.damage)
        self.router.pause(1.5)
        fault(self.router)
        for name, flow in flows.items():
            ends = exact(flow, fault in faults.FLUSHING)
            if ends is None:
                self.counts["connections cut off by a flush"] += 1
                continue
            server, client = ends
            self.counts[f"{name} connections exact"] += 1
            self.counts["redirects edited"] += client["rewritten"]
            self.counts["redirects left alone"] += client["left"]
            assert name != "edited" or client["rewritten"] or client["left"], (server, client)
        self.session.answered()
        self.counts["sessions answered"] += 1
        self.session.called_back()
        self.counts["transfers of existing sessions"] += 1
        new = self._session()
        new.called_back()
        self.counts["transfers of new sessions"] += 1
        self.session.end()
        self.session = new

    def _flows(self, edited: bool) -> dict[str, Flow]:
        """Running connections; *edited*: with some that may pass nowhere but through the queue."""
        address = f"{SECOND_SERVER}:5190"
        seed = self.chance.randrange(1 << 30)
        serving = replace(PACED, redirects=20, seed=seed)
        halves = Plan(frames=0, redirects=30, write="halves", inner=0.02, seed=seed)
        plain = (
            ("server", replace(PACED, listen=address)),
            ("alice", replace(PACED, connect=address, seed=2)),
        )
        flows = {"unedited": Flow(self.lab, *plain)}
        if edited:
            flows["edited"] = home_flow(self.lab, server_plan=serving, client_plan=PACED)
            held = home_flow(self.lab, client="carol", port=5191, server_plan=halves, client_plan=PACED)
            flows["held"] = held
        return flows

    def change_address(self) -> None:
        """There and back, without connections: those end by nature."""
        self.counts["fault change_address"] += 1
        self.session.end()
        for old, new in ((WAN["A"], OTHER_ADDRESS), (OTHER_ADDRESS, WAN["A"])):
            faults.change_address(self.router, old, new)
            self.session = self._session()
            self.session.called_back()
            self.counts["transfers of new sessions"] += 1
            if new != WAN["A"]:
                self.session.end()

    def nothing_is_left(self, rules: str) -> None:
        """Everybody leaves; once closed connections are forgotten, nothing may tell of them."""
        self.session.end()
        eventually(lambda: not self.scene.pinholes(), 60.0)
        state = self.router.state / "flows"
        # Those that nobody saw end are kept for hours: they must never be read untranslated.
        unseen = self.counts["connections cut off by a flush"]
        eventually(lambda: len(list(state.glob("*.json"))) <= unseen, 300.0)
        eventually(lambda: self.lab.firewall_rules("A").count("add nfreaim_skew") <= unseen, 60.0)
        pids = subprocess.run(
            ["ip", "netns", "pids", self.lab.ns("A")], capture_output=True, text=True, timeout=30
        ).stdout.split()
        assert pids == [str(self.router.daemon.pid)], pids
        assert self.router.daemon.stop(60.0) == 0
        left = faults.normal(self.lab.firewall_rules("A"))
        assert left == rules, f"{rules}\n---\n{left}"
        assert unseen or list(self.router.state.iterdir()) == [], "files"
        self.counts["clean ends"] += 1

    def tracebacks(self) -> list[str]:
        texts = [log.read_text(errors="replace") for log in self.router.logs]
        return [text for text in texts if re.search(r"ERROR .*(failed|unexpectedly)", text)]


def run(seconds: float, seed: int) -> int:
    """The campaign; the number of failures."""
    chance, counts, failures = random.Random(seed), Counter[str](), 0
    until = time.monotonic() + seconds
    print(f"soak: {seconds:g} s, seed {seed}", flush=True)
    while time.monotonic() < until:
        with Lab(home_server=True) as lab:
            state = lab.dir / "state"
            state.mkdir()
            size = ["-t", "tmpfs", "-o", "size=512k,mode=700", "tmpfs"]
            subprocess.run(["mount", *size, state], check=True, timeout=30)
            campaign = None
            try:
                for port in (5190, 5191):
                    home.forward(lab, port=port)
                lab.run("A", "rules/nfreaim-rules", "install", "--lan", "lan", "--wan", "wan", *faults.PORTS)
                rules = faults.normal(lab.firewall_rules("A"))
                campaign = Campaign(lab, Router(lab, state, chance), chance)
                ends = min(until, time.monotonic() + 1200.0)
                while time.monotonic() < ends:
                    campaign.round()
                    if chance.random() < 0.08:
                        campaign.change_address()
                campaign.nothing_is_left(rules)
                for text in campaign.tracebacks():
                    failures += 1
                    print(text, flush=True)
            except Exception:
                failures += 1
                traceback.print_exc()
                if campaign is not None:
                    print(
                        f"counts: {campaign.counts}\n{campaign.router.daemon.log_text()[-6000:]}", flush=True
                    )
            finally:
                if campaign is not None:
                    counts += campaign.counts
                subprocess.run(["umount", "-l", state], check=False, timeout=30)
    for name, number in sorted(counts.items()):
        print(f"{number:7} {name}")
    print(f"{failures:7} failures (seed {seed})", flush=True)
    return failures


if __name__ == "__main__":
    sys.exit(
        1 if run(float(sys.argv[1]), int(sys.argv[2]) if len(sys.argv) > 2 else time.time_ns() % 10**6) else 0
    )
