"""Routers that tell their uplinks apart by marks: a second uplink of router A, and what others do with marks.

Nothing here knows nfreaim.
"""

from __future__ import annotations

from tests.lab.net import Lab

WAN2, GATEWAY2 = "198.51.100.1", "198.51.100.254"
TABLE = "101"

# Each is a text for iptables-legacy-restore. The first two send alice's connections, and those that came in
# on wan2, over wan2.
MASKED = """\
*mangle
-A PREROUTING -j CONNMARK --restore-mark --nfmask 0xff0000 --ctmask 0xff0000
-A PREROUTING -i lan -s 10.0.0.5 -m mark --mark 0x0/0xff0000 -j MARK --set-xmark 0x10000/0xff0000
-A PREROUTING -i wan2 -m mark --mark 0x0/0xff0000 -j MARK --set-xmark 0x10000/0xff0000
-A PREROUTING -j CONNMARK --save-mark --nfmask 0xff0000 --ctmask 0xff0000
COMMIT
"""
"""As OpenWrt's pbr and mwan3 do it: every rule has a mask."""

MASKLESS = """\
*mangle
-A PREROUTING -j CONNMARK --restore-mark
-A PREROUTING -i lan -s 10.0.0.5 -m mark --mark 0x0 -j MARK --set-mark 1
-A PREROUTING -i wan2 -m mark --mark 0x0 -j MARK --set-mark 1
-A PREROUTING -m mark ! --mark 0x0 -j CONNMARK --save-mark
COMMIT
"""
"""As many how-tos have it: none has one."""

CALICO = """\
*raw
:cali-PREROUTING - [0:0]
-A PREROUTING -j cali-PREROUTING
-A cali-PREROUTING -j MARK --set-xmark 0x0/0xf0000
-A cali-PREROUTING -i cali+ -j MARK --set-xmark 0x40000/0x40000
-A cali-PREROUTING -m mark --mark 0x40000/0x40000 -m rpfilter --validmark --invert -j DROP
-A cali-PREROUTING -m mark --mark 0x10000/0x10000 -j ACCEPT
COMMIT
*mangle
:cali-PREROUTING - [0:0]
-A PREROUTING -j cali-PREROUTING
-A cali-PREROUTING -m mark --mark 0x10000/0x10000 -j ACCEPT
COMMIT
*filter
:cali-FORWARD - [0:0]
-I FORWARD 1 -j cali-FORWARD
-A cali-FORWARD -m mark --mark 0xf0000/0xf0000 -j DROP
-A cali-FORWARD -m mark --mark 0x40000/0x40000 -j DROP
-A cali-FORWARD -j MARK --set-xmark 0x0/0xe0000
COMMIT
"""
"""Calico's scratch bits, and what it does with packets of no workload."""

TAILSCALE = """\
*filter
:ts-forward - [0:0]
-I FORWARD 1 -j ts-forward
-A ts-forward -i tailscale0 -j MARK --set-xmark 0x40000/0xff0000
-A ts-forward -m mark --mark 0x40000/0xff0000 -j ACCEPT
COMMIT
*nat
:ts-postrouting - [0:0]
-A POSTROUTING -j ts-postrouting
-A ts-postrouting -m mark --mark 0x40000/0xff0000 -j MASQUERADE
COMMIT
"""
"""Tailscale's marks of subnet routes; its own packets, 0x80000, have `ip rule`s (``tailscale_routes``)."""


def second_uplink(lab: Lab) -> None:
    """Give router A another uplink, wan2, with an address and a masquerade of its own."""
    inet, router = lab.ns("inet"), lab.ns("A")
    lab.run("inet", *f"ip link add p-wan2 netns {inet} type veth peer name wan2 netns {router}".split())
    for words in (f"address add {GATEWAY2}/24 dev p-wan2", "link set p-wan2 up"):
        lab.run("inet", "ip", *words.split())
    for words in (
        f"address add {WAN2}/24 dev wan2",
        "link set wan2 up",
        f"route add default via {GATEWAY2} dev wan2 table {TABLE}",
        f"route add 10.0.0.0/24 dev lan table {TABLE}",
    ):
        lab.run("A", "ip", *words.split())
    lab.run("A", *"iptables-legacy -t nat -A POSTROUTING -o wan2 -j MASQUERADE".split())


def lead(lab: Lab, fwmark: str, where: str = f"lookup {TABLE}", preference: int = 200) -> None:
    """An `ip rule` for packets with this mark."""
    lab.run("A", *f"ip rule add pref {preference} fwmark {fwmark} {where}".split())


def tailscale_routes(lab: Lab) -> None:
    """What tailscaled adds for its own packets."""
    lead(lab, "0x80000/0xff0000", "lookup main", 5210)
    lead(lab, "0x80000/0xff0000", "lookup default", 5230)
    lead(lab, "0x80000/0xff0000", "unreachable", 5250)


def load(lab: Lab, rules: str) -> None:
    """Add *rules* to router A's."""
    lab.run("A", "iptables-legacy-restore", "--noflush", stdin=rules)


def watch_marks(lab: Lab, device: str, mark: int) -> None:
    """From now on count the packets to port 5190 that leave by *device*: with this whole mark, and others."""
    for inverted in ("", "! "):
        rule = f"-I POSTROUTING 1 -o {device} -p tcp --dport 5190 -m mark {inverted}--mark {mark:#x}"
        lab.run("A", "iptables-legacy", "-t", "mangle", *rule.split())


def watched(lab: Lab) -> tuple[int, int]:
    """How many had it, and how many had another."""
    saved = lab.run("A", "iptables-legacy-save", "-c", "-t", "mangle").stdout
    counts = {
        "!" in line: int(line[1:].partition(":")[0])
        for line in saved.splitlines()
        if "-A POSTROUTING" in line and "--dport 5190" in line and " -j " not in line
    }
    return counts[False], counts[True]
