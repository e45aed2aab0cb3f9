"""Two ends of tests.lab.stream in a lab: start them, let them run, compare what they sent and received."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
from dataclasses import asdict, replace
from typing import Any, Final

from tests.lab.net import Lab, LabError
from tests.lab.standin import by_user
from tests.lab.stream import Plan

WAYS_TO_WRITE: Final[dict[str, dict[str, Any]]] = {
    "pipelined": {},
    "small-window": {"buffer": 4096},
    "small-writes": {"write": "oos"},
    "coalesced": {"write": "coalesced"},
    "random-cuts": {"write": "random"},
    "nagle": {"write": "oos", "nagle": True},
}
"""What the loss tests change in a Plan, by the name of the test's case."""


class End:
    """One end, as a process on a node."""

    def __init__(self, lab: Lab, node: str, plan: Plan, user: int = 0) -> None:
        self.log = lab.log_file(f"stream-{node}")
        start = [*by_user(user), sys.executable, "-m", "tests.lab.stream", json.dumps(asdict(plan))]
        self.process: subprocess.Popen[bytes] = lab.spawn(node, *start, pipes=True, log=self.log)
        self.ready = self._line(30.0)

    def result(self, seconds: float) -> dict[str, Any]:
        """What it says in the end; LabError if it does not end."""
        return self._line(seconds)

    def _line(self, seconds: float) -> dict[str, Any]:
        assert self.process.stdout is not None
        stuck = threading.Timer(seconds, self.process.kill)
        stuck.start()
        try:
            line = self.process.stdout.readline()
        finally:
            stuck.cancel()
        if not line:
            raise LabError(f"an end was silent for {seconds} s or failed:\n{self.log.read_text()}")
        answer: dict[str, Any] = json.loads(line)
        return answer


class Flow:
    """A connection: the server on one node, then the client on another, which *user* runs."""

    def __init__(self, lab: Lab, server: tuple[str, Plan], client: tuple[str, Plan], user: int = 0) -> None:
        self.server = End(lab, *server)
        self.client = End(lab, *client, user)

    def results(self, seconds: float = 90.0) -> tuple[dict[str, Any], dict[str, Any]]:
        """(server, client) when both are done."""
        return self.server.result(seconds), self.client.result(seconds)

    def exact(self, seconds: float = 90.0) -> tuple[dict[str, Any], dict[str, Any]]:
        """The same; AssertionError unless both received exactly what was sent, to a clean end."""
        server, client = self.results(seconds)
        assert (server["error"], client["error"]) == ("", ""), (server, client)
        assert client["received"] == server["sent"], (server, client)
        assert server["received"] == client["sent"], (server, client)
        return server, client


def home_flow(
    lab: Lab,
    outside: str = "203.0.113.1",
    inside: str = "10.0.0.9",
    node: str = "hsrv",
    client: str = "bob",
    port: int = 5190,
    server_plan: Plan | None = None,
    client_plan: Plan | None = None,
) -> Flow:
    """A connection to a server at home whose redirects name *inside* and must name *outside* instead."""
    named, becomes = f"{inside}:{port}", f"{outside}:{port}"
    listen = f"{inside if node == 'hsrv' else '0.0.0.0'}:{port}"
    serving = replace(server_plan or Plan(redirects=20), listen=listen, named=named)
    calling = replace(client_plan or Plan(seed=2), connect=becomes, expects=(named, becomes))
    return Flow(lab, (node, serving), (client, calling))
