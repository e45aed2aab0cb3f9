"""Ruleset: finds the chains of a native nftables ruleset that stop our pinholes or compete with them.

It reads the JSON of `nft -j list ruleset`, and neither runs a program nor changes a ruleset: the operator
decides what a native firewall accepts, and is told the rule to add.
"""

from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from nfreaim.host.netfilter.names import CHAIN, PINHOLE_MARK

Object = dict[str, Any]

ACCEPT = f"ct mark and {PINHOLE_MARK:#x} == {PINHOLE_MARK:#x} ct status dnat accept"

_HARMLESS = {"counter", "log"}
_DROPS = {"drop", "reject"}


@dataclass(frozen=True)
class Obstacle:
    """A chain at the forward hook that lacks an accept for pinholes.

    certain  its policy is drop; otherwise it has drop rules, which may concern other packets
    """

    family: str
    table: str
    chain: str
    certain: bool

    @property
    def remedy(self) -> str:
        """The command that makes the chain accept the connections of pinholes and no others."""
        return f"nft insert rule {self.family} {self.table} {self.chain} {ACCEPT}"


class Ruleset:
    """The objects of one `nft -j list ruleset` document.

    Raises ValueError if the document has another form.
    """

    def __init__(self, document: object) -> None:
        objects = document.get("nftables") if isinstance(document, dict) else None
        if not isinstance(objects, list):
            raise ValueError("not the output of nft -j list ruleset")
        self._chains = [item["chain"] for item in objects if "chain" in item]
        self._rules = [item["rule"] for item in objects if "rule" in item]
        self.flowtables = [item["flowtable"]["name"] for item in objects if "flowtable" in item]

    def obstacles(self, wan: Collection[str]) -> Iterator[Obstacle]:
        """Chains that every forwarded IPv4 packet passes and that may stop a pinhole's packets."""
        for chain in self._base("forward", {"filter"}):
            rules = list(self._rules_of(chain))
            if any(_covers(rule["expr"], wan) for rule in rules):
                continue
            certain = chain.get("policy") == "drop"
            if certain or any(self._may_drop(chain, rule["expr"], frozenset()) for rule in rules):
                yield Obstacle(chain["family"], chain["table"], chain["name"], certain)

    def redirectors(self) -> Iterator[str]:
        """Chains of type nat at prerouting that hold rules: they may claim the port of a pinhole."""
        for chain in self._base("prerouting", {"nat"}):
            if any(True for _ in self._rules_of(chain)):
                yield f"{chain['family']} {chain['table']} {chain['name']}"

    def _base(self, hook: str, types: Collection[str]) -> Iterator[Object]:
        for chain in self._chains:
            if chain.get("hook") == hook and chain.get("type") in types and chain["family"] in {"ip", "inet"}:
                yield chain

    def _rules_of(self, chain: Object, name: str | None = None) -> Iterator[Object]:
        wanted = (chain["family"], chain["table"], chain["name"] if name is None else name)
        for rule in self._rules:
            if (rule["family"], rule["table"], rule["chain"]) == wanted:
                yield rule

    def _may_drop(self, chain: Object, expressions: Iterable[Object], seen: frozenset[str]) -> bool:
        """Whether a rule drops, itself or through a chain that it jumps to. *seen* ends a ring of jumps."""
        for key, value in _verdicts(expressions):
            if key in _DROPS:
                return True
            target = value.get("target") if key in {"jump", "goto"} and isinstance(value, dict) else None
            if target is None or target in seen:
                continue
            for rule in self._rules_of(chain, target):
                if self._may_drop(chain, rule["expr"], seen | {target}):
                    return True
        return False


def _verdicts(expressions: Iterable[Object]) -> Iterator[tuple[str, object]]:
    """Statements of a rule as (name, argument), those inside a verdict map included."""
    for expression in expressions:
        for key, value in expression.items():
            yield key, value
            data = value.get("data") if key == "vmap" and isinstance(value, dict) else None
            elements = data.get("set", []) if isinstance(data, dict) else []
            for element in elements:
                if isinstance(element, list) and len(element) == 2 and isinstance(element[1], dict):
                    yield from element[1].items()


def _covers(expressions: Iterable[Object], wan: Collection[str]) -> bool:
    """Whether a rule accepts the first packet of every pinhole connection."""
    accepts = False
    for expression in expressions:
        for key, value in expression.items():
            if key == "match":
                if not _always_true(value, wan):
                    return False
            elif key == "accept" or (key == "jump" and value.get("target") == CHAIN):
                accepts = True
            elif key not in _HARMLESS:
                return False
    return accepts


def _always_true(match: Object, wan: Collection[str]) -> bool:
    """Whether *match* (of mark, DNAT, state or interface) is true of each first packet through a pinhole."""
    operator, left, right = match.get("op"), match.get("left"), match.get("right")
    if operator not in {"==", "in"}:
        return False
    if left == {"&": [{"ct": {"key": "mark"}}, PINHOLE_MARK]}:
        return right == PINHOLE_MARK
    if left in ({"ct": {"key": "status"}}, {"&": [{"ct": {"key": "status"}}, "dnat"]}):
        return "dnat" in _values(right)
    if left == {"ct": {"key": "state"}}:
        return "new" in _values(right)
    if left in ({"meta": {"key": "iifname"}}, {"meta": {"key": "iif"}}):
        return bool(wan) and set(wan) <= _values(right)
    return False


def _values(right: object) -> set[str]:
    """The alternatives on the right of a match: one word, a list, or an anonymous set."""
    if isinstance(right, dict):
        right = right.get("set", [])
    return {item for item in right if isinstance(item, str)} if isinstance(right, list) else {str(right)}
