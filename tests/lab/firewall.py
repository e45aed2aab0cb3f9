"""The routers' own firewalls in three dialects, and a dump of everything that can be compared.

Each is what an operator would have: NAT on the WAN side, default drop, the LAN trusted, unsolicited traffic
from outside dropped without an answer. Nothing here knows nfreaim's chains.
"""

from __future__ import annotations

import re
import sys

_IPTABLES = """\
*filter
:INPUT DROP [0:0]
:FORWARD DROP [0:0]
:OUTPUT ACCEPT [0:0]
-A INPUT -i lo -j ACCEPT
-A INPUT -m conntrack --ctstate INVALID -j DROP
-A INPUT -m conntrack --ctstate ESTABLISHED,RELATED -j ACCEPT
-A INPUT -i lan -j ACCEPT
-A FORWARD -m conntrack --ctstate INVALID -j DROP
-A FORWARD -m conntrack --ctstate ESTABLISHED,RELATED -j ACCEPT
-A FORWARD -i lan -j ACCEPT
COMMIT
*nat
:PREROUTING ACCEPT [0:0]
:INPUT ACCEPT [0:0]
:OUTPUT ACCEPT [0:0]
:POSTROUTING ACCEPT [0:0]
-A POSTROUTING -o wan -j MASQUERADE
COMMIT
"""

_NATIVE = """\
table inet router {
    chain input {
        type filter hook input priority filter; policy drop;
        iifname "lo" accept
        ct state invalid drop
        ct state established,related accept
        iifname "lan" accept
    }
    chain forward {
        type filter hook forward priority filter; policy drop;
        ct state invalid drop
        ct state established,related accept
        iifname "lan" accept
    }
    chain postrouting {
        type nat hook postrouting priority srcnat; policy accept;
        oifname "wan" masquerade
    }
}
"""

RULES = {"legacy": _IPTABLES, "nft": _IPTABLES, "native-nft": _NATIVE}
LOAD = {"legacy": "iptables-legacy-restore", "nft": "iptables-nft-restore", "native-nft": "nft -f -"}

_HAS_QUEUES = """
import sys
from nfreaim.host.netfilter import queue_stats
sys.exit(0 if queue_stats.available() else "the kernel has no such module")
"""
PROBES = (
    ((*"iptables-legacy -t nat -A POSTROUTING -j MASQUERADE".split(),), "iptables-legacy NAT"),
    ((*"iptables-nft -t nat -A POSTROUTING -j MASQUERADE".split(),), "iptables-nft NAT"),
    (
        (*"iptables-legacy -t raw -A PREROUTING -j NFQUEUE --queue-num 5190 --queue-bypass".split(),),
        "NFQUEUE",
    ),
    ((*"iptables-legacy -A FORWARD -m conntrack --ctstate DNAT -j ACCEPT".split(),), "conntrack match"),
    ((*"ipset create probe hash:ip,port,ip timeout 60".split(),), "ipset"),
    ((sys.executable, "-c", _HAS_QUEUES), "nfnetlink_queue"),
)

DUMP = """
echo "== legacy"; iptables-legacy-save
echo "== nft"; iptables-nft-save 2>/dev/null
for family in inet ip6 arp bridge netdev; do echo "== nft $family"; nft -s list ruleset $family; done
nft -s -t list table ip nfreaim 2>/dev/null
for name in lan wan servers users; do nft -s list set ip nfreaim $name 2>/dev/null; done
echo "== sets"; ipset save
"""


def normalise(dump: str) -> str:
    """Drop counters, dates, random seeds, and tables of nothing but empty built-in chains with policy ACCEPT.

    Such a table appears as soon as somebody has looked into it and cannot be removed again (legacy), or is a
    leftover without effect (nft).
    """
    kept: list[str] = []
    table: list[str] = []
    for line in dump.splitlines():
        if line.startswith("#") or not line.strip():
            continue
        line = re.sub(r"\[\d+:\d+\]| initval 0x[0-9a-f]+", "", line).rstrip()
        line = re.sub(r" timeout \d+", "", line) if line.startswith("add ") else line
        if line.startswith("*"):
            table = [line]
        elif table:
            table.append(line)
            if line == "COMMIT":
                if any(not re.fullmatch(r":[A-Z]+ ACCEPT", row) for row in table[1:-1]):
                    kept += table
                table = []
        else:
            kept.append(line)
    return "\n".join(kept) + "\n"


def without_elements(dump: str, sets: str = r"\w+") -> str:
    """*dump* without the elements of those sets and maps of nftables whose names match *sets*."""
    return re.sub(rf"((?:set|map) (?:{sets}) \{{[^{{}}]*?)\n\t+elements = \{{[^{{}}]*\}}", r"\1", dump)
