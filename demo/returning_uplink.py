"""The demo's row about an uplink that comes back under another name, as a PPP link does, in its own network.

nfreaim runs with ``--wan ppp+`` before it goes, and is not touched afterwards.
"""

from __future__ import annotations

from demo.rows import Cell
from tests.lab.net import CORE, Lab
from tests.lab.standin import Client, Server, Transfer

TITLE = "WAN comes back as ppp1: alice → bob, file"
_FIREWALL = (
    "-I FORWARD -o ppp+ -j ACCEPT",
    "-I FORWARD -i ppp+ -m conntrack --ctstate ESTABLISHED -j ACCEPT",
    "-t nat -A POSTROUTING -o ppp+ -j MASQUERADE",
)


def rename(lab: Lab, old: str, new: str) -> None:
    """Router A's interface *old* goes, and comes back as *new* with the same address and default route."""
    for words in (f"set {old} down", f"set {old} name {new}", f"set {new} up"):
        lab.run("A", "ip", "link", *words.split())
    lab.run("A", "ip", "route", "replace", "default", "via", CORE, "dev", new)


def comes_back(routers: tuple[str, ...]) -> Cell:
    """What becomes of a file that alice offers bob afterwards, with nfreaim on these routers."""
    with Lab() as lab:
        for rule in _FIREWALL:
            lab.run("A", "iptables-legacy", *rule.split())
        rename(lab, "wan", "ppp0")
        daemons = [lab.start_alg(router, ("--wan", "ppp+")) for router in routers]
        rename(lab, "ppp0", "ppp1")
        server, alice, bob = Server(lab), Client(lab, "alice", "alice up"), Client(lab, "bob", "bob up")
        for end in (server, alice, bob):
            end.wait_ready()
        alice.sign_on(server)
        bob.sign_on(server)
        outcome = Transfer(alice, bob, "file").outcome()
        stopped = all(daemon.stop() == 0 for daemon in daemons)
    text = f"{'ok' if outcome.ok else 'fails'} {outcome.seconds:.1f} s"
    if outcome.ok and not outcome.first_attempt:
        text += " (fallback ¹)"
    good = stopped and (outcome.first_attempt if "A" in routers else outcome.ok)
    reason = f"expected: the first attempt works. {outcome.reason}"
    return Cell(outcome.ok, text, outcome.first_attempt, reason=reason, good=good)
