"""The demo's rows about MSN: files by P2P and by MSNFTP, and everything with a server at home."""

from __future__ import annotations

import functools
import os
import time
from dataclasses import dataclass

from demo.attempts import Attempt, Result
from demo.rows import HOME_PAIRS, PAIRS
from tests.lab import home
from tests.lab.inhabitants import Inhabitants
from tests.lab.msn_client import MSN4, PURPLE, MsnClient
from tests.lab.msn_server import NS_PORT, SB_PORT, MsnServer
from tests.lab.net import BEHIND, WAN, Lab

SIZE = 5000
HOSTS = ("alice", "amy", "bob", "carol")
INSIDE = ("alice", "amy")
WAYS = {"direct": "", "switchboard": "(server)"}


@dataclass(frozen=True)
class Row:
    """A file, or a text, from one to another. *at_home*: the server is behind router A."""

    sender: str
    receiver: str
    what: str = "file"  # or "file (MSNFTP)", "chat"; "sign-on", which has no receiver
    at_home: bool = False

    @property
    def title(self) -> str:
        """First column of the table."""
        ends = f"{self.sender} → {self.receiver}" if self.receiver else self.sender
        where = " at home" if self.at_home else ""
        return f"{ends}, MSN{where} {self.what}"

    def wanted(self, routers: tuple[str, ...]) -> str:
        """What has to come of it with nfreaim on these routers: "direct", "switchboard", or "" for nothing.

        From outside one can sign on to a server at home, and use it only through nfreaim on its router. Of a
        file by MSNFTP the sender listens, of another one the receiver, and that one's router counts.
        """
        if self.what == "sign-on":
            return "direct"
        outside = [host for host in (self.sender, self.receiver) if host not in INSIDE]
        if self.at_home and outside and "A" not in routers:
            return ""
        ends = (self.sender, self.receiver)
        listener, other = ends if "MSNFTP" in self.what else ends[::-1]
        router = BEHIND.get(listener)
        if self.what == "chat" or router is None or router in routers or router == BEHIND.get(other):
            return "direct"
        return "" if "MSNFTP" in self.what else "switchboard"

    def objection(self, result: Result, routers: tuple[str, ...]) -> str:
        """What is wrong with this result; empty if nothing."""
        wanted = self.wanted(routers)
        if not wanted:
            return "it fails, or the network is no NAT" if result.ok else ""
        if not result.ok or result.note != WAYS[wanted]:
            return f"it works, {wanted}"
        return ""


FILES = [Row(*pair) for pair in PAIRS]
FTP = [Row(*pair, "file (MSNFTP)") for pair in PAIRS]
SIGN_ON = [Row(host, "", "sign-on", True) for host in ("bob", "carol")]
AT_HOME = [Row(*pair, what, True) for what in ("chat", "file") for pair in HOME_PAIRS]


class Msn:
    """MSN's part of the second table."""

    protocol = "msn"
    settings = ""
    titles = tuple(row.title for row in (*FILES, *FTP, *SIGN_ON, *AT_HOME))
    footnotes = (
        "(server): nobody could connect, and MSN's switchboard carried the file, 1,202 bytes at a time",
    )

    def prepare(self, lab: Lab) -> None:
        """Both ports of the server at home are forwarded."""
        for port in (NS_PORT, SB_PORT):
            home.forward(lab, port=port)

    def online(self, lab: Lab) -> list[Attempt]:
        """One server outside and one at home, and a client of each on every host."""
        here = Inhabitants(lab)
        outside = MsnServer(here)
        MsnServer(here, "hsrv", home.HOME)
        clients: dict[tuple[str, str], MsnClient] = {}
        for host in HOSTS:
            near = f"{home.HOME if host in INSIDE else WAN['A']}:{NS_PORT}"
            for what, kind, server in (
                ("file", PURPLE, outside.address),
                ("file (MSNFTP)", MSN4, outside.address),
                ("home", PURPLE, near),
            ):
                clients[what, host] = MsnClient(here, host, kind, f"{host}-{kind.dialects[0]}")
                clients[what, host].sign_on(server)
        attempts = []
        for row in SIGN_ON:
            newcomer = MsnClient(here, row.sender, MSN4, f"{row.sender}-again")
            attempts.append(Attempt(row.title, row, functools.partial(_signed_on, newcomer), row.objection))
        for row in (*FILES, *FTP, *AT_HOME):
            group = "home" if row.at_home else row.what
            ends = [clients[group, host] for host in (row.sender, row.receiver)]
            attempts.append(Attempt(row.title, row, functools.partial(_made, row, *ends), row.objection))
        return attempts


def _signed_on(newcomer: MsnClient) -> Result:
    began = time.monotonic()
    newcomer.sign_on(f"{WAN['A']}:{NS_PORT}")
    return Result(True, time.monotonic() - began)


def _made(row: Row, sender: MsnClient, receiver: MsnClient) -> Result:
    said = row.what == "chat"
    outcome = sender.says(receiver, row.title) if said else sender.send(receiver, os.urandom(SIZE))
    return Result(outcome.ok, outcome.seconds, outcome.reason, WAYS.get(outcome.way, ""))
