"""A router in front of router A, as a provider's box: A's outside address is one of the network between."""

from __future__ import annotations

import subprocess

from tests.lab.net import CORE, WAN, Lab

BETWEEN, FRONT = "192.168.178.2", "192.168.178.1"
"""The addresses of router A and of the router in front in the network between them."""


def put_in_front(lab: Lab, address: str = BETWEEN, front: str = FRONT, forward: bool = True) -> None:
    """Translate for router A, which has *address* then. The box has A's address of the Internet.

    *forward*: it forwards every port there to A. Call it before nfreaim starts.
    """
    lab.run("inet", *"ip link del p-A".split())  # with A's end of the cable
    for line in (
        f"netns add {lab.ns('front')}",
        f"link add wan netns {lab.ns('A')} type veth peer name lan netns {lab.ns('front')}",
        f"link add wan netns {lab.ns('front')} type veth peer name p-front netns {lab.ns('inet')}",
    ):
        subprocess.run(["ip", *line.split()], check=True, capture_output=True, timeout=30)
    lines = {
        "inet": ["ip link set p-front master core up"],
        "A": [
            f"ip address add {address}/24 dev wan",
            "ip link set wan up",
            f"ip route add default via {front}",
        ],
        "front": [
            "ip link set lo up",
            f"ip address add {front}/24 dev lan",
            f"ip address add {WAN['A']}/24 dev wan",
            "ip link set lan up",
            "ip link set wan up",
            f"ip route add default via {CORE}",
            "echo 1 > /proc/sys/net/ipv4/ip_forward",
            "iptables-legacy -t nat -A POSTROUTING -o wan -j MASQUERADE",
            "iptables-legacy -P FORWARD DROP",
            "iptables-legacy -A FORWARD -i lan -j ACCEPT",
            "iptables-legacy -A FORWARD -m conntrack --ctstate ESTABLISHED,RELATED,DNAT -j ACCEPT",
        ],
    }
    if forward:
        lines["front"].append(
            f"iptables-legacy -t nat -A PREROUTING -i wan -d {WAN['A']} -j DNAT --to-destination {address}"
        )
    for node, some in lines.items():
        lab.run(node, "sh", "-ec", "\n".join(some))
