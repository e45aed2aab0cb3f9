"""Lines of MSNP, the protocol of MSN Messenger: which commands have a payload, and how long it is.

A command is a line, ``CMD arguments`` and CR LF, and some are followed by a payload, whose length in bytes is
the line's last argument. Nothing else tells where the next command begins, so a command that is not known
may make everything behind it unreadable. A notification server (NS) keeps a client's session; a switchboard
(SB) carries one conversation.

Sources: the Escargot server (front/msn/msnp.py, commit 1f5a190), libpurple 2.10.9 (notification.c, msn.c),
msnp-sharp (Core/NSMessagePool.cs, commit 2f4a4af), for MSNP2 to MSNP18.
"""

from __future__ import annotations

import re
from typing import Final

LONGEST_LINE: Final = 8192
"""Bytes of a line with its CR LF; the longest that were seen have 3 KiB."""
MOST_PAYLOAD: Final = 1 << 24
"""Bytes; a longer payload is a lie. What is not read is counted through, whatever its length."""

CLIENT, SERVER = 0, 1
"""Who sends a line: the number of its direction."""

_NS_PAYLOAD: Final = (
    frozenset(b"MSG QRY SDC PAG PGD UUX ADL RML FQY UUN UUM PUT DEL SDG VAS".split()),
    frozenset(b"MSG NOT IPG GCF UBX UBN UBM ADL RML FQY NFY SDG PUT DEL GET FSL".split()),
)
# Commands of either side without a payload whose last argument may be a number; of some that is so only in
# the server's answer.
_NS_PLAIN: Final = frozenset(
    b"VER CVR INF USR SYN CHG ADD ADC REM ADG RMG REG REA PRP BLP GTC SBP SBS GCF URL SND XFR IMS PNG QNG "
    b"OUT LST LSG BPR CAL ANS JOI ACK NAK CHL QRY ILN NLN FLN RNG IRO BYE UUX UUN FND "
    b"PAG PGD SDC UUM".split()
)
# Errors of ADL, RML and FQY: with two arguments the second is the length of a payload.
_NS_ERRORS: Final = frozenset(b"241 509 205 201 203 204 210 234 508 511 591 731 801 933".split())
_SB: Final = (
    frozenset(b"USR ANS CAL MSG OUT PNG".split()),
    frozenset(b"USR CAL JOI IRO ANS MSG ACK NAK BYE OUT".split()),
)
_NUMBER: Final = re.compile(rb"[0-9]{1,8}")
_ERROR: Final = re.compile(rb"[0-9]{3}")
_COMMAND: Final = re.compile(rb"[A-Z0-9]{3}")

_FIRST_NS: Final = re.compile(rb"VER ([0-9]{1,10})((?: [A-Z0-9]{1,16})+)")
_FIRST_SB: Final = re.compile(
    rb"(USR|ANS) ([0-9]{1,10}) [^\s@;]+@[^\s@;]+(?:;\{[0-9A-Fa-f-]{36}\})? \S+(?: \S+)?"
)
_DIALECT: Final = re.compile(rb"MSNP([0-9]{1,2})")
_FIRST_BYTES: Final = (b"VER ", b"USR ", b"ANS ")
_NEWEST: Final = 18
"""MSNP19 and later have other commands; no server of today speaks them."""


def may_begin(text: bytes) -> bool:
    """Whether the first line of a client may begin with *text*."""
    return any(word.startswith(text[:4]) or text.startswith(word) for word in _FIRST_BYTES)


def opening(line: bytes) -> tuple[bytes, bytes, frozenset[bytes]] | None:
    """What a client's first line says: command, transaction, and the dialects that it offers (of VER).

    None if no client begins so. VER begins a connection to an NS, USR and ANS one to an SB.
    """
    if found := _FIRST_NS.fullmatch(line):
        offered = frozenset(found[2].split())
        return (b"VER", found[1], offered) if any(map(_DIALECT.fullmatch, offered)) else None
    found = _FIRST_SB.fullmatch(line)
    return None if found is None else (found[1], found[2], frozenset())


def readable(dialect: bytes) -> bool:
    """Whether commands of *dialect* ("MSNP18") are those of this module."""
    found = _DIALECT.fullmatch(dialect)
    return found is not None and 2 <= int(found[1]) <= _NEWEST


def is_error(command: bytes) -> bool:
    """Whether it is a server's three-digit error."""
    return _ERROR.fullmatch(command) is not None


def ns_payload(sender: int, words: list[bytes]) -> int:
    """The payload's length in bytes of the command *words* on an NS, sent by CLIENT or SERVER.

    Raises ValueError if that is not known.
    """
    command, last = words[0], words[-1] if len(words) > 1 else b""
    number = _NUMBER.fullmatch(last)
    if command in _NS_PAYLOAD[sender]:
        if number is not None and (sender == SERVER or len(words) > 2):
            return _length(last)
        if sender == CLIENT or last != b"OK":
            raise ValueError("a command has no length")
        return 0
    if command in _NS_PLAIN:
        return 0
    if sender == SERVER and is_error(command):
        if len(words) < 3 or not last.isdigit():
            return 0
        if command in _NS_ERRORS and len(words) == 3:
            return _length(last)
    if not _COMMAND.fullmatch(command) or last.isdigit():
        raise ValueError("a command that is not known")
    return 0


def sb_payload(sender: int, words: list[bytes]) -> int:
    """As ``ns_payload``, on an SB: a closed set of commands."""
    command = words[0]
    if command == b"MSG":
        if len(words) != 4:
            raise ValueError("a message of another form")
        return _length(words[3])
    if command in _SB[sender] or (sender == SERVER and is_error(command) and len(words) <= 2):
        return 0
    raise ValueError("no command of a conversation")


def _length(word: bytes) -> int:
    if not _NUMBER.fullmatch(word) or int(word) > MOST_PAYLOAD:
        raise ValueError("the length of a payload is none")
    return int(word)
