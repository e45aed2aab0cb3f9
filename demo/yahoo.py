"""Yahoo! Messenger in the second table: files at the sender's own web server, at its own port and at 80."""

from __future__ import annotations

from demo.attempts import Attempt, Result
from tests.lab.net import BEHIND, Lab
from tests.lab.yahoo import SECTION, Outcome, YahooClient, online, transfer

HOSTS = ("alice", "amy", "bob", "carol")
SIZE = 100_000
PORT = 5555
ROWS = (
    *(("alice", "bob", PORT), ("alice", "carol", PORT), ("carol", "alice", PORT), ("alice", "amy", PORT)),
    *(("bob", "alice", PORT), ("alice", "carol", None), ("alice", "amy", None)),
)
"""Who offers, who fetches, and the port; None: 80, which these senders may have by the configuration."""


def _title(sender: str, receiver: str, port: int | None) -> str:
    return f"{sender} → {receiver}, Yahoo! file" + (" at port 80 ʸ" if port is None else "")


def works(sender: str, receiver: str, routers: tuple[str, ...]) -> bool:
    """Whether the file has to arrive with nfreaim on these routers."""
    behind = BEHIND.get(sender)
    return behind is None or behind in routers or behind == BEHIND.get(receiver)


class Yahoo:
    """See demo.attempts.Messenger."""

    protocol = "yahoo"
    settings = SECTION
    titles = tuple(_title(*row) for row in ROWS)
    footnotes = ("ʸ that of Yahoo! Messenger 5; served for hosts in `web_hosts`, at a port of the range",)

    def prepare(self, lab: Lab) -> None:
        """Nothing: `web_hosts` is in the configuration."""

    def online(self, lab: Lab) -> list[Attempt]:
        clients = online(lab, *HOSTS)
        return [_attempt(clients, *row) for row in ROWS]


def _attempt(clients: dict[str, YahooClient], sender: str, receiver: str, port: int | None) -> Attempt:
    def make() -> Result:
        outcome = transfer(clients[sender], clients[receiver], port, head=port is not None, size=SIZE)()
        return Result(outcome.ok, outcome.seconds, _reason(outcome))

    def objection(result: Result, routers: tuple[str, ...]) -> str:
        wanted = works(sender, receiver, routers)
        if result.ok != wanted:
            return "it must work" if wanted else "it must fail, or the network is no NAT"
        return ""

    return Attempt(_title(sender, receiver, port), (sender, receiver), make, objection)


def _reason(outcome: Outcome) -> str:
    return "" if outcome.ok else f"{outcome.reached}: {outcome.reason}"


YAHOO = Yahoo()
