"""The demo's rows about IRC: who can offer a file or a chat to whom, and what has to come of it."""

from __future__ import annotations

import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from demo.rows import side_by_side
from tests.lab.irc_client import IrcClient, Outcome
from tests.lab.irc_server import IrcServer
from tests.lab.net import BEHIND, Lab

HOSTS = ("alice", "amy", "bob", "carol")
NAMES = {"file": "file.bin", "quoted": "a long file.bin"}
SIZE = 100_000
SETTINGS = 'protocols = ["oscar", "irc"]\n'
"""What the daemons need in their configuration for these rows."""

Clients = dict[str, IrcClient]


@dataclass(frozen=True)
class Offer:
    """*sender* listens, and tells *receiver* where."""

    sender: str
    receiver: str
    kind: str = "file"  # or "quoted": one with blanks in its name, which has to be quoted; "chat"

    @property
    def title(self) -> str:
        """First column of the table."""
        what = {"file": "file", "quoted": "file with blanks in its name", "chat": "chat"}[self.kind]
        return f"{self.sender} → {self.receiver}, IRC {what}"

    def works(self, routers: tuple[str, ...]) -> bool:
        """Whether it has to work with nfreaim on these routers: that of the sender is what counts."""
        behind = BEHIND.get(self.sender)
        return behind is None or behind in routers or behind == BEHIND.get(self.receiver)

    def objection(self, outcome: Outcome, routers: tuple[str, ...]) -> str:
        """What is wrong with this outcome; empty if nothing."""
        if outcome.ok != self.works(routers):
            return "it must work" if not outcome.ok else "it works, so the network is no NAT"
        return ""


OFFERS = [
    Offer("alice", "bob"),
    Offer("alice", "carol"),
    Offer("carol", "alice"),
    Offer("alice", "amy"),
    Offer("bob", "alice"),
    Offer("alice", "carol", "quoted"),
    Offer("alice", "carol", "chat"),
    Offer("alice", "amy", "chat"),
]


def clients(lab: Lab) -> Clients:
    """The IRC clients of one lab, by host; they are still starting."""
    return {host: IrcClient(lab, host) for host in HOSTS}


def sign_on(online: Clients, server: IrcServer) -> None:
    """Bring all of them online."""
    for client in online.values():
        client.sign_on(server)


def start(online: Clients, pool: ThreadPoolExecutor) -> Callable[[], dict[Offer, Outcome]]:
    """Make every offer, those of one pair one after the other; the outcomes when they are there."""
    return side_by_side(
        OFFERS,
        pair=lambda row: (row.sender, row.receiver),
        make=lambda row: _made(online[row.sender], online[row.receiver], row.kind),
        pool=pool,
    )


def _made(sender: IrcClient, receiver: IrcClient, kind: str) -> Outcome:
    if kind == "chat":
        return sender.chat(receiver)
    return sender.send(receiver, f"{sender.nick}-{receiver.nick}-{NAMES[kind]}", os.urandom(SIZE))
