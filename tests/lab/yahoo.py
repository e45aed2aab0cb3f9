"""Drives the stand-in server and clients of Yahoo! Messenger from a test (see tests.lab.standin)."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Any

from tests.lab.net import SERVER, Lab
from tests.lab.standin import Result, StandIn

PORT = 5050
SECTION = '[yahoo]\nweb_hosts = ["10.0.0.5", "192.168.7.5"]\n'
"""Alice and carol serve files at port 80."""
SETTINGS = 'protocols = ["oscar", "yahoo"]\n' + SECTION

_files = itertools.count(1)


class YahooServer(StandIn):
    """The server, on its usual port."""

    def __init__(self, lab: Lab, address: str = SERVER) -> None:
        self.address = f"{address}:{PORT}"
        super().__init__(lab, "server", "yahoo_server", "--listen", self.address)


class YahooClient(StandIn):
    """A client with one account, which has the name of its node."""

    def __init__(self, lab: Lab, node: str) -> None:
        self.name = node
        super().__init__(lab, node, "yahoo_client", "--name", node)


def online(lab: Lab, *hosts: str) -> dict[str, YahooClient]:
    """Clients that are signed on, by host."""
    server = YahooServer(lab)
    clients = {host: YahooClient(lab, host) for host in hosts}
    for each in (server, *clients.values()):
        each.wait_ready()
    for waiting in [client.start("sign_on", server=server.address) for client in clients.values()]:
        answer = waiting.result(40.0)
        assert answer["ok"], answer
    return clients


@dataclass(frozen=True)
class Outcome:
    """What came of an offer: *reached* is where the receiver connected, *peer* who the sender saw."""

    ok: bool
    seconds: float
    reached: str = ""
    peer: str = ""
    reason: str = ""


def transfer(
    sender: YahooClient, receiver: YahooClient, port: int | None, head: bool = False, **more: Any
) -> Callable[[], Outcome]:
    """An offer of a file at the sender's *port* (None: 80), which the receiver fetches; the outcome."""
    file = f"file{next(_files)}.bin"
    offered = sender.call("offer", to=receiver.name, file=file, port=port, **more)
    fetched: Future[Result] = receiver.start("fetch", sender=sender.name, file=file, head=head)

    def outcome() -> Outcome:
        got = fetched.result(40.0)
        seconds, reached = got.get("seconds", 0.0), f"{got.get('address')}:{got.get('port')}"
        if not got["ok"]:
            return Outcome(False, seconds, reached, reason=got.get("reason", ""))
        peer = sender.call("served", file=file)["peer"]
        whole = got["digest"] == offered["digest"]
        return Outcome(whole, seconds, reached, peer, "" if whole else "the contents differ")

    return outcome
