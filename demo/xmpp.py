"""The demo's rows about Jabber: who can send a file to whom directly, and what has to come of it.

On plain NAT every file arrives, because these clients fall back to the way by the server; that takes 5 s of
waiting, and a round trip for each 4 kB.
"""

from __future__ import annotations

import os
from dataclasses import dataclass

from demo.attempts import Attempt, Result
from tests.lab import home
from tests.lab.net import ADDRESS, BEHIND, SERVER, WAN, Lab
from tests.lab.xmpp_client import Kind, Outcome, XmppClient
from tests.lab.xmpp_server import PORT, XmppServer

SIZE = 50_000
HOSTS = ("alice", "amy", "bob", "carol")


@dataclass(frozen=True)
class Offer:
    """*sender* offers *receiver* a file, by a server outside or at home (on hsrv)."""

    sender: str
    receiver: str
    kind: Kind = "query"
    at_home: bool = False

    @property
    def title(self) -> str:
        """First column of the table."""
        place = "Jabber server at home: " if self.at_home else ""
        what = {"query": "file", "jingle": "file by Jingle"}[self.kind]
        return f"{place}{self.sender} → {self.receiver}, {'' if place else 'Jabber '}{what}"

    def direct(self, routers: tuple[str, ...]) -> bool:
        """Whether it has to be direct with nfreaim on these routers."""
        ends = (self.sender, self.receiver)
        if BEHIND.get(self.sender) == BEHIND.get(self.receiver):
            return True
        # By Jingle both say where they listen.
        return any(
            BEHIND.get(end, end) in (*routers, end) for end in ends[: 2 if self.kind == "jingle" else 1]
        )

    def objection(self, outcome: Outcome, routers: tuple[str, ...]) -> str:
        """What is wrong with this outcome; empty if nothing."""
        if not outcome.ok:
            return "the file arrives"
        if outcome.direct != self.direct(routers):
            return "it goes in band" if outcome.direct else "it goes directly"
        near = BEHIND.get(self.sender) == BEHIND.get(self.receiver)
        if near and outcome.peer.rpartition(":")[0] != ADDRESS[self.receiver]:
            return "it stays on their own LAN"
        return ""


OFFERS = [
    Offer("alice", "bob"),
    Offer("alice", "carol"),
    Offer("carol", "alice"),
    Offer("alice", "amy"),
    Offer("bob", "alice"),
    Offer("alice", "carol", "jingle"),
    Offer("alice", "bob", at_home=True),
    Offer("alice", "carol", at_home=True),
    Offer("carol", "alice", at_home=True),
    Offer("alice", "amy", at_home=True),
]


class Jabber:
    """See demo.attempts.Messenger."""

    protocol = "xmpp"
    settings = ""
    titles = tuple(offer.title for offer in OFFERS)
    footnotes = ("Jabber: (server) marks a file that went in band, by the server.",)

    def prepare(self, lab: Lab) -> None:
        """The port of the server at home is forwarded."""
        home.forward(lab, port=PORT)

    def online(self, lab: Lab) -> list[Attempt]:
        """Both servers, and a client of each on every host."""
        servers = XmppServer(lab), XmppServer(lab, "hsrv", home.HOME)
        clients: dict[tuple[str, bool], XmppClient] = {}
        for server, at_home in zip(servers, (False, True), strict=True):
            server.wait_ready()
            for host in HOSTS:
                near = home.HOME if BEHIND.get(host) == "A" else WAN["A"]
                clients[host, at_home] = client = XmppClient(lab, host)
                client.sign_on(near if at_home else SERVER)

        def attempt(offer: Offer) -> Attempt:
            sender, receiver = (clients[host, offer.at_home] for host in (offer.sender, offer.receiver))
            made: list[Outcome] = []

            def make() -> Result:
                made.append(outcome := sender.send(receiver, os.urandom(SIZE), offer.kind))
                note = "" if outcome.direct or not outcome.ok else "(server)"
                return Result(outcome.ok, outcome.seconds, outcome.reason, note)

            return Attempt(
                offer.title,
                pair=(offer.title,),
                make=make,
                objection=lambda result, routers: (
                    offer.objection(made[0], routers) if made else "an attempt is made"
                ),
            )

        return [attempt(offer) for offer in OFFERS]
