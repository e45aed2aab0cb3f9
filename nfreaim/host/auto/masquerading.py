"""Whether a router translates the addresses of an inside network on its way out.

The operator's own rules say so, in iptables of either kind or in nftables' own language. The chains of type
nat behind routing are followed as the kernel does, for the first packet of a TCP connection from a network by
two interfaces. A match that is not understood may hold or not; a rule with such a match does not count. So in
doubt nothing is translated.
"""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from enum import IntEnum
from fnmatch import fnmatch
from ipaddress import IPv4Address, IPv4Network
from typing import Any, Final, NamedTuple

_DEEPEST: Final = 16  # jumps; the kernel has 16 levels


class Way(NamedTuple):
    """Where packets come from and go: the inside interface with a network of it, and the outside one."""

    lan: str
    network: IPv4Network
    wan: str


class Holds(IntEnum):
    """Whether a match holds for each first packet of a way."""

    NO = 0
    PERHAPS = 1
    YES = 2


class Rule(NamedTuple):
    """*matches*: each with what it compares, its values and whether it is negated.

    verdict  "masquerade", "jump", "goto", "end" (of the translation), "return", or "" for none of these
    target   the chain of a jump
    """

    matches: tuple[Match, ...]
    verdict: str
    target: str = ""


class Match(NamedTuple):
    """*subject*: "lan", "wan", "network" or "protocol"; anything else is not understood."""

    subject: str
    values: tuple[str, ...] = ()
    negated: bool = False

    def holds(self, way: Way) -> Holds:
        """For the first packet of a TCP connection."""
        if self.subject == "network":
            found = _inside(way.network, self.values)
        elif self.subject in ("lan", "wan"):
            name = way.lan if self.subject == "lan" else way.wan
            found = Holds.YES if any(fnmatch(name, value) for value in self.values) else Holds.NO
        elif self.subject == "protocol":
            found = Holds.YES if {"tcp", "6", "ip", "ipv4", "all"} & {*self.values} else Holds.NO
        elif self.subject == "destination":  # any host on the Internet
            found = Holds.NO
        else:
            return Holds.PERHAPS
        return Holds(Holds.YES - found) if self.negated else found


class Ruleset(NamedTuple):
    """*chains*: the rules of each. *bases*: those that a packet enters, in any order."""

    chains: Mapping[str, Sequence[Rule]]
    bases: Collection[str]

    def masquerades(self, way: Way) -> bool:
        """Whether the source addresses of all connections of *way* are certainly translated."""
        return any(self._ends(base, way, 0) == "masquerade" for base in self.bases)

    def _ends(self, chain: str, way: Way, depth: int) -> str:
        """ "masquerade", "end", or "" if the packet leaves *chain* without either."""
        for rule in self.chains.get(chain, ()) if depth < _DEEPEST else ():
            if min((one.holds(way) for one in rule.matches), default=Holds.YES) is not Holds.YES:
                continue
            if rule.verdict in ("jump", "goto"):
                if ended := self._ends(rule.target, way, depth + 1):
                    return ended
                if rule.verdict == "goto":
                    return ""
            elif rule.verdict == "return":
                return ""
            elif rule.verdict:
                return rule.verdict
        return ""


def _inside(network: IPv4Network, values: Iterable[str]) -> Holds:
    """Whether *network* is inside one of *values*: networks, addresses, or ranges "first-last"."""
    found = Holds.NO
    for value in values:
        try:
            first, _, last = value.partition("-")
            if last:
                covers = IPv4Address(first) <= network[0] and network[-1] <= IPv4Address(last)
                touches = IPv4Address(first) <= network[-1] and network[0] <= IPv4Address(last)
            else:
                other = IPv4Network(value, strict=False)
                covers, touches = network.subnet_of(other), network.overlaps(other)
        except ValueError:  # of IPv6, or a name
            continue
        found = max(found, Holds.YES if covers else Holds.PERHAPS if touches else Holds.NO)
    return found


# --- iptables-save ---

_OF_OPTION: Final = {"-s": "network", "-o": "wan", "-d": "destination", "-p": "protocol"}
_VERDICTS: Final = {"MASQUERADE": "masquerade", "SNAT": "masquerade", "ACCEPT": "end", "DROP": "end"}
_TARGETS: Final = {"RETURN": "return", "LOG": "", "MARK": "", "CONNMARK": "", "NFLOG": "", "NETMAP": "end"}
# What says nothing about a packet: a comment, the name of a match whose options follow, and IPsec's absence.
_SAYS_NOTHING: Final = re.compile(
    r" -m comment --comment (?:\"(?:[^\"\\]|\\.)*\"|\S+)| -m policy --dir out --pol none"
)


def of_iptables(saved: str) -> Ruleset:
    """The table nat in what `iptables-save -t nat` prints."""
    chains: dict[str, list[Rule]] = {}
    for line in saved.splitlines():
        if line.startswith("-A "):
            chain, _, rule = line.removeprefix("-A ").partition(" ")
            chains.setdefault(chain, []).append(_iptables_rule(_SAYS_NOTHING.sub("", f" {rule}")))
    return Ruleset(chains, ("POSTROUTING",))


def _iptables_rule(text: str) -> Rule:
    try:
        words = iter(shlex.split(text))
    except ValueError:
        return Rule((Match(""),), "")
    matches: list[Match] = []
    negated = False
    for word in words:
        if word == "!":
            negated = True
            continue
        if word in ("-j", "-g"):
            target = next(words, "")
            verdict = _VERDICTS.get(target, _TARGETS.get(target, "jump" if word == "-j" else "goto"))
            return Rule(tuple(matches), verdict, target)
        value = next(words, "")
        subject = _OF_OPTION.get(word, "")
        if not (word == "-m" and value in ("tcp", "comment")):
            written = f"{value[:-1]}*" if subject == "wan" and value.endswith("+") else value
            matches.append(Match(subject, (written,), negated))
        negated = False
    return Rule(tuple(matches), "")


# --- nft -j list ruleset ---

_OF_META: Final = {
    **dict.fromkeys(("iifname", "iif"), "lan"),
    **dict.fromkeys(("oifname", "oif"), "wan"),
    **dict.fromkeys(("nfproto", "l4proto"), "protocol"),
}
_OF_FIELD: Final = {"saddr": "network", "daddr": "destination", "protocol": "protocol"}
_OF_STATEMENT: Final = {
    **dict.fromkeys(("masquerade", "snat"), "masquerade"),
    **dict.fromkeys(("accept", "drop", "reject"), "end"),
    **{name: name for name in ("jump", "goto", "return")},
}
_HARMLESS: Final = {"counter", "log"}


def of_nftables(document: str) -> Ruleset:
    """The chains of type nat at postrouting in what `nft -j list ruleset` prints, and those they jump to.

    Tables of iptables-nft are among them; of these only `iptables-nft-save` tells the matches. A text that is
    no such document has no chains.
    """
    try:
        objects: list[dict[str, Any]] = json.loads(document)["nftables"]
        chains: dict[str, list[Rule]] = {}
        bases = []
        for one in objects:
            if chain := one.get("chain"):
                if chain.get("type") == "nat" and chain.get("hook") == "postrouting":
                    bases.append(_name(chain, chain["name"]))
            elif rule := one.get("rule"):
                chains.setdefault(_name(rule, rule["chain"]), []).extend(_nft_rules(rule))
    except (ValueError, KeyError, TypeError, AttributeError):
        return Ruleset({}, ())
    return Ruleset(chains, [base for base in bases if not base.startswith("ip6 ")])


def _name(of: Mapping[str, str], chain: str) -> str:
    return f"{of['family']} {of['table']} {chain}"


def _nft_rules(rule: dict[str, Any]) -> Iterator[Rule]:
    """A rule, and for a verdict map one for each of its entries."""
    matches: list[Match] = []
    for expression in rule["expr"]:
        ((key, value),) = expression.items()
        if key == "match":
            matches.append(_nft_match(value["left"], value.get("op", ""), value["right"]))
        elif key == "vmap":
            for entry, verdict in value["data"]["set"] if isinstance(value["data"], dict) else ():
                yield _verdict(rule, (*matches, _nft_match(value["key"], "==", entry)), verdict)
        elif key in _OF_STATEMENT:
            yield _verdict(rule, tuple(matches), expression)
            return
        elif key not in _HARMLESS:
            matches.append(Match(key))


def _verdict(rule: dict[str, Any], matches: tuple[Match, ...], statement: dict[str, Any]) -> Rule:
    ((key, value),) = statement.items()
    target = _name(rule, value["target"]) if key in ("jump", "goto") else ""
    return Rule(matches, _OF_STATEMENT.get(key, ""), target)


def _nft_match(left: Any, operator: str, right: Any) -> Match:
    subject = ""
    if operator in ("==", "!=", "in") and isinstance(left, dict):
        if "meta" in left:
            subject = _OF_META.get(left["meta"]["key"], "")
        elif left.get("payload", {}).get("protocol") == "ip":
            subject = _OF_FIELD.get(left["payload"].get("field"), "")
    values = tuple(_nft_values(right))
    return Match(subject if values else "", values, operator == "!=")


def _nft_values(right: Any) -> Iterator[str]:
    """The alternatives on the right side of a match; none where they are elsewhere, as in a named set."""
    if isinstance(right, dict) and "set" in right:
        for one in right["set"]:
            yield from _nft_values(one)
    elif isinstance(right, dict) and "prefix" in right:
        yield f"{right['prefix']['addr']}/{right['prefix']['len']}"
    elif isinstance(right, dict) and "range" in right:
        yield "-".join(map(str, right["range"]))
    elif isinstance(right, str | int) and not str(right).startswith("@"):
        yield str(right)
