"""Redirects: edits or learns from the text "host:port" by which a server sends its client to the next server.

A server inside names its inside address, which outside clients cannot reach: the redirect is edited to name
the outside endpoint that the client reached the server by. The text's length may change, and with it the
lengths of the TLV and of the frame; so the length in the FLAP header is the first byte that such an edit
changes. A redirect of an outside server is not edited, but the server that it names is followed. A redirect
is edited as a whole or left as it came.

Frames are compared as bytes, and dissected only if they may be redirects. No redirect opens or closes a
pinhole.
"""

from __future__ import annotations

import logging
import re
from ipaddress import IPv4Address
from typing import Final, NamedTuple

from nfreaim.core.address import Direction, Endpoint
from nfreaim.core.helper import Nat, Refused
from nfreaim.core.tcp.offsets import Edit
from nfreaim.helpers.oscar.flap import Frame
from nfreaim.layers.oscar_messages import FLAP_HEADER, TLV_HEADER, FlapChannel, rebuild
from nfreaim.layers.oscar_redirect import REDIRECTS, dissect_redirect, servers_of

log = logging.getLogger(__name__)

FIRST_EDITABLE: Final = 4
"""Offset in a frame of the first byte that a redirect's edit could change: its length.

The bytes before it leave at once, so a sender whose first bytes leave alone gets the ACK that it waits for
(Nagle) before it sends the rest.
"""
_DATA: Final = FlapChannel.DATA.value
_SIGNOFF: Final = FlapChannel.SIGNOFF.value
_HEADER: Final = FLAP_HEADER.size
_TEXT: Final = re.compile(r"([A-Za-z0-9][A-Za-z0-9._-]{0,252})(?::([0-9]{1,5}))?")


class Server(NamedTuple):
    """The server that a redirect names; *port* None: the port that the client is connected to."""

    host: str
    port: int | None

    @classmethod
    def parse(cls, value: bytes) -> Server | None:
        """The server in *value*, "host" or "host:port"; None if it is neither, such as an IPv6 address."""
        found = _TEXT.fullmatch(value.decode("ascii", "replace"))
        if found is None or (found[2] and not 0 < int(found[2]) <= 0xFFFF):
            return None
        return cls(found[1], int(found[2]) if found[2] else None)

    def is_address(self) -> bool:
        """Whether the host is an IPv4 address and not a name."""
        try:
            IPv4Address(self.host)
        except ValueError:
            return False
        return True


def may_be_redirect(kept: bytes) -> bool:
    """Whether *kept*, the beginning of a server's frame, has bytes that a redirect's edit could change."""
    if len(kept) <= FIRST_EDITABLE:
        return False
    if kept[1] == _DATA:
        named = kept[_HEADER : _HEADER + 4]
        return any(name.startswith(named) for name in REDIRECTS)
    return kept[1] == _SIGNOFF


class Redirects:
    """The redirects that one server sends on one connection."""

    __slots__ = ("_logged",)

    def __init__(self) -> None:
        self._logged = False

    def read(self, frame: Frame, nat: Nat) -> list[Edit] | None:
        """The edits of *frame*, a whole one of REDIRECTS or of FLAP channel 4; None if it names no server."""
        try:
            flap = dissect_redirect(frame.data)
        except ValueError:
            nat.count("malformed_messages")
            return (
                self._leave(nat, b"", "its lengths contradict each other") if frame.channel == _DATA else None
            )
        servers = servers_of(flap)
        if not servers:
            return None
        value = servers[0][1]
        if any(other != value for _, other in servers):
            # Clients disagree about which one counts: libpurple takes the first, joscar the last.
            return self._leave(nat, value, "it names two different servers")
        if rebuild(flap) != frame.data:
            nat.count("unfaithful")
            return self._leave(nat, value, "it cannot be rebuilt")
        server = Server.parse(value)
        if not nat.server_inside:
            self._watch(server, nat)
            return []
        if server is None:
            return self._leave(
                nat, value, 'it is no "address:port"; let the server advertise an IPv4 address'
            )
        return self._rewrite(frame, [at for at, _ in servers], value, server, nat)

    def _watch(self, server: Server | None, nat: Nat) -> None:
        """A redirect of an outside server: its text is right, but the next connection may be to any port."""
        if server is None:
            return
        port = server.port or nat.outside.port
        if server.is_address():
            nat.watch_server(Endpoint(server.host, port))
        elif port != nat.outside.port:
            self._log_once(f"redirect to {server.host} cannot be followed by its name: add {port} to ports")

    def _rewrite(
        self, frame: Frame, offsets: list[int], value: bytes, server: Server, nat: Nat
    ) -> list[Edit]:
        """A redirect of an inside server: name the endpoint that the client reached the present server by."""
        try:
            reached = nat.reached()
        except Refused as refusal:
            return self._leave(nat, value, str(refusal))
        text = str(reached) if server.port is not None else reached.address
        if text.encode() == value or server.host == reached.address:
            return []
        if not nat.is_home(server.host):
            known = (
                "no address of the inside networks"
                if server.is_address()
                else "no known name of this network"
            )
            return self._leave(
                nat,
                value,
                f"{server.host} is {known}; if clients cannot reach it from outside, list it in server_names",
            )
        edits = _edits(frame, offsets, value, text.encode())
        if not nat.editable(Direction.REPLY, edits[0].start):
            return self._leave(
                nat, value, "its beginning had left before its end came; a longer hold_ms may help"
            )
        nat.count("redirects")
        return edits

    def _leave(self, nat: Nat, value: bytes, reason: str) -> list[Edit]:
        """Count, and log once, that a redirect of an inside server stays as it is."""
        if nat.server_inside:
            nat.count("redirects_left")
            # The server may write any text: only a name that could be put into server_names is logged.
            named = value.decode() if Server.parse(value) else "what is no name of a host"
            self._log_once(f"redirect of {nat.outside} to {named} left alone: {reason}")
        return []

    def _log_once(self, text: str) -> None:
        if not self._logged:
            self._logged = True
            log.info("%s", text)


def _edits(frame: Frame, offsets: list[int], old: bytes, new: bytes) -> list[Edit]:
    """Edits that put the text *new* in place of *old* into the TLVs at *offsets*, and correct the lengths."""
    grown = len(new) - len(old)
    edits: list[Edit] = []
    if grown:
        length = len(frame.data) - _HEADER + grown * len(offsets)
        start = frame.at + FIRST_EDITABLE
        edits.append(Edit(start, start + 2, length.to_bytes(2, "big")))
    for offset in offsets:
        start = frame.at + offset + (2 if grown else TLV_HEADER.size)
        end = frame.at + offset + TLV_HEADER.size + len(old)
        edits.append(Edit(start, end, (len(new).to_bytes(2, "big") if grown else b"") + new))
    return edits
