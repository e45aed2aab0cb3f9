"""LegacyTables: reads which of our rules the legacy tables hold, and at which positions.

A look is cheap enough for every other second: the size of a table takes one system call, without the lock of
iptables and without starting a program. Layouts: linux/netfilter_ipv4/ip_tables.h,
linux/netfilter/x_tables.h.
"""

from __future__ import annotations

import ctypes
import os
import socket
import struct
from collections.abc import Iterator
from hashlib import blake2b
from pathlib import Path
from typing import Final, NamedTuple

from nfreaim.errors import BackendError
from nfreaim.host.netfilter.names import CHAIN, COMMENT

TABLES: Final = ("raw", "mangle", "nat", "filter")

_NAMES: Final = Path("/proc/net/ip_tables_names")
_HOOKS: Final = ("PREROUTING", "INPUT", "FORWARD", "OUTPUT", "POSTROUTING")
_GET_INFO, _GET_ENTRIES = 64, 65
# name, valid hooks, offset of each hook's first rule, of each hook's policy, number and size of all entries
_INFO: Final = struct.Struct("=32sI5I5III")
_ASKED: Final = struct.Struct("=32sI4x")
# An entry: addresses, interfaces and protocol (84 bytes), cache, offset of the target, of the next entry,
# the kernel's own bookkeeping, counters
_ENTRY: Final = struct.Struct("=84s4xHH4x16x")
_TARGET: Final = struct.Struct("=H29sB")
_ERROR: Final = b"ERROR"  # the target that begins a user-defined chain
# In this table the daemon itself fills our chain with destinations and forwards, and compares them itself.
_FILLED: Final = ("nat",)
_FORWARD: Final = f"{COMMENT} forward=".encode()
_TRIES: Final = 3

_libc: Final = ctypes.CDLL(None, use_errno=True)


class RulePart(NamedTuple):
    """A chain of ours ("chain NFREAIM") or our jumps from a built-in one ("jump PREROUTING > NFREAIM")."""

    table: str
    what: str

    def __str__(self) -> str:
        return f"{self.table}: {self.what}"


class OurRules(NamedTuple):
    """Our rules in all tables.

    parts      a digest of the rules of each part
    misplaced  jumps that packets get around because of another program's rule
    """

    parts: dict[RulePart, bytes]
    misplaced: tuple[RulePart, ...]

    def changed(self, now: OurRules) -> list[str]:
        """In words, the parts that are missing, changed, added or misplaced *now*."""
        found = [f"{part} missing" for part in self.parts if part not in now.parts]
        found += [
            f"{part} changed" for part, digest in self.parts.items() if now.parts.get(part, digest) != digest
        ]
        found += [f"{part} added" for part in now.parts if part not in self.parts]
        return found + [f"{part} not in its place" for part in now.misplaced]


class LegacyTables:
    """The legacy tables of this network namespace."""

    def __init__(self) -> None:
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)

    def close(self) -> None:
        """Close the socket."""
        self._socket.close()

    def sizes(self) -> dict[str, bytes]:
        """For each table that exists, bytes that change when a rule is added or removed, and when a rule is
        replaced by one of another length or of a built-in chain. Raises BackendError."""
        return {name: self.info(name) for name in _existing()}

    def ours(self) -> OurRules:
        """Our rules in the tables. Costs some microseconds per rule. Raises BackendError."""
        parts: dict[RulePart, bytes] = {}
        misplaced: list[RulePart] = []
        for name in self.sizes():
            info, blob = self._entries(name)
            found, wrong = _ours(name, _table(info, blob))
            parts |= found
            misplaced += wrong
        return OurRules(parts, tuple(misplaced))

    def others(self, table: str) -> bytes:
        """A digest of other programs' rules in *table*; b"" if that does not exist. Raises BackendError."""
        if table not in _existing():
            return b""
        digest = blake2b()
        for rule in _table(*self._entries(table)).rules:
            if not rule.chain.startswith(CHAIN):
                digest.update(b"\0".join((rule.chain.encode(), rule.leads.encode(), rule.content)))
        return digest.digest()

    def info(self, table: str) -> bytes:
        """The bytes of ``sizes`` for one table. The kernel makes the table if it does not exist.

        Raises BackendError.
        """
        return self._ask(_GET_INFO, bytearray(table.encode().ljust(_INFO.size, b"\0")))

    def _entries(self, table: str) -> tuple[bytes, bytes]:
        """The answer of ``info`` and the entries that belong to it."""
        for attempt in range(_TRIES):
            info = self.info(table)
            size = _INFO.unpack(info)[-1]
            asked = bytearray(_ASKED.pack(table.encode(), size) + bytes(size))
            try:
                return info, self._ask(_GET_ENTRIES, asked)[_ASKED.size :]
            except BackendError:  # the table's size changed between the two calls
                if attempt == _TRIES - 1:
                    raise
        raise AssertionError("unreachable")

    def _ask(self, option: int, buffer: bytearray) -> bytes:
        """getsockopt with input in *buffer*, which Python's own cannot pass."""
        size = ctypes.c_uint32(len(buffer))
        raw = (ctypes.c_char * len(buffer)).from_buffer(buffer)
        if _libc.getsockopt(self._socket.fileno(), socket.SOL_IP, option, raw, ctypes.byref(size)):
            error = os.strerror(ctypes.get_errno())
            raise BackendError(f"the legacy tables cannot be read: {error}; is CAP_NET_ADMIN there?")
        return bytes(buffer)


def _existing() -> list[str]:
    """The tables that exist. Reading another one would make it, and every packet would pass it from then on.

    Raises BackendError.
    """
    try:
        names = _NAMES.read_text().split()
    except FileNotFoundError:  # no legacy tables at all
        return []
    except OSError as error:
        raise BackendError(f"the legacy tables cannot be read: {error}") from error
    return [name for name in TABLES if name in names]


class _Rule(NamedTuple):
    """A rule of a table: its chain, the chain that it jumps to or "", and its content without counters."""

    chain: str
    leads: str
    content: bytes


class _Table(NamedTuple):
    """The built-in chains of a table, the chains that users made, and all rules but the policies."""

    built_in: tuple[str, ...]
    made: tuple[str, ...]
    rules: list[_Rule]


def _table(info: bytes, blob: bytes) -> _Table:
    _, valid, *rest = _INFO.unpack(info)
    begins = {rest[hook]: name for hook, name in enumerate(_HOOKS) if valid >> hook & 1}
    policies = {rest[5 + hook] for hook in range(5) if valid >> hook & 1}
    heads, chain = {}, ""
    rules: list[tuple[str, int, bytes]] = []  # chain, offset that the rule jumps to or -1, content
    for at, end, content, name, value in _entries(blob):
        chain = begins.get(at, chain)
        if name == _ERROR:
            chain = value.partition(b"\0")[0].decode(errors="replace")
            heads[end] = chain
        elif at not in policies:
            target = -1 if name else struct.unpack_from("=i", value)[0]
            # A jump to the next rule is how the kernel stores a rule without a target.
            jumps = target >= 0 and target != end
            rules.append((chain, target if jumps else -1, content if jumps else content + name + value))
    named = [_Rule(chain, heads.get(target, ""), content) for chain, target, content in rules]
    return _Table(tuple(begins.values()), tuple(heads.values()), named)


def _ours(table: str, found: _Table) -> tuple[dict[RulePart, bytes], list[RulePart]]:
    """Our parts of one table, and our jumps that are misplaced."""
    names = [name for name in found.made if name.startswith(CHAIN)]
    if table in _FILLED:
        names = [name for name in names if name == CHAIN]
    digests = {RulePart(table, f"chain {name}"): blake2b() for name in names}
    order: dict[str, list[RulePart | None]] = {name: [] for name in found.built_in}
    for chain, leads, content in found.rules:
        part = RulePart(table, f"jump {chain} > {leads}") if leads.startswith(CHAIN) else None
        if chain in order:
            order[chain].append(part)
            if part is not None:
                digests.setdefault(part, blake2b()).update(content)
        elif chain in names and not (table in _FILLED and (leads or _FORWARD in content)):
            digests[RulePart(table, f"chain {chain}")].update(content + leads.encode())
    return {part: digest.digest() for part, digest in digests.items()}, _misplaced(table, order)


def _misplaced(table: str, order: dict[str, list[RulePart | None]]) -> list[RulePart]:
    """Our jumps that another program's rule precedes (in filter) or follows (in the other tables).

    In filter our jump has to come first, because a drop before it would stop pinholes. In the other tables it
    has to come last, because queued packets skip the rules behind it.
    """
    wrong: dict[RulePart, None] = {}
    for parts in order.values():
        seen_other = False
        for part in parts if table == "filter" else reversed(parts):
            if part is None:
                seen_other = True
            elif seen_other:
                wrong[part] = None
    return list(wrong)


def _entries(blob: bytes) -> Iterator[tuple[int, int, bytes, bytes, bytes]]:
    """(offset, end, match, name of the target, data of the target) of each entry."""
    at = 0
    while at + _ENTRY.size <= len(blob):
        addresses, target_at, size = _ENTRY.unpack_from(blob, at)
        if size < _ENTRY.size:
            return
        _, name, _ = _TARGET.unpack_from(blob, at + target_at)
        value = blob[at + target_at + _TARGET.size : at + size]
        yield at, at + size, addresses + blob[at + _ENTRY.size : at + target_at], name.rstrip(b"\0"), value
        at += size
