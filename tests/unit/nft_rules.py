"""Native nftables rules as nft prints them with -j, for what is concluded from them."""

from __future__ import annotations

from typing import Any

from nfreaim.host.netfilter.nftables import Ruleset
from nfreaim.marks import DEFAULT

Rule = list[dict[str, Any]]

# Statements as nft 1.0.6 prints them with -j.
BIT = DEFAULT.pinhole
MARK: dict[str, Any] = {"match": {"op": "==", "left": {"&": [{"ct": {"key": "mark"}}, BIT]}, "right": BIT}}
OTHER_MARK: dict[str, Any] = {
    "match": {"op": "==", "left": {"&": [{"ct": {"key": "mark"}}, 0x300000]}, "right": BIT}
}
DNAT: dict[str, Any] = {"match": {"op": "in", "left": {"ct": {"key": "status"}}, "right": "dnat"}}
SSH: dict[str, Any] = {
    "match": {"op": "==", "left": {"payload": {"protocol": "tcp", "field": "dport"}}, "right": 22}
}
ACCEPT: dict[str, Any] = {"accept": None}
DROP: dict[str, Any] = {"drop": None}


def state(*names: str) -> dict[str, Any]:
    return {"match": {"op": "in", "left": {"ct": {"key": "state"}}, "right": list(names)}}


def by(*names: str) -> dict[str, Any]:
    return {"match": {"op": "==", "left": {"meta": {"key": "iifname"}}, "right": {"set": list(names)}}}


def ruleset(
    *rules: Rule,
    policy: str = "drop",
    family: str = "inet",
    others: dict[str, list[Rule]] | None = None,
    table: str = "t",
    flags: object = None,
    hook: str = "forward",
) -> Ruleset:
    """One table with a base chain that has the name of its *hook*, and plain chains `others`."""
    place = {"family": family, "table": table}
    base = {**place, "name": hook, "type": "filter", "hook": hook, "prio": 0, "policy": policy}
    about = {"family": family, "name": table} | ({} if flags is None else {"flags": flags})
    objects: list[dict[str, Any]] = [{"metainfo": {}}, {"table": about}, {"chain": base}]
    objects += [{"rule": {**place, "chain": hook, "expr": rule}} for rule in rules]
    for name, content in (others or {}).items():
        objects.append({"chain": {**place, "name": name}})
        objects += [{"rule": {**place, "chain": name, "expr": rule}} for rule in content]
    return Ruleset({"nftables": objects})
