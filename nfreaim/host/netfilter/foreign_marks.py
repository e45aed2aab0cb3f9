"""Marks of others: what rules of other programs do with packet marks and connmarks, and what comes of it.

It reads the output of ``iptables-save``, ``nft -j list ruleset`` and ``ip -j rule``; it runs none. Three
things matter: who uses bits of ours; who writes over our connmark bits, so that a pinhole's connection is not
known any more; and who takes the packet mark from the connmark, so that our bits lead the packet another way.
Of a rule's conditions those are understood that programs limit such rules by.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, NamedTuple

from nfreaim.host.netfilter.names import CHAIN, is_our_table
from nfreaim.marks import CONNMARK_BITS, CONNMARK_MASK, MARK_MASK, MOST, Marks, bits

_NUMBER: Final = r"(0x[0-9a-f]+|\d+)"
_MASKED: Final = rf"{_NUMBER}(?:/{_NUMBER})?"
_TARGET: Final = re.compile(r" -[jg] (\S+)")
_SET: Final = re.compile(rf"--set-xmark {_MASKED}")
_COPY: Final = re.compile(rf"--(save|restore)-mark(?: --nfmask {_NUMBER} --ctmask {_NUMBER})?")
_MATCH: Final = re.compile(rf"-m (mark|connmark) (! )?--mark {_MASKED}")
_STATE: Final = re.compile(r"(! )?--(?:ct)?state (\S+)")
_ELSEWHERE: Final = re.compile(r"(?<!! )-p (?!tcp\b|all\b)\S+|(?<!! )-[io] lo ")
_MOST_DEEP: Final = 20  # chains that are jumped to from one another
_STRIP_PRIORITY: Final = -150  # of mangle PREROUTING, where our rule takes our bits off


class Use(NamedTuple):
    """A rule that writes, copies or looks at marks.

    where       the program and the chain, for people
    text        the rule
    packet      bits of packet marks that it means
    connection  bits of connmarks that it means
    """

    where: str
    text: str
    packet: int
    connection: int

    def __str__(self) -> str:
        return f"{self.where}: {self.text}"


class Harm(NamedTuple):
    """A rule beside which no pinhole can work, why, and what to do."""

    use: Use
    why: str
    remedy: str

    def __str__(self) -> str:
        return f"{self.use} {self.why}"


@dataclass
class _Pass:
    """What rules have done to the packets of a hook, in the order in which packets meet them.

    restored  the last rule that took bits of ours from the connmark to the packet
    guarded   packets with a mark have left since
    """

    restored: Use | None = None
    guarded: bool = False


@dataclass
class ForeignMarks:
    """What is known of others' marks. *ours* are the bits in use."""

    ours: Marks
    uses: list[Use] = field(default_factory=list)
    harms: list[Harm] = field(default_factory=list)
    _routed: int = 0
    _escaped: list[Use] = field(default_factory=list)

    def read_routes(self, document: object) -> None:
        """Add the output of ``ip -j rule``. Call it first."""
        for rule in document if isinstance(document, list) else []:
            if not isinstance(rule, dict) or "fwmark" not in rule:
                continue
            value, mask = int(str(rule["fwmark"]), 0), int(str(rule.get("fwmask", hex(MOST))), 0)
            text = f"fwmark {value:#x}" + (f"/{mask:#x}" if mask != MOST else "")
            self._routed |= mask
            text += f" lookup {rule.get('table', '?')}"
            self.uses.append(Use("ip rule", text, _meant(value, mask), 0))

    def read_saved(self, saved: str, program: str) -> None:
        """Add the output of *program*-save."""
        tables: dict[str, dict[str, list[str]]] = {}
        chains: dict[str, list[str]] = {}
        for line in saved.splitlines():
            if line.startswith("*"):
                chains = tables.setdefault(line[1:], {})
            elif line.startswith(":"):
                chains.setdefault(line[1:].split()[0], [])
            elif line.startswith("-A "):
                chains.setdefault(line.split()[1], []).append(line)
        for table, found in tables.items():
            for rules in found.values():
                self.uses += [use for line in rules if (use := _use(line, f"{program} {table}")) is not None]
            for hook in ("PREROUTING", "INPUT", "FORWARD", "POSTROUTING"):
                walk = _Walk(self, f"{program} {table}", table, hook, found)
                walk.chain(found.get(hook, []), False, 0)
        self._told_escapes()

    def read_native(self, document: object) -> None:
        """Add the output of ``nft -j list ruleset``."""
        objects = document.get("nftables") if isinstance(document, dict) else None
        items = [item for item in objects if isinstance(item, dict)] if isinstance(objects, list) else []
        chains = {_name(item["chain"]): item["chain"] for item in items if "chain" in item}
        for item in items:
            rule = item.get("rule")
            if not rule or rule["family"] not in {"ip", "inet"}:
                continue
            if not rule["chain"].startswith(CHAIN) and not is_our_table(rule["family"], rule["table"]):
                chain = chains.get((rule["family"], rule["table"], rule["chain"]), {})
                self._native(rule, chain.get("hook"), chain.get("prio", 0))
        self._told_escapes()

    def free(self) -> tuple[int, int] | None:
        """Masks of packet mark and connmark whose bits nobody uses; None if there are too few."""
        taken = 0
        for use in self.uses:
            taken |= use.packet | use.connection
        usual = [*bits(MARK_MASK | CONNMARK_MASK)]
        order = [*usual, *(1 << n for n in (*range(29, 15, -1), 31, 30, *range(15, -1, -1)))]
        found = [bit for bit in dict.fromkeys(order) if not bit & taken][: CONNMARK_BITS + 1]
        if len(found) <= CONNMARK_BITS:
            return None
        *connection, packet = sorted(found)
        return packet, sum(connection)

    def collisions(self) -> Iterator[tuple[Use, str]]:
        """The rules that mean bits of ours, and the key of the settings that is concerned."""
        for use in self.uses:
            if (use.packet, use.connection) == (0, self.ours.pinhole):
                continue  # an operator's rule that accepts pinholes
            if use.connection & self.ours.connection:
                yield use, "connmark_mask"
            elif use.packet & (self.ours.packet | self.ours.connection):
                yield use, "mark_mask" if use.packet & self.ours.packet else "connmark_mask"

    def harmed(self, use: Use, why: str, remedy: str) -> None:
        """Note that no pinhole can work beside the rule, once."""
        if not any(harm.use == use for harm in self.harms):
            self.harms.append(Harm(use, why, remedy))

    def escaped(self, use: Use) -> None:
        """Packets that *use* has given bits of ours may be routed with them."""
        self._escaped.append(use)

    def _told_escapes(self) -> None:
        for use in self._escaped:
            if self._routed & self.ours.connection:
                self.harmed(
                    use,
                    "takes our bits to the packet mark, which an ip rule without a mask looks at",
                    "give the ip rules a mask (fwmark 0x1/0xff), or this rule: --nfmask 0xff --ctmask 0xff",
                )
        self._escaped.clear()

    def _native(self, rule: dict[str, Any], hook: str | None, priority: object) -> None:
        where = f"nftables {rule['family']} {rule['table']} {rule['chain']}"
        expressions = [one for one in rule["expr"] if isinstance(one, dict)]
        new = hook == "prerouting" and any(_is_new(one) for one in expressions)
        for one in expressions:
            change = one.get("mangle")
            if not isinstance(change, dict) or (key := _mark_key(change.get("key"))) is None:
                self.uses += _looked_at(one, where)
                continue
            kept, other = _sources(change.get("value"), key)
            written = MOST & ~kept
            if key == "ct":
                use = Use(where, f"ct mark set, bits {written:#x}", 0, 0 if written == MOST else written)
                self.uses.append(use)
                if written & self.ours.connection and not new:
                    self.harmed(use, _LOST, _MASK_IT)
            else:
                use = Use(where, f"meta mark set, bits {written:#x}", 0 if written == MOST else written, 0)
                self.uses.append(use)
                late = isinstance(priority, int) and priority > _STRIP_PRIORITY
                if other & self.ours.connection and hook == "prerouting" and late:
                    self.escaped(use)


_LOST: Final = "writes over our connmark bits, so a pinhole's connection would not be known any more"
_MASK_IT: Final = (
    "give it a mask that leaves them out, such as --nfmask 0xff --ctmask 0xff, or ct mark and 0xff"
)


class _Walk:
    """One hook of a table, rule by rule as packets meet them."""

    def __init__(
        self, found: ForeignMarks, where: str, table: str, hook: str, chains: dict[str, list[str]]
    ) -> None:
        self._found, self._where, self._table, self._hook, self._chains = found, where, table, hook, chains
        self._pass = _Pass()

    def chain(self, rules: Sequence[str], new: bool, depth: int) -> None:
        """*new*: only the first packets of connections come here."""
        for line in rules:
            target = _TARGET.search(f" {line}")
            if target is None or _ELSEWHERE.search(line) or target[1].startswith(CHAIN):
                continue
            first = new or _only_new(line)
            if target[1] in self._chains and depth < _MOST_DEEP:
                if not target[1].startswith(CHAIN):
                    self.chain(self._chains[target[1]], first, depth + 1)
            else:
                self._rule(line, target[1], first)

    def _rule(self, line: str, target: str, new: bool) -> None:
        ours, state = self._found.ours, self._pass
        if target == "ACCEPT" and self._hook == "PREROUTING" and self._table == "mangle":
            state.guarded = True
            if state.restored is not None and not new:
                self._found.escaped(state.restored)
        elif target == "RETURN" and "-m mark ! --mark 0x0" in line:
            state.guarded = True
        elif target == "MARK":
            change = _SET.search(line)
            unmarked = "-m mark --mark 0x0" in line or state.guarded
            if change and _mask(change) & ours.connection and not unmarked:
                state.restored = None
        elif target == "CONNMARK" and (use := _use(line, self._where)) is not None:
            self._connmark(line, use, new)

    def _connmark(self, line: str, use: Use, new: bool) -> None:
        ours, state = self._found.ours, self._pass
        copy = _COPY.search(line)
        if copy and copy[1] == "restore":
            if self._table == "mangle" and _int(copy[3]) & ours.connection:
                state.restored, state.guarded = use, False
            return
        change = _SET.search(line)
        written = _int(copy[3]) | _int(copy[2]) if copy else _mask(change) if change else 0
        # Ours are made in nat PREROUTING, behind these: what concerns the first packet alone does no harm.
        first = new and self._hook == "PREROUTING"
        unmarked = any(
            kind == "connmark" and not inverted and not int(value, 0) and _int(mask) & ours.pinhole
            for kind, inverted, value, mask in _MATCH.findall(line)
        )
        carried = copy is not None and state.restored is not None and self._hook == "PREROUTING"
        if written & ours.connection and not (first or unmarked or carried):
            self._found.harmed(use, _LOST, _MASK_IT)


def _use(line: str, where: str) -> Use | None:
    """The marks that a rule of iptables-save means; None if it has to do with none, or is ours."""
    target = _TARGET.search(f" {line}")
    if line.split()[1].startswith(CHAIN) or (target and target[1].startswith(CHAIN)):
        return None
    packet = connection = 0
    for kind, _, value, mask in _MATCH.findall(line):
        meant = _meant(int(value, 0), _int(mask))
        packet, connection = (packet | meant, connection) if kind == "mark" else (packet, connection | meant)
    name = target[1] if target else ""
    change, copy = _SET.search(line), _COPY.search(line)
    if name == "MARK" and change:
        packet |= _meant(int(change[1], 0), _mask(change))
    elif name == "CONNMARK" and change:
        connection |= _meant(int(change[1], 0), _mask(change))
    elif name == "CONNMARK" and copy:
        for mask in (_int(copy[2]), _int(copy[3])):
            meant = 0 if mask == MOST else mask
            packet, connection = packet | meant, connection | meant
    elif not packet and not connection and not _MATCH.search(line):
        return None
    return Use(where, line, packet, connection)


def _meant(value: int, mask: int) -> int:
    """The bits that somebody means who gives *value* and *mask*: without a mask those of the value."""
    return value if mask == MOST else mask | value


def _int(text: str | None) -> int:
    return int(text, 0) if text else MOST


def _mask(change: re.Match[str]) -> int:
    return int(change[1], 0) | _int(change[2])


def _only_new(line: str) -> bool:
    return any(not inverted and states == "NEW" for inverted, states in _STATE.findall(line))


def _name(chain: dict[str, Any]) -> tuple[str, str, str]:
    return chain["family"], chain["table"], chain["name"]


def _is_new(expression: dict[str, Any]) -> bool:
    match = expression.get("match", {})
    right = match.get("right")
    return match.get("left") == {"ct": {"key": "state"}} and right in ("new", ["new"], {"set": ["new"]})


def _mark_key(expression: object) -> str | None:
    """ "meta" or "ct" if *expression* is that mark."""
    for key in ("meta", "ct"):
        if expression == {key: {"key": "mark"}}:
            return key
    return None


def _looked_at(expression: dict[str, Any], where: str) -> Iterator[Use]:
    """A match of a mark."""
    match = expression.get("match")
    if not isinstance(match, dict):
        return
    left, mask = match.get("left"), MOST
    if isinstance(left, dict) and isinstance(both := left.get("&"), list) and len(both) == 2:
        left, mask = both[0], both[1] if isinstance(both[1], int) else MOST
    key = _mark_key(left)
    right = match.get("right")
    if key is not None:
        meant = _meant(right if isinstance(right, int) else 0, mask)
        packet, connection = (meant, 0) if key == "meta" else (0, meant)
        yield Use(where, f"{key} mark and {mask:#x}", packet, connection)


def _sources(value: object, own: str) -> tuple[int, int]:
    """Of a mark that is set to *value*: the bits that stay as they are in mark *own*, and those that the
    other mark gives."""
    key = _mark_key(value)
    if key is not None:
        return (MOST, 0) if key == own else (0, MOST)
    if isinstance(value, int):
        return 0, 0
    if isinstance(value, dict) and len(value) == 1:
        ((operator, parts),) = value.items()
        if operator in {"&", "|", "^"} and isinstance(parts, list):
            return _combined(operator, parts, own)
    return 0, MOST


def _combined(operator: str, parts: Iterable[object], own: str) -> tuple[int, int]:
    kept = other = 0
    numbers = [part for part in parts if isinstance(part, int)]
    for part in parts:
        if not isinstance(part, int):
            more = _sources(part, own)
            kept, other = kept | more[0], other | more[1]
    for number in numbers:
        mask = number if operator == "&" else ~number
        kept, other = kept & mask & MOST, other & mask & MOST
    return kept, other
