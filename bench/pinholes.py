"""Scenarios (d) and (e): what open pinholes cost: the next proposal, a peer's first packet, all others.

In each round nfreaim with none, 1, 100 and 1,000 pinholes, spread over a hundred inside hosts (addresses of
amy), ten or fewer each. Plain NAT and a static forward stand on a network of their own, and are measured
right before what is compared with them, and so does a daemon whose edits scapy confirms.

And what each firewall takes for a pinhole beside 1,000 rules of others: openings.py on a router.
"""

from __future__ import annotations

import json
import sys

from bench import contenders, gauge
from bench.contenders import CPU, PEER_PORT, PORT, end, start
from bench.paths import SINK_PORT, Table, hold, load, stand
from tests.lab.net import ADDRESS, SERVER, WAN, Lab
from tests.lab.scene import INSTALL

FIRST_HOST, HOSTS = "10.0.0.100", 100
BASE = 20000
OFFERS = 100
CONNECTS = 1000
BY_SCAPY = "0 open, confirmed by scapy"
KERNEL = {step: f"k: {step} one pinhole beside 1000 rules" for step in ("open", "narrow", "close", "renew")}
FIREWALLS = ("legacy", "nft")
OFFER, FIRST, OTHER = "d: proposal to the server", "e: first packet of a peer", "e: other new connections"


def add_hosts(lab: Lab) -> None:
    """Give amy a hundred addresses."""
    stem, number = FIRST_HOST.rsplit(".", 1)
    for host in range(HOSTS):
        lab.run("amy", "ip", "address", "add", f"{stem}.{int(number) + host}/24", "dev", "eth0")


def _offer(lab: Lab, edited: int = OFFERS) -> dict[str, float]:
    """Offer files. If not *edited* proposals arrive with other bytes, another thing would be measured."""
    figures = load(lab, "alice", "offer", SERVER, PORT, ADDRESS["alice"], OFFERS)
    if figures["edited"] != edited:
        raise RuntimeError(f"{figures['edited']} of {OFFERS} proposals were edited, not {edited}")
    return {"value": figures["p50"] * 1e6, "p90": figures["p90"] * 1e6}


def _connect(lab: Lab, node: str, address: str, port: int) -> dict[str, float]:
    return {"value": load(lab, node, "connect", address, port, CONNECTS)["p50"] * 1e6}


def measure(rounds: int) -> Table:
    """Figures in microseconds: by scenario and by what was open ("plain NAT", "0 open", ...)."""
    table: Table = {OFFER: {}, FIRST: {}, OTHER: {}}

    def note(scenario: str, case: str, figures: dict[str, float]) -> None:
        table[scenario].setdefault(case, []).append(figures)
        print(f"{scenario:28} {case:24} {figures['value']:10.0f} µs", flush=True)

    with (
        stand(contenders.static_forward) as (plain, _),
        stand(contenders.plain) as (lab, _),
        stand(contenders.confirmed_by_scapy) as (dissecting, dissector),
    ):
        gauge.pin(dissector, CPU)
        add_hosts(lab)
        # Behind the first pinhole of the first of them somebody listens.
        listener = start(lab, "amy", *contenders.server_command(FIRST_HOST, BASE))
        for _ in range(rounds):
            holders = []
            with contenders.nfreaim(lab) as process:
                gauge.pin(process, CPU)
                note(OFFER, "plain NAT", _offer(plain, edited=0))
                note(OFFER, BY_SCAPY, _offer(dissecting))
                note(OFFER, "0 open", _offer(lab))
                try:
                    for case, hosts, each, base in STEPS:
                        holders.append(hold(lab, "amy", hosts, each, base))
                        note(OFFER, case, _offer(lab))
                        if case == STEPS[0][0]:
                            note(FIRST, "static forward", _connect(plain, "bob", WAN["A"], PEER_PORT))
                        note(FIRST, case, _connect(lab, "bob", WAN["A"], BASE))
                    note(OTHER, "plain NAT", _connect(plain, "alice", SERVER, SINK_PORT))
                    note(OTHER, "1000 open", _connect(lab, "alice", SERVER, SINK_PORT))
                finally:
                    for holder in holders:
                        end(holder)
        end(listener)
    return table


def _foreign_rules(lab: Lab, firewall: str) -> None:
    """A thousand rules of another program, in the tables that the firewall changes."""
    hosts = [(f"198.51.{number >> 8}.{number & 255}", number + 1) for number in range(1000)]
    if firewall == "nft":
        chain = "table inet others { chain forward { type filter hook forward priority 0;\n"
        rules = "".join(f"ip saddr {host} tcp dport {port} counter accept\n" for host, port in hosts)
        lab.run("A", "nft", "-f", "-", stdin=chain + rules + "}; }\n")
    else:
        rules = "".join(f"-A PREROUTING -s {host} -p tcp --dport {port} -j ACCEPT\n" for host, port in hosts)
        lab.run("A", "iptables-legacy-restore", "--noflush", stdin=f"*nat\n{rules}COMMIT\n")


def openings(rounds: int) -> Table:
    """Microseconds for each step of a pinhole's life, by firewall."""
    table: Table = {name: {firewall: [] for firewall in FIREWALLS} for name in KERNEL.values()}
    for _ in range(rounds):
        for firewall in FIREWALLS:
            with Lab() as lab:
                lab.run("A", *INSTALL, "--firewall", firewall)
                _foreign_rules(lab, firewall)
                environment = ("env", f"NFREAIM_FIREWALL={firewall}")
                took = json.loads(lab.run("A", *environment, sys.executable, "-m", "bench.openings").stdout)
                for step, name in KERNEL.items():
                    table[name][firewall].append({"value": took[step]})
                    print(f"{name:38} {firewall:14} {took[step]:10.0f} µs", flush=True)
    return table


# What is opened in addition: case, hosts, pinholes of each, first port.
STEPS = (
    ("1 open", "10.0.0.100-10.0.0.100", 1, BASE),
    ("100 open", "10.0.0.101-10.0.0.199", 1, BASE + 1),
    ("1000 open", "10.0.0.110-10.0.0.199", 10, BASE + 200),
)
