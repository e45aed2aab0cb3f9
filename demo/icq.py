"""The demo's rows about ICQ: who can open a direct connection to whom, and what has to come of it."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from demo.rows import side_by_side
from tests.lab.net import ADDRESS, BEHIND, Lab
from tests.lab.standin import IcqCall, IcqClient, Server, icq_call

UINS = {"alice": "100003", "amy": "100006", "bob": "100020", "carol": "100007"}
LOGINS = {"alice": "xor", "amy": "md5", "bob": "md5", "carol": "xor"}
HOSTS = {"oos": ("alice", "amy", "bob", "carol"), "aol": ("alice", "amy", "carol")}

Clients = dict[tuple[str, str], IcqClient]


@dataclass(frozen=True)
class Call:
    """*caller* opens a connection to where *listener* says that it listens."""

    caller: str
    listener: str
    how: str = (
        "dial"  # or "ask_back": because the listener asked for it; "chat": to a listener for that alone
    )
    server: str = "oos"  # "aol" adds the address it sees to everybody's user info

    @property
    def title(self) -> str:
        """First column of the table."""
        what = {"dial": "ICQ direct", "ask_back": "ICQ, asked to call", "chat": "ICQ chat"}[self.how]
        return f"{self.caller} → {self.listener}, {what}" + (" ²" if self.server == "aol" else "")

    def works(self, routers: tuple[str, ...]) -> bool:
        """Whether it has to work with nfreaim on these routers: that of the listener is what counts."""
        behind = BEHIND.get(self.listener)
        return behind is None or behind in routers or behind == BEHIND.get(self.caller)

    def objection(self, call: IcqCall, routers: tuple[str, ...]) -> str:
        """What is wrong with this outcome; empty if nothing."""
        if call.ok != self.works(routers):
            return "it must work" if not call.ok else "it works, so the network is no NAT"
        beside = BEHIND.get(self.caller) == BEHIND.get(self.listener)
        if beside and call.peer != ADDRESS[self.caller]:
            return "it must stay on their own LAN"
        return ""


CALLS = [
    Call("carol", "alice"),
    Call("alice", "carol"),
    Call("bob", "alice"),
    Call("amy", "alice"),
    Call("carol", "alice", "ask_back"),
    Call("carol", "alice", "chat"),
    Call("carol", "alice", server="aol"),
    Call("amy", "alice", server="aol"),
]


def clients(lab: Lab) -> Clients:
    """The ICQ clients of one lab, by host and server; they are still starting."""
    return {
        (host, server): IcqClient(lab, host, UINS[host], LOGINS[host], 4000 if server == "oos" else 4200)
        for server, hosts in HOSTS.items()
        for host in hosts
    }


def sign_on(online: Clients, servers: dict[str, Server]) -> None:
    """Bring all of them online."""
    for (_, server), client in online.items():
        client.sign_on(servers[server])


def start(online: Clients, pool: ThreadPoolExecutor) -> Callable[[], dict[Call, IcqCall]]:
    """Make every call, those of one pair one after the other; the outcomes when they are there."""
    return side_by_side(
        CALLS,
        pair=lambda row: (row.caller, row.listener, row.server),
        make=lambda row: icq_call(online[row.caller, row.server], online[row.listener, row.server], row.how),
        pool=pool,
    )
