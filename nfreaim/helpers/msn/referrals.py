"""Referrals: XFR and RNG, by which a notification server sends its client to another server.

``XFR 3 NS host:port 0 host:port`` moves the session, ``XFR 14 SB host:port CKI token`` and ``RNG session
host:port CKI token caller name`` lead to a switchboard. The token is a secret, and is never logged.

A server inside names its inside address, which clients outside cannot reach: the text is edited to name what
they can reach. The server that one outside names is followed; the client has asked for it, or is called.
Names are not looked up: one is taken for another port of the same machine, as the Escargot server has it.
"""

from __future__ import annotations

import logging
import re
from typing import Final

from nfreaim.core.address import Direction, Endpoint, is_address
from nfreaim.core.helper import Nat, Refused
from nfreaim.core.tcp.offsets import Edit
from nfreaim.helpers.msn.framing import Command

log = logging.getLogger(__name__)

_SERVER: Final = re.compile(rb"([A-Za-z0-9][A-Za-z0-9._-]{0,252}):([0-9]{1,5})")
_ASKS: Final = {b"XFR": b"SB", b"USR": b"NS"}
"""Commands of a client, and the kind of server that an XFR with their transaction may name."""
_MOST_ASKED: Final = 16


def first_editable(kept: bytes) -> int | None:
    """Where in *kept*, the beginning of a server's line, the first byte stands that could be edited."""
    words = kept.split(b" ", 3)
    if words[0] == b"XFR" and len(words) == 4 and words[2] in (b"NS", b"SB"):
        return len(kept) - len(words[3])
    if words[0] == b"RNG" and len(words) > 2:
        return len(words[0]) + len(words[1]) + 2
    return None


class Referrals:
    """Those of one connection. *asked*: what the client has asked for, by transaction."""

    __slots__ = ("_asked", "_logged")

    def __init__(self) -> None:
        self._asked: dict[bytes, bytes] = {}
        self._logged = False

    def asked(self, words: list[bytes]) -> None:
        """A command of the client: an XFR may answer it."""
        kind = _ASKS.get(words[0])
        if kind is not None and len(words) > 1:
            self._asked = {**self._asked, words[1][:16]: kind}
            if len(self._asked) > _MOST_ASKED:
                del self._asked[next(iter(self._asked))]

    def read(self, command: Command, nat: Nat) -> list[Edit]:
        """An XFR or RNG of the server."""
        words = command.words
        if words[0] == b"RNG":
            places, awaited = [2], True
        else:
            awaited = len(words) > 3 and self._asked.pop(words[1], b"") == words[2]
            places = [3, 5] if words[2:3] == [b"NS"] and words[4:5] == [b"0"] else [3]
            if words[2:3] not in ([b"NS"], [b"SB"]):
                return []
        found = [(at, _SERVER.fullmatch(words[at])) for at in places if at < len(words)]
        if not found or found[0][1] is None:
            return []
        if not nat.server_inside:
            self._follow(found[0][1], awaited, nat)
            return []
        edits: list[Edit] = []
        for at, server in found:
            start = command.at + sum(len(word) + 1 for word in words[:at])
            if server is not None and nat.editable(Direction.REPLY, start):
                text = self._outside(server, nat)
                if text is not None and text != server[0]:
                    edits.append(Edit(start, start + len(server[0]), text))
        if edits:
            nat.count("redirects")
        return edits

    def _follow(self, server: re.Match[bytes], awaited: bool, nat: Nat) -> None:
        host, port = server[1].decode(), int(server[2])
        by_name = not is_address(host)
        if not 0 < port <= 0xFFFF or (by_name and port == nat.outside.port):
            return
        named = Endpoint(nat.outside.address if by_name else host, port)
        try:
            if not awaited:
                raise Refused("the client did not ask for it")
            nat.watch_server(named)
            if by_name:
                elsewhere = f"elsewhere only if {port} is one of ports"
                self._say(f"redirect to {host}:{port} is read at {named.address}; {elsewhere}", nat)
        except Refused as refusal:
            nat.count("redirects_refused")
            self._say(f"redirect of {nat.inside} to {named} is not followed: {refusal}", nat)

    def _outside(self, server: re.Match[bytes], nat: Nat) -> bytes | None:
        """What clients outside have to be told in place of *server*; None: it stays."""
        host, port = server[1].decode(), int(server[2])
        try:
            if not nat.is_home(host):
                if is_address(host):
                    return None  # a server elsewhere
                raise Refused(f"{host} is no known name of this network; if it is, list it in server_names")
            inside = host if is_address(host) else nat.inside.address
            return str(nat.outside_of(Endpoint(inside, port))).encode()
        except Refused as refusal:
            nat.count("redirects_left")
            self._say(f"redirect of {nat.outside} to {host}:{port} left alone: {refusal}", nat)
            return None

    def _say(self, text: str, nat: Nat) -> None:
        if not self._logged:
            self._logged = True
            client = nat.outside if nat.server_inside else nat.inside
            log.info("%s", text, extra={"source": client.address})
