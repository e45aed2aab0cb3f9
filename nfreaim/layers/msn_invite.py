"""Invitations of MSN Messenger in MIME form, text/x-msmsgsinvite, and the addresses of MSNFTP in them.

Behind the headers and a blank line stand lines ``Name: value`` in any order. Who listens for a file says, in
an ACCEPT::

    IP-Address: 10.0.0.5        Port: 6891              of the listener
    IP-Address-Internal, PortX-Internal                 the same inside, of newer clients
    PortX: 11178                                        Port XOR 12609, so that no router changes it
    IP-Address-Enc64: MTAu...                           base64 of address:port
    AuthCookie: 93301

Sources: Miranda msn_ftold.cpp (055d446), aMSN protocol.tcl (915bc6d), hypothetic.org (v1, filetransfer).
"""

from __future__ import annotations

import base64
import binascii
import re
from ipaddress import IPv4Address
from typing import Final, NamedTuple

from nfreaim.layers.msn_slp import FILE_GUID
from nfreaim.layers.msn_text import Lines, Place, Span, lines_of, port_of

MASK: Final = 0x3141
"""What PortX has XORed with the port."""


class Invitation(NamedTuple):
    """The lines of one."""

    lines: Lines

    @property
    def cookie(self) -> bytes:
        """The name of the agreement."""
        return self.lines.value(b"invitation-cookie")

    @property
    def command(self) -> bytes:
        """ "invite", "accept" or "cancel"."""
        return self.lines.value(b"invitation-command")

    def is_of_file(self) -> bool:
        """Whether it says nothing else than that it is about a file."""
        name = b"application-guid"
        return name not in self.lines.spans or self.lines.value(name) == FILE_GUID

    def listener(self) -> Listener | None:
        """Where its sender listens for a file; None if it says nothing of that kind.

        Raises ValueError if what it says contradicts itself.
        """
        needed = (b"ip-address", b"port", b"authcookie")
        if self.command != b"accept" or not self.is_of_file() or not all(map(self.lines.value, needed)):
            return None
        if not self.cookie:
            raise ValueError("it names no agreement")
        outer = Place(str(IPv4Address(self._text(b"ip-address"))), port_of(self._text(b"port")))
        inner = Place(self._text(b"ip-address-internal"), outer.port)
        if b"portx-internal" in self.lines.spans:
            inner = inner._replace(port=_unmasked(self._text(b"portx-internal")))
        if b"portx" in self.lines.spans:
            _unmasked(self._text(b"portx"))
        coded = b"ip-address-enc64"
        if coded in self.lines.spans and self._decoded(coded) != str(outer).encode():
            raise ValueError("its coded address is another one")
        return Listener(self.lines, outer, inner)

    def _text(self, name: bytes) -> str:
        return self.lines.value(name).decode("ascii", "replace")

    def _decoded(self, name: bytes) -> bytes:
        span = self.lines.spans[name]
        try:
            return b"" if span is None else base64.b64decode(self.lines.data[slice(*span)], validate=True)
        except binascii.Error:
            return b""


class Listener(NamedTuple):
    """Where somebody listens for MSNFTP: as peers are told, and inside, where the address may be missing."""

    lines: Lines
    outer: Place
    inner: Place

    def replaced(self, after: Place) -> list[tuple[Span, bytes]]:
        """What has to stand where so that peers are told *after*."""
        values = {
            b"ip-address": after.address.encode(),
            b"port": b"%d" % after.port,
            b"portx": b"%d" % (after.port ^ MASK),
            b"ip-address-enc64": base64.b64encode(str(after).encode()),
        }
        spans = ((self.lines.spans.get(name), value) for name, value in values.items())
        return sorted((span, value) for span, value in spans if span is not None)


def invitation_of(data: bytes, at: int) -> Invitation:
    """The invitation whose lines begin at *at* in *data*."""
    return Invitation(lines_of(data, at))


def _unmasked(text: str) -> int:
    """The port that a PortX stands for, which may be any number below 65536. Raises ValueError."""
    if not re.fullmatch("[0-9]{1,5}", text) or int(text) > 0xFFFF:
        raise ValueError("no port")
    return int(text) ^ MASK
