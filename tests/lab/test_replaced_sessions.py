"""Who takes the place of a living session: its own client that connects anew, and nobody else.

A SYN and a SYN/ACK between the same ends need no number of the session, so a LAN host can make both, or the
second one comes from outside. Connection tracking itself believes such a pair.
"""

from __future__ import annotations

import contextlib
import itertools
import time
from collections.abc import Iterator

import pytest

from tests.lab import impostor
from tests.lab.forged import Sender
from tests.lab.impair import offloads_off
from tests.lab.impostor import Session, mortal
from tests.lab.net import ADDRESS, WAN
from tests.lab.scene import Scene, eventually, scene
from tests.lab.slipstream import SIGN_ON
from tests.tcp.packets import ACK, PSH_ACK, SYN, mss, packet

_ports = itertools.count(20001)
_ends = itertools.count(40000)
AT = "203.0.113.99"


@pytest.fixture(scope="module", params=["workers = 1", "workers = 2"])
def made(request: pytest.FixtureRequest) -> Iterator[Scene]:
    with scene(settings=f"{request.param}\n[pinholes]\nrate_per_host = 10000\n") as running:
        offloads_off(running.lab)
        yield running
        assert "ERROR" not in running.daemon.log_text()


@contextlib.contextmanager
def living(made: Scene, port: int) -> Iterator[Session]:
    """A session of alice's own from *port*; her kernel knows nothing of it, so it resets nothing."""
    rule = f"PREROUTING -p tcp --dport {port} -j DROP"
    made.lab.run("alice", *f"iptables-legacy -t raw -A {rule}".split())
    with impostor.session(made.lab, "alice", "alice", port, AT) as one:
        one.handshake()
        one.sign_on()
        yield one
    made.lab.run("alice", *f"iptables-legacy -t raw -D {rule}".split())


def opens(made: Scene, one: Session) -> str:
    """Ask for a pinhole; where it leads."""
    inside = f"{ADDRESS['alice']}:{next(_ports)}"
    one.ask(int(inside.split(":")[1]))
    eventually(lambda: made.pinhole_of(inside))
    return inside


def test_client_that_connects_anew_from_the_same_port(made: Scene) -> None:
    """Its host had lost the connection, and nobody had closed it. First, because of the log's limit."""
    with living(made, next(_ends)) as one:
        inside = opens(made, one)
        one.seq, one.server.seq = 0x44000000, 0x55000000
        one.handshake()
        assert made.pinhole_of(inside)
        one.sign_on()
        made.daemon.wait_log("control connection replaced")
        eventually(lambda: not made.pinhole_of(inside))
        opens(made, one)


@pytest.mark.parametrize("how", ["pair", "pair and ACK", "pair, ACK and data"])
@pytest.mark.parametrize("accomplice", [True, False], ids=["accomplice", "alone"])
def test_forged_handshake_of_the_same_ends(made: Scene, how: str, accomplice: bool) -> None:
    """alice's pinhole stays, and her next one is opened, unless connection tracking refuses her packets."""
    with living(made, next(_ends)) as one:
        inside = opens(made, one)
        reached = WAN["A"] if accomplice else one.own[0]
        node = "bob" if accomplice else "amy"
        with Sender(made.lab, "amy") as amy, Sender(made.lab, node) as other:
            for number in range(3):
                first = 77000000 + number * 1000000
                amy(mortal(packet(one.own, one.server.own, first, 0, SYN, tcp_options=mss(1460))))
                time.sleep(0.1)
                other(packet(one.server.own, (reached, one.own[1]), 5, first + 1, SYN | ACK))
                time.sleep(0.1)
                if how != "pair":
                    amy(packet(one.own, one.server.own, first + 1, 6, ACK))
                if how == "pair, ACK and data":
                    amy(packet(one.own, one.server.own, first + 1, 6, PSH_ACK, SIGN_ON))
                    other(packet(one.server.own, (reached, one.own[1]), 6, first + 1, PSH_ACK, b"*"))
                time.sleep(0.1)
        time.sleep(3.0)  # the daemon has looked at its control connections
        assert made.pinhole_of(inside)
        made.lab.run("A", "conntrack", "-D", "-p", "tcp", "--orig-port-src", str(one.own[1]), check=False)
        one.go_on()
        opens(made, one)
