"""A second uplink of router A, chosen by marks as policy routing does. Peers come in where the session is."""

from __future__ import annotations

from demo.rows import UPLINK, Row
from tests.lab import marking
from tests.lab.net import Lab
from tests.lab.standin import Client, Server

SERVER_THERE = "203.0.113.11"
PORT = 5590  # of the clients, apart from those of other servers
ROWS = [Row("alice", "carol", "file", UPLINK), Row("alice", "carol", "im", UPLINK)]
OPTIONS = {"A": ("--wan", "wan2")}
"""What the daemon is told besides, by router."""

# One of the marks in the mask that OpenWrt's pbr uses. What is called by those clients is there, too.
_BY_SERVER = marking.MASKED.replace("0x10000/", "0x40000/").replace("-s 10.0.0.5", f"-d {SERVER_THERE}")
_BY_PORT = f"-A PREROUTING -i lan -p tcp --dport {PORT}:{PORT + 9} -j MARK --set-xmark 0x40000/0xff0000"
_RULES = _BY_SERVER.replace("-A PREROUTING -i wan2", f"{_BY_PORT}\n-A PREROUTING -i wan2")


def prepare(lab: Lab) -> None:
    """What the operator of router A sets up, before nfreaim."""
    marking.second_uplink(lab)
    marking.load(lab, _RULES)
    marking.lead(lab, "0x40000/0xff0000")
    lab.run("server", *f"ip address add {SERVER_THERE}/24 dev eth0".split())


def server(lab: Lab) -> Server:
    """The server that is reached over the second uplink."""
    return Server(lab, address=SERVER_THERE)


def clients(lab: Lab) -> dict[tuple[str, str], Client]:
    """Who signs on there."""
    return {
        (host, UPLINK): Client(lab, host, f"{host} {UPLINK}", first_port=PORT) for host in ("alice", "carol")
    }
