"""Messages of nf_tables for tables, chains, sets and rules, and the expressions that rules are made of.

Only what this program loads itself is here: the static rules are text (rules/nfreaim.nft), and elements of
sets have a module of their own. Layouts: linux/netfilter/nf_tables.h. Numbers are in network order.
"""

from __future__ import annotations

import socket
import struct
from collections.abc import Iterable
from enum import IntEnum
from typing import Final

from nfreaim.host.netfilter.netlink import REQUEST, attribute, message, nest

SUBSYSTEM: Final = 10
"""NFNL_SUBSYS_NFTABLES"""

CREATE: Final = 0x400
"""NLM_F_CREATE"""
APPEND: Final = 0x800
"""NLM_F_APPEND"""


class Kind(IntEnum):
    """Types of messages (enum nf_tables_msg_types)."""

    NEW_TABLE = 0
    GET_TABLE = 1
    DELETE_TABLE = 2
    NEW_CHAIN = 3
    GET_CHAIN = 4
    DELETE_CHAIN = 5
    NEW_RULE = 6
    GET_RULE = 7
    DELETE_RULE = 8
    NEW_SET = 9
    GET_SET = 10
    DELETE_SET = 11
    NEW_ELEMENTS = 12
    GET_ELEMENTS = 13
    DELETE_ELEMENTS = 14
    NEW_GENERATION = 15
    GET_GENERATION = 16
    TRACE = 17
    NEW_OBJECT = 18
    GET_OBJECT = 19
    DELETE_OBJECT = 20


class Hook(IntEnum):
    """Hooks of the family ip (enum nf_inet_hooks)."""

    PREROUTING = 0
    INPUT = 1
    FORWARD = 2
    OUTPUT = 3
    POSTROUTING = 4


OWNER: Final = 2
"""Flag of a table: only the socket that made it may change it, and its end deletes the table."""

# Types of a set's key, which nft shows (enum datatypes of nftables), six bits each in a concatenation.
_ADDRESS_TYPE, _PORT_TYPE, _TYPE_BITS = 7, 13, 6
FLOW_KEY: Final = ((_ADDRESS_TYPE << _TYPE_BITS | _PORT_TYPE) << _TYPE_BITS) | _ADDRESS_TYPE
"""The type ipv4_addr . inet_service . ipv4_addr: client, client's port, server."""
FLOW_KEY_SIZE: Final = 12
"""Each field fills four bytes."""

# Registers of four bytes (NFT_REG32_00 and on); 0 is the register of the verdict.
_VERDICT, _FIRST = 0, 8

DROP: Final = 0
ACCEPT: Final = 1
JUMP: Final = -3

_META_PRIORITY, _META_MARK, _META_IN, _META_OUT, _META_PROTOCOL = 2, 3, 6, 7, 16
_CT_STATE: Final = 0
_NETWORK, _TRANSPORT = 1, 2
_EQUAL, _UNEQUAL = 0, 1


def number(value: int) -> bytes:
    """A 32-bit number of an attribute."""
    return struct.pack("!I", value & 0xFFFFFFFF)


def text(value: str) -> bytes:
    """A name of an attribute."""
    return value.encode() + b"\0"


def question(kind: Kind, body: bytes = b"", flags: int = 0) -> bytearray:
    """A message about objects of the family ip. ``Netlink`` sets its sequence number."""
    return message(SUBSYSTEM << 8 | kind, REQUEST | flags, body, socket.AF_INET)


def new_table(name: str, flags: int = 0) -> bytearray:
    """Make a table."""
    return question(Kind.NEW_TABLE, attribute(1, text(name)) + attribute(2, number(flags)), CREATE)


def new_chain(table: str, name: str) -> bytearray:
    """Make a chain that others jump to."""
    return question(Kind.NEW_CHAIN, attribute(1, text(table)) + attribute(3, text(name)), CREATE)


def new_base_chain(table: str, name: str, hook: Hook, priority: int) -> bytearray:
    """Make a chain of type filter at *hook*, which accepts what no rule drops."""
    where = nest(4, attribute(1, number(hook)) + attribute(2, number(priority)))
    kind = attribute(7, text("filter"))
    named = attribute(1, text(table)) + attribute(3, text(name))
    return question(Kind.NEW_CHAIN, named + where + kind + attribute(5, number(ACCEPT)), CREATE)


def new_flow_set(table: str, name: str) -> bytearray:
    """Make a set of flows."""
    key = attribute(4, number(FLOW_KEY)) + attribute(5, number(FLOW_KEY_SIZE))
    body = attribute(1, text(table)) + attribute(2, text(name)) + key
    return question(Kind.NEW_SET, body + attribute(10, number(1)), CREATE)


def elements(kind: Kind, table: str, name: str, keys: Iterable[bytes]) -> bytearray:
    """Add or delete elements of a set, which have the time-out of the set."""
    listed = b"".join(nest(1, nest(1, attribute(1, key))) for key in keys)
    named = attribute(1, text(table)) + attribute(2, text(name))
    return question(kind, named + nest(3, listed), CREATE if kind is Kind.NEW_ELEMENTS else 0)


def new_rule(table: str, chain: str, expressions: Iterable[bytes]) -> bytearray:
    """Put a rule at the end of a chain."""
    body = attribute(1, text(table)) + attribute(2, text(chain)) + nest(4, b"".join(expressions))
    return question(Kind.NEW_RULE, body, CREATE | APPEND)


def expression(name: str, data: bytes) -> bytes:
    """An expression of a rule."""
    return nest(1, attribute(1, text(name)) + nest(2, data))


def verdict(code: int, chain: str = "") -> bytes:
    """End the rule with a verdict; a jump names a chain."""
    target = attribute(2, text(chain)) if chain else b""
    return expression(
        "immediate", attribute(1, number(_VERDICT)) + nest(2, nest(2, attribute(1, number(code)) + target))
    )


def interface_in(set_name: str, hook: Hook) -> list[bytes]:
    """The interface that the packet came in by, or behind the routing leaves by, is in a set of the table."""
    key = _META_IN if hook in (Hook.PREROUTING, Hook.INPUT) else _META_OUT
    return [_meta(key), _looked_up(set_name)]


def no_entry() -> list[bytes]:
    """Connection tracking has not seen the packet; then its state counts as invalid (bit 0)."""
    load = expression("ct", attribute(1, number(_FIRST)) + attribute(2, number(_CT_STATE)))
    return [load, _compared(_EQUAL, struct.pack("=I", 1))]


def with_mark(bit: int) -> list[bytes]:
    """The packet's mark has this *bit*."""
    both = attribute(1, number(_FIRST)) + attribute(2, number(_FIRST)) + attribute(3, number(4))
    mask = nest(4, attribute(1, struct.pack("=I", bit))) + nest(5, attribute(1, bytes(4)))
    return [_meta(_META_MARK), expression("bitwise", both + mask), _compared(_UNEQUAL, bytes(4))]


def unlike_priority(priority: int) -> list[bytes]:
    """The priority of the packet's socket (SO_PRIORITY) is another one."""
    return [_meta(_META_PRIORITY), _compared(_UNEQUAL, struct.pack("=I", priority))]


def counted() -> list[bytes]:
    """A counter, which `nft list` shows."""
    return [expression("counter", b"")]


def tcp() -> list[bytes]:
    """The packet is one of TCP, and has its header."""
    return [_meta(_META_PROTOCOL), _compared(_EQUAL, bytes([socket.IPPROTO_TCP]))]


def flow_in(set_name: str, from_client: bool) -> list[bytes]:
    """The flow of the packet, which its client sent or gets, is in a set of this table."""
    client = (12, 0) if from_client else (16, 2)
    server = 16 if from_client else 12
    loads = [
        _payload(_FIRST, _NETWORK, client[0], 4),
        _payload(_FIRST + 1, _TRANSPORT, client[1], 2),
        _payload(_FIRST + 2, _NETWORK, server, 4),
    ]
    return [*loads, _looked_up(set_name)]


def _looked_up(set_name: str) -> bytes:
    return expression("lookup", attribute(1, text(set_name)) + attribute(2, number(_FIRST)))


def _meta(key: int) -> bytes:
    return expression("meta", attribute(1, number(_FIRST)) + attribute(2, number(key)))


def _payload(register: int, base: int, offset: int, length: int) -> bytes:
    values = register, base, offset, length
    return expression(
        "payload", b"".join(attribute(kind, number(value)) for kind, value in enumerate(values, 1))
    )


def _compared(operator: int, value: bytes) -> bytes:
    wanted = nest(3, attribute(1, value))
    return expression("cmp", attribute(1, number(_FIRST)) + attribute(2, number(operator)) + wanted)
