"""Elements of the sets and maps of our nftables table, changed and read over netlink.

A transaction changes several elements of several sets, all or none; packets see the sets before it or after
it, and nothing in between. This module speaks netlink itself because sets change while a packet waits: a
transaction of one element takes 11 µs however large the ruleset is, and 100 to 400 µs through libnftables,
which reads the ruleset first. Nothing of the ruleset is remembered here. Layouts:
linux/netfilter/nf_tables.h, linux/netfilter/nfnetlink.h.

In a key or datum of several fields each field is padded to four bytes.
"""

from __future__ import annotations

import errno
import os
import socket
import struct
from collections.abc import Collection, Sequence
from functools import lru_cache
from typing import Final, NamedTuple

from nfreaim.core.address import Endpoint
from nfreaim.errors import BackendError
from nfreaim.host.netfilter.names import NFT_TABLE
from nfreaim.host.netfilter.netlink import (
    ACKNOWLEDGE,
    DUMP,
    HEADERS_SIZE,
    REQUEST,
    DumpInterruptedError,
    KernelRefusedError,
    Netlink,
    attribute,
    attributes,
    error_of,
    message,
    nest,
)

_SUBSYSTEM: Final = 10  # NFNL_SUBSYS_NFTABLES
# NFT_MSG_GETSET, _NEWSETELEM, _GETSETELEM, _DELSETELEM
_GET_SET, _NEW, _GET, _DELETE = 10, 12, 13, 14
_EXCLUSIVE, _CREATE = 0x200, 0x400  # NLM_F_EXCL, NLM_F_CREATE
_TABLE, _SET, _ELEMENTS = 1, 2, 3  # NFTA_SET_ELEM_LIST_*
_SET_TABLE, _SET_NAME = 1, 2  # NFTA_SET_*
_ELEMENT: Final = 1  # NFTA_LIST_ELEM
_KEY, _DATA, _FLAGS, _TIMEOUT, _EXPIRATION, _USERDATA = 1, 2, 3, 4, 5, 6  # NFTA_SET_ELEM_*
_VALUE: Final = 1  # NFTA_DATA_VALUE
_INTERVAL_END: Final = 1  # NFT_SET_ELEM_INTERVAL_END
_COMMENT: Final = 0  # NFTNL_UDATA_SET_ELEM_COMMENT, the type of a block of user data
_LONG_COMMENT: Final = 0xE1  # a type that nothing else uses
_FIELD: Final = 4
_TRIES: Final = 5
_KEPT: Final = 4096  # elements in bytes, of 1 KiB each: renewals are the same each time
_THERE: Final = (errno.EEXIST, errno.EBUSY)  # the latter of old kernels, if the map has something else

_LONGEST_SHOWN: Final = 127
"""Bytes of a comment that nft prints and reads; it refuses a file with a longer one as a whole."""

LONGEST_COMMENT: Final = 254
"""Bytes of a comment: the kernel takes 256 bytes of user data, with two of header and a zero."""


class Element(NamedTuple):
    """An element of a set, or of a map.

    data      what the map has for *key*
    seconds   until the kernel removes it; None: as the set says, when it is written, and never, when read
    comment   at most LONGEST_COMMENT bytes. One that the program nft could not read again, it does not show
    end       the first key behind an interval, of a set of intervals
    """

    key: bytes
    data: bytes = b""
    seconds: float | None = None
    comment: str = ""
    end: bool = False


class Change(NamedTuple):
    """One message of a transaction: *command* with *flags* for the elements of the set *name*."""

    command: int
    flags: int
    name: str
    elements: bytes


Named = tuple[str, Element]
"""The name of a set, and an element of it."""

Key = tuple[str, bytes, bool]
"""What identifies an element: the name of its set, its key, and whether it ends an interval."""


def adding(name: str, elements: Sequence[Element], exclusive: bool = False) -> Change:
    """Add *elements*; one that is there stays as it is, its time-out included. *exclusive*: it is refused."""
    flags = _CREATE | (_EXCLUSIVE if exclusive else 0)
    return Change(_NEW, flags, name, b"".join(map(_packed, elements)))


def deleting(name: str, elements: Sequence[Element]) -> Change:
    """Delete *elements*, whose keys count; an absent one is refused (ENOENT)."""
    return Change(_DELETE, 0, name, b"".join(_only_key(each.key, each.end) for each in elements))


def emptying(name: str) -> Change:
    """Delete all elements."""
    return Change(_DELETE, 0, name, b"")


class RefusedError(BackendError):
    """The kernel refused a transaction as a whole. *codes* has the error number of each change, or 0."""

    def __init__(self, text: str, codes: Sequence[int]) -> None:
        super().__init__(text)
        self.codes = codes


class NftElements:
    """The elements of table `ip nfreaim` of this network namespace, through a socket of its own."""

    def __init__(self) -> None:
        self._netlink = Netlink()

    def close(self) -> None:
        """Close the socket."""
        self._netlink.close()

    def commit(self, changes: Sequence[Change]) -> None:
        """Make *changes* by one transaction: all, or none if RefusedError is raised.

        At most some hundreds, because the errors of all wait in the socket's buffer.
        """
        if not changes:
            return
        questions = [
            message(_SUBSYSTEM << 8 | one.command, REQUEST | one.flags, _of_set(one.name, one.elements))
            for one in changes
        ]
        try:
            codes = self._netlink.transact(_SUBSYSTEM, questions)
        except OSError as error:
            raise self._refused(changes[0].name, error.errno or 0, str(error)) from error
        for code, change in zip(codes, changes, strict=True):
            if code:
                raise self._refused(change.name, code, codes=codes)

    def get(self, name: str, key: bytes) -> Element | None:
        """The element of *key*, or the start of the interval that it is in; None if there is none.

        Also None if the set does not exist. Raises BackendError.
        """
        question = message(
            _SUBSYSTEM << 8 | _GET, REQUEST | ACKNOWLEDGE, _of_set(name, _only_key(key, False))
        )
        try:
            answer = self._netlink.ask(question)
        except OSError as error:
            raise self._refused(name, error.errno or 0, str(error)) from error
        code = error_of(answer)
        if code == errno.ENOENT:
            return None
        if code is not None:
            raise self._refused(name, code)
        found = _elements_in(answer[HEADERS_SIZE:])
        return found[0] if found else None

    def dump(self, name: str) -> list[Element]:
        """All elements of the set. Raises BackendError."""
        for _ in range(_TRIES):
            question = message(_SUBSYSTEM << 8 | _GET, REQUEST | DUMP, _of_set(name))
            try:
                answers = list(self._netlink.dump(question, whole=True))
            except DumpInterruptedError as error:
                interrupted = error
                continue
            except OSError as error:
                text = "" if isinstance(error, KernelRefusedError) else str(error)
                raise self._refused(name, error.errno or 0, text) from error
            return [element for answer in answers for element in _elements_in(answer)]
        raise self._refused(name, errno.EINTR, str(interrupted)) from interrupted

    def exists(self, name: str) -> bool:
        """Whether there is such a set or map. Raises BackendError."""
        named = attribute(_SET_TABLE, _word(NFT_TABLE)) + attribute(_SET_NAME, _word(name))
        try:
            code = error_of(self._netlink.ask(message(_SUBSYSTEM << 8 | _GET_SET, REQUEST, named)))
        except OSError as error:
            raise self._refused(name, error.errno or 0, str(error)) from error
        if code not in (None, 0, errno.ENOENT):
            raise self._refused(name, code)
        return code != errno.ENOENT

    def _refused(self, name: str, code: int, text: str = "", codes: Sequence[int] = ()) -> RefusedError:
        what = f"set {name} of table ip {NFT_TABLE}"
        remedy = "is the table there? nfreaim rules show"
        if code == errno.EPERM:
            remedy = "are you root?"
        elif code == errno.ENOENT:
            try:
                missing = not self.exists(name)
            except BackendError:
                missing = False
            if missing:
                text, remedy = "it does not exist", "are the rules installed? nfreaim rules show"
        elif code == errno.ENFILE:
            remedy = "it is full"
        elif code == errno.EINVAL:
            remedy = "is the table of another version? install the rules again"
        return RefusedError(f"{what}: {text or os.strerror(code)}; {remedy}", codes)


def rewrite(
    elements: NftElements,
    wanted: Sequence[Named],
    unwanted: Sequence[Named] = (),
    there: Collection[Key] | None = None,
) -> list[Named]:
    """Write *wanted*, anew where an element of the same key is there, and delete *unwanted*: one transaction.

    there  the keys of all that are probably there; None: the kernel is asked, which costs some
           microseconds for each. A wrong guess costs 15 ms, because the kernel refuses slowly

    Returns those that were not there. Raises BackendError; then nothing was changed.
    """
    both = [*unwanted, *wanted]
    if there is None:
        there = {key_of(each) for each in both if elements.get(each[0], each[1].key) is not None}
    present = {key_of(each): key_of(each) in there for each in both}
    for attempt in range(_TRIES):
        old = [each for each in both if present[key_of(each)]]
        changes = [deleting(name, [element]) for name, element in old]
        changes += [adding(name, [element], exclusive=True) for name, element in wanted]
        try:
            elements.commit(changes)
            break
        except RefusedError as error:
            answers = list(zip([*old, *wanted], error.codes, strict=False))
            absent = [key_of(each) for each, code in answers[: len(old)] if code == errno.ENOENT]
            found = [key_of(each) for each, code in answers[len(old) :] if code in _THERE]
            others = [code for code in error.codes if code not in (0, errno.ENOENT, *_THERE)]
            if attempt == _TRIES - 1 or others or not (absent or found):
                raise
            if any(code == errno.ENOENT for _, code in answers[len(old) :]):
                raise  # no set
            present |= dict.fromkeys(absent, False) | dict.fromkeys(found, True)
    gone = [each for each in both if not present[key_of(each)]]
    if not changes and not all(elements.exists(name) for name, _ in gone):
        elements.commit([emptying(name) for name, _ in gone])  # the kernel says what is missing
    return gone


def key_of(named: Named) -> Key:
    return named[0], named[1].key, named[1].end


def packed_endpoint(endpoint: Endpoint) -> bytes:
    """A key or datum `ipv4_addr . inet_service`."""
    return socket.inet_aton(endpoint.address) + endpoint.port.to_bytes(2, "big") + b"\0\0"


def packed_address(address: str) -> bytes:
    """A key or datum `ipv4_addr`, and a field of one."""
    return socket.inet_aton(address)


def endpoint_in(packed: bytes) -> Endpoint:
    """The reverse of ``packed_endpoint``, of the first two fields."""
    return Endpoint(socket.inet_ntoa(packed[:4]), int.from_bytes(packed[4:6], "big"))


def address_in(packed: bytes, field: int = 0) -> str:
    """The address in this field."""
    return socket.inet_ntoa(packed[field * _FIELD : (field + 1) * _FIELD])


def _word(text: str) -> bytes:
    return text.encode() + b"\0"


def _of_set(name: str, elements: bytes = b"") -> bytes:
    return _named(name) + nest(_ELEMENTS, elements) if elements else _named(name)


@lru_cache
def _named(name: str) -> bytes:
    return attribute(_TABLE, _word(NFT_TABLE)) + attribute(_SET, _word(name))


@lru_cache(_KEPT)
def _only_key(key: bytes, end: bool) -> bytes:
    flags = attribute(_FLAGS, struct.pack("!I", _INTERVAL_END)) if end else b""
    return nest(_ELEMENT, nest(_KEY, attribute(_VALUE, key)) + flags)


@lru_cache(_KEPT)
def _packed(element: Element) -> bytes:
    parts = [nest(_KEY, attribute(_VALUE, element.key))]
    if element.end:
        parts.append(attribute(_FLAGS, struct.pack("!I", _INTERVAL_END)))
    if element.data:
        parts.append(nest(_DATA, attribute(_VALUE, element.data)))
    if element.seconds is not None:
        parts.append(attribute(_TIMEOUT, struct.pack("!Q", max(1, round(element.seconds * 1000)))))
    if element.comment:
        parts.append(attribute(_USERDATA, _user_data(element.comment)))
    return nest(_ELEMENT, b"".join(parts))


def _user_data(comment: str) -> bytes:
    text = comment.encode()
    if len(text) > LONGEST_COMMENT:
        raise BackendError(f"a comment of {len(text)} bytes is too long for an element of table {NFT_TABLE}")
    kind = _COMMENT if len(text) <= _LONGEST_SHOWN else _LONG_COMMENT
    return bytes((kind, len(text) + 1)) + text + b"\0"


def _comment_in(data: bytes) -> str:
    at = 0
    while at + 2 <= len(data):
        kind, size = data[at], data[at + 1]
        if kind in (_COMMENT, _LONG_COMMENT):
            return data[at + 2 : at + 2 + size].rstrip(b"\0").decode(errors="replace")
        at += 2 + size
    return ""


def _elements_in(answer: bytes) -> list[Element]:
    return [
        _unpacked(dict(attributes(element)))
        for kind, elements in attributes(answer)
        if kind == _ELEMENTS
        for _, element in attributes(elements)
    ]


def _unpacked(found: dict[int, bytes]) -> Element:
    left = found.get(_EXPIRATION)
    return Element(
        key=_value(found.get(_KEY, b"")),
        data=_value(found.get(_DATA, b"")),
        seconds=None if left is None else int.from_bytes(left, "big") / 1000,
        comment=_comment_in(found.get(_USERDATA, b"")),
        end=bool(int.from_bytes(found.get(_FLAGS, b""), "big") & _INTERVAL_END),
    )


def _value(nested: bytes) -> bytes:
    return dict(attributes(nested)).get(_VALUE, b"")
