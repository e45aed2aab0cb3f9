"""The Debian package on a stock kernel under a real systemd: from `apt install` to `apt purge`.

For a machine that was just booted, which these tests change until its next boot (tests/vm/rows.py); they run
in their order. What the package is built with, and what it depends on, is in the image. No test names an
interface unless it says so.
"""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from ipaddress import IPv4Interface
from pathlib import Path
from typing import Final

import pytest

from tests.lab import kernel_sets
from tests.lab.edited import edited
from tests.lab.irc_offers import waiting
from tests.lab.net import ADDRESS, CORE, LAN, WAN, Lab
from tests.lab.standin import Client, Server, Transfer
from tests.reachable import REPO
from tests.vm.installation import eventually, follow, journal, process, run, show

SLOW: Final = 240.0
pytestmark = pytest.mark.timeout(4 * SLOW)
CONF: Final = Path("/etc/nfreaim/nfreaim.toml")
UNITS: Final = ("nfreaim-sets", "nfreaim-rules", "nfreaim")
NODES: Final = ("alice", "inet", "server", "bob")

LAN_NETWORK: Final = IPv4Interface(f"{LAN['A']}/24").network

# br-lan and wan0, and hosts in namespaces around them. ROUTING makes a router of it, but not for
# the network by which the machine is told all this.
LINKS: Final = f"""
for node in {" ".join(NODES)}; do ip netns add pkg-$node; ip -n pkg-$node link set lo up; done
ip -n pkg-inet link add core type bridge
ip -n pkg-inet address add {CORE}/24 dev core
ip -n pkg-inet link set core up
ip link add br-lan type bridge
ip address add {LAN["A"]}/24 dev br-lan
ip link set br-lan up
ip link add lan0 master br-lan type veth peer name far netns pkg-alice
ip link set lan0 up
ip -n pkg-alice link set far name eth0
ip -n pkg-alice address add {ADDRESS["alice"]}/24 dev eth0
ip -n pkg-alice link set eth0 up
ip -n pkg-alice route add default via {LAN["A"]}
ip link add wan0 type veth peer name router netns pkg-inet
ip address add {WAN["A"]}/24 dev wan0
ip link set wan0 up
ip -n pkg-inet link set router master core up
for host in server:{ADDRESS["server"]} bob:{ADDRESS["bob"]}; do
    node=pkg-${{host%:*}}
    ip -n pkg-inet link add ${{host%:*}} master core type veth peer name far netns $node
    ip -n pkg-inet link set ${{host%:*}} up
    ip -n $node link set far name eth0
    ip -n $node address add ${{host#*:}}/24 dev eth0
    ip -n $node link set eth0 up
    ip -n $node route add default via {CORE}
done
"""
ROUTING: Final = f"""
sysctl -qw net.ipv4.ip_forward=1
ip route del default || true
ip route add default via {CORE}
nft add table inet home
nft add chain inet home out '{{ type nat hook postrouting priority srcnat; }}'
nft add rule inet home out ip saddr {LAN_NETWORK} oifname wan0 masquerade
"""


class Around(Lab):
    """The hosts around this machine, which is node A. Closing it ends the programs in them alone."""

    def __init__(self) -> None:
        super().__init__()
        self.prefix = "pkg"

    def command(self, node: str, *args: str) -> list[str]:
        return list(args) if node == "A" else ["ip", "netns", "exec", self.ns(node), *args]

    def _build(self) -> None:
        self.dir = Path(run("mktemp", "-d", "/tmp/pkg-XXXXXX").strip())

    def _existing(self) -> list[str]:
        return []


@contextmanager
def conversation() -> Iterator[tuple[Client, Client]]:
    """Alice and bob, signed on to a server."""
    with Around() as lab:
        server = Server(lab)
        clients = Client(lab, "alice", "alice1"), Client(lab, "bob", "bob1")
        for end in (server, *clients):
            end.wait_ready(SLOW)
        for client in clients:
            client.call("sign_on", SLOW, server=server.address, services=False)
        yield clients


def sent(alice: Client, bob: Client) -> None:
    """Alice offers a file, and bob gets it by her pinhole."""
    outcome = Transfer(alice, bob, "file", size=200_000, patience=SLOW).outcome(2 * SLOW)
    assert outcome.first_attempt, f"{outcome.reason}\n{journal()}"


def package() -> Path:
    found = sorted((REPO / "build").glob("nfreaim_*.deb"))
    if not found:
        follow("build")
        found = sorted((REPO / "build").glob("nfreaim_*.deb"))
    return found[-1]


def next_package(folder: Path) -> Path:
    """The same with a higher version."""
    run("dpkg-deb", "-R", str(package()), str(folder / "next"))
    control = folder / "next/DEBIAN/control"
    control.write_text(re.sub(r"^(Version: .*)$", r"\1+next", control.read_text(), flags=re.MULTILINE))
    run("dpkg-deb", "-b", str(folder / "next"), str(folder / "nfreaim_next.deb"))
    return folder / "nfreaim_next.deb"


def apt(*words: str) -> str:
    """apt-get without a terminal: whatever asks a question fails."""
    return run("apt-get", "-qy", "-o", "APT::Sandbox::User=root", *words)


def rules() -> str:
    """All rules and sets of this machine, in small letters."""
    saved = "iptables-legacy-save; iptables-nft-save; nft list ruleset; ipset save"
    return run("sh", "-c", saved, status=None).lower()


@pytest.fixture(scope="module", autouse=True)
def hosts() -> Iterator[None]:
    if not Path("/run/netns/pkg-alice").exists():
        run("sh", "-ec", LINKS)
    legacy = subprocess.run(["modprobe", "ip_tables"], capture_output=True).returncode == 0
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(kernel_sets, "NFT", not legacy)  # the package is told nothing, and finds out by itself
        yield


def test_on_what_is_no_router_it_asks_nothing_and_opens_nothing() -> None:
    package()
    run("sysctl", "-qw", "net.ipv4.ip_forward=0")
    follow("package")
    for unit in UNITS:
        assert show("ActiveState", unit) == "active", journal()
    assert show("StatusText").startswith("Idle: nobody is served")
    status = show("StatusText")
    assert "IPv4 forwarding is off" in status
    assert f"write into {CONF}: lan = [" in status
    assert "nfreaim" not in rules()
    assert show("NRestarts") == "0"


def test_it_serves_as_soon_as_the_machine_is_a_router() -> None:
    before, begun = process(), journal().count("ready: serving queue")
    run("sh", "-ec", ROUTING)
    eventually(lambda: journal().count("ready: serving queue") > begun)
    assert process() == before, "the daemon that waited"
    assert "nfreaim" in rules()
    assert "br-lan" in rules()
    with conversation() as (alice, bob):
        sent(alice, bob)
    checked = run("nfreaim", "check", "--self-test")
    named = "interfaces that nobody named: br-lan towards clients, wan0 towards the Internet"
    assert named in checked, checked
    assert "FAIL" not in checked, checked
    for unit in UNITS:
        found = re.search(r"exposure level for \S+: ([0-9.]+)", run("systemd-analyze", "security", unit))
        assert found is not None
        assert float(found[1]) <= 2.0


def test_an_upgrade_restarts_the_daemon_and_sessions_go_on(tmp_path: Path) -> None:
    before, since = process(), show("InvocationID", "nfreaim-rules")
    with conversation() as (alice, bob):
        sent(alice, bob)
        apt("install", "--no-install-recommends", str(next_package(tmp_path)))
        eventually(lambda: process() not in (0, before))
        assert show("InvocationID", "nfreaim-rules") == since, "the rules were reloaded, and never away"
        assert "nfreaim" in rules()
        # Nobody signs on again; what the session says is read.
        assert "connections of an earlier daemon" in journal()
        sent(alice, bob)


def test_two_lines_of_configuration_count() -> None:
    """And a third one, for the connection of the next row."""
    lines = {
        '#lan = ["br-lan"]': 'lan = ["br-lan"]',
        '#wan = ["eth0"]': 'wan = ["wan0"]',
        '#protocols = ["oscar"]': 'protocols = ["oscar", "irc"]',
    }
    text = CONF.read_text()
    for usual, wanted in lines.items():
        assert usual in text
        text = text.replace(usual, wanted)
    CONF.write_text(text)
    run("systemctl", "restart", "nfreaim-rules", "nfreaim")
    with conversation() as (alice, bob):
        sent(alice, bob)
    run("systemctl", "restart", "nfreaim")
    assert "nfreaim" in rules()


def test_a_removal_resets_edited_connections_and_leaves_the_configuration_alone() -> None:
    with Around() as lab:
        busy = edited(lab, "client inside", 0.05)
        eventually(lambda: len(waiting(lab)) == 1)
        said = apt("remove", "nfreaim")
        assert [end["error"] for end in busy.results(SLOW)] == ["ConnectionResetError"] * 2
    assert "edited connections were reset: 1" in said
    assert "nfreaim" not in rules()
    assert CONF.exists()
    listed = run("systemctl", "list-units", "--all", "--no-pager", "nfreaim*", "--plain", "--no-legend")
    assert " active " not in listed


def test_a_purge_leaves_the_users_alone() -> None:
    apt("purge", "nfreaim")
    left = run(
        "find", "/", "-xdev", "-name", "*nfreaim*", "-not", "-path", f"{REPO}/*", "-not", "-path", "/proc/*"
    )
    assert [path for path in left.split() if not path.startswith((os.fspath(REPO), "/tmp/", "/root/"))] == []
    run("id", "nfreaim")
    assert subprocess.run(["dpkg", "-s", "nfreaim"], capture_output=True).returncode == 1
