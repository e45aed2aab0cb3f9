"""LegacyTables: which of our rules the legacy tables hold and where they stand. Reads only.

Cheap enough for a look every other second: the size of a table is one system call, without the lock of
iptables and without a program. Layouts: linux/netfilter_ipv4/ip_tables.h, linux/netfilter/x_tables.h,
linux/netfilter/nf_tables.h.
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
from nfreaim.host.netfilter.netlink import HEADERS_SIZE, REQUEST, Netlink, attributes, error_of, message

TABLES: Final = ("raw", "mangle", "nat", "filter")

_NAMES: Final = Path("/proc/net/ip_tables_names")
_HOOKS: Final = ("PREROUTING", "INPUT", "FORWARD", "OUTPUT", "POSTROUTING")
_GET_INFO, _GET_ENTRIES = 64, 65
# name, valid hooks, first rule of each hook, its policy, number and size of all entries
_INFO: Final = struct.Struct("=32sI5I5III")
_ASKED: Final = struct.Struct("=32sI4x")
# An entry: addresses, interfaces and protocol (84 bytes), cache, offset of the target, of the next entry,
# what the kernel notes for itself, counters
_ENTRY: Final = struct.Struct("=84s4xHH4x16x")
_TARGET: Final = struct.Struct("=H29sB")
_ERROR: Final = b"ERROR"  # the target that begins a chain of somebody's own
# In this table the daemon fills our chain, with destinations and forwards: these are for it to compare.
_FILLED: Final = ("nat",)
_FORWARD: Final = f"{COMMENT} forward=".encode()
_TRIES: Final = 3

_GET_GENERATION: Final = 10 << 8 | 16  # subsystem of nf_tables, NFT_MSG_GETGEN
_GENERATION_ID: Final = 1

_libc: Final = ctypes.CDLL(None, use_errno=True)


class RulePart(NamedTuple):
    """A chain of ours ("chain NFREAIM") or our jumps from a built-in one ("jump PREROUTING > NFREAIM")."""

    table: str
    what: str

    def __str__(self) -> str:
        return f"{self.table}: {self.what}"


class OurRules(NamedTuple):
    """Everything of ours. *parts*: a digest of the rules of each. *misplaced*: jumps others got around."""

    parts: dict[RulePart, bytes]
    misplaced: tuple[RulePart, ...]

    def changed(self, now: OurRules) -> list[str]:
        """In words, what of this is missing, changed or misplaced *now*."""
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
        """Give the socket back."""
        self._socket.close()

    def sizes(self) -> dict[str, bytes]:
        """By table, for those that exist: bytes that differ once rules were added or removed, and when rules
        of another length or of a built-in chain took the place of others. Raises BackendError."""
        # Asking for a table that does not exist would make it, and put it into the way of every packet.
        try:
            names = _NAMES.read_text().split()
        except FileNotFoundError:  # no legacy tables at all
            return {}
        except OSError as error:
            raise BackendError(f"the legacy tables cannot be read: {error}") from error
        return {name: self.info(name) for name in TABLES if name in names}

    def ours(self) -> OurRules:
        """What of the tables is ours. Costs some microseconds per rule. Raises BackendError."""
        parts: dict[RulePart, bytes] = {}
        misplaced: list[RulePart] = []
        for name in self.sizes():
            info, blob = self._entries(name)
            found, wrong = _ours(name, info, blob)
            parts |= found
            misplaced += wrong
        return OurRules(parts, tuple(misplaced))

    def info(self, table: str) -> bytes:
        """What ``sizes`` says of one table, which is made if it does not exist. Raises BackendError."""
        return self._ask(_GET_INFO, bytearray(table.encode().ljust(_INFO.size, b"\0")))

    def _entries(self, table: str) -> tuple[bytes, bytes]:
        """The answer of ``info`` and the entries that belong to it."""
        for attempt in range(_TRIES):
            info = self.info(table)
            size = _INFO.unpack(info)[-1]
            asked = bytearray(_ASKED.pack(table.encode(), size) + bytes(size))
            try:
                return info, self._ask(_GET_ENTRIES, asked)[_ASKED.size :]
            except BackendError:  # somebody changed it in between, and the size is another
                if attempt == _TRIES - 1:
                    raise
        raise AssertionError("unreachable")

    def _ask(self, option: int, buffer: bytearray) -> bytes:
        """getsockopt with something in the buffer, which Python's own cannot do."""
        size = ctypes.c_uint32(len(buffer))
        raw = (ctypes.c_char * len(buffer)).from_buffer(buffer)
        if _libc.getsockopt(self._socket.fileno(), socket.SOL_IP, option, raw, ctypes.byref(size)):
            error = os.strerror(ctypes.get_errno())
            raise BackendError(f"the legacy tables cannot be read: {error}; is CAP_NET_ADMIN there?")
        return bytes(buffer)


def _ours(table: str, info: bytes, blob: bytes) -> tuple[dict[RulePart, bytes], list[RulePart]]:
    """Our parts of one table, and the jumps that do not stand where they have to."""
    _, valid, *rest = _INFO.unpack(info)
    begins = {rest[hook]: name for hook, name in enumerate(_HOOKS) if valid >> hook & 1}
    policies = {rest[5 + hook] for hook in range(5) if valid >> hook & 1}
    heads, chain = {}, ""
    rules: list[tuple[str, int, bytes]] = []  # chain, where it jumps to, what it is
    for at, end, content, name, value in _entries(blob):
        chain = begins.get(at, chain)
        if name == _ERROR:
            chain = value.partition(b"\0")[0].decode(errors="replace")
            heads[end] = chain
        elif at not in policies:
            target = -1 if name else struct.unpack_from("=i", value)[0]
            # A target right behind the rule stands for a rule without one.
            jumps = target >= 0 and target != end
            rules.append((chain, target if jumps else -1, content if jumps else content + name + value))
    names = [name for name in heads.values() if name.startswith(CHAIN)]
    if table in _FILLED:
        names = [name for name in names if name == CHAIN]
    digests = {RulePart(table, f"chain {name}"): blake2b() for name in names}
    order: dict[str, list[RulePart | None]] = {name: [] for name in begins.values()}
    for place, target, content in rules:
        leads = heads.get(target, "")
        part = RulePart(table, f"jump {place} > {leads}") if leads.startswith(CHAIN) else None
        if place in order:
            order[place].append(part)
            if part is not None:
                digests.setdefault(part, blake2b()).update(content)
        elif place in names and not (table in _FILLED and (leads or _FORWARD in content)):
            digests[RulePart(table, f"chain {place}")].update(content + leads.encode())
    return {part: digest.digest() for part, digest in digests.items()}, _misplaced(table, order)


def _misplaced(table: str, order: dict[str, list[RulePart | None]]) -> list[RulePart]:
    """In filter nothing of others may stand before our jumps, elsewhere nothing behind them."""
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
    """(offset, end, what it matches, name of its target, what the target is told) of each entry."""
    at = 0
    while at + _ENTRY.size <= len(blob):
        addresses, target_at, size = _ENTRY.unpack_from(blob, at)
        if size < _ENTRY.size:
            return
        _, name, _ = _TARGET.unpack_from(blob, at + target_at)
        value = blob[at + target_at + _TARGET.size : at + size]
        yield at, at + size, addresses + blob[at + _ENTRY.size : at + target_at], name.rstrip(b"\0"), value
        at += size


def generation() -> int | None:
    """A number that every change of the nft rules changes; None where the kernel has none."""
    try:
        netlink = Netlink()
        try:
            answer = netlink.ask(message(_GET_GENERATION, REQUEST, family=socket.AF_UNSPEC))
        finally:
            netlink.close()
    except OSError:
        return None
    if error_of(answer) is not None:
        return None
    found = dict(attributes(answer[HEADERS_SIZE:])).get(_GENERATION_ID, b"")
    return int.from_bytes(found, "big") if len(found) == 4 else None
