"""How a native nftables ruleset is told to accept pinholes, so that it lasts: by whoever loads the ruleset.

A line that is inserted by hand works at once, and is lost when the ruleset is loaded again. So each remedy
names the file too, behind a `#`, which keeps the whole a command of a shell. A table with `flags owner`
refuses every other program's rules: firewalld, which has such a table, has a policy instead.
"""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from typing import Final

from nfreaim.host.netfilter.nftables import Obstacle, Ruleset

FW4_FILE: Final = "/usr/share/nftables.d/chain-pre/{chain}/10-nfreaim.nft"
"""OpenWrt's firewall includes what is there at the head of the chain of that name."""


def remedy(obstacle: Obstacle, ruleset: Ruleset, lan: Sequence[str], wan: Sequence[str]) -> str:
    """What makes the chain accept the connections of pinholes, and where that has to be written to last."""
    family, table, chain = obstacle.family, obstacle.table, obstacle.chain
    if table == "firewalld":
        return _firewalld(lan, wan) if obstacle.hook == "forward" else _firewalld_here(wan)
    if ruleset.is_owned(family, table):
        return (
            f"table {family} {table} belongs to a running program (flags owner), which alone can change it:"
            f" have that accept `{obstacle.accept}` in chain {chain}"
        )
    if table == "fw4":
        path = FW4_FILE.format(chain=chain)
        return f"mkdir -p {path.rpartition('/')[0]} && echo '{obstacle.accept}' > {path} && fw4 reload"
    where = (
        f"first in chain {chain} of table {family} {table} in /etc/nftables.conf or the file that loads it"
    )
    if ruleset.has_chain(family, table, ufw := f"ufw-before-{obstacle.hook}"):
        translated = " -m conntrack --ctstate DNAT" if obstacle.hook == "forward" else ""
        line = f"-A {ufw} -m connmark --mark {obstacle.mark:#x}/{obstacle.mark:#x}{translated} -j ACCEPT"
        return f"{obstacle.remedy} # to last: in /etc/ufw/before.rules, before COMMIT: {line}"
    return (
        f"{obstacle.remedy} # to last: the same rule, {where}; or in nfreaim.toml"
        f' native_accept = ["{family} {table} {chain}"]; a reload loses the line otherwise'
    )


def _firewalld(lan: Sequence[str], wan: Sequence[str]) -> str:
    """A policy from the zone outside to the one inside. It cannot tell pinholes from other connections; but
    from outside nothing gets at a port inside that is not forwarded, unless it is routed there.
    """
    policy = "firewall-cmd --permanent --policy nfreaim"
    rule = shlex.quote('rule family="ipv4" port port="1024-65535" protocol="tcp" accept')
    zones = [
        f"{policy} --add-{way}-zone $(firewall-cmd --get-zone-of-interface {interface})"
        for way, interfaces in (("ingress", wan), ("egress", lan))
        for interface in interfaces
    ]
    made = ["firewall-cmd --permanent --new-policy nfreaim", *zones, f"{policy} --add-rich-rule {rule}"]
    return " && ".join([*made, "firewall-cmd --reload"])


def _firewalld_here(wan: Sequence[str]) -> str:
    """Ports in the zones outside: on this router a rule for all ports would open those of its services."""
    zone = "firewall-cmd --permanent --zone=$(firewall-cmd --get-zone-of-interface {})"
    ports = "20000-20009/tcp"
    commands = [*(f"{zone.format(name)} --add-port={ports}" for name in wan), "firewall-cmd --reload"]
    return f"{' && '.join(commands)} # with the ports at which clients on this router are set to listen"
