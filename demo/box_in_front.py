"""The network of the demo's rows about a box in front of router A that maps ports to who asks for them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from demo.rows import BOX, Column, Row
from tests.lab import box
from tests.lab.net import Lab
from tests.lab.scene import eventually, start
from tests.lab.standin import Client, Server

ROWS = [Row("alice", "bob", "file", BOX), Row("alice", "carol", "file", BOX)]
SETTINGS = {"A": 'upstream = "auto"\n'}
"""What the operator of router A tells nfreaim."""


@contextmanager
def network(column: Column) -> Iterator[dict[tuple[str, str], Client]]:
    """A network beside the column's own, which ends with it at the latest, with everybody signed on."""
    with Lab("legacy", "nft") as lab:
        column.lab.at_close(lab.close)
        if column.lab.keep_logs:
            lab.keep_logs = column.lab.keep_logs / "box-in-front"
        box.put_box_in_front(lab)
        daemons = [start(lab, router, SETTINGS.get(router, ""), wait=False) for router in column.routers]
        server = Server(lab, address=box.SERVER)
        clients = {(host, BOX): Client(lab, host, f"{host} box") for host in ("alice", "bob", "carol")}
        for standin in (server, *clients.values()):
            standin.wait_ready()
        for daemon in daemons:
            daemon.wait_ready()
        for client in clients.values():
            client.sign_on(server)
        if "A" in column.routers:
            eventually(lambda: len(box.mapped(lab)) > len(ROWS))
        yield clients
