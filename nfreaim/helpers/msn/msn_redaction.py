"""MsnRedactor: redacts a connection of MSN Messenger; see core.redaction.

What stays: commands, transactions, lengths, the servers of a referral; the rest is the subject of
payload_redaction.py. Accounts become pseudonyms. All else of a line is overwritten: tickets, tokens, nicks,
lists of contacts.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Final

from nfreaim.core.address import Direction
from nfreaim.core.redaction import FILL, Pseudonyms, filled
from nfreaim.errors import Foreign, Malformed
from nfreaim.helpers.msn.payload_redaction import MOST_READ, PayloadRedactor, account
from nfreaim.layers.msn_lines import LONGEST_LINE, ns_payload, opening, sb_payload

_NUMBER: Final = re.compile(rb"[0-9]{1,10}")
_SERVER: Final = re.compile(rb"[A-Za-z0-9][A-Za-z0-9._-]{0,252}:[0-9]{1,5}")
_DESTINATION: Final = re.compile(rb"(?:\A|\n)P2P-Dest:[ \t]*+([^\r\n;]{1,320}+)", re.IGNORECASE)
_COMMAND: Final = re.compile(rb"[A-Z0-9]{3}")
_WORDS: Final = frozenset(b"OK TWN MD5 SSO SHA CTP I S A NS SB CKI RINGING 0 U N D".split())
# By command, the places of words that may stay if they are of _WORDS, numbers of transactions or kinds.
_PLACES: Final[dict[bytes, tuple[int, ...]]] = {
    b"USR": (1, 2, 3),
    b"ANS": (1, 2),
    b"XFR": (1, 2, 4),
    b"RNG": (3,),
    b"CAL": (1, 2),
    b"IRO": (1, 2, 3),
    b"MSG": (1, 2),
    b"UUN": (1, 3),
    b"UBN": (2,),
    b"BYE": (2,),
}
_ACCOUNTS: Final[dict[bytes, tuple[int, ...]]] = {
    b"USR": (2, 3),
    b"ANS": (2,),
    b"RNG": (5,),
    b"CAL": (2,),
    b"JOI": (1,),
    b"IRO": (4,),
    b"BYE": (1,),
    b"MSG": (1,),
    b"UUN": (2,),
    b"UBN": (1,),
}
_SERVERS: Final[dict[bytes, tuple[int, ...]]] = {b"XFR": (3, 5), b"RNG": (2,)}


class MsnRedactor:
    """See the head of this module, and core.redaction.Redactor."""

    __slots__ = (
        "_buffers",
        "_midstream",
        "_names",
        "_payload_of",
        "_payloads",
        "_skips",
        "account",
        "party",
        "recognised",
    )

    def __init__(self, pseudonyms: Pseudonyms, midstream: bool) -> None:
        self.account, self.party, self.recognised = "", "", False
        self._names = pseudonyms
        self._payloads = PayloadRedactor(pseudonyms)
        self._buffers = [b"", b""]
        self._skips = [0, 0]
        self._payload_of: Callable[[int, list[bytes]], int] | None = None
        self._midstream = midstream

    def redacted(self, direction: Direction, data: bytes) -> bytes:
        """See Redactor."""
        if self._midstream:
            raise Foreign("what was met in its midst does not say which kind it is")
        skipped = min(self._skips[direction], len(data))
        self._skips[direction] -= skipped
        made = [FILL * skipped]
        data, pos = self._buffers[direction] + data[skipped:], 0
        while pos < len(data):
            end = data.find(b"\n", pos, pos + LONGEST_LINE)
            if end < 0:
                if len(data) - pos >= LONGEST_LINE:
                    raise Malformed("a line is too long")
                break
            line = data[pos:end].removesuffix(b"\r")
            words, size = line.split(b" "), 0
            try:
                if self._payload_of is not None:
                    size = self._payload_of(direction, words)
            except ValueError as error:
                raise Malformed(str(error)) from error
            if self._payload_of is None:
                self._begin(direction, line)
            payload = data[end + 1 : end + 1 + size]
            if len(payload) < size <= MOST_READ:
                break
            self._note_party(direction, words, payload)
            made += [self._line(direction, words, size), data[pos + len(line) : end + 1]]
            made.append(self._payloads.redacted(words, payload) if size <= MOST_READ else filled(payload))
            self._skips[direction] = size - len(payload)
            pos = end + 1 + len(payload)
        self._buffers[direction] = data[pos:]
        return b"".join(made)

    def _note_party(self, direction: Direction, words: list[bytes], payload: bytes) -> None:
        """Remember with whom a message is."""
        if found := _DESTINATION.search(payload) if direction is Direction.ORIGINAL else None:
            self.party = found[1].decode("latin-1")
        elif words[0] in (b"UUN", b"UBN") or (words[0] == b"MSG" and direction is Direction.REPLY):
            place = 2 if words[0] == b"UUN" else 1
            self.party = words[place].partition(b";")[0].decode("latin-1")

    def _begin(self, direction: Direction, line: bytes) -> None:
        """The client's first line says which kind of server it talks to."""
        begun = opening(line) if direction is Direction.ORIGINAL else None
        if begun is None:
            raise Foreign("does not begin as a client does")
        self._payload_of = ns_payload if begun[0] == b"VER" else sb_payload

    def _line(self, direction: Direction, words: list[bytes], size: int) -> bytes:
        command = words[0]
        if command == b"VER":
            return b" ".join(words)
        if command == b"USR" and direction is Direction.REPLY and words[2:3] == [b"OK"] and len(words) > 3:
            self.account = self.account or words[3].decode("latin-1")
        made = [command if _COMMAND.fullmatch(command) else filled(command)]
        for place, word in enumerate(words[1:], 1):
            made.append(self._word(command, place, word))
        if size:
            made[-1] = words[-1]
        return b" ".join(made)

    def _word(self, command: bytes, place: int, word: bytes) -> bytes:
        if word == b"OK":
            return word
        stays = place in _PLACES.get(command, (1,))
        if stays and (word in _WORDS or _NUMBER.fullmatch(word)):
            return word
        if place in _SERVERS.get(command, ()) and _SERVER.fullmatch(word):
            return word
        if place in _ACCOUNTS.get(command, ()) and b"@" in word:
            return account(word, self._names)
        return filled(word)
