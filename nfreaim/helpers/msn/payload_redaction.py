"""PayloadRedactor: redacts what follows a command line of MSN Messenger; see msn_redaction.py.

What stays: the lines of headers that say what it is; of a P2P frame its header; of the texts by which clients
agree on a connection the names of their lines, and the values that are listed here. Accounts become
pseudonyms. All else is overwritten.
"""

from __future__ import annotations

import re
from typing import Final

from nfreaim.core.redaction import Pseudonyms, filled
from nfreaim.layers.msn_slp import text_of

MOST_READ: Final = 8000
"""Bytes of a payload of which anything may stay."""

_GUID: Final = re.compile(rb"[0-9A-Fa-f]")
_LINE: Final = re.compile(rb"(?P<name>[A-Za-z0-9-]{1,64})(?P<gap>:[ \t]*+)(?P<value>[^\r\n\0]*+)")
_MAIL: Final = rb"[^\s@;:<>]+@[^\s@;<>]+(?:;\{[0-9A-Fa-f-]{36}\})?"
_SOMEBODY: Final = re.compile(rb"(<msnmsgr:)?(%b)(>?)" % _MAIL, re.IGNORECASE)
_REQUEST: Final = re.compile(rb"((?:INVITE|BYE|ACK) MSNMSGR:)(%b)( MSNSLP/1\.0)" % _MAIL, re.IGNORECASE)
_STATUS: Final = re.compile(rb"(MSNSLP/1\.0 [0-9]{3})(.*+)", re.IGNORECASE)
_PLAIN: Final = re.compile(rb"[A-Za-z0-9 .:;,/={}()+_-]*+")
_ENDS: Final = re.compile(rb"(\r\n|\0)")
_HEADERS: Final = frozenset(b"mime-version content-type chunk chunks message-id".split())
_SLP: Final = frozenset(
    b"via cseq call-id max-forwards content-type content-length bridge bridges listening netid conn-type "
    b"upnpnat icf nat-trav-msg-type euf-guid appid sessionid ipv4external-addrs ipv4external-port "
    b"ipv4internal-addrs ipv4internal-port ipv4externaladdrsandports ipv4internaladdrsandports "
    b"ipv6-addrs ipv6-port ipv6global ipv6external ipv6addrsandports".split()
)
_INVITATION: Final = frozenset(
    b"invitation-command invitation-cookie application-guid session-protocol context-data session-id "
    b"cancel-code launch-application request-data sender-connect connectivity ip-address ip-address-internal "
    b"ip-address-enc64 port portx portx-internal authcookie-length".split()
)
_BACKWARD: Final = frozenset(name[::-1] for name in _SLP if b"ipv" in name)
_SECRETS: Final = frozenset({b"nonce", b"hashed-nonce", b"authcookie"})
_CONTENT: Final = re.compile(rb"(?:\A|\n)Content-Type:[ \t]*+([^\r\n;]*+)", re.IGNORECASE)
_TO_ENDPOINT: Final = re.compile(rb"(?:\A|\n)P2P-Dest:[ \t]*+[^\r\n;]{1,320}+;\{", re.IGNORECASE)
_SIZE_V1: Final = 48
_FOOTER: Final = 4


def account(word: bytes, names: Pseudonyms) -> bytes:
    """An account, which may name an endpoint behind it, ``;{guid}``."""
    mail, mark, guid = word.partition(b";")
    return names.name(mail) + mark + _GUID.sub(b"0", guid)


class PayloadRedactor:
    """See the head of this module."""

    __slots__ = ("_names",)

    def __init__(self, pseudonyms: Pseudonyms) -> None:
        self._names = pseudonyms

    def redacted(self, words: list[bytes], payload: bytes) -> bytes:
        """The *payload* of the command *words*, as long as it was."""
        if words[0] in (b"UUN", b"UBN"):
            return self._text(payload) if words[-2] == b"3" else filled(payload)
        body = payload.find(b"\r\n\r\n") + 4
        if words[0] != b"MSG" or body < 4:
            return filled(payload)
        head = self._lines(payload[:body], _HEADERS)
        found = _CONTENT.search(payload, 0, body)
        content = found[1].strip().lower() if found else b""
        if content == b"application/x-msnmsgrp2p":
            return head + self._frame(payload[body:], bool(_TO_ENDPOINT.search(payload, 0, body)))
        if content == b"text/x-msmsgsinvite":
            return head + self._lines(payload[body:], _INVITATION)
        return head + filled(payload[body:])

    def _frame(self, data: bytes, to_endpoint: bool) -> bytes:
        """A P2P frame of either version: headers and footer stay; of the data only a text that is whole."""
        start, session = _SIZE_V1, any(data[:4])
        if to_endpoint and session:
            start = data[0] if data else 0
            if int.from_bytes(data[2:4], "big"):
                session = any(data[start + 4 : start + 8])
                start += data[start] if start < len(data) else 0
        end = len(data) - _FOOTER
        if len(data) < start + _FOOTER:
            return filled(data)
        inner = filled(data[start:end]) if session else self._text(data[start:end])
        return data[:start] + inner + data[end:]

    def _text(self, data: bytes) -> bytes:
        if text_of(data) is None:
            return filled(data)
        first, end, rest = data.partition(b"\r\n")
        return self._start(first) + end + self._lines(rest, _SLP | _BACKWARD)

    def _start(self, line: bytes) -> bytes:
        """The first line of a text."""
        if found := _STATUS.fullmatch(line):
            return found[1] + filled(found[2])
        return self._somebody(_REQUEST.fullmatch(line), line)

    def _somebody(self, found: re.Match[bytes] | None, text: bytes) -> bytes:
        """*text*, which names an account as *found* says."""
        return (
            filled(text) if found is None else (found[1] or b"") + account(found[2], self._names) + found[3]
        )

    def _lines(self, data: bytes, stay: frozenset[bytes]) -> bytes:
        """Lines ``Name: value``: the values of the names in *stay* stay."""
        parts = _ENDS.split(data)
        return b"".join(part if number % 2 else self._line(part, stay) for number, part in enumerate(parts))

    def _line(self, line: bytes, stay: frozenset[bytes]) -> bytes:
        found = _LINE.fullmatch(line)
        if found is None:
            return filled(line)
        name, value = found["name"].lower(), found["value"]
        head = found["name"] + found["gap"]
        if name in stay and _PLAIN.fullmatch(value):
            return head + value
        if name in (b"to", b"from", b"p2p-dest", b"p2p-src"):
            return head + self._somebody(_SOMEBODY.fullmatch(value), value)
        if name in _SECRETS:
            return head + _GUID.sub(b"0", value)
        return head + filled(value)
