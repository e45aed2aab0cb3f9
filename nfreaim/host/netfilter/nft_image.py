"""TableImage: a table of nf_tables as the kernel has it, to be compared with later, and made again.

What the kernel tells of a table is what it takes: so a table that somebody else has deleted is back with one
transaction of some hundred microseconds, without a program, a library or a text. What belongs to a moment is
left out: handles, counters and the elements of sets that somebody else fills.
Layouts: linux/netfilter/nf_tables.h.
"""

from __future__ import annotations

import errno
import zlib
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Final, NamedTuple

from nfreaim.errors import BackendError
from nfreaim.host.netfilter.netlink import (
    DUMP,
    HEADERS_SIZE,
    DumpInterruptedError,
    KernelRefusedError,
    Netlink,
    attribute,
    attributes,
    error_of,
    nest,
)
from nfreaim.host.netfilter.nft_messages import (
    APPEND,
    CREATE,
    SUBSYSTEM,
    Kind,
    number,
    question,
    text,
)

Attributes = dict[int, bytes]

_TABLE, _NAME = 1, 2  # of all objects, but for chains and tables
_TABLE_NAME, _TABLE_FLAGS, _TABLE_HANDLE, _TABLE_USERDATA, _TABLE_OWNER = 1, 2, 4, 6, 7
_CHAIN_NAME, _CHAIN_HOOK, _CHAIN_POLICY, _CHAIN_TYPE, _CHAIN_USERDATA = 3, 4, 5, 7, 12
_CHAIN_FLAGS, _BINDING = 10, 4
_RULE_CHAIN, _RULE_HANDLE, _RULE_EXPRESSIONS, _RULE_USERDATA = 2, 3, 4, 7
_SET_FLAGS, _SET_ID, _SET_TIMEOUT = 3, 10, 11
# flags, types and lengths of key and data, policy, size, time-out, user's data, type of object, expressions
_SET_KEPT: Final = (_SET_FLAGS, 4, 5, 6, 7, 8, 9, _SET_TIMEOUT, 12, 13, 15, 17, 18)
_ANONYMOUS: Final = 0x01
_PASSING: Final = 0x10 | 0x20  # elements with time-outs, or that packets add: NFT_SET_TIMEOUT, NFT_SET_EVAL
_OBJECT_KEPT: Final = (3, 4, 8)  # type, data, user's data
_ELEMENTS: Final = 3
_ELEMENT_KEY, _VALUE = 1, 1
_EXPRESSION_NAME, _EXPRESSION_DATA = 1, 2
_LOOKUP_SET_ID: Final = 4
_NESTED: Final = 0x8000
_TRIES: Final = 5

_CALLED: Final = {Kind.NEW_CHAIN: "chain", Kind.NEW_SET: "set", Kind.NEW_OBJECT: "object"}


@dataclass(frozen=True)
class TableImage:
    """A table of the family ip.

    handle    the kernel's number of the table; another table of the same name has another one
    numbers   the kernel's numbers of the rules of each chain; rules that were made anew have others
    head      the attributes of the table itself
    chains, sets, objects   by name
    rules     of each chain, in order
    elements  of each set that is part of the rules, as lists in the form of messages
    """

    name: str
    handle: bytes = field(compare=False)
    numbers: dict[str, tuple[bytes, ...]] = field(compare=False)
    head: tuple[tuple[int, bytes], ...]
    objects: dict[str, tuple[tuple[int, bytes], ...]]
    chains: dict[str, tuple[tuple[int, bytes], ...]]
    sets: dict[str, tuple[tuple[int, bytes], ...]]
    elements: dict[str, tuple[bytes, ...]]
    rules: dict[str, tuple[tuple[tuple[int, bytes], ...], ...]]

    def changed(self, now: TableImage) -> list[str]:
        """In words, what of this image is missing, changed or added *now*."""
        found = []
        for what, before, after in (
            ("object", self.objects, now.objects),
            ("set", self.sets, now.sets),
            ("chain", self.chains, now.chains),
        ):
            found += [f"{what} {name} missing" for name in before if name not in after]
            found += [f"{what} {name} added" for name in after if name not in before]
            found += [
                f"{what} {name} changed" for name in before if after.get(name, before[name]) != before[name]
            ]
        for name, rules in self.rules.items():
            there = now.rules.get(name, ())
            if name in now.chains and there != rules:
                less = len(there) < len(rules)
                found.append(f"chain {name}: {'rules missing' if less else 'rules changed'}")
        for name, elements in self.elements.items():
            if name in now.sets and _members(now.elements.get(name, ())) != _members(elements):
                found.append(f"set {name}: elements changed")
        return found or (["table changed"] if self.head != now.head else [])

    def messages(self, there: TableImage | None = None) -> Iterator[bytearray]:
        """What makes this table, in one transaction, of one that is *there*, or of none.

        Sets that are as they have to be keep the elements that are not part of the rules.
        """
        kept = {one for one in self._same_sets(there) if not _is_anonymous(dict(self.sets[one]))}
        if there is not None:
            yield from self._clearing(there, kept)
        table = attribute(_TABLE, text(self.name))
        yield question(Kind.NEW_TABLE, _packed(self.head), CREATE)
        for name, known in self.objects.items():
            yield question(Kind.NEW_OBJECT, table + attribute(_NAME, text(name)) + _packed(known), CREATE)
        for name, known in self.chains.items():
            yield question(
                Kind.NEW_CHAIN, table + attribute(_CHAIN_NAME, text(name)) + _packed(known), CREATE
            )
        numbers = {name: place for place, name in enumerate(self.sets, 1)}
        anonymous = {name: place for name, place in numbers.items() if _is_anonymous(dict(self.sets[name]))}
        for name, known in self.sets.items():
            if name in kept:
                continue
            called = attribute(_NAME, text(_pattern(name) if name in anonymous else name))
            body = table + called + _packed(known) + attribute(_SET_ID, number(numbers[name]))
            yield question(Kind.NEW_SET, body, CREATE)
        for name, lists in self.elements.items():
            called = attribute(_NAME, text(_pattern(name) if name in anonymous else name))
            for elements in lists:
                body = table + called + attribute(4, number(numbers[name])) + nest(_ELEMENTS, elements)
                yield question(Kind.NEW_ELEMENTS, body, CREATE)
        for chain, rules in self.rules.items():
            for rule in rules:
                known = tuple(
                    (kind, _numbered(value, anonymous) if kind == _RULE_EXPRESSIONS else value)
                    for kind, value in rule
                )
                body = table + attribute(_RULE_CHAIN, text(chain)) + _packed(known)
                yield question(Kind.NEW_RULE, body, CREATE | APPEND)

    def _same_sets(self, there: TableImage | None) -> list[str]:
        if there is None:
            return []
        return [name for name, known in self.sets.items() if there.sets.get(name) == known]

    def _clearing(self, there: TableImage, kept: Collection[str]) -> Iterator[bytearray]:
        """Takes out of the table all rules, and what is not as it has to be, which they may refer to."""
        table = attribute(_TABLE, text(self.name))
        yield question(Kind.DELETE_RULE, table)
        for name, known in there.chains.items():
            if self.chains.get(name) != known:
                yield question(Kind.DELETE_CHAIN, table + attribute(_CHAIN_NAME, text(name)))
        for name, known in there.sets.items():
            named = table + attribute(_NAME, text(name))
            if name in kept and name in self.elements:
                yield question(Kind.DELETE_ELEMENTS, named)
            elif name not in kept and not _is_anonymous(dict(known)):
                yield question(Kind.DELETE_SET, named)


class SetImage(NamedTuple):
    """A set with its elements, to be copied into another table."""

    name: str
    known: tuple[tuple[int, bytes], ...]
    elements: tuple[bytes, ...]

    def messages(self, table: str) -> Iterator[bytearray]:
        """What makes it there."""
        body = attribute(_TABLE, text(table)) + attribute(_NAME, text(self.name)) + _packed(self.known)
        yield question(Kind.NEW_SET, body + attribute(_SET_ID, number(zlib.crc32(text(self.name)))), CREATE)
        yield from (filling(table, self.name, some) for some in self.elements)

    def again(self, table: str) -> Iterator[bytearray]:
        """What brings the set there up to date."""
        yield question(
            Kind.DELETE_ELEMENTS, attribute(_TABLE, text(table)) + attribute(_NAME, text(self.name))
        )
        yield from (filling(table, self.name, some) for some in self.elements)


def filling(table: str, name: str, some: bytes) -> bytearray:
    """What adds elements, in the form of ``Tables.lists``, to a set."""
    named = attribute(_TABLE, text(table)) + attribute(_NAME, text(name))
    return question(Kind.NEW_ELEMENTS, named + nest(_ELEMENTS, some), CREATE)


class Tables:
    """Reads and makes tables of the family ip, through a netlink socket of its own."""

    def __init__(self) -> None:
        self._netlink = Netlink()

    def close(self) -> None:
        """Close the socket."""
        self._netlink.close()

    def handle(self, name: str) -> bytes | None:
        """The kernel's number of the table; None if there is none. Takes about 10 µs. Raises BackendError."""
        found = self._table(name)
        return None if found is None else found[_TABLE_HANDLE]

    def names(self) -> list[str]:
        """The tables that there are. Raises BackendError."""
        return [_name(found[_TABLE_NAME]) for found in self._dump(Kind.GET_TABLE)]

    def image(self, name: str, own_elements: Callable[[str], bool]) -> TableImage | None:
        """The table now; None if there is none. Raises BackendError.

        own_elements  tells of a set, by its name, whether its elements are part of the rules; those of a
                      set with time-outs, or that packets fill, never are
        """
        for _ in range(_TRIES):
            try:
                return self._image(name, own_elements)
            except DumpInterruptedError:
                continue
            except KernelRefusedError as error:  # the table went meanwhile
                if error.errno != errno.ENOENT:
                    raise BackendError(f"table {name} cannot be read: {error}") from error
            except OSError as error:
                raise BackendError(f"table {name} cannot be read: {error}") from error
        raise BackendError(f"table {name} cannot be read: it changes all the time")

    def set_image(self, table: str, name: str) -> SetImage | None:
        """A set now; None if there is none. Raises BackendError."""
        named = attribute(_TABLE, text(table)) + attribute(_NAME, text(name))
        found = self._ask(question(Kind.GET_SET, named), f"set {name} of table {table}")
        if found is None:
            return None
        return SetImage(name, _kept(found, _SET_KEPT), tuple(self.lists(table, name)))

    def lists(self, table: str, name: str) -> list[bytes]:
        """The elements of a set as the kernel's messages have them; of one that does not exist none.

        Raises BackendError.
        """
        try:
            return self._lists(table, name)
        except OSError as error:
            if error.errno == errno.ENOENT:
                return []
            raise BackendError(f"set {name} of table {table}: {error}") from error

    def keys(self, table: str, name: str) -> list[bytes]:
        """The keys of the elements of a set, the same way."""
        found = [
            dict(attributes(element)) for some in self.lists(table, name) for _, element in attributes(some)
        ]
        return [dict(attributes(one[_ELEMENT_KEY]))[_VALUE] for one in found]

    def change(self, messages: Sequence[bytearray]) -> None:
        """Send *messages* as one transaction. Raises BackendError; then nothing was changed."""
        try:
            code = next(filter(None, self._netlink.transact(SUBSYSTEM, messages)), 0)
            if code:
                raise KernelRefusedError(code)
        except OSError as error:
            raise BackendError(f"nftables refused a transaction: {error.strerror}") from error

    def make(
        self, image: TableImage, there: TableImage | None = None, more: Sequence[bytearray] = ()
    ) -> None:
        """Make the table of *image* of the one that is *there*, with *more* in the same transaction.

        Raises BackendError, also if the table has been made or deleted meanwhile.
        """
        self.change([*image.messages(there), *more])

    def _table(self, name: str) -> Attributes | None:
        return self._ask(question(Kind.GET_TABLE, attribute(_TABLE_NAME, text(name))), f"table {name}")

    def _ask(self, asked: bytearray, what: str) -> Attributes | None:
        """The attributes of *what* was asked for; None if it is not there. Raises BackendError."""
        try:
            answer = self._netlink.ask(asked)
        except OSError as error:
            raise BackendError(f"{what} cannot be read: {error}") from error
        code = error_of(answer)
        if code == errno.ENOENT:
            return None
        if code is not None:
            raise BackendError(f"{what} cannot be read: {KernelRefusedError(code).strerror}")
        return dict(attributes(answer[HEADERS_SIZE:]))

    def _image(self, name: str, own_elements: Callable[[str], bool]) -> TableImage | None:
        head = self._table(name)
        if head is None:
            return None
        filtered = attribute(_TABLE, text(name))
        chains, sets, objects = (
            {_name(found[at]): found for found in self._dump(kind, filtered) if _name(found[_TABLE]) == name}
            for kind, at in ((Kind.GET_CHAIN, _CHAIN_NAME), (Kind.GET_SET, _NAME), (Kind.GET_OBJECT, _NAME))
        )
        if any(int.from_bytes(one.get(_CHAIN_FLAGS, b""), "big") & _BINDING for one in chains.values()):
            raise BackendError(f"table {name} has chains without names, which nobody of us makes")
        rules: dict[str, list[tuple[tuple[int, bytes], ...]]] = {}
        numbers: dict[str, tuple[bytes, ...]] = {}
        for found in self._dump(Kind.GET_RULE, filtered):
            if _name(found[_TABLE]) == name:
                expressions = _without_counts(found.get(_RULE_EXPRESSIONS, b""))
                kept = _kept({**found, _RULE_EXPRESSIONS: expressions}, (_RULE_EXPRESSIONS, _RULE_USERDATA))
                chain = _name(found[_RULE_CHAIN])
                rules.setdefault(chain, []).append(kept)
                numbers[chain] = (*numbers.get(chain, ()), found[_RULE_HANDLE])
        ours = [
            one
            for one, known in sets.items()
            if _is_anonymous(known) or (own_elements(one) and not _flags(known) & _PASSING)
        ]
        return TableImage(
            name,
            head[_TABLE_HANDLE],
            numbers,
            _kept(head, (_TABLE_NAME, _TABLE_FLAGS, _TABLE_USERDATA)),
            {one: _kept(known, _OBJECT_KEPT) for one, known in objects.items()},
            {
                one: _kept(known, (_CHAIN_HOOK, _CHAIN_POLICY, _CHAIN_TYPE, _CHAIN_USERDATA))
                for one, known in chains.items()
            },
            {one: _kept(known, _SET_KEPT) for one, known in sets.items()},
            {one: tuple(self._lists(name, one)) for one in ours},
            {chain: tuple(each) for chain, each in rules.items()},
        )

    def _lists(self, table: str, name: str) -> list[bytes]:
        """The lists of elements of a set, as the kernel's messages have them. Raises OSError."""
        which = attribute(_TABLE, text(table)) + attribute(_NAME, text(name))
        asked = question(Kind.GET_ELEMENTS, which, DUMP)
        found = [dict(attributes(body)) for body in self._netlink.dump(asked, whole=True)]
        return [one[_ELEMENTS] for one in found if _ELEMENTS in one]

    def _dump(self, kind: Kind, body: bytes = b"") -> list[Attributes]:
        """Raises OSError."""
        asked = question(kind, body, DUMP)
        return [dict(attributes(found)) for found in self._netlink.dump(asked, whole=True)]


def _name(value: bytes) -> str:
    return value.rstrip(b"\0").decode(errors="replace")


def _members(lists: Sequence[bytes]) -> list[bytes]:
    """The elements in *lists*; their order in a hash is nobody's choice."""
    return sorted(element for some in lists for _, element in attributes(some))


def _kept(found: Attributes, kinds: Sequence[int]) -> tuple[tuple[int, bytes], ...]:
    return tuple((kind, found[kind]) for kind in kinds if kind in found)


def _packed(known: Sequence[tuple[int, bytes]]) -> bytes:
    return b"".join(attribute(kind, value) for kind, value in known)


def _flags(known: Attributes) -> int:
    return int.from_bytes(known.get(_SET_FLAGS, b""), "big")


def _is_anonymous(known: Attributes) -> bool:
    return bool(_flags(known) & _ANONYMOUS)


def _pattern(name: str) -> str:
    """The name by which the kernel numbers a new anonymous set or map: "__set%d" of "__set3"."""
    return name.rstrip("0123456789") + "%d"


def _without_counts(expressions: bytes) -> bytes:
    """The expressions of a rule, its counters begun anew."""
    made = []
    for kind, one in attributes(expressions):
        named = dict(attributes(one))[_EXPRESSION_NAME]
        body = attribute(_EXPRESSION_NAME, named) if named == text("counter") else one
        made.append(attribute(kind | _NESTED, body))
    return b"".join(made)


def _numbered(expressions: bytes, anonymous: dict[str, int]) -> bytes:
    """The same with the numbers of anonymous sets in this transaction, which have no name yet."""
    made = []
    for kind, one in attributes(expressions):
        parts = dict(attributes(one))
        if parts[_EXPRESSION_NAME] == text("lookup"):
            looked_up = dict(attributes(parts[_EXPRESSION_DATA]))
            name = _name(looked_up[_TABLE])
            if name in anonymous:
                looked_up |= {_TABLE: text(_pattern(name)), _LOOKUP_SET_ID: number(anonymous[name])}
                data = nest(_EXPRESSION_DATA, _packed(sorted(looked_up.items())))
                one = attribute(_EXPRESSION_NAME, text("lookup")) + data
        made.append(attribute(kind | _NESTED, one))
    return b"".join(made)
