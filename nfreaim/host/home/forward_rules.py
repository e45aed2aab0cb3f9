"""OperatorForward: a rule that forwards one outside port, or all, to one host; read from the rulesets.

A rule makes a server of its host only if it names the port: not if it is for all ports, or for a range.
Rules carry no author, but programs that make them on request of a LAN host (UPnP, PCP, NAT-PMP) put them into
chains or tables of their own, or say so in a comment: those are left out.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from typing import Any, Final, NamedTuple

from nfreaim.core.address import Endpoint
from nfreaim.host.netfilter.names import is_our_table

_ON_REQUEST: Final = re.compile(r"upnp|nat-?pmp|\bpcp", re.IGNORECASE)
_TO: Final = re.compile(r"([0-9]+(?:\.[0-9]+){3})(?::([0-9]+))?")
# Options of iptables that decide where a connection leads. A "!" before one of them reverses its meaning.
_DECIDE: Final = {"-d", "-p", "--dport", "--dports"}

Object = dict[str, Any]


class OperatorForward(NamedTuple):
    """A translation of the destination to *inside*.

    outside  the outside address; "" if the rule names none, and is for all addresses of the router
    port     the outside port; 0 if the rule is for all ports, and then *inside* has port 0, too
    """

    outside: str
    port: int
    inside: Endpoint

    def leads(self, reached: Endpoint, server: Endpoint) -> bool:
        """Whether this rule leads from *reached* to *server*."""
        return self.inside == server and self.port == reached.port and self.outside in ("", reached.address)


def saved_forwards(saved: str) -> Iterator[OperatorForward]:
    """The forwards in the output of iptables-save or iptables-nft-save for the table nat."""
    for line in saved.splitlines():
        if not line.startswith("-A "):
            continue
        try:
            words = shlex.split(line)
        except ValueError:
            continue
        yield from _saved_rule(words)


def _saved_rule(words: list[str]) -> Iterator[OperatorForward]:
    options: dict[str, str] = {}
    for at, word in enumerate(words[:-1]):
        if word.startswith("-") and not words[at + 1].startswith("-"):
            if words[at - 1] == "!" and word in _DECIDE:
                return
            options.setdefault(word, words[at + 1])
    to = _TO.fullmatch(options.get("--to-destination", ""))
    network, _, length = options.get("-d", "").partition("/")
    if (
        options.get("-j") != "DNAT"
        or to is None
        or length not in ("", "32")
        or _ON_REQUEST.search(" ".join(words))
    ):
        return
    if not _DECIDE & options.keys() - {"-d", "-p"} and options.get("-p", "tcp") == "tcp":
        yield OperatorForward(network, 0, Endpoint(to[1], 0))
    for port in options.get("--dport", options.get("--dports", "")).split(","):
        if port.isdecimal():
            yield OperatorForward(network, int(port), Endpoint(to[1], int(to[2] or port)))


def ruleset_forwards(document: object) -> Iterator[OperatorForward]:
    """The forwards in an `nft -j list ruleset` document, but those that iptables-nft made, and ours."""
    objects = document.get("nftables", []) if isinstance(document, dict) else []
    lists = {
        (one["family"], one["table"], f"@{one['name']}"): one.get("elem", [])
        for item in objects
        for one in (item.get("set"), item.get("map"))
        if one
    }
    for item in objects:
        rule = item.get("rule")
        if rule is None or is_our_table(rule["family"], rule["table"]):
            continue
        if _ON_REQUEST.search(f"{rule['table']} {rule['chain']} {rule.get('comment', '')}"):
            continue
        where = rule["family"], rule["table"]
        named = {name: found for (*place, name), found in lists.items() if tuple(place) == where}
        yield from _rule_forwards(rule["expr"], named)


def _rule_forwards(expressions: list[Object], named: dict[str, list[Any]]) -> Iterator[OperatorForward]:
    outsides: list[Any] = [""]
    ports: list[Any] = []
    for expression in expressions:
        match, dnat = expression.get("match"), expression.get("dnat")
        if match is not None:
            field = _field(match["left"])
            if field in ("daddr", "dport"):
                if match["op"] not in ("==", "in"):
                    return
                found = _elements(match["right"], named)
                outsides, ports = (found, ports) if field == "daddr" else (outsides, found)
        elif isinstance(dnat, dict):
            for port, inside in _destinations(dnat, ports, named):
                for outside in outsides:
                    if isinstance(outside, str):
                        yield OperatorForward(outside, port, inside)


def _destinations(
    dnat: Object, ports: list[Any], named: dict[str, list[Any]]
) -> Iterator[tuple[int, Endpoint]]:
    """The port and the inside endpoint of each single port that a dnat statement translates."""
    address, to_port = dnat.get("addr"), dnat.get("port")
    pairs: list[Any] = [[port, address] for port in ports or [0]]
    if isinstance(address, dict) and _field(address.get("map", {}).get("key")) == "dport":
        pairs = _elements(address["map"]["data"], named)
    for pair in pairs:
        if not isinstance(pair, list) or len(pair) != 2 or type(pair[0]) is not int:
            continue
        port, found = pair
        chosen = to_port
        if isinstance(found, dict) and len(found.get("concat", [])) == 2:
            found, chosen = found["concat"]
        if isinstance(found, str) and _TO.fullmatch(found) and (chosen is None or type(chosen) is int):
            yield port, Endpoint(found, port if chosen is None or not port else chosen)


def _field(left: object) -> str:
    """The name of the header field, of IPv4 or TCP, that an expression reads; "" for anything else."""
    payload = left.get("payload") if isinstance(left, dict) else None
    if not isinstance(payload, dict) or payload.get("protocol") not in ("ip", "tcp", "th"):
        return ""
    return str(payload.get("field", ""))


def _elements(right: object, named: dict[str, list[Any]]) -> list[Any]:
    """The alternatives of a match or the pairs of a map: one value, an anonymous set, or a named one."""
    if isinstance(right, dict):
        right = right.get("set")
    if isinstance(right, str) and right.startswith("@"):
        right = named.get(right, [])
    return right if isinstance(right, list) else [right]
