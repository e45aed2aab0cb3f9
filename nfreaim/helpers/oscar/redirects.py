"""Redirects: edits or learns from the text "host:port" by which a server sends its client to the next server.

A server inside names its inside address, which outside clients cannot reach: the redirect is edited to name
the outside endpoint that the client reached the server by. The text's length may change, and with it the
lengths of the TLV and of the frame; so the length in the FLAP header is the first byte that such an edit
changes. A redirect is edited as a whole or left as it came.

A redirect of an outside server is not edited, but the server that it names is followed, if the client waits
for it: for a reply to its login or to its request for a service. A server may also move a client that is past
sign-on, which nobody asked for.

Frames are read as bytes, and dissected only if they are edited. No redirect opens or closes a pinhole.
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
from nfreaim.helpers.oscar.outline import tlvs_in
from nfreaim.helpers.oscar.proposal import body_of
from nfreaim.layers.oscar_messages import FLAP_HEADER, TLV_HEADER, FlapChannel, rebuild
from nfreaim.layers.oscar_names import (
    LOGIN_REQUEST,
    LOGIN_RESPONSE,
    MIGRATE_GROUPS,
    SERVICE_REQUEST,
    SERVICE_RESPONSE,
)
from nfreaim.layers.oscar_redirect import (
    MAX_FAMILIES,
    REDIRECTS,
    SERVER_TLV,
    dissect_redirect,
    servers_of,
)

log = logging.getLogger(__name__)

FIRST_EDITABLE: Final = 4
"""Offset in a frame of the first byte that a redirect's edit could change: its length.

The bytes before it leave at once, so a sender whose first bytes leave alone gets the ACK that it waits for
(Nagle) before it sends the rest.
"""
_DATA: Final = FlapChannel.DATA.value
_SIGNOFF: Final = FlapChannel.SIGNOFF.value
_HEADER: Final = FLAP_HEADER.size
REQUESTS: Final = {LOGIN_REQUEST: LOGIN_RESPONSE, SERVICE_REQUEST: SERVICE_RESPONSE}
"""SNACs of a client, and the redirects that reply to them."""
# How often other redirects of a connection count: migrations, and the login reply in a sign-off frame (b"").
_UNASKED: Final[dict[bytes, int]] = {MIGRATE_GROUPS: 2, b"": 1}
_MOST_DUE: Final = 8  # replies that may be due at one time
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
        if not self.host[-1].isdigit():  # cheaper than an exception, and a redirect is soon sent
            return False
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

    __slots__ = ("_due", "_logged")

    def __init__(self) -> None:
        self._logged = False
        self._due = _UNASKED

    def asked(self, request: bytes) -> None:
        """The client sent the SNAC *request*, one of REQUESTS: its reply may be a redirect."""
        reply = REQUESTS[request]
        self._due = {**self._due, reply: min(self._due.get(reply, 0) + 1, _MOST_DUE)}

    def read(self, frame: Frame, nat: Nat, past: bool = False) -> list[Edit] | None:
        """The edits of *frame*, a whole one of REDIRECTS or of FLAP channel 4; None if it names no server.

        past  the client is where such a frame may send it on: past sign-on for a SNAC of the server's own
              accord, signing on by its first frame for FLAP channel 4
        """
        try:
            servers = _servers(frame)
        except ValueError:
            nat.count("malformed_messages")
            return (
                self._leave(nat, b"", "its lengths contradict each other") if frame.channel == _DATA else None
            )
        if not servers:
            return None
        value = servers[0][1]
        if any(other != value for _, other in servers):
            # Clients disagree about which one counts: libpurple takes the first, joscar the last.
            return self._leave(nat, value, "it names two different servers")
        server = Server.parse(value)
        if not nat.server_inside:
            self._watch(server, self._awaited(frame, past), nat)
            return []
        if server is None:
            return self._leave(
                nat, value, 'it is no "address:port"; let the server advertise an IPv4 address'
            )
        return self._rewrite(frame, [at for at, _ in servers], value, server, nat)

    def _awaited(self, frame: Frame, past: bool) -> bool:
        """Whether the client waits for *frame*, which from then on it does no more."""
        name = frame.data[_HEADER : _HEADER + 4] if frame.channel == _DATA else b""
        due = self._due.get(name, 0)
        self._due = {**self._due, name: max(due - 1, 0)}
        return due > 0 and (past or name not in _UNASKED)

    def _watch(self, server: Server | None, awaited: bool, nat: Nat) -> None:
        """A redirect of an outside server: its text is right, but the next connection may be to any port."""
        if server is None:
            return
        port = server.port or nat.outside.port
        if not server.is_address():
            if port != nat.outside.port:
                self._log_once(
                    f"redirect to {server.host} cannot be followed by its name: add {port} to ports", nat
                )
            return
        named = Endpoint(server.host, port)
        try:
            if not awaited:
                raise Refused("the client did not ask for it")
            nat.watch_server(named)
        except Refused as refusal:
            nat.count("redirects_refused")
            self._log_once(f"redirect of {nat.inside} to {named} is not followed: {refusal}", nat)

    def _rewrite(
        self, frame: Frame, offsets: list[int], value: bytes, server: Server, nat: Nat
    ) -> list[Edit]:
        """A redirect of an inside server: name the endpoint that the client reached the present server by."""
        try:
            reached = nat.reached()
        except Refused as refusal:
            if not nat.is_home(server.host):
                return self._leave(nat, value, _foreign(server))
            return self._leave(nat, value, str(refusal))
        text = str(reached) if server.port is not None else reached.address
        if text.encode() == value or server.host == reached.address:
            return []
        if not nat.is_home(server.host):
            return self._leave(nat, value, _foreign(server))
        if not _confirmed(frame, offsets):
            nat.count("unfaithful")
            return self._leave(nat, value, "it cannot be rebuilt")
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
            self._log_once(f"redirect of {nat.outside} to {named} left alone: {reason}", nat)
        return []

    def _log_once(self, text: str, nat: Nat) -> None:
        if not self._logged:
            self._logged = True
            client = nat.outside if nat.server_inside else nat.inside
            log.info("%s", text, extra={"source": client.address})


def _foreign(server: Server) -> str:
    """Why a redirect of an inside server stays that names a server of which nobody says that it is ours."""
    known = "no address of the inside networks" if server.is_address() else "no known name of this network"
    return f"{server.host} is {known}; if clients cannot reach it from outside, list it in server_names"


def _servers(frame: Frame) -> list[tuple[int, bytes]]:
    """Offset in the frame and value of every TLV that names a server. Raises ValueError.

    The frame is read as bytes; scapy sees only what is edited (``_confirmed``).
    """
    data = frame.data
    at = _HEADER
    if frame.channel == _DATA:
        at = body_of(data)
        if data[_HEADER : _HEADER + 4] == MIGRATE_GROUPS:
            families = int.from_bytes(data[at : at + 2], "big")
            if families > MAX_FAMILIES:
                raise ValueError("too many families")
            at += 2 + 2 * families
        if at > len(data):
            raise ValueError("cut short")
    return [
        (pos - TLV_HEADER.size, data[pos:end])
        for tag, pos, end in tlvs_in(data, at, len(data))
        if tag == SERVER_TLV
    ]


def _confirmed(frame: Frame, offsets: list[int]) -> bool:
    """Whether the layers find the servers at the same places, and are rebuilt to the byte."""
    try:
        flap = dissect_redirect(frame.data)
    except ValueError:
        return False
    return [at for at, _ in servers_of(flap)] == offsets and rebuild(flap) == frame.data


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
