"""The queue statement for kernels that lack nft's: iptables' target NFQUEUE in a chain of our nft table.

A kernel may have NFQUEUE, by which iptables-nft queues through nft_compat, and not the expression ``queue``
(CONFIG_NFT_QUEUE). The library has no words for such a rule, so it is sent as a message. Layouts:
linux/netfilter/nf_tables.h, nf_tables_compat.h, xt_NFQUEUE.h (struct xt_NFQ_info_v3).
"""

from __future__ import annotations

import os
import struct
from collections.abc import Iterable
from typing import Final, NamedTuple

from nfreaim.errors import BackendError
from nfreaim.host.netfilter.names import NFT_TABLE
from nfreaim.host.netfilter.netlink import REQUEST, Netlink, attribute, message, nest

_SUBSYSTEM: Final = 10  # NFNL_SUBSYS_NFTABLES
_NEW_RULE, _DELETE_RULE = 6, 8  # NFT_MSG_NEWRULE, NFT_MSG_DELRULE
_CREATE_BEHIND: Final = 0x400 | 0x800  # NLM_F_CREATE, NLM_F_APPEND
_TABLE, _CHAIN, _EXPRESSIONS = 1, 2, 4  # NFTA_RULE_*
_ELEMENT: Final = 1  # NFTA_LIST_ELEM
_NAME, _DATA = 1, 2  # NFTA_EXPR_*
_TARGET_NAME, _TARGET_REVISION, _TARGET_INFO = 1, 2, 3  # NFTA_TARGET_*
_BYPASS: Final = 1  # NFQ_FLAG_BYPASS
_NO_COUNTS: Final = attribute(1, bytes(8)) + attribute(2, bytes(8))  # NFTA_COUNTER_BYTES, _PACKETS
_INFO: Final = struct.Struct("=HHH2x")


class QueueRule(NamedTuple):
    """The only rule of *chain*: queue to one of so many *queues* from *first* on.

    bypass  packets pass while no program serves the queue
    """

    chain: str
    first: int
    queues: int = 1
    bypass: bool = True


def replace(rules: Iterable[QueueRule]) -> None:
    """Make each of *rules* the only one of its chain, by one transaction. Raises BackendError."""
    changes = []
    for rule in rules:
        changes.append(message(_SUBSYSTEM << 8 | _DELETE_RULE, REQUEST, _place(rule.chain)))
        changes.append(message(_SUBSYSTEM << 8 | _NEW_RULE, REQUEST | _CREATE_BEHIND, _packed(rule)))
    netlink = Netlink()
    try:
        refused = [code for code in netlink.transact(_SUBSYSTEM, changes) if code]
    except OSError as error:
        raise BackendError(f"the kernel took no queue rules: {error}") from error
    finally:
        netlink.close()
    if refused:
        raise BackendError(
            f"the kernel has neither nft's queue expression nor the target NFQUEUE: {os.strerror(refused[0])}"
        )


def _place(chain: str) -> bytes:
    return attribute(_TABLE, NFT_TABLE.encode() + b"\0") + attribute(_CHAIN, chain.encode() + b"\0")


def _packed(rule: QueueRule) -> bytes:
    info = _INFO.pack(rule.first, rule.queues, _BYPASS if rule.bypass else 0)
    target = (
        attribute(_TARGET_NAME, b"NFQUEUE\0")
        + attribute(_TARGET_REVISION, struct.pack("!I", 3))
        + attribute(_TARGET_INFO, info)
    )
    expressions = _expression(b"counter", _NO_COUNTS) + _expression(b"target", target)
    return _place(rule.chain) + nest(_EXPRESSIONS, expressions)


def _expression(name: bytes, data: bytes) -> bytes:
    return nest(_ELEMENT, attribute(_NAME, name + b"\0") + nest(_DATA, data))
