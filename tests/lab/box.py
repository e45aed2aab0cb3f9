"""The router in front of router A as a provider's box that maps ports to who asks: real miniupnpd.

miniupnpd maps nothing while its outside address is private or one of those for documents, and nfreaim
believes no address for benchmarks either. So the outer network has public addresses here.
"""

from __future__ import annotations

import shutil
import subprocess
import textwrap
from typing import Final

from tests.lab.front import put_in_front
from tests.lab.net import Lab
from tests.lab.scene import eventually

OUTSIDE, SERVER, BOB = "8.8.4.1", "8.8.4.9", "8.8.4.20"
"""The addresses of the box (of router A without one), of the server and of bob on the Internet."""

INSTALLED: Final = shutil.which("miniupnpd") is not None
REASON: Final = "miniupnpd is absent; apt install miniupnpd-iptables"

CHAINS: Final = """
for table in nat mangle filter; do iptables-legacy -t $table -N MINIUPNPD; done
iptables-legacy -t nat -N MINIUPNPD-POSTROUTING
iptables-legacy -t nat -I PREROUTING -i wan -j MINIUPNPD
iptables-legacy -t mangle -I PREROUTING -i wan -j MINIUPNPD
iptables-legacy -t filter -I FORWARD -i wan ! -o wan -j MINIUPNPD
iptables-legacy -t nat -I POSTROUTING -o wan -j MINIUPNPD-POSTROUTING
"""
"""What Debian's /etc/miniupnpd/iptables_init.sh makes."""

HTTP: Final = 5431


def renumber(lab: Lab, edge: str = "A") -> None:
    """Give the outer network public addresses; *edge* is the router whose "wan" is there."""
    for node, device, address in (
        *((edge, "wan", OUTSIDE), ("B", "wan", "8.8.4.2"), ("inet", "core", "8.8.4.254")),
        *(("server", "eth0", SERVER), ("bob", "eth0", BOB)),
    ):
        route = "" if node == "inet" else f"; ip route replace default via 8.8.4.254 dev {device}"
        lab.run(
            node,
            *("sh", "-ec"),
            f"ip address flush dev {device}; ip address add {address}/24 dev {device}{route}",
        )


def serve(lab: Lab, node: str, allow: str, more: str = "") -> subprocess.Popen[bytes]:
    """Start miniupnpd on *node*, for the hosts of the network *allow*; *more* are lines of its settings."""
    settings = lab.log_file("upnpd").with_suffix(".conf")
    lines = f"""\
        ext_ifname=wan
        listening_ip=lan
        http_port={HTTP}
        enable_natpmp=yes
        enable_upnp=yes
        secure_mode=yes
        force_igd_desc_v1=yes
        uuid=11111111-2222-3333-4444-555555555555
        """
    rules = f"allow 1024-65535 {allow} 1024-65535\ndeny 0-65535 0.0.0.0/0 0-65535\n"
    settings.write_text(textwrap.dedent(lines) + more + rules)
    running = lab.spawn(node, "miniupnpd", "-d", "-f", str(settings), "-P", str(settings.with_suffix(".pid")))
    eventually(lambda: "LISTEN" in lab.run(node, "ss", "-Hltn", f"sport = :{HTTP}").stdout)
    return running


def put_box_in_front(lab: Lab, more: str = "", answers: bool = True) -> None:
    """The box forwards nothing but what it is asked for, if it *answers* at all."""
    put_in_front(lab, forward=False)
    renumber(lab, "front")
    lab.run("front", "sh", "-ec", CHAINS)
    if answers:
        serve(lab, "front", "192.168.178.0/24", more)


def mapped(lab: Lab, node: str = "front") -> list[str]:
    """The rules of miniupnpd's mappings, in its chain of the nat table."""
    saved = lab.run(node, "iptables-legacy-save", "-t", "nat").stdout.splitlines()
    return [rule for rule in saved if rule.startswith("-A MINIUPNPD ")]
