"""Ruleset: finds the chains of a native nftables ruleset that stop our pinholes or compete with them.

It reads the JSON of `nft -j list ruleset`, and neither runs a program nor changes a ruleset: the operator
decides what a native firewall accepts, and is told the rule to add.
"""

from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass
from fnmatch import fnmatch
from typing import Any

from nfreaim.host.netfilter.names import CHAIN, is_our_table
from nfreaim.marks import DEFAULT, Marks

Object = dict[str, Any]

_HARMLESS = {"counter", "log"}
_DROPS = {"drop", "reject"}
_STATE = {"ct": {"key": "state"}}
_INTERFACE = ({"meta": {"key": "iifname"}}, {"meta": {"key": "iif"}})
_ONGOING = {"established", "related", "untracked"}
_OTHERS = {"udp", "udplite", "sctp", "dccp", "icmp", "icmpv6", "ip6", "ah", "esp", "arp"}


@dataclass(frozen=True)
class Obstacle:
    """A chain that lacks an accept for pinholes.

    certain  its policy is drop; otherwise it has drop rules, which may concern other packets
    mark     the connmark bit of the connections of pinholes
    hook     "forward", or "input" for pinholes to clients on this router
    """

    family: str
    table: str
    chain: str
    certain: bool
    mark: int
    hook: str = "forward"

    @property
    def accept(self) -> str:
        """The rule that accepts the connections of pinholes and no others."""
        # Where a port of this router is announced as it is, nothing is translated.
        translated = " ct status dnat" if self.hook == "forward" else ""
        return f"ct mark and {self.mark:#x} == {self.mark:#x}{translated} accept"

    @property
    def remedy(self) -> str:
        """The command that puts this rule first in the chain."""
        return f"nft insert rule {self.family} {self.table} {self.chain} {self.accept}"


class Ruleset:
    """The objects of one `nft -j list ruleset` document, our tables left out. *marks* are those of our rules.

    Raises ValueError if the document has another form.
    """

    def __init__(self, document: object, marks: Marks = DEFAULT) -> None:
        self._mark = marks.pinhole
        objects = document.get("nftables") if isinstance(document, dict) else None
        if not isinstance(objects, list):
            raise ValueError("not the output of nft -j list ruleset")
        self._chains, self._rules = (
            [one[what] for one in objects if what in one and not _is_ours(one[what])]
            for what in ("chain", "rule")
        )
        self._tables = [item["table"] for item in objects if "table" in item]

    def is_owned(self, family: str, name: str) -> bool:
        """Whether the table has the flag owner: the kernel refuses rules of other programs in it.

        nft 1.0.6 prints the table's name in place of its flags.
        """
        flags = [
            one.get("flags", "") for one in self._tables if (one["family"], one["name"]) == (family, name)
        ]
        return any(name == flag or "owner" in flag for flag in flags)

    def has_chain(self, family: str, table: str, name: str) -> bool:
        """Whether there is such a chain."""
        return any((it["family"], it["table"], it["name"]) == (family, table, name) for it in self._chains)

    def obstacles(self, wan: Collection[str], hook: str = "forward") -> Iterator[Obstacle]:
        """Chains that every IPv4 packet at *hook* passes and that may stop a pinhole's packets."""
        for chain in self._base(hook, {"filter"}):
            rules = list(self._rules_of(chain))
            if any(_covers(rule["expr"], wan, self._mark, hook == "forward") for rule in rules):
                continue
            certain = chain.get("policy") == "drop"
            if certain or any(self._may_drop(chain, rule["expr"], frozenset()) for rule in rules):
                yield Obstacle(chain["family"], chain["table"], chain["name"], certain, self._mark, hook)

    def hopeless(self, wan: Collection[str], hook: str = "forward") -> Iterator[tuple[str, str, str]]:
        """Chains (family, table, name) at *hook* that certainly drop every pinhole's first packets: by
        default, and each accept is for other packets. In doubt a chain is none of these.
        """
        for chain in self._base(hook, {"filter"}):
            if chain.get("policy") == "drop" and not any(
                self._may_accept(chain, rule["expr"], wan, frozenset()) for rule in self._rules_of(chain)
            ):
                yield chain["family"], chain["table"], chain["name"]

    def redirectors(self) -> Iterator[str]:
        """Chains of type nat at prerouting that hold rules: they may claim the port of a pinhole."""
        for chain in self._base("prerouting", {"nat"}):
            if any(True for _ in self._rules_of(chain)):
                yield f"{chain['family']} {chain['table']} {chain['name']}"

    def unrelated(self) -> Iterator[tuple[str, str, str]]:
        """Chains (family, table, name) at the forward hook that drop by default and accept no related
        connections, by a rule of their own or of a chain that they jump to."""
        for chain in self._base("forward", {"filter"}):
            rules = list(self._rules_of(chain))
            if chain.get("policy") == "drop" and not any(
                self._accepts_related(chain, rule["expr"], frozenset()) for rule in rules
            ):
                yield chain["family"], chain["table"], chain["name"]

    def untracking(self) -> Iterator[tuple[str, str, str]]:
        """Chains (family, table, name) with a rule that takes packets out of connection tracking."""
        chains = {
            (rule["family"], rule["table"], rule["chain"]): None
            for rule in self._rules
            if rule["family"] in {"ip", "inet"}
            and any("notrack" in expression for expression in rule["expr"])
        }
        yield from chains

    def _accepts_related(self, chain: Object, expressions: list[Object], seen: frozenset[str]) -> bool:
        """Whether a rule accepts related connections, itself or through a chain that it jumps to."""
        matches = [one["match"] for one in expressions if "match" in one]
        states = [one for one in matches if one.get("left") == _STATE]
        if any(
            one.get("op") not in {"==", "in"} or "related" not in _values(one.get("right")) for one in states
        ):
            return False
        for key, value in _verdicts(expressions):
            if key == "accept" and (states or not matches):
                return True
            target = value.get("target") if key in {"jump", "goto"} and isinstance(value, dict) else None
            if target is not None and target not in seen:
                deeper = [rule["expr"] for rule in self._rules_of(chain, target)]
                if any(self._accepts_related(chain, rule, seen | {target}) for rule in deeper):
                    return True
        return False

    def _may_accept(
        self, chain: Object, expressions: list[Object], wan: Collection[str], seen: frozenset[str]
    ) -> bool:
        """Whether a rule may accept a pinhole's first packet from *wan*, itself or in another chain."""
        if any(_never(one["match"], wan) for one in expressions if "match" in one):
            return False
        for expression in expressions:
            if "vmap" in expression and not isinstance(expression["vmap"].get("data"), dict):
                return True  # a map with a name, whose elements are elsewhere
        for key, value in _verdicts(expressions, skipped=_ONGOING):
            target = value.get("target") if key in {"jump", "goto"} and isinstance(value, dict) else None
            if key == "accept" or target == CHAIN:
                return True
            if target is not None and target not in seen:
                deeper = [rule["expr"] for rule in self._rules_of(chain, target)]
                if any(self._may_accept(chain, rule, wan, seen | {target}) for rule in deeper):
                    return True
        return False

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


def _is_ours(item: Object) -> bool:
    return is_our_table(item["family"], item["table"])


def _verdicts(expressions: Iterable[Object], skipped: Collection[str] = ()) -> Iterator[tuple[str, object]]:
    """Statements of a rule as (name, argument), with those of a verdict map, but for its *skipped* keys."""
    for expression in expressions:
        for key, value in expression.items():
            yield key, value
            data = value.get("data") if key == "vmap" and isinstance(value, dict) else None
            elements = data.get("set", []) if isinstance(data, dict) else []
            for element in elements:
                if (
                    isinstance(element, list)
                    and len(element) == 2
                    and isinstance(element[1], dict)
                    and not (isinstance(element[0], str) and element[0] in skipped)
                ):
                    yield from element[1].items()


def _in_nft(name: str) -> str:
    """An interface as nft writes it, where iptables' "ppp+" is "ppp*"."""
    return f"{name[:-1]}*" if name.endswith("+") else name


def _covers(expressions: Iterable[Object], wan: Collection[str], mark: int, translated: bool = True) -> bool:
    """Whether a rule accepts the first packet of every pinhole connection, all of which are *translated*."""
    accepts = False
    for expression in expressions:
        for key, value in expression.items():
            if key == "match":
                if not _always_true(value, wan, mark, translated):
                    return False
            elif key == "accept" or (key == "jump" and value.get("target") == CHAIN):
                accepts = True
            elif key not in _HARMLESS:
                return False
    return accepts


def _always_true(match: Object, wan: Collection[str], mark: int, translated: bool = True) -> bool:
    """Whether *match* (of mark, DNAT, state or interface) is true of each first packet through a pinhole."""
    operator, left, right = match.get("op"), match.get("left"), match.get("right")
    if operator not in {"==", "in"}:
        return False
    if left == {"&": [{"ct": {"key": "mark"}}, mark]}:
        return right == mark
    if left in ({"ct": {"key": "status"}}, {"&": [{"ct": {"key": "status"}}, "dnat"]}):
        return translated and "dnat" in _values(right)
    if left == {"ct": {"key": "state"}}:
        return "new" in _values(right)
    if left in _INTERFACE:
        return bool(wan) and {_in_nft(name) for name in wan} <= _values(right)
    return False


def _never(match: Object, wan: Collection[str]) -> bool:
    """Whether *match* is true of no first packet of a TCP connection that comes in by *wan*."""
    left, values = match.get("left"), _values(match.get("right"))
    if match.get("op") not in {"==", "in"} or not isinstance(left, dict):
        return False
    if left == _STATE:
        return "new" not in values
    if left in _INTERFACE:
        names = [_in_nft(name) for name in wan]
        return not any(fnmatch(one, value) or fnmatch(value, one) for one in names for value in values)
    if left == {"meta": {"key": "l4proto"}}:
        return not values & {"tcp", "6"}
    payload = left.get("payload")
    return isinstance(payload, dict) and payload.get("protocol") in _OTHERS


def _values(right: object) -> set[str]:
    """The alternatives on the right of a match: one word, a list, or an anonymous set."""
    if isinstance(right, dict):
        right = right.get("set", [])
    return {item for item in right if isinstance(item, str)} if isinstance(right, list) else {str(right)}
