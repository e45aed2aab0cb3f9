"""Programs that can be reached on a server's port, and vouch for LAN hosts that are not theirs.

On the LAN behind a forward of their own (as UPnP makes it, or a DMZ), or on the router without any rights.
What such a program says of alice must open nothing, even if it plays her as its client.
"""

from __future__ import annotations

import time

import pytest

from tests.attacks import network, wire
from tests.attacks.inside_server import forge_client, router_user
from tests.lab import home
from tests.lab.net import ADDRESS, WAN, Lab
from tests.lab.scene import Scene

PORT = network.PORT
secure = pytest.mark.parametrize("secure", [False, True], ids=["gated", "tls"])


def dmz(lab: Lab) -> None:
    """All ports of the router's outside address lead to amy."""
    for rule in (
        f"-t nat -A PREROUTING -i wan -d {WAN['A']} -p tcp -j DNAT --to-destination {ADDRESS['amy']}",
        f"-A FORWARD -i wan -d {ADDRESS['amy']} -p tcp -j ACCEPT",
    ):
        lab.run("A", "iptables-legacy", *rule.split())


def forwarded(lab: Lab) -> None:
    """Only the port of the protocol does."""
    home.forward(lab, inside=ADDRESS["amy"])


def nothing_opened(made: Scene) -> None:
    """No pinhole, now or before, and the daemon goes on."""
    time.sleep(0.5)
    assert made.pinholes() == set()
    log = made.daemon.log_text()
    assert "pinhole opened" not in log
    assert "ERROR" not in log
    assert made.daemon.stop() == 0


@secure
@pytest.mark.parametrize(
    ("way", "client"),
    [(forwarded, False), (dmz, False), (dmz, True)],
    ids=["forwarded", "dmz", "dmz, forged client"],
)
def test_lan_host_that_is_reached_on_a_servers_port(way: object, client: bool, secure: bool) -> None:
    with Lab() as lab:
        assert callable(way)
        way(lab)
        made = Scene(lab)
        made.restart()
        if client:
            forge_client(lab)
            assert "ESTABLISHED" in network.conntrack(lab, "-s", ADDRESS["alice"])
        with network.vouching(lab, "amy") as (amy, accomplice):
            for number in range(4):
                relayed = wire.relayed(
                    ADDRESS["alice"], PORT + number, 3 + number, b"cookie%d\0" % number, secure
                )
                amy.sendall(relayed)
                accomplice.recv(1000)
            nothing_opened(made)


@secure
def test_plain_user_of_the_router(secure: bool) -> None:
    with Lab() as lab:
        home.open_port(lab)
        made = Scene(lab)
        made.restart()
        with router_user(lab) as user:
            for number in range(4):
                cookie = b"cookie%d\0" % number
                user.tell(wire.relayed(ADDRESS["alice"], PORT + number, 3 + number, cookie, secure))
            nothing_opened(made)
