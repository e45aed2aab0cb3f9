"""Two LANs of one router that may not meet: hosts of the one are told no address of the other."""

from __future__ import annotations

import pytest

from tests.lab.home_talk import SECOND, second_network
from tests.lab.icq_scene import UINS
from tests.lab.net import ADDRESS, WAN, Lab
from tests.lab.standin import IcqClient, Server


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ("", ADDRESS["alice"]),
        ("isolated_lans = true", WAN["A"]),
        ('isolated_lans = ["lan2"]', WAN["A"]),
        ('isolated_lans = ["lan"]', WAN["A"]),
        ('isolated_lans = ["other"]', ADDRESS["alice"]),
    ],
)
def test_where_a_contact_in_the_other_lan_is(settings: str, told: str) -> None:
    with Lab() as lab:
        second_network(lab, "amy")
        lab.run("A", "iptables-legacy", "-I", "FORWARD", "-i", "lan2", "-j", "ACCEPT")
        path = lab.dir / "nfreaim.toml"
        path.write_text(settings)
        daemon = lab.start_alg("A", ("--lan", "lan2", "--config", str(path)))
        server = Server(lab, "aol")
        clients = {host: IcqClient(lab, host, *UINS[host]) for host in ("alice", "amy")}
        for standin in (server, *clients.values()):
            standin.wait_ready()
            if standin is not server:
                standin.sign_on(server)  # type: ignore[attr-defined]
        assert lab.run("amy", "ip", "-4", "-o", "address", "show", "eth0").stdout.count(SECOND["amy"]) == 1
        contact = clients["amy"].call("contact", name=clients["alice"].name)
        assert (contact["address"], contact["port"]) == (told, 4000)
        back = clients["alice"].call("contact", name=clients["amy"].name)
        assert back["address"] == (SECOND["amy"] if told == ADDRESS["alice"] else WAN["A"])
        assert daemon.stop() == 0
