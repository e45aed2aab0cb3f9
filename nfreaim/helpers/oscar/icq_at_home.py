"""IcqAtHome: ICQ's direct connections to clients beside a server on our side, for its clients outside.

Inside clients publish where they listen to the server itself, over a connection that this router does not
read. The server repeats that in the user info that it sends to clients outside: there the inside host becomes
the outside endpoint, with a standing pinhole. It stands while a flow that was told of it lives, until the
server tells that flow that the user has gone, hides, or listens elsewhere. Requests to call back, and chats
and files of type-2 messages, that the server relays from such users are edited alike.

**Whom the server speaks for.** That it is a server at all, somebody else has to say, as for relayed proposals
(core.backend.HomeServers). open-oscar-server repeats a client's own words, and says nothing of where it saw
the client; so whoever has an account there could name any inside host. Therefore a pinhole admits only the
outside addresses of the flows that were told of it. Where a server adds the address that it saw (TLV 0x000A,
as AOL's did), that has to be the published one.
"""

from __future__ import annotations

import socket
from dataclasses import replace
from hashlib import blake2b
from typing import Final, NamedTuple

from nfreaim.core.address import Direction, Endpoint
from nfreaim.core.helper import Expectation, Nat, NotInside, Refused
from nfreaim.core.tcp.offsets import Edit
from nfreaim.helpers.oscar.flap import Frame
from nfreaim.helpers.oscar.icq import DIRECT, UNREACHABLE, listener, published, redirect, replaced
from nfreaim.helpers.oscar.icq_fields import OF_INTEREST, Field, user_fields, users
from nfreaim.helpers.oscar.peer_greetings import greetings
from nfreaim.helpers.oscar.proposal import Proposal, plain_name
from nfreaim.layers.oscar_icq import REVERSE_CONNECT, DirectInfo, ReverseConnect, UserTag, read
from nfreaim.layers.oscar_names import ARRIVED, DEPARTED, USER_INFO_REPLY
from nfreaim.layers.structs import header_struct

INFOS_AT_HOME: Final = frozenset({ARRIVED, DEPARTED, USER_INFO_REPLY})
"""SNACs of a server inside that are read for its clients outside, beside every SNAC(04,07)."""

_REPLY: Final = Direction.REPLY
_INFO: Final = header_struct(DirectInfo)
_MOST_TOLD: Final = 64
_SEEN_ELSEWHERE: Final = "names an inside host, but the server saw its sender at another address"
_HOST_OF_OURS: Final = "host of the inside networks"


class Told(NamedTuple):
    """What a client outside was told of a user: the inside endpoint that the server named, and what became of
    it; *left* says why that stayed."""

    inside: Endpoint
    outside: Endpoint
    left: str = ""


_NOBODY: Final[dict[bytes, Told]] = {}  # in place of a table that most flows never need; never changed


class IcqAtHome:
    """The ICQ part of one flow whose server is inside."""

    __slots__ = ("_told",)

    def __init__(self) -> None:
        self._told = _NOBODY

    def user_info(self, frame: Frame, name: bytes, body: int, nat: Nat) -> list[Edit]:
        """User info on its way to a client outside, or the notice that users have gone."""
        try:
            if name == DEPARTED:
                for user in users(frame.data, name, body):
                    self._retract(_agreement(user), "signed off", nat)
                return []
            fields = list(user_fields(frame.data, name, body))
        except ValueError:
            nat.count("malformed_messages")
            return []
        news: list[tuple[int, bytes]] = []
        for direct in [field for field in fields if field.tag == UserTag.DIRECT_INFO]:
            block = [field for field in fields if field.block == direct.block]
            news += self._published(direct, block, frame, nat)
        return replaced(frame, news)

    def relayed(self, proposal: Proposal, frame: Frame, nat: Nat) -> list[Edit]:
        """A rendezvous of ICQ's kinds on its way to a client outside."""
        if reason := proposal.flaw():
            return proposal.leave(_REPLY, nat, reason)
        host = _sender(proposal)
        if proposal.block.capability == REVERSE_CONNECT:
            return self._reverse(proposal, host, frame, nat)
        found = listener(proposal.service_data)
        if found is None or host is None or not nat.is_home(host):
            return []  # a text message, as most are, or one between two clients outside
        inside = Endpoint(host, found.port)
        try:
            outside = nat.expect(_expected(proposal.agreement, proposal.service, inside, nat))
        except Refused as refusal:
            return proposal.leave(_REPLY, nat, str(refusal), inside)
        proposal.service_data = found.moved(outside.port)
        told = self._told.get(_agreement(proposal.block.whom))
        if told is not None:  # TLV 0x0005 repeats the published port
            proposal.swap_port(told.inside.port, told.outside.port)
        proposal.swap_address(socket.inet_aton(host), socket.inet_aton(outside.address))
        return proposal.rewritten(frame, nat, inside, outside, _HOST_OF_OURS)

    def _reverse(self, proposal: Proposal, host: str | None, frame: Frame, nat: Nat) -> list[Edit]:
        """A request to call back."""
        reverse = read(ReverseConnect, proposal.service_data)
        ports = set() if reverse is None else {reverse.port, reverse.port_again} - {0}
        if reverse is None or len(ports) != 1:
            return proposal.leave(_REPLY, nat, "does not name one port")
        inside = Endpoint(socket.inet_ntoa(reverse.address), ports.pop())
        if not nat.is_home(inside.address):
            nat.count("left")  # between two clients outside
            return []
        if inside.address != host:
            return proposal.leave(
                _REPLY, nat, "names an inside host that the server does not vouch for", inside
            )
        try:
            outside = nat.expect(_expected(proposal.agreement, proposal.service, inside, nat))
        except Refused as refusal:
            return proposal.leave(_REPLY, nat, str(refusal), inside)
        redirect(proposal, reverse, inside, outside)
        return proposal.rewritten(frame, nat, inside, outside, _HOST_OF_OURS)

    def _published(
        self, direct: Field, block: list[Field], frame: Frame, nat: Nat
    ) -> list[tuple[int, bytes]]:
        """What is put in place of the endpoint in *direct*, and where, with the rest of its user info."""
        who = _agreement(direct.user)
        address, port, kind, *_ = _INFO.unpack_from(frame.data, direct.at)
        inside = outside = Endpoint(socket.inet_ntoa(address), port)
        if kind in UNREACHABLE or not port or not any(address):
            self._retract(who, "no longer published", nat)
            return []
        if not nat.is_home(inside.address):
            self._retract(who, "another endpoint was published", nat)
            return []
        if not nat.editable(_REPLY, frame.at + block[0].at):
            nat.count("left")  # what the client was told before stays open
            nat.report(published("out", inside, inside, "left", "its address had left before its end came"))
            return []
        left, known = "", False
        seen = [field.at for field in block if field.tag == UserTag.EXTERNAL_IP]
        if any(frame.data[at : at + 4] != address for at in seen):
            left = _SEEN_ELSEWHERE
        else:
            try:
                outside = nat.expect(_expected(who, DIRECT, inside, nat, standing=True))
            except Refused as refusal:
                left = str(refusal)
                known = isinstance(refusal, NotInside)  # likely one behind another router
        told, before = Told(inside, outside, left), self._told.get(who)
        if left:
            self._retract(who, "another endpoint was published", nat)
        report = published("out", inside, outside, "left" if left else "rewritten", left or _HOST_OF_OURS)
        nat.count(report.action)
        nat.report(replace(report, routine=known or before == told))
        self._remember(who, told)
        if left:
            return []
        news = [(direct.at, socket.inet_aton(outside.address) + outside.port.to_bytes(4, "big"))]
        return news + [(at, socket.inet_aton(outside.address)) for at in seen]

    def _retract(self, who: bytes, reason: str, nat: Nat) -> None:
        if self._told:
            self._told.pop(who, None)
        if nat.has_standing():
            nat.withdraw(who, reason)

    def _remember(self, who: bytes, told: Told) -> None:
        self._told = self._told or {}
        self._told.pop(who, None)
        self._told[who] = told
        if len(self._told) > _MOST_TOLD:
            del self._told[next(iter(self._told))]


def _agreement(user: bytes) -> bytes:
    """The name of the agreement about the endpoint that *user* publishes; no rendezvous has the same."""
    return blake2b(plain_name(user), digest_size=8, person=b"icq-direct").digest()


def _expected(
    agreement: bytes, service: str, inside: Endpoint, nat: Nat, standing: bool = False
) -> Expectation:
    """That the client of this flow, which is told of it, will connect to *inside*."""
    peer = nat.outside.address
    return Expectation(agreement, service, inside, peer, standing, greetings(service))


def _sender(proposal: Proposal) -> str | None:
    """The address of a proposal's sender: as the server saw it, or else as the sender has published it."""
    info = {
        item.type: item.value for item in proposal.block.sender if (item.type, len(item.value)) in OF_INTEREST
    }
    seen, said = info.get(UserTag.EXTERNAL_IP), info.get(UserTag.DIRECT_INFO)
    if (vouched := proposal.vouched()) is not None:
        return vouched
    if seen is not None and said is not None and seen != said[:4]:
        return None
    address = seen or (said[:4] if said else None)
    return socket.inet_ntoa(address) if address else None
