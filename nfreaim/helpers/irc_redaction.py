"""IrcRedactor: redacts an IRC connection; see core.redaction.

What stays: the known command words, and of a DCC message its verb, address and port. Names become pseudonyms.
All else of a line is overwritten: texts, topics, passwords, channels, the names of files.
"""

from __future__ import annotations

import re
from typing import Final

from nfreaim.core.address import Direction
from nfreaim.core.redaction import FILL, Pseudonyms, filled

_LONGEST: Final = 8192
_KNOWN: Final = frozenset(
    b"CAP PASS NICK USER QUIT ERROR PING PONG JOIN PART MODE TOPIC NAMES LIST INVITE KICK PRIVMSG NOTICE "
    b"MOTD WHO WHOIS WHOWAS AWAY ISON USERHOST AUTHENTICATE STARTTLS OPER LUSERS VERSION STATS KILL TAGMSG "
    b"BATCH ACCOUNT CHGHOST SETNAME FAIL WARN NOTE".split()
)
_LINE: Final = re.compile(
    rb"(?:@(?P<tags>[^ ]++)(?P<gap> ++))?(?::(?P<sender>[^ ]++)(?P<behind> ++))?"
    rb"(?P<command>[A-Za-z]++|[0-9]{3})(?=[ \r]|\Z)"
)
_DCC: Final = re.compile(
    rb"(?P<before> ++)(?P<target>[^ ]++)(?P<middle> ++:?\x01DCC ++(?:[ST]?SEND|S?CHAT|RESUME|ACCEPT) ++)"
    rb"(?P<file>\"[^\"\r\n\0\x01]++\"|[^ \"\r\n\0\x01][^ \r\n\0\x01]*+)"
    rb"(?P<where> ++[0-9]{1,10}(?: ++[0-9]{1,5})?)(?=[ \x01\r]|\Z)",
    re.IGNORECASE,
)
_FIRST_WORD: Final = re.compile(rb"(?P<gap> ++:?)(?P<word>[^ \r]++)")


class IrcRedactor:
    """See the head of this module, and core.redaction.Redactor."""

    __slots__ = ("_buffers", "_names", "_unknown", "account", "party", "recognised")

    def __init__(self, pseudonyms: Pseudonyms, midstream: bool) -> None:
        self.account, self.party, self.recognised = "", "", False
        self._names = pseudonyms
        self._buffers = [b"", b""]
        self._unknown = [midstream, midstream]  # the beginning of the line is not known, or it is too long

    def redacted(self, direction: Direction, data: bytes) -> bytes:
        """See Redactor."""
        *lines, rest = (self._buffers[direction] + data).split(b"\n")
        made: list[bytes] = []
        for line in lines:
            known = not self._unknown[direction] and len(line) < _LONGEST
            made += [self._line(direction, line) if known else filled(line), b"\n"]
            self._unknown[direction] = False
        if self._unknown[direction] or len(rest) >= _LONGEST:
            made.append(filled(rest))
            self._unknown[direction], rest = True, b""
        self._buffers[direction] = rest
        return b"".join(made)

    def _line(self, direction: Direction, line: bytes) -> bytes:
        text, end = (line[:-1], b"\r") if line.endswith(b"\r") else (line, b"")
        found = _LINE.match(text)
        if found is None:
            return filled(text) + end
        head = sender = b""
        if found["tags"]:
            head += b"@" + filled(found["tags"]) + found["gap"]
        if found["sender"]:
            sender, mark, where = found["sender"].partition(b"!")
            head += b":" + self._names.name(sender) + mark + self._names.name(where) + found["behind"]
        command = found["command"].upper()
        known = command in _KNOWN or command.isdigit()
        head += found["command"] if known else filled(found["command"])
        return head + self._parameters(direction, command, sender, text[found.end() :]) + end

    def _parameters(self, direction: Direction, command: bytes, sender: bytes, text: bytes) -> bytes:
        if command in (b"PRIVMSG", b"NOTICE"):
            if dcc := _DCC.match(text):
                where, rest = dcc["where"], text[dcc.end() :]
                who = dcc["target"] if direction is Direction.ORIGINAL else sender
                self.party = who.decode("latin-1")
                target = self._names.name(dcc["target"])
                named = (
                    b'"%b"' % filled(dcc["file"][1:-1]) if dcc["file"][:1] == b'"' else filled(dcc["file"])
                )
                return dcc["before"] + target + dcc["middle"] + named + where + _after(rest)
        elif command in (b"NICK", b"001") and (first := _FIRST_WORD.match(text)):
            if direction is Direction.REPLY and command == b"001":
                self.account = first["word"].decode("latin-1")
            return first["gap"] + self._names.name(first["word"]) + filled(text[first.end() :])
        return text[:1] + filled(text[1:])


def _after(rest: bytes) -> bytes:
    """What stands behind the address: sizes and tokens are overwritten, and separators stay."""
    return bytes(byte if byte in b" \x01" else FILL[0] for byte in rest)
