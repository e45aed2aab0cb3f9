"""alice is behind two routers: the one in front, a box with real miniupnpd, is asked for mappings."""

from __future__ import annotations

import json
import re
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.lab import box, home
from tests.lab.confine import USER, confined
from tests.lab.front import BETWEEN, FRONT
from tests.lab.namespace import socket_in
from tests.lab.net import ADDRESS, Daemon, Lab
from tests.lab.private_box import OUTSIDE as PRIVATE
from tests.lab.scene import Scene, announced, eventually, nfreaim, start
from tests.lab.standin import Client, Server, Transfer
from tests.oscar import rendezvous as rdv

pytestmark = pytest.mark.skipif(not box.INSTALLED, reason=box.REASON)

RESERVE = 4
WITHOUT_PCP = 'iptables-legacy -A INPUT -p udp --dport 5351 -m u32 --u32 "0>>22&0x3C@8>>24=2" -j REJECT'
"""On the box: version 2, which is PCP, does not get in, but version 0, NAT-PMP."""


@pytest.fixture
def made() -> Iterator[Scene]:
    """The network with the box; nfreaim does not run yet."""
    with Lab(home_server=True) as lab:
        box.put_box_in_front(lab)
        yield Scene(lab)


def signed_on(made: Scene, *who: str) -> list[Client]:
    return made.clients(made.server(address=box.SERVER), *((host, host, 5200) for host in who))


def reserved(made: Scene, count: int = RESERVE) -> list[str]:
    """The rules of the box's mappings, once there are so many."""
    return eventually(lambda: rules if len(rules := box.mapped(made.lab)) == count else [])


def none_left(made: Scene) -> None:
    eventually(lambda: not box.mapped(made.lab))


def ports(rules: list[str]) -> set[int]:
    return {int(found[1]) for rule in rules if (found := re.search(r"--dport (\d+)", rule))}


def works(offer: Transfer) -> None:
    outcome = offer.outcome()
    assert outcome.first_attempt, outcome


def mapped_pinholes(lab: Lab) -> set[tuple[str, str]]:
    """Where each pinhole is, and where it is announced, by the daemon's status."""
    document = json.loads(nfreaim(lab, "A", "status", "--json"))
    return {(one["outside"], one["announced"]) for one in document["pinholes"]}


def spoken(lab: Lab) -> tuple[str, list[str]]:
    """What `nfreaim check` finds out about the box."""
    words = (
        f"import json; from nfreaim.host.check.in_front import spoken; print(json.dumps(spoken('{BETWEEN}')))"
    )
    gateway, protocols = json.loads(lab.run("A", sys.executable, "-c", words).stdout)
    return gateway, protocols


def announced_port(bob: Client, offer: Transfer) -> int:
    """Where bob was told to connect, at the box."""
    block = announced(bob, offer.cookie)
    assert block.address(rdv.RDV_IP) == box.OUTSIDE
    return block.number(rdv.PORT)


def test_offers_are_announced_where_the_box_maps_them_also_after_a_kill(made: Scene) -> None:
    lab, settings = made.lab, 'upstream = "auto"\n'
    daemon = made.restart(settings=settings)
    assert spoken(lab) == (FRONT, ["PCP or NAT-PMP", "UPnP"])
    assert box.mapped(lab) == [], "nobody is signed on"
    alice, amy, bob = signed_on(made, "alice", "amy", "bob")
    rules = reserved(made)
    daemon.wait_log(f"maps ports of {box.OUTSIDE} to {BETWEEN} (PCP)")
    assert not made.pinholes(), "nothing is behind the reserve"
    with socket_in(lab, "bob") as stranger:
        stranger.settimeout(0.5)
        assert stranger.connect_ex((box.OUTSIDE, max(ports(rules)))) != 0
    works(Transfer(alice, bob, "file"))
    neighbours = Transfer(alice, amy, "im").outcome()
    assert neighbours.first_attempt
    assert neighbours.peer.startswith(ADDRESS["amy"])
    bob.call("policy", action="ignore")
    offer = Transfer(amy, bob, "file")
    port = announced_port(bob, offer)
    announced_at = (f"{BETWEEN}:{port}", f"{box.OUTSIDE}:{port}")
    assert announced_at in mapped_pinholes(lab)
    daemon.kill()
    daemon = made.restart(settings=settings)
    daemon.wait_log(f"maps ports of {box.OUTSIDE} to {BETWEEN} (PCP)")
    assert announced_at in mapped_pinholes(lab)
    with socket_in(lab, "bob") as peer:
        peer.connect((box.OUTSIDE, port))
    daemon.kill()
    for client in (alice, amy):
        client.stop()
    assert box.mapped(lab), "they wait for the next daemon"
    daemon = made.restart(settings=settings)
    none_left(made)
    assert daemon.stop() == 0


def test_with_upnp_and_workers_a_server_at_home_works_too(made: Scene) -> None:
    lab = made.lab
    by_hand = f"-t nat -A PREROUTING -i wan -p tcp --dport 5190 -j DNAT --to-destination {BETWEEN}"
    lab.run("front", "iptables-legacy", *by_hand.split())
    home.forward(lab, outside=BETWEEN)
    daemon = made.restart(settings='upstream = "upnp"\nworkers = 2\n')
    server = Server(lab, address=home.HOME, node="hsrv")
    alice, bob = Client(lab, "alice", "alice1"), Client(lab, "bob", "bob1")
    for one in (server, alice, bob):
        one.wait_ready()
    alice.sign_on(f"{home.HOME}:5190", services=True)
    eventually(
        lambda: json.loads(nfreaim(lab, "A", "status", "--json"))["upstream"] == {BETWEEN: box.OUTSIDE}
    )
    assert box.mapped(lab) == [], "the address of the box is known without"
    bob.sign_on(f"{box.OUTSIDE}:5190", services=True)
    reserved(made)
    daemon.wait_log(f"maps ports of {box.OUTSIDE} to {BETWEEN} (UPnP)")
    works(Transfer(alice, bob, "file"))
    assert identity_of(daemon) == ("65534", 0)
    bob.stop()
    none_left(made)


def confined_daemon(lab: Lab, settings: str) -> Daemon:
    """The daemon as in its systemd unit, on router A."""
    (lab.dir / "run-A" / "settings.toml").write_text(settings)
    log = lab.log_file("nfreaim-A")
    options = ("--lan", "lan", "--wan", "wan", "--config", "/run/settings.toml")
    daemon = Daemon(lab.spawn("A", *confined(sys.executable, "-m", "nfreaim", "run", *options), log=log), log)
    daemon.wait_ready(20)
    return daemon


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="systemd-analyze is absent")
def test_a_box_without_pcp_is_asked_by_nat_pmp_and_gets_all_back_under_the_unit(made: Scene) -> None:
    made.lab.run("front", "sh", "-ec", WITHOUT_PCP)
    daemon = made.daemons["A"] = confined_daemon(made.lab, 'upstream = "pcp"\n')
    alice, bob = signed_on(made, "alice", "bob")
    reserved(made)
    daemon.wait_log(f"maps ports of {box.OUTSIDE} to {BETWEEN} (NAT-PMP)")
    works(Transfer(alice, bob, "file"))
    assert identity_of(daemon) == (str(USER), 0)
    assert daemon.stop() == 0
    assert box.mapped(made.lab) == []
    assert "WARNING" not in daemon.log_text()


def identity_of(daemon: Daemon) -> tuple[str, int]:
    """Of the child that asks the box: its user, and its capabilities."""
    children = Path(f"/proc/{daemon.pid}/task/{daemon.pid}/children").read_text().split()
    found = [child for child in children if b"upstream.mapper" in Path(f"/proc/{child}/cmdline").read_bytes()]
    assert len(found) == 1
    status = Path(f"/proc/{found[0]}/status").read_text().split()
    return status[status.index("Uid:") + 1], int(status[status.index("CapPrm:") + 1], 16)


def test_a_box_that_is_silent_or_private_itself_is_told_of_once_and_nothing_is_announced() -> None:
    with Lab() as lab:
        box.put_box_in_front(lab, answers=False)
        made = Scene(lab, {"A": start(lab, "A", 'upstream = "auto"\n')})
        alice, bob = signed_on(made, "alice", "bob")
        bob.call("policy", action="ignore")

        def left_alone() -> None:
            offer = Transfer(alice, bob, "file", patience=1)
            assert announced(bob, offer.cookie).address(rdv.RDV_IP) == ADDRESS["alice"]
            assert not made.pinholes()

        made.daemon.wait_log("maps no port: it serves neither PCP nor NAT-PMP; it does not answer UPnP; ")
        left_alone()
        assert made.daemon.log_text().count("maps no port") == 1
        assert "remedy: switch on UPnP or PCP (NAT-PMP) in that router" in made.daemon.log_text()
        assert made.daemon.stop() == 0
        log = lab.log_file("private-box")
        lab.spawn("front", sys.executable, "-m", "tests.lab.private_box", FRONT, log=log)
        eventually(lambda: "listens" in log.read_text())
        made.restart(settings='upstream = "pcp"\n')
        alice.call("sign_on", server=f"{box.SERVER}:5190")
        made.daemon.wait_log(f"its own outside address is {PRIVATE} (carrier-grade NAT)")
        left_alone()
        assert "MAP for 600 s\nMAP for 0 s\n" in log.read_text(), "it is given back at once"
