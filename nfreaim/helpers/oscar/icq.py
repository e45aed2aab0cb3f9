"""Icq: edits the messages that announce ICQ's direct connections, for the OSCAR helper.

An ICQ client listens for as long as it is online. It publishes its endpoint once, in SNAC(01,1E), and the
server repeats that in the user info for the client's contacts. So the pinhole is a standing one: it lasts as
long as the connection to the server and admits any number of peers. Two other messages name a port: "connect
to me instead" (capability icq-reverse), and the type-2 messages that offer or accept a chat or a file
(icq-relay), in a rendezvous and in SNAC(04,0B). All fields have a fixed width, so no edit changes a length.

The direct connection itself is obfuscated, and is not read.
"""

from __future__ import annotations

import socket
from dataclasses import replace
from typing import Final, Literal, NamedTuple

from nfreaim.core.address import Direction, Endpoint
from nfreaim.core.announced import Own, own
from nfreaim.core.helper import Action, Expectation, Nat, Refused, Report
from nfreaim.core.tcp.offsets import Edit, differences
from nfreaim.helpers.oscar.flap import Frame
from nfreaim.helpers.oscar.icq_fields import OF_INTEREST, status_fields, user_fields
from nfreaim.helpers.oscar.peer_greetings import greetings
from nfreaim.helpers.oscar.proposal import ADDRESSES, Proposal
from nfreaim.layers.oscar_icq import (
    REFUSED,
    RELAY_BEGIN,
    REVERSE_CONNECT,
    SERVER_RELAY,
    DirectInfo,
    DirectType,
    Listening,
    ReverseConnect,
    UserTag,
    listening,
    read,
    relay_message,
)
from nfreaim.layers.oscar_messages import (
    CAPABILITIES,
    ClientErr,
    ClientError,
    IcbmChannel,
)
from nfreaim.layers.oscar_names import ARRIVED, NICK_INFO_UPDATE, USER_INFO_REPLY
from nfreaim.layers.structs import header_struct

INFOS: Final = frozenset({NICK_INFO_UPDATE, USER_INFO_REPLY, ARRIVED})
"""SNACs that begin with a user-info block. They are read while an inside client has published an endpoint."""

_INFO: Final = header_struct(DirectInfo)
_ERROR: Final = header_struct(ClientError)
# The client does not listen, or (WEB) listens at an address that it does not know itself.
UNREACHABLE: Final = (DirectType.DISABLED.value, DirectType.WEB.value)
_REASON: Final = ClientErr.CHANNEL_SPECIFIC.to_bytes(2, "big")
DIRECT: Final = "icq-direct"
_RELAY: Final = CAPABILITIES[SERVER_RELAY]
_PUBLISHED: Final = b""  # agreement of the published endpoint: the only one of a flow without a cookie
_MOST_TOLD: Final = 4  # different addresses of one message that are looked up


class Published(NamedTuple):
    """The endpoint that a client has published, and the outside endpoint that was put in its place."""

    inside: Endpoint
    outside: Endpoint


class Icq:
    """The ICQ part of one flow. *published* is None while its client has no standing pinhole."""

    __slots__ = ("published",)

    def __init__(self) -> None:
        self.published: Published | None = None

    def status(self, frame: Frame, body: int, nat: Nat) -> list[Edit]:
        """SNAC(01,1E): publish the outside endpoint in place of the client's own.

        A message with TLV 0x000C replaces the endpoint of an earlier one; a message without it changes
        nothing.
        """
        try:
            fields = list(status_fields(frame.data, body))
        except ValueError:
            nat.count("malformed_messages")
            return []
        if not fields:
            return []
        values = {frame.data[field.at : field.at + _INFO.size] for field in fields}
        info = read(DirectInfo, values.pop())
        if info is None or values:
            nat.count("malformed_messages")
            return []
        named = Endpoint(socket.inet_ntoa(info.address), info.port)
        if info.type in UNREACHABLE or not info.port or not any(info.address):
            self._retract(nat, "no longer published")
            return []
        reason = ""
        if not nat.editable(Direction.ORIGINAL, fields[0].at + frame.at):
            reason = "its address had left before its end came"
        else:
            try:
                whose = own(named, nat)
                outside = nat.expect(_expected(_PUBLISHED, DIRECT, whose, standing=True))
            except Refused as refusal:
                reason = str(refusal)
        if reason:
            self._retract(nat, "another endpoint was published")
            nat.count("left")
            nat.report(published("out", named, named, "left", reason))
            return []
        self.published = Published(whose.inside, outside)
        info.address, info.port = socket.inet_aton(outside.address), outside.port
        info.clear_cache()
        nat.count("rewritten")
        nat.report(published("out", named, outside, "rewritten", whose.reason))
        return replaced(frame, [(field.at, bytes(info)) for field in fields])

    def _retract(self, nat: Nat, reason: str) -> None:
        if self.published is not None:
            self.published = None
            nat.withdraw(_PUBLISHED, reason)

    def user_info(self, frame: Frame, name: bytes, body: int, nat: Nat) -> list[Edit]:
        """User info on its way to a client: put the inside endpoint in place of that of a pinhole of ours."""
        try:
            fields = list(user_fields(frame.data, name, body))
        except ValueError:
            nat.count("malformed_messages")
            return []
        news: list[tuple[int, bytes]] = []
        known: dict[Endpoint, Endpoint | None] = {}
        for direct in [field for field in fields if field.tag == UserTag.DIRECT_INFO]:
            address, port, *_ = _INFO.unpack_from(frame.data, direct.at)
            announced = Endpoint(socket.inet_ntoa(address), port)
            if announced not in known:
                known[announced] = nat.inside_of(announced)
            inside = known[announced]
            if inside is None or not nat.editable(Direction.REPLY, frame.at + fields[0].at):
                continue
            host = socket.inet_aton(inside.address)
            news.append((direct.at, host + inside.port.to_bytes(4, "big")))
            for other in fields:
                same = other.block == direct.block and frame.data[other.at : other.at + 4] == address
                # SNAC(01,0F) tells a client its own outside address, which it then tells its peers.
                if same and other.tag == UserTag.EXTERNAL_IP and name != NICK_INFO_UPDATE:
                    news.append((other.at, host))
            nat.count("mapped_back")
            report = published("in", announced, inside, "mapped-back", "pinhole of this router")
            nat.report(replace(report, routine=True))
        return replaced(frame, news)

    def outgoing(self, proposal: Proposal, frame: Frame, nat: Nat, peer: str | None) -> list[Edit]:
        """The edits of a rendezvous of ICQ's kinds that a client sends."""
        if reason := proposal.flaw():
            return proposal.leave(Direction.ORIGINAL, nat, reason)
        if proposal.block.capability == REVERSE_CONNECT:
            return self._reverse_out(proposal, frame, nat, peer)
        return self._relay_out(proposal, frame, nat, peer)

    @staticmethod
    def incoming(proposal: Proposal, frame: Frame, nat: Nat) -> list[Edit] | None:
        """The edits of one on its way to a client, if it names a pinhole of ours; else None."""
        if proposal.flaw():
            return None
        if proposal.block.capability == REVERSE_CONNECT:
            return _reverse_in(proposal, frame, nat)
        return _relay_in(proposal, frame, nat)

    @staticmethod
    def _reverse_out(proposal: Proposal, frame: Frame, nat: Nat, peer: str | None) -> list[Edit]:
        reverse = read(ReverseConnect, proposal.service_data)
        ports = set() if reverse is None else {reverse.port, reverse.port_again} - {0}
        if reverse is None or len(ports) != 1:
            return proposal.leave(Direction.ORIGINAL, nat, "does not name one port")
        named = Endpoint(socket.inet_ntoa(reverse.address), ports.pop())
        try:
            whose = own(named, nat)
            outside = nat.expect(_expected(proposal.agreement, proposal.service, whose, peer))
        except Refused as refusal:
            return proposal.leave(Direction.ORIGINAL, nat, str(refusal), named)
        redirect(proposal, reverse, named, outside)
        return proposal.rewritten(frame, nat, named, outside, whose.reason)

    def _relay_out(self, proposal: Proposal, frame: Frame, nat: Nat, peer: str | None) -> list[Edit]:
        """Edit a type-2 message: its service data names a port for this chat or file, TLV 0x0005 the
        published port."""
        named = outside = None
        found = listener(proposal.service_data)
        if found is not None:
            named = Endpoint(nat.inside.address, found.port)
            try:
                whose = Own(named, None)
                outside = nat.expect(_expected(proposal.agreement, proposal.service, whose, peer))
            except Refused as refusal:
                return proposal.leave(Direction.ORIGINAL, nat, str(refusal), named)
            proposal.service_data = found.moved(outside.port)
        published = self.published
        if published is not None and proposal.swap_port(published.inside.port, published.outside.port):
            named, outside = (named, outside) if outside else published
        if named is None or outside is None:
            return []  # a text message, as most are
        for address in {named.address, *filter(nat.is_ours, proposal.told())}:
            proposal.swap_address(socket.inet_aton(address), socket.inet_aton(outside.address))
        return proposal.rewritten(frame, nat, named, outside)

    @staticmethod
    def client_error(
        direction: Direction, frame: Frame, body: int, agreement: bytes, nat: Nat
    ) -> list[Edit] | None:
        """The edits of a SNAC(04,0B) that answers a type-2 message and may name a port; None if it refuses.

        Every other SNAC(04,0B) refuses a rendezvous.
        """
        at = _error_data(frame.data, body)
        if at is None:
            return None
        message = relay_message(frame.data[at:])
        if message is None or message.status == REFUSED:
            return None
        found = listening(message)
        if found is None or direction is Direction.REPLY or nat.server_inside:
            return []  # on its way to a client no field tells the address that the port belongs to
        cookie = _ERROR.unpack_from(frame.data, body)[0]
        named = outside = Endpoint(nat.inside.address, found.port)
        action: Literal["rewritten", "left"] = "left"
        reason = "its port had left before its end came"
        if nat.editable(direction, frame.at + at):
            try:
                outside = nat.expect(_expected(agreement, _RELAY, Own(named, None)))
                action, reason = "rewritten", "own port"
                nat.count("rewritten")
            except Refused as refusal:
                reason = str(refusal)
        nat.report(
            Report("out", _RELAY, 0, cookie, before=named, after=outside, action=action, reason=reason)
        )
        return [] if action == "left" else replaced(frame, [(at, found.moved(outside.port))])


def _expected(
    agreement: bytes, service: str, whose: Own, peer: str | None = None, standing: bool = False
) -> Expectation:
    first, inside = greetings(service), whose.inside
    return Expectation(agreement, service, inside, peer, standing, first, announced=whose.outside)


def published(
    way: Literal["out", "in"], before: Endpoint, after: Endpoint, action: Action, reason: str
) -> Report:
    """The report of a published endpoint."""
    return Report(way, DIRECT, 0, _PUBLISHED, before=before, after=after, action=action, reason=reason)


def first_in_error(frame: bytes, body: int) -> int | None:
    """The same for SNAC(04,0B): the offset of its type-2 message, or None if it holds none."""
    at = _error_data(frame, body)
    return at if at is not None and frame[at : at + 2] == RELAY_BEGIN[: len(frame) - at] else None


def listener(data: bytes) -> Listening | None:
    """The port that a type-2 message names, unless it refuses."""
    message = relay_message(data)
    return None if message is None or message.status == REFUSED else listening(message)


def _reverse_in(proposal: Proposal, frame: Frame, nat: Nat) -> list[Edit] | None:
    reverse = read(ReverseConnect, proposal.service_data)
    if reverse is None:
        return None
    announced = Endpoint(socket.inet_ntoa(reverse.address), reverse.port or reverse.port_again)
    inside = nat.inside_of(announced)
    if inside is None:
        return proposal.leave(Direction.REPLY, nat, "names no pinhole of this router", announced)
    redirect(proposal, reverse, announced, inside)
    return proposal.mapped_back(frame, nat, announced, inside)


def redirect(proposal: Proposal, reverse: ReverseConnect, before: Endpoint, after: Endpoint) -> None:
    """Put *after* in place of *before*, in the service data and in the TLVs that repeat it."""
    address = reverse.address
    reverse.address = socket.inet_aton(after.address)
    for field in ("port", "port_again"):
        if reverse.getfieldval(field) == before.port:
            reverse.setfieldval(field, after.port)
    reverse.clear_cache()
    proposal.service_data = bytes(reverse)
    proposal.move(address, before, after)


def _relay_in(proposal: Proposal, frame: Frame, nat: Nat) -> list[Edit] | None:
    """Map a type-2 message back: its two ports differ, and its address may be in a TLV or the sender's user
    info."""
    found = listener(proposal.service_data)
    told = [proposal.value(tag) for tag in ADDRESSES]
    told += [tlv.value[:4] for tlv in proposal.block.sender if (tlv.type, len(tlv.value)) in OF_INTEREST]
    # With several workers each look-up asks the main process. A true message repeats one address or two.
    for address in [*dict.fromkeys(filter(None, told))][:_MOST_TOLD]:
        text = socket.inet_ntoa(address)
        ends: list[tuple[Endpoint, Endpoint]] = []
        for port in proposal.ports():
            announced = Endpoint(text, port)
            inside = nat.inside_of(announced)
            if inside is not None:
                proposal.swap_port(port, inside.port)
                ends.append((announced, inside))
                break
        if found is not None and (inside := nat.inside_of(Endpoint(text, found.port))) is not None:
            proposal.service_data = found.moved(inside.port)
            ends.append((Endpoint(text, found.port), inside))
        if ends:
            before, after = ends[-1]
            proposal.swap_address(address, socket.inet_aton(after.address))
            return proposal.mapped_back(frame, nat, before, after)
    return None


def _error_data(frame: bytes, body: int) -> int | None:
    """Offset of the data of a SNAC(04,0B) of ICBM channel 2 and reason 3; None for others."""
    if len(frame) < body + _ERROR.size:
        return None
    _, channel, length = _ERROR.unpack_from(frame, body)
    at = body + _ERROR.size + length + 2
    reason = frame[at - 2 : at]
    return at if channel == IcbmChannel.RENDEZVOUS and reason == _REASON else None


def replaced(frame: Frame, news: list[tuple[int, bytes]]) -> list[Edit]:
    """Edits that put the bytes of *news* at their offsets of *frame*; equal bytes are left out."""
    edits: list[Edit] = []
    for at, new in sorted(news):
        edits += differences(frame.data[at : at + len(new)], new, frame.at + at)
    return edits
