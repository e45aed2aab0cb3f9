"""The helper of MSN Messenger: reads one connection to a notification server (NS) or a switchboard (SB).

A client keeps one NS connection for hours, and has an SB for each conversation, to which XFR and RNG send it.
Clients say in messages on an SB (MSG), and some on the NS (UUN, UBN), where they listen for a file or a
picture: see announcements.py. Everything else is counted through.

A web page can make a browser send any text. So a connection counts only if it is MSNP from the first byte on
(``VER n MSNP18``, ``USR n mail token``, ``ANS n mail token session``) and the server's first line answers it.
"""

from __future__ import annotations

import re
import struct
from typing import Final

from nfreaim.core.address import Direction
from nfreaim.core.helper import Nat, Scan
from nfreaim.core.tcp.offsets import Edit
from nfreaim.errors import Foreign, Malformed
from nfreaim.helpers.msn.announcements import Announcements
from nfreaim.helpers.msn.doubt import Doubt, Piece
from nfreaim.helpers.msn.framing import Command, Reader
from nfreaim.helpers.msn.referrals import Referrals, first_editable
from nfreaim.layers.msn_lines import (
    MOST_PAYLOAD,
    is_error,
    may_begin,
    ns_payload,
    opening,
    readable,
    sb_payload,
)
from nfreaim.layers.msn_p2p import carries_data

_ORIGINAL: Final = Direction.ORIGINAL
_REPLY: Final = Direction.REPLY
_NEW, _NS, _SB = 0, 1, 2
_NOTHING: Final[frozenset[bytes]] = frozenset()
_RELAYED: Final = (b"UUN", b"UBN")

_TYPE: Final = re.compile(rb"(?:\A|\n)Content-Type:[ \t]*+([^\r\n;]*+)(?=[;\r\n])", re.IGNORECASE)
# One of several MSGs that are a message together; they are numbered in headers.
_PIECE: Final = re.compile(rb"\nChunk(?:s:(?![ \t]*+1[ \t]*+\r)|:)", re.IGNORECASE)
_P2P: Final = b"application/x-msnmsgrp2p"
_INVITATION: Final = b"text/x-msmsgsinvite"
_MOST_HEADER: Final = 1024
# A whole message that announces nothing, as nearly all are; behind it its length is compared.
_TALK: Final = re.compile(
    rb"MSG [^ \r\n]{1,400} [^ \r\n]{1,1200} ([0-9]{1,4})\r\nMIME-Version: 1\.0\r\n"
    rb"Content-Type: text/(?:plain|x-msmsgscontrol|x-clientcaps)[;\r]"
)
# From the length on an edit may concern the line of which so much has come: by kind and sender.
_LENGTH: Final = {
    (_NS, 0): re.compile(rb"UUN [^ \n]*+ [^ \n]*+ 3 ([0-9]*\r?)\Z"),
    (_NS, 1): re.compile(rb"UBN [^ \n]*+ 3 ([0-9]*\r?)\Z"),
    (_SB, 0): re.compile(rb"MSG [^ \n]*+ [^ \n]*+ ([0-9]*\r?)\Z"),
    (_SB, 1): re.compile(rb"MSG [^ \n]*+ [^ \n]*+ ([0-9]*\r?)\Z"),
}
_POSITION: Final = struct.Struct("!BBI")  # kind, whether it is inside a line, bytes to skip
_SIGNED_OFF: Final = b"OUT"


class MsnHelper:
    """See core.helper.Helper.

    kind         NS, SB, or not known yet
    transaction  of the client's first command, which the server's first line repeats
    confirms     how the line begins that confirms the sign-on; a client may send that before the first answer
    """

    __slots__ = (
        "_announcements",
        "_broken",
        "_confirms",
        "_doubt",
        "_kind",
        "_offered",
        "_readers",
        "_referrals",
        "_settled",
        "_told",
        "_transaction",
        "established",
    )

    def __init__(self, midstream: bool) -> None:
        # What was met midstream does not say which kind it is: it is read from its first byte, or not at all.
        self.established = False
        self._kind = _NEW
        self._readers = Reader(0), Reader(1)
        self._announcements: Announcements | None = None
        self._referrals: Referrals | None = None
        self._transaction = self._confirms = b""
        self._offered: frozenset[bytes] = _NOTHING
        self._settled = False
        self._told = True
        self._doubt: Doubt | None = None
        self._broken: Malformed | None = None

    def scan(self, direction: Direction, data: bytes, start: int, nat: Nat) -> Scan | None:
        """See core.helper.Helper."""
        if not self._told:
            self._told = True
            nat.established(session=self._kind == _NS)
        reader = self._readers[direction]
        had = bool(reader.kept)
        edits: list[Edit] = []
        if self._broken is not None:
            raise self._broken
        try:
            for command in reader.feed(data, start, self):
                edits += self._command(direction, command, nat)
        except Malformed as error:
            if not edits:
                raise
            self._broken = error  # what was edited before that place leaves so, however it was cut
            return Scan(tuple(edits))
        kept = reader.kept
        if self._kind == _NEW and not may_begin(kept):
            raise Foreign("does not begin as a client does")
        if had or kept:
            nat.set_buffered(len(self._readers[0].kept) + len(self._readers[1].kept))
        hold = self._hold(direction, reader, nat) if kept else None
        return Scan(tuple(edits), hold) if edits or hold is not None else None

    def skips(self, direction: Direction, raw: bytes, start: int, nat: Nat) -> bool:
        """See core.helper.Helper."""
        reader = self._readers[direction]
        if self._kind != _SB or not self.established or reader.kept or reader.skip or self._doubt:
            return False
        found = _TALK.match(raw, start)
        return found is not None and len(raw) - found.end(1) - 2 == int(found[1])

    # --- framing.Grammar ---

    def payload_of(self, sender: int, words: list[bytes]) -> int:
        """See framing.Grammar."""
        if self._kind == _NEW:
            return 0
        try:
            return (ns_payload if self._kind == _NS else sb_payload)(sender, words)
        except ValueError as error:
            raise (Malformed if self.established else Foreign)(str(error)) from error

    def wanted(self, sender: int, words: list[bytes], payload: bytes) -> bool | None:
        """See framing.Grammar."""
        if not self.established or self._doubt is not None:
            return False
        if self._kind == _NS:
            return words[0] == _RELAYED[sender] and words[-2] == b"3" and len(words) == 5 - sender
        return _announces(payload)

    # --- core.helper.Resumable ---

    def positions(self) -> tuple[bytes, bytes]:
        """See core.helper.Resumable: the kind of the connection, and how far the next command is."""
        return self._position(0), self._position(1)

    def _position(self, sender: int) -> bytes:
        reader = self._readers[sender]
        kept, skip = reader.kept, reader.skip
        end = kept.find(b"\n")
        if end >= 0:
            skip = end + 1 + self.payload_of(sender, kept[: end - 1].split(b" ")) - len(kept)
        return _POSITION.pack(_NEW if self._broken else self._kind, bool(kept) and end < 0, skip)

    def resume(self, positions: tuple[bytes, bytes] | None, starts: tuple[int, int]) -> None:
        """See core.helper.Resumable. Of a line that was begun the rest says nothing: it counts as missed."""
        self.established = self._settled = True
        self._told = False
        self._readers = Reader(0), Reader(1)
        self._doubt = Doubt(self)
        if positions is None:
            return
        if {len(position) for position in positions} != {_POSITION.size}:
            raise ValueError("no positions")
        kinds, lines, skips = zip(*map(_POSITION.unpack, positions), strict=True)
        if kinds[0] not in (_NS, _SB) or kinds[0] != kinds[1]:
            raise ValueError("no kind of connection")
        self._kind = kinds[0]
        if self._kind == _NS:
            self._referrals = Referrals()
        if any(lines) or max(skips) > MOST_PAYLOAD:
            raise ValueError("inside a line")
        for reader, skip in zip(self._readers, skips, strict=True):
            reader.skip = skip
        self._doubt = None

    def resync(self, direction: Direction, data: bytes, start: int, now: float, joined: bool) -> bool:
        """See core.helper.Resumable, and doubt.py."""
        if self._kind == _NEW or self._doubt is None:
            return False
        found = self._doubt.saw(direction, Piece(data, start, now, joined))
        if found is not None:
            self._readers = found
        return found is not None

    # --- commands ---

    def _command(self, direction: Direction, command: Command, nat: Nat) -> list[Edit]:
        if not self.established:
            return self._sign_on(direction, command, nat)
        if self._doubt is not None and self._doubt.resolved(direction, command.words):
            self._doubt = None
        if self._kind == _NS:
            return self._session(direction, command, nat)
        if not command.payload:
            if command.words[0] == b"BYE" and self._announcements is not None and len(command.words) > 1:
                self._announcements.left(_party(command.words[1]), nat)
            return []
        return self._message(direction, command, nat) if nat.may_read(direction) else []

    def _sign_on(self, direction: Direction, command: Command, nat: Nat) -> list[Edit]:
        """A command before the connection is established."""
        words = command.words
        if self._kind == _NEW:
            begun = opening(b" ".join(words)) if direction is _ORIGINAL else None
            if begun is None:
                raise Foreign("does not begin as a client does")
            first, self._transaction, self._offered = begun
            self._kind = _NS if first == b"VER" else _SB
            if self._kind == _NS:
                self._referrals = Referrals()
            else:
                self._confirms = _confirmation(words)
            return []
        if direction is _ORIGINAL:
            return self._asks(words)
        if not self._settled:
            self._settle(words)
        if is_error(words[0]):
            raise Foreign("the server refuses the sign-on")
        if words[:3] == self._confirms.split(b" "):
            self.established = True
            self._offered, self._transaction, self._confirms = _NOTHING, b"", b""
            nat.established(session=self._kind == _NS)
        elif words[0] == b"XFR" and self._referrals is not None:
            return self._referrals.read(command, nat)
        return []

    def _asks(self, words: list[bytes]) -> list[Edit]:
        """A client's command before sign-on."""
        if self._kind == _NS and words[0] == b"USR" and len(words) > 1:
            self._confirms = _confirmation(words)
        if self._referrals is not None:
            self._referrals.asked(words)
        return []

    def _settle(self, words: list[bytes]) -> None:
        """The server's first line. Raises Foreign unless it answers the client's."""
        if words[1:2] != [self._transaction]:
            raise Foreign("the server answers something else")
        if self._kind == _NS:
            if words[0] != b"VER" or len(words) < 3 or words[2] not in self._offered:
                raise Foreign("the server answers something else")
            if not readable(words[2]):
                raise Foreign("goes on in a dialect that is not read")
        elif words[:3] != self._confirms.split(b" ") and (
            words[0] != b"IRO" or not self._confirms.startswith(b"ANS")
        ):
            raise Foreign("the server answers something else")
        self._settled = True

    def _session(self, direction: Direction, command: Command, nat: Nat) -> list[Edit]:
        """A command of an established NS."""
        words, referrals = command.words, self._referrals
        if words[0] == _SIGNED_OFF:
            nat.withdraw_all("signed off")
        elif command.payload and nat.may_read(direction):
            party = _party(words[2 if direction is _ORIGINAL else 1])
            return self._announced.text(direction, command, party, nat)
        elif referrals is not None and direction is _ORIGINAL:
            referrals.asked(words)
        elif referrals is not None and words[0] in (b"XFR", b"RNG"):
            return referrals.read(command, nat)
        return []

    def _message(self, direction: Direction, command: Command, nat: Nat) -> list[Edit]:
        """A MSG on an SB that may announce something."""
        payload = command.payload
        body = payload.find(b"\r\n\r\n") + 4
        sender = _party(command.words[1]) if direction is _REPLY else b""
        found = _TYPE.search(payload, 0, body)
        if body < 4 or found is None or _PIECE.search(payload, 0, body):
            return []
        if found[1].strip().lower() == _P2P:
            return self._announced.frame(direction, command, body, sender, nat)
        return self._announced.invitation(direction, command, body, sender, nat)

    @property
    def _announced(self) -> Announcements:
        if self._announcements is None:
            self._announcements = Announcements()
        return self._announcements

    def _hold(self, direction: Direction, reader: Reader, nat: Nat) -> int | None:
        """From where on an edit could concern the command whose end is missing."""
        kept, home = reader.kept, nat.server_inside
        end = kept.find(b"\n")
        if home and direction is _REPLY and self._kind == _NS and self._settled and end < 0:
            first = first_editable(kept)
            if first is not None:
                return reader.at + first
        awaits = self._announcements is not None and self._announcements.awaits
        changes = not home if direction is _ORIGINAL else home or nat.has_pinholes()
        if not (changes or awaits) or not self.established or self._doubt is not None:
            return None
        if end >= 0:
            return reader.at + kept.rfind(b" ", 0, end) + 1
        found = _LENGTH[self._kind, reader.sender].match(kept)
        return None if found is None else reader.at + found.start(1)


def _announces(payload: bytes) -> bool | None:
    """Whether a MSG whose payload begins so may announce something; None: more bytes decide."""
    body = payload.find(b"\r\n\r\n")
    found = _TYPE.search(payload, 0, len(payload) if body < 0 else body + 2)
    if found is None:
        return None if body < 0 and len(payload) < _MOST_HEADER else False
    content = found[1].strip().lower()
    if content == _P2P:
        return not (body >= 0 and carries_data(payload, body + 4))
    return content == _INVITATION


def _confirmation(words: list[bytes]) -> bytes:
    """How a server confirms the sign-on command *words*."""
    return b"%s %s OK" % (words[0], words[1][:16])


def _party(word: bytes) -> bytes:
    """The account in an argument, which may name an endpoint behind it."""
    return word.partition(b";")[0].lower()
