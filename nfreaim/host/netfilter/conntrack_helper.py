"""A helper of connection tracking that does nothing: a connection that has one is never put into a flowtable.

The kernel's nfnetlink_cthelper lets a program declare helpers, and queues the packets of their connections to
it; one that is declared as disabled queues nothing. What counts for a flowtable is that the connection has
room for a helper, which it keeps to its end: it stays out even when the helper has been taken away (measured
on Linux 6.12 and 7.3). Helpers belong to the whole machine, not to a network namespace.
Layouts: linux/netfilter/nfnetlink_cthelper.h.
"""

from __future__ import annotations

import errno
import os
import socket
import struct
from typing import Final

from nfreaim.errors import BackendError
from nfreaim.host.netfilter.names import FLOWTABLE_HELPER
from nfreaim.host.netfilter.netlink import (
    ACKNOWLEDGE,
    DUMP,
    REQUEST,
    KernelRefusedError,
    Netlink,
    attribute,
    error_of,
    message,
    nest,
)

_NEW, _GET, _DELETE = (9 << 8 | command for command in range(3))  # subsystem NFNL_SUBSYS_CTHELPER
_CREATE: Final = 0x600  # NLM_F_CREATE and NLM_F_EXCL
_NAME, _TUPLE, _POLICY, _PRIVATE_SIZE, _STATUS = 1, 2, 4, 5, 6
_FAMILY, _PROTOCOL = 1, 2  # in _TUPLE
_SETS, _SET = 1, 2  # in _POLICY
_SET_NAME, _SET_MOST, _SET_TIMEOUT = 1, 2, 3  # in _SET
_DISABLED: Final = 0


def add() -> None:
    """Declare it. Raises BackendError."""
    expectations = attribute(_SET_NAME, _text(FLOWTABLE_HELPER)) + _number(_SET_MOST, 1)
    policy = _number(_SETS, 1) + nest(_SET, expectations + _number(_SET_TIMEOUT, 1))
    of = attribute(_FAMILY, struct.pack("!H", socket.AF_INET)) + attribute(
        _PROTOCOL, bytes([socket.IPPROTO_TCP])
    )
    body = attribute(_NAME, _text(FLOWTABLE_HELPER)) + nest(_TUPLE, of) + nest(_POLICY, policy)
    body += _number(_PRIVATE_SIZE, 0) + _number(_STATUS, _DISABLED)
    code = _asked(message(_NEW, REQUEST | ACKNOWLEDGE | _CREATE, body))
    if code not in (0, errno.EEXIST):
        raise BackendError(f"the kernel declares no helper of connection tracking: {_reason(code)}")


def remove() -> bool:
    """Take it away; False if rules refer to it, in this network namespace or another. Raises BackendError."""
    code = _asked(message(_DELETE, REQUEST | ACKNOWLEDGE, attribute(_NAME, _text(FLOWTABLE_HELPER))))
    if code not in (0, errno.ENOENT, errno.EBUSY):
        raise BackendError(f"the helper of connection tracking stays: {_reason(code)}")
    return code != errno.EBUSY


def unavailable() -> str:
    """Why the kernel declares no helpers for programs; "" if it does. Changes nothing."""
    try:
        netlink = Netlink()
        try:
            for _ in netlink.dump(message(_GET, REQUEST | DUMP)):
                pass
        finally:
            netlink.close()
    except KernelRefusedError as error:
        return _reason(error.errno or 0)
    except OSError as error:
        return str(error)
    return ""


def _asked(question: bytearray) -> int:
    try:
        netlink = Netlink()
        try:
            return error_of(netlink.ask(question)) or 0
        finally:
            netlink.close()
    except OSError as error:
        raise BackendError(f"helpers of connection tracking cannot be asked for: {error}") from error


def _reason(code: int) -> str:
    """nfnetlink answers EINVAL for a subsystem that neither is there nor can be loaded."""
    return "it has no nfnetlink_cthelper" if code == errno.EINVAL else os.strerror(code)


def _number(kind: int, value: int) -> bytes:
    return attribute(kind, struct.pack("!I", value))


def _text(text: str) -> bytes:
    return text.encode() + b"\0"
