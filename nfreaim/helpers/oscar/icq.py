"""ICQ's direct connections, the part of the OSCAR helper that is ICQ's alone.

An ICQ client listens for as long as it is online and publishes where, once, in SNAC(01,1E); the server
repeats that in the user info that the client's contacts get. So its pinhole lasts as long as the connection
to the server and admits any number of peers. Two more messages name a port: "connect to me instead"
(capability icq-reverse) and the type-2 messages that offer or accept a chat or a file (icq-relay), in
rendezvous and in SNAC(04,0B). All fields have a fixed width; nothing ever changes its length.

What the clients tell each other on the direct connection itself is obfuscated and never comes here.
"""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import replace
from typing import Final, Literal, NamedTuple

from nfreaim.core.address import Direction, Endpoint
from nfreaim.core.helper import Action, Expectation, Nat, Refused, Report
from nfreaim.core.tcp.offsets import Edit, differences
from nfreaim.helpers.oscar.flap import Frame
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
from nfreaim.layers.oscar_messages import CAPABILITIES, TLV_HEADER, ClientErr, ClientError, IcbmChannel
from nfreaim.layers.oscar_names import ARRIVED, NICK_INFO_UPDATE, SET_NICKINFO_FIELDS, USER_INFO_REPLY
from nfreaim.layers.structs import header_struct

INFOS: Final = frozenset({NICK_INFO_UPDATE, USER_INFO_REPLY, ARRIVED})
"""SNACs that begin with a user-info block: of interest while some client has published an address."""

_INFO: Final = header_struct(DirectInfo)
_ERROR: Final = header_struct(ClientError)
# Nothing listens, or nothing that the client itself would know the address of.
_UNREACHABLE: Final = (DirectType.DISABLED.value, DirectType.WEB.value)
_REASON: Final = ClientErr.CHANNEL_SPECIFIC.to_bytes(2, "big")
_DIRECT: Final = "icq-direct"
_RELAY: Final = CAPABILITIES[SERVER_RELAY]
_SESSION: Final = b""  # the one agreement of a connection that needs no name
_OF_INTEREST: Final = {(UserTag.DIRECT_INFO.value, _INFO.size), (UserTag.EXTERNAL_IP.value, 4)}


class _Field(NamedTuple):
    """A TLV of interest: the number of its user-info block, its type, where its value stands."""

    block: int
    tag: int
    at: int


class Published(NamedTuple):
    """What a client announces for its whole session, and what the outside is told instead."""

    inside: Endpoint
    outside: Endpoint


class Icq:
    """The ICQ part of one connection. *published* is None while its client has no pinhole of that kind."""

    __slots__ = ("published",)

    def __init__(self) -> None:
        self.published: Published | None = None

    def status(self, frame: Frame, body: int, nat: Nat) -> list[Edit]:
        """SNAC(01,1E): publish the outside endpoint in place of the client's own.

        What it says now replaces what it said before. Without TLV 0x000C it says nothing about that.
        """
        try:
            fields = list(_status_fields(frame.data, body))
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
        if info.type in _UNREACHABLE or not info.port or not any(info.address):
            self._retract(nat, "no longer published")
            return []
        reason = ""
        if not nat.editable(Direction.ORIGINAL, fields[0].at + frame.at):
            reason = "its address had left before its end came"
        elif named.address != nat.inside.address:
            reason = "not the sender's own address"
        else:
            try:
                outside = nat.expect(Expectation(_SESSION, _DIRECT, named, standing=True))
            except Refused as refusal:
                reason = str(refusal)
        if reason:
            self._retract(nat, "another endpoint was published")
            nat.count("left")
            nat.report(_published("out", named, named, "left", reason))
            return []
        self.published = Published(named, outside)
        info.address, info.port = socket.inet_aton(outside.address), outside.port
        info.clear_cache()
        nat.count("rewritten")
        nat.report(_published("out", named, outside, "rewritten", "own address"))
        return _replaced(frame, [(field.at, bytes(info)) for field in fields])

    def _retract(self, nat: Nat, reason: str) -> None:
        if self.published is not None:
            self.published = None
            nat.withdraw(_SESSION, reason)

    def user_info(self, frame: Frame, name: bytes, body: int, nat: Nat) -> list[Edit]:
        """User info on its way to a client: where it names one of our pinholes, name the host behind it."""
        try:
            fields = list(_user_fields(frame.data, name, body))
        except ValueError:
            nat.count("malformed_messages")
            return []
        news: list[tuple[int, bytes]] = []
        for direct in [field for field in fields if field.tag == UserTag.DIRECT_INFO]:
            address, port, *_ = _INFO.unpack_from(frame.data, direct.at)
            announced = Endpoint(socket.inet_ntoa(address), port)
            inside = nat.inside_of(announced)
            if inside is None or not nat.editable(Direction.REPLY, frame.at + fields[0].at):
                continue
            host = socket.inet_aton(inside.address)
            news.append((direct.at, host + inside.port.to_bytes(4, "big")))
            for other in fields:
                same = other.block == direct.block and frame.data[other.at : other.at + 4] == address
                # Of itself a client learns here how the world sees it, and tells its peers so.
                if same and other.tag == UserTag.EXTERNAL_IP and name != NICK_INFO_UPDATE:
                    news.append((other.at, host))
            nat.count("mapped_back")
            report = _published("in", announced, inside, "mapped-back", "pinhole of this router")
            nat.report(replace(report, routine=True))
        return _replaced(frame, news)

    def outgoing(self, proposal: Proposal, frame: Frame, nat: Nat, peer: str | None) -> list[Edit]:
        """A client's own rendezvous of one of ICQ's kinds."""
        if reason := proposal.flaw():
            return proposal.leave(Direction.ORIGINAL, nat, reason)
        if proposal.block.capability == REVERSE_CONNECT:
            return self._reverse_out(proposal, frame, nat, peer)
        return self._relay_out(proposal, frame, nat, peer)

    @staticmethod
    def incoming(proposal: Proposal, frame: Frame, nat: Nat) -> list[Edit] | None:
        """One on its way to a client: if it names one of our pinholes, name the host behind it; else None."""
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
        if named.address != nat.inside.address:
            return proposal.leave(Direction.ORIGINAL, nat, "not the sender's own address", named)
        try:
            outside = nat.expect(Expectation(proposal.block.cookie, proposal.service, named, peer))
        except Refused as refusal:
            return proposal.leave(Direction.ORIGINAL, nat, str(refusal), named)
        _redirect(proposal, reverse, named, outside)
        return proposal.rewritten(frame, nat, named, outside)

    def _relay_out(self, proposal: Proposal, frame: Frame, nat: Nat, peer: str | None) -> list[Edit]:
        """The port in the service data is a listener for this occasion, 0x0005 the published one again."""
        named = outside = None
        found = _listener(proposal.service_data)
        if found is not None:
            named = Endpoint(nat.inside.address, found.port)
            try:
                outside = nat.expect(Expectation(proposal.block.cookie, proposal.service, named, peer))
            except Refused as refusal:
                return proposal.leave(Direction.ORIGINAL, nat, str(refusal), named)
            proposal.service_data = found.moved(outside.port)
        published = self.published
        if published is not None and proposal.swap_port(published.inside.port, published.outside.port):
            named, outside = (named, outside) if outside else published
        if named is None or outside is None:
            return []  # a text message, most of the time
        proposal.swap_address(socket.inet_aton(named.address), socket.inet_aton(outside.address))
        return proposal.rewritten(frame, nat, named, outside)

    @staticmethod
    def client_error(direction: Direction, frame: Frame, body: int, nat: Nat) -> list[Edit] | None:
        """SNAC(04,0B): answers to type-2 messages travel in it, too, and may name a port.

        None if it is the refusal that it is in every other case.
        """
        at = _error_data(frame.data, body)
        if at is None:
            return None
        message = relay_message(frame.data[at:])
        if message is None or message.status == REFUSED:
            return None
        found = listening(message)
        if found is None or direction is Direction.REPLY:
            return []  # in the reply direction nothing tells whose port it is
        cookie = _ERROR.unpack_from(frame.data, body)[0]
        named = outside = Endpoint(nat.inside.address, found.port)
        action: Literal["rewritten", "left"] = "left"
        reason = "its port had left before its end came"
        if nat.editable(direction, frame.at + at):
            try:
                outside = nat.expect(Expectation(cookie, _RELAY, named))
                action, reason = "rewritten", "own port"
                nat.count("rewritten")
            except Refused as refusal:
                reason = str(refusal)
        nat.report(
            Report("out", _RELAY, 0, cookie, before=named, after=outside, action=action, reason=reason)
        )
        return [] if action == "left" else _replaced(frame, [(at, found.moved(outside.port))])


def _published(
    way: Literal["out", "in"], before: Endpoint, after: Endpoint, action: Action, reason: str
) -> Report:
    """What became of an endpoint that a client publishes for its whole session."""
    return Report(way, _DIRECT, 0, _SESSION, before=before, after=after, action=action, reason=reason)


def first_field(frame: bytes, name: bytes, body: int) -> int | None:
    """Where in *frame*, of which the end may be missing, the first address of TLV 0x000C or 0x000A stands."""
    fields = _status_fields(frame, body) if name == SET_NICKINFO_FIELDS else _user_fields(frame, name, body)
    with suppress(ValueError):  # where the bytes end
        return next((field.at for field in fields), None)
    return None


def first_in_error(frame: bytes, body: int) -> int | None:
    """The same for SNAC(04,0B): where its type-2 message begins, if that is what it holds."""
    at = _error_data(frame, body)
    return at if at is not None and frame[at : at + 2] == RELAY_BEGIN[: len(frame) - at] else None


def _listener(data: bytes) -> Listening | None:
    """The port that a type-2 message offers, unless it says no."""
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
    _redirect(proposal, reverse, announced, inside)
    return proposal.mapped_back(frame, nat, announced, inside)


def _redirect(proposal: Proposal, reverse: ReverseConnect, before: Endpoint, after: Endpoint) -> None:
    """Put *after* in place of *before*; where a client repeats itself in TLVs, there, too."""
    address = reverse.address
    reverse.address = socket.inet_aton(after.address)
    for field in ("port", "port_again"):
        if reverse.getfieldval(field) == before.port:
            reverse.setfieldval(field, after.port)
    reverse.clear_cache()
    proposal.service_data = bytes(reverse)
    proposal.move(address, before, after)


def _relay_in(proposal: Proposal, frame: Frame, nat: Nat) -> list[Edit] | None:
    """The address may be in the message or only in the sender's user info; the two ports differ."""
    found = _listener(proposal.service_data)
    told = [proposal.value(tag) for tag in ADDRESSES]
    told += [
        tlv.value[:4]
        for tlv in proposal.flap.payload.payload.sender.tlvs
        if (tlv.type, len(tlv.value)) in _OF_INTEREST
    ]
    for address in filter(None, told):
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


def _status_fields(frame: bytes, body: int) -> Iterator[_Field]:
    """TLV 0x000C of a SNAC(01,1E). Raises ValueError as _tlvs does."""
    for tag, length, at in _tlvs(frame, body):
        if tag == UserTag.DIRECT_INFO and length == _INFO.size:
            yield _Field(0, tag, at)


def _user_fields(frame: bytes, name: bytes, body: int) -> Iterator[_Field]:
    """TLVs 0x000C and 0x000A of the user-info blocks that begin at *body*. Raises ValueError as _tlvs does.

    Only a block's count separates its TLVs from what follows, which is other TLVs or another block.
    """
    pos, size, block = body, len(frame), 0
    while pos < size and (not block or name in (NICK_INFO_UPDATE, ARRIVED)):
        pos += 1 + frame[pos]
        if pos + 4 > size:
            raise ValueError("a user-info block overruns its frame")
        count = int.from_bytes(frame[pos + 2 : pos + 4], "big")
        pos += 4
        for tag, length, at in _tlvs(frame, pos, count):
            pos = at + length
            if (tag, length) in _OF_INTEREST:
                yield _Field(block, tag, at)
        block += 1


def _tlvs(frame: bytes, pos: int, count: int | None = None) -> Iterator[tuple[int, int, int]]:
    """Type, length and value's place of *count* TLVs from *pos* on; without *count*, up to the frame's end.

    Raises ValueError where one overruns the frame; if its header is all there, only after it was yielded,
    for a reader that knows that the frame's end is missing.
    """
    size = len(frame)
    while pos < size if count is None else count:
        if pos + TLV_HEADER.size > size:
            raise ValueError("a TLV's header overruns its frame")
        tag, length = TLV_HEADER.unpack_from(frame, pos)
        pos += TLV_HEADER.size
        yield tag, length, pos
        pos += length
        if pos > size:
            raise ValueError("a TLV's value overruns its frame")
        if count:
            count -= 1


def _error_data(frame: bytes, body: int) -> int | None:
    """Where the data of a SNAC(04,0B) of ICBM channel 2 and reason 3 begins; None if it is another one."""
    if len(frame) < body + _ERROR.size:
        return None
    _, channel, length = _ERROR.unpack_from(frame, body)
    at = body + _ERROR.size + length + 2
    reason = frame[at - 2 : at]
    return at if channel == IcbmChannel.RENDEZVOUS and reason == _REASON else None


def _replaced(frame: Frame, news: list[tuple[int, bytes]]) -> list[Edit]:
    """Edits that put these bytes at these offsets of *frame*, as small as they can be."""
    edits: list[Edit] = []
    for at, new in sorted(news):
        edits += differences(frame.data[at : at + len(new)], new, frame.at + at)
    return edits
