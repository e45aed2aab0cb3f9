"""YmsgRedactor: redacts a YMSG connection; see core.redaction.

What stays: headers, keys, and of an offer the scheme, address and port of its URL, an address or a way. Names
become pseudonyms. All other values are overwritten: texts, cookies, answers to challenges, paths.
"""

from __future__ import annotations

import re
from typing import Final

from nfreaim.core.address import Direction
from nfreaim.core.redaction import FILL, Pseudonyms, filled
from nfreaim.errors import Foreign, Malformed
from nfreaim.helpers.yahoo.web_request import location
from nfreaim.helpers.yahoo.ymsg_reader import MAX_DATA
from nfreaim.layers.yahoo_packets import (
    AUTHRESP,
    HEADER,
    LENGTH_AT,
    LOGON,
    MAGIC,
    P2PFILEXFER,
    PEER_ADDRESS,
    RECIPIENT,
    SENDER_URL,
    SERVICE_AT,
    WAY,
    Pair,
    pairs_of,
)

_ACCOUNTS: Final = (0, 1)
_SENDER: Final = 4
_NAMES: Final = frozenset({*_ACCOUNTS, 2, _SENDER, RECIPIENT})
_NUMBERS: Final = frozenset({PEER_ADDRESS, WAY})
_NUMBER: Final = re.compile(rb"[0-9.]{1,15}")
_PLAIN: Final = re.compile(rb"[A-Za-z0-9_-]")
_OTHER: Final = re.compile(rb"[^A-Za-z0-9._/?=&-]")


class YmsgRedactor:
    """See the head of this module, and core.redaction.Redactor."""

    __slots__ = ("_buffers", "_names", "_skips", "_synced", "account", "party", "recognised")

    def __init__(self, pseudonyms: Pseudonyms, midstream: bool) -> None:
        self.account, self.party, self.recognised = "", "", False
        self._names = pseudonyms
        self._buffers = [b"", b""]
        self._skips = [0, 0]
        self._synced = [not midstream, not midstream]

    def redacted(self, direction: Direction, data: bytes) -> bytes:
        """See Redactor."""
        if not self._synced[direction]:
            self._synced[direction] = _are_packets(data)
            if not self._synced[direction]:
                return filled(data)
        skipped = min(self._skips[direction], len(data))
        self._skips[direction] -= skipped
        made = [FILL * skipped]
        data, pos = self._buffers[direction] + data[skipped:], 0
        while len(data) - pos >= HEADER.size:
            if not data.startswith(MAGIC, pos):
                raise Malformed("a packet does not begin as one")
            length = HEADER.size + int.from_bytes(data[pos + LENGTH_AT : pos + SERVICE_AT], "big")
            packet = data[pos : pos + length]
            if length > MAX_DATA + HEADER.size:
                self._skips[direction] = length - len(packet)
                made += [packet[: HEADER.size], filled(packet[HEADER.size :])]
            elif len(packet) < length:
                break
            else:
                made += [packet[: HEADER.size], self._data(direction, packet)]
            pos += len(packet)
        self._buffers[direction] = data[pos:]
        if data[pos:] and not MAGIC.startswith(data[pos : pos + 4]):
            raise Foreign("a packet does not begin as one")
        return b"".join(made)

    def _data(self, direction: Direction, packet: bytes) -> bytes:
        made = bytearray(packet)
        try:
            pairs = pairs_of(packet, padded=direction is Direction.REPLY)
        except ValueError:
            return filled(packet[HEADER.size :])
        end = HEADER.size
        for pair in pairs:
            end = pair.at + len(pair.value)
            made[pair.at : end] = self._value(pair)
            end += 2
        made[end + 1 :] = filled(packet[end + 1 :])  # behind a NUL, which shows that no pair follows
        service = int.from_bytes(packet[SERVICE_AT : SERVICE_AT + 2], "big")
        if direction is Direction.ORIGINAL and service in (AUTHRESP, LOGON):
            said = next((pair.value for pair in pairs if pair.key in _ACCOUNTS), b"")
            self.account = said.decode("latin-1") or self.account
        if service == P2PFILEXFER:
            key = RECIPIENT if direction is Direction.ORIGINAL else _SENDER
            self.party = next((pair.value for pair in pairs if pair.key == key), b"").decode("latin-1")
        return bytes(made[HEADER.size :])

    def _value(self, pair: Pair) -> bytes:
        if pair.key == SENDER_URL and (where := location(pair.value)):
            path = _OTHER.sub(b"~", _PLAIN.sub(FILL, where.path))
            return pair.value[: len(pair.value) - len(where.path)] + path
        if pair.key in _NUMBERS and _NUMBER.fullmatch(pair.value):
            return pair.value
        return self._names.name(pair.value) if pair.key in _NAMES else filled(pair.value)


def _are_packets(data: bytes) -> bool:
    """Whether *data*, a segment of a flow that was met in its midst, is a chain of whole packets."""
    pos = 0
    while len(data) - pos >= HEADER.size and data.startswith(MAGIC, pos):
        pos += HEADER.size + int.from_bytes(data[pos + LENGTH_AT : pos + SERVICE_AT], "big")
    return pos == len(data)
