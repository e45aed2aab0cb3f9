"""nfreaim and miniupnpd on one router: neither takes the other's ports or rules.

miniupnpd maps no port while its outside address is one of those set aside for documents, so the outer
network has others here. A client asks it as a game does, by SOAP (UPnP IGD) to its HTTP port.
"""

from __future__ import annotations

import re
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Final

import pytest

from tests.lab.box import CHAINS, HTTP, INSTALLED, OUTSIDE, REASON, SERVER, renumber, serve
from tests.lab.namespace import socket_in
from tests.lab.net import LAN, Lab
from tests.lab.scene import Scene, eventually
from tests.lab.standin import Client, Transfer

EARLIER: Final = 5201
"""A port that is mapped to amy before nfreaim starts; alice listens there for her second offer."""
URN: Final = "urn:schemas-upnp-org:service:WANIPConnection:1"
pytestmark = pytest.mark.skipif(not INSTALLED, reason=REASON)


@dataclass
class Both:
    """The network, with both programs on router A."""

    made: Scene
    path: str = ""
    alice: Client = field(init=False)
    bob: Client = field(init=False)

    def asked(self, action: str, client: str = "10.0.0.6", **arguments: object) -> str:
        """miniupnpd's answer to a SOAP request of *client*."""
        fields = "".join(f"<{name}>{value}</{name}>" for name, value in arguments.items())
        body = (
            '<?xml version="1.0"?><s:Envelope xmlns:s="http://schemas.xmlsoap.org/soap/envelope/" '
            's:encodingStyle="http://schemas.xmlsoap.org/soap/encoding/"><s:Body>'
            f'<u:{action} xmlns:u="{URN}">{fields}</u:{action}></s:Body></s:Envelope>'
        )
        return self.http(
            f'POST {self.path} HTTP/1.0\r\nHost: {LAN["A"]}:{HTTP}\r\nSOAPAction: "{URN}#{action}"\r\n'
            f'Content-Type: text/xml; charset="utf-8"\r\nContent-Length: {len(body)}\r\n\r\n{body}'
        )

    def http(self, request: str) -> str:
        with socket_in(self.made.lab, "amy") as client:
            client.connect((LAN["A"], HTTP))
            client.sendall(request.encode())
            return b"".join(iter(lambda: client.recv(4096), b"")).decode()

    def map(self, port: int, host: str = "10.0.0.6", protocol: str = "TCP") -> str:
        """Ask for a mapping to *host*."""
        return self.asked(
            "AddPortMapping",
            NewRemoteHost="",
            NewExternalPort=port,
            NewProtocol=protocol,
            NewInternalPort=port,
            NewInternalClient=host,
            NewEnabled=1,
            NewPortMappingDescription="game",
            NewLeaseDuration=0,
        )

    def unmap(self, port: int) -> str:
        return self.asked("DeletePortMapping", NewRemoteHost="", NewExternalPort=port, NewProtocol="TCP")

    def mapped(self) -> list[str]:
        """The rules of miniupnpd's mappings."""
        saved = self.made.lab.run("A", "iptables-legacy-save").stdout.splitlines()
        return [rule for rule in saved if rule.startswith("-A MINIUPNPD ")]

    def offer(self, port: int) -> Transfer:
        """An offer of alice's that nobody answers, once its pinhole is there; she listens on *port*."""
        transfer = Transfer(self.alice, self.bob, "file")
        eventually(lambda: self.made.pinhole_of(f"10.0.0.5:{port}"))
        return transfer

    def outside(self, port: int) -> str:
        """Where *port* of alice's is reached, or ""."""
        found = self.made.pinhole_of(f"10.0.0.5:{port}")
        return found.outside if found else ""


@pytest.fixture
def both() -> Iterator[Both]:
    with Lab() as lab:
        renumber(lab)
        made = Scene(lab)
        lab.run("A", "sh", "-ec", CHAINS)
        serve(lab, "A", "10.0.0.0/24")
        found = Both(made)
        described = found.http(f"GET /rootDesc.xml HTTP/1.0\r\nHost: {LAN['A']}:{HTTP}\r\n\r\n")
        control = re.search(rf"{URN}</serviceType>.*?<controlURL>(.*?)</controlURL>", described, re.DOTALL)
        assert control is not None, described
        found.path = control[1]
        assert " 200 OK" in found.map(EARLIER)
        made.restart()
        server = made.server(address=SERVER)
        found.alice, found.bob = made.clients(server, ("alice", "alice", 5200), ("bob", "bob"))
        found.bob.call("policy", action="ignore")
        yield found


def test_a_mapping_made_later_on_a_pinholes_port_closes_that_and_no_other(both: Both) -> None:
    both.offer(5200)
    assert both.outside(5200) == f"{OUTSIDE}:5200"
    assert " 200 OK" in both.map(5200, protocol="UDP")
    assert " 200 OK" in both.map(5200)
    began = time.monotonic()
    eventually(lambda: not both.outside(5200))
    print(f"closed after {time.monotonic() - began:.1f} s")
    assert (
        "5200: another program forwards its port (UPnP, PCP or the firewall)" in both.made.daemon.log_text()
    )
    with socket_in(both.made.lab, "amy") as game, socket_in(both.made.lab, "bob") as peer:
        game.bind(("10.0.0.6", 5200))
        game.listen(1)
        peer.connect((OUTSIDE, 5200))
        game.accept()[0].close()


def test_a_port_that_is_mapped_already_is_avoided(both: Both) -> None:
    both.offer(5200)
    both.offer(EARLIER)
    assert 40000 <= int(both.outside(EARLIER).rpartition(":")[2]) <= 40999


def test_a_mapping_of_the_same_port_over_udp_is_not_in_the_way(both: Both) -> None:
    both.offer(5200)
    assert " 200 OK" in both.map(5200, protocol="UDP")
    assert " 200 OK" in both.map(5202)
    time.sleep(0.15)  # sooner after the last question the rules are not looked at
    both.offer(EARLIER)
    both.offer(5202)
    assert both.outside(5202) != f"{OUTSIDE}:5202", "the rules were read again for this"
    assert both.outside(5200) == f"{OUTSIDE}:5200"


def test_neither_takes_the_others_rules(both: Both) -> None:
    lab = both.made.lab
    both.offer(5200)
    for port in (5211, 5212, 5213):
        assert " 200 OK" in both.map(port)
    mapped = both.mapped()
    assert len(mapped) == 8
    lab.run("A", "rules/nfreaim-rules", "install", "--lan", "lan", "--wan", "wan")
    assert both.mapped() == mapped
    assert " 200 OK" in both.unmap(EARLIER)
    mapped = both.mapped()
    assert not any(f"--dport {EARLIER} " in rule for rule in mapped)
    assert lab.run("A", "rules/nfreaim-rules", "show").returncode == 0
    assert both.outside(5200) == f"{OUTSIDE}:5200"
    assert both.made.daemon.stop() == 0
    lab.run("A", "rules/nfreaim-rules", "remove", check=False)
    assert both.mapped() == mapped
    assert "NFREAIM" not in lab.firewall_rules("A")
    assert " 200 OK" in both.map(5210), "miniupnpd goes on"
