"""The virtual machine as a router, with the lab's hosts in network namespaces around it::

     LAN 10.0.0.0/24                     Internet 203.0.113.0/24
   alice .5 ──[br-lan  this machine  eth0 .1]──┬── server .9
                                               └── bob .20

The router's interfaces and its firewall are what an administrator would write, so they are there again after
a boot: systemd-networkd, and an nftables.service that masquerades. The far ends of its links are moved into
the namespaces by whoever comes first after a boot.
"""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from tests.lab.net import ADDRESS, CORE, LAN, WAN, Lab
from tests.lab.standin import Client, Server, Transfer

SLOW: Final = 240.0
"""Seconds for what takes some on any machine, on one that is emulated on a busy host."""
NETWORKD: Final = Path("/etc/systemd/network")
RULESET: Final = Path("/etc/nftables.conf")
LINKS: Final = {
    "br-lan.netdev": "[NetDev]\nName=br-lan\nKind=bridge\n",
    "br-lan.network": f"[Match]\nName=br-lan\n[Network]\nAddress={LAN['A']}/24\n",
    "lan0.netdev": "[NetDev]\nName=lan0\nKind=veth\n[Peer]\nName=lan-far\n",
    "lan0.network": "[Match]\nName=lan0\n[Network]\nBridge=br-lan\n",
    "eth0.netdev": "[NetDev]\nName=eth0\nKind=veth\n[Peer]\nName=eth-far\n",
    "eth0.network": f"[Match]\nName=eth0\n[Network]\nAddress={WAN['A']}/24\nGateway={CORE}\n",
}
MASQUERADE: Final = """#!/usr/sbin/nft -f
flush ruleset
table inet router {
    chain postrouting {
        type nat hook postrouting priority srcnat; policy accept;
        oifname { "eth0", "ppp0" } masquerade
    }
}
"""
AROUND: Final = f"""
for node in alice inet server bob; do ip netns add vm-$node; ip -n vm-$node link set lo up; done
ip link set lan-far netns vm-alice
ip link set eth-far netns vm-inet
ip -n vm-alice link set lan-far name eth0
ip -n vm-alice address add {ADDRESS["alice"]}/24 dev eth0
ip -n vm-alice link set eth0 up
ip -n vm-alice route add default via {LAN["A"]}
ip -n vm-inet link add core type bridge
ip -n vm-inet link set core up
ip -n vm-inet address add {CORE}/24 dev core
ip -n vm-inet link set eth-far master core
ip -n vm-inet link set eth-far up
for host in server:{ADDRESS["server"]} bob:{ADDRESS["bob"]}; do
    node=vm-${{host%:*}}
    ip -n vm-inet link add p-${{host%:*}} type veth peer name far netns $node
    ip -n vm-inet link set p-${{host%:*}} master core
    ip -n vm-inet link set p-${{host%:*}} up
    ip -n $node link set far name eth0
    ip -n $node address add ${{host#*:}}/24 dev eth0
    ip -n $node link set eth0 up
    ip -n $node route add default via {CORE}
done
"""


class Router(Lab):
    """The network above: this machine is node A. Closing it ends the programs in it; the network stays."""

    def __init__(self) -> None:
        super().__init__()
        self.prefix = "vm"

    def command(self, node: str, *args: str) -> list[str]:
        return list(args) if node == "A" else ["ip", "netns", "exec", self.ns(node), *args]

    def _build(self) -> None:
        # With the class's own folder for logs, and the network if this is the first row since a boot.
        self.dir = Path(_sh("mktemp -d /tmp/vm-XXXXXX").strip())
        set_up()

    def _existing(self) -> list[str]:
        return []


def set_up() -> None:
    """Make this machine the router, for now and for later boots."""
    written = {NETWORKD / name: text for name, text in LINKS.items()}
    written[Path("/etc/sysctl.d/router.conf")] = "net.ipv4.ip_forward=1\n"
    fresh = [path for path in written if not path.exists()]
    for path in fresh:
        path.write_text(written[path])
    if fresh:
        load(MASQUERADE)
        _sh("systemctl enable -q nftables && systemctl restart systemd-networkd systemd-sysctl nftables")
    if not Path("/run/netns/vm-alice").exists():
        _sh("until ip link show eth-far && ip link show lan-far && ip link show br-lan; do sleep 0.2; done")
        _sh(AROUND)


def load(ruleset: str) -> None:
    """Have nftables.service load this from now on; the caller restarts or reloads it."""
    RULESET.write_text(ruleset)


@contextmanager
def conversation(
    router: Lab, alice: str = "alice", bob: str = "bob", server: str = "server"
) -> Iterator[list[Client]]:
    """A server and two clients, signed on; the names are of their nodes."""
    talks = Server(router, node=server)
    clients = [Client(router, alice, "alice1"), Client(router, bob, "bob1")]
    try:
        for end in (talks, *clients):
            end.wait_ready(SLOW)
        for client in clients:
            client.call("sign_on", SLOW, server=talks.address, services=False)
        yield clients
    finally:
        for end in (*clients, talks):
            end.stop()


def offers(alice: Client, bob: Client, size: int = 200_000) -> None:
    """Alice offers bob a file; he reaches her at the first attempt, and gets all of it."""
    outcome = Transfer(alice, bob, "file", size=size, patience=SLOW).outcome(2 * SLOW)
    assert outcome.first_attempt, outcome.reason


def _sh(lines: str) -> str:
    done = subprocess.run(
        ["sh", "-ec", lines], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=SLOW
    )
    assert done.returncode == 0, done.stdout
    return done.stdout
