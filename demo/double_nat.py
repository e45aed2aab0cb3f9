"""The network of the demo's rows about double NAT: a router in front forwards every port to router A."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from demo.rows import FRONT, Column
from tests.lab import home
from tests.lab.front import BETWEEN, put_in_front
from tests.lab.net import WAN, Lab
from tests.lab.scene import start
from tests.lab.standin import Client, Server

SETTINGS = {"A": f'outside_address = "{WAN["A"]}"\n'}
"""What the operator of router A tells nfreaim."""


@contextmanager
def network(
    column: Column,
) -> Iterator[tuple[dict[str, tuple[Server, str, str]], dict[tuple[str, str], Client]]]:
    """A network beside the column's own, which ends with it at the latest.

    Yields the server at home with the addresses that inside and outside clients use for it, by its place; and
    the clients, by host and place.
    """
    with Lab("legacy", "nft", home_server=True) as lab:
        column.lab.at_close(lab.close)
        if column.lab.keep_logs:
            lab.keep_logs = column.lab.keep_logs / "double-nat"
        put_in_front(lab)
        home.forward(lab, outside=BETWEEN)
        daemons = [start(lab, router, SETTINGS.get(router, ""), wait=False) for router in column.routers]
        server = Server(lab, address=home.HOME, node="hsrv")
        clients = {(host, FRONT): Client(lab, host, f"{host} two") for host in ("alice", "bob")}
        for standin in (server, *clients.values()):
            standin.wait_ready()
        for daemon in daemons:
            daemon.wait_ready()
        yield {FRONT: (server, f"{home.HOME}:5190", f"{WAN['A']}:5190")}, clients
