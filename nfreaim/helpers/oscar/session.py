"""The OSCAR helper: edits rendezvous proposals of AIM and ICQ, in both directions.

A proposal has the address and port at which its sender listens: SNAC(04,06) from a client, SNAC(04,07) to the
other client, on ICBM channel 2. On the way out, the sender's own address becomes the outside one, and a
pinhole is opened for it. On the way in, an outside endpoint that is one of our pinholes becomes the inside
one again, so that two hosts of one network meet there. All fields have a fixed width, so no length, order or
number of TLVs changes. All other messages (other channels, relays, text, cancels, and those that cannot be
rebuilt to the byte) leave as they came.

If the server is the inside end, its client is outside. Proposals that the server relays from inside hosts are
edited as if these hosts had sent them; redirects are edited by redirects.py. The messages of that client are
read for the end of agreements only. ICQ's direct connections are in icq.py.

scapy parses a message only after its bytes have shown that it is a rendezvous.
"""

from __future__ import annotations

import socket
from hashlib import blake2b
from typing import Any, Final, TypeVar

from nfreaim.core.address import Direction, Endpoint, is_reachable
from nfreaim.core.helper import Expectation, Nat, Refused, Scan
from nfreaim.core.tcp.offsets import Edit
from nfreaim.helpers.oscar.flap import SERVER_SLACK, SNAC_BODY, FlapReader, Frame, OutOfSequence
from nfreaim.helpers.oscar.icq import INFOS, Icq
from nfreaim.helpers.oscar.incomplete import first_in_frame
from nfreaim.helpers.oscar.proposal import (
    ADDRESSES,
    ICBM,
    OWN_RENDEZVOUS,
    Proposal,
    body_of,
    first_editable,
    party,
    plain_name,
)
from nfreaim.helpers.oscar.redirects import FIRST_EDITABLE, Redirects, may_be_redirect
from nfreaim.helpers.oscar.resync import Resync
from nfreaim.layers.oscar_messages import (
    FLAP_HEADER,
    SNAC_HEADER,
    TLV_HEADER,
    FlapChannel,
    IcbmChannel,
    RdvTag,
    RdvType,
    dissect,
    rebuild,
    rendezvous_of,
)
from nfreaim.layers.oscar_names import (
    CHANNEL_MSG_TO_CLIENT,
    CHANNEL_MSG_TO_HOST,
    CLIENT_ERR,
    FAMILY_ICBM,
    HOST_ONLINE,
    ICBM_ERR,
    SET_NICKINFO_FIELDS,
)
from nfreaim.layers.oscar_redirect import REDIRECTS

# By direction, for FlapReader: True marks ICBMs.
_WANTED: Final = (
    {CHANNEL_MSG_TO_HOST: True, CLIENT_ERR: True, SET_NICKINFO_FIELDS: False},
    {CHANNEL_MSG_TO_CLIENT: True, CLIENT_ERR: True, ICBM_ERR: False, HOST_ONLINE: False}
    | dict.fromkeys(REDIRECTS, False),
)
# While an ICQ client has published where it listens, every message that says who its sender is counts, too.
_WANTED_WITH_INFOS: Final = _WANTED[1] | {CHANNEL_MSG_TO_CLIENT: False} | dict.fromkeys(INFOS, False)

# Plain numbers: before Python 3.12 reading an enum's member costs as much as unpacking a header.
_SIGNOFF: Final = FlapChannel.SIGNOFF.value
_RENDEZVOUS: Final = IcbmChannel.RENDEZVOUS.value

_ORIGINAL: Final = Direction.ORIGINAL
_REPLY: Final = Direction.REPLY
_SHORTEST: Final = SNAC_BODY + TLV_HEADER.size  # nothing shorter can hold a byte that an edit could change
_NONE: Final[dict[Any, Any]] = {}  # in place of the tables that most sessions never need; never changed
_REMEMBERED: Final = 32  # proposals of one flow whose request or peer is remembered


class OscarHelper:
    """Reads one connection between a client and an OSCAR server.

    It is established once both sides began with a sign-on frame and the server listed the ICBM family
    in SNAC(01,03): that is a BOS connection, the only kind that carries rendezvous. From then on a sign-on
    frame, like one out of sequence at any time, ends the reading.
    """

    __slots__ = (
        "_icq",
        "_peers",
        "_readers",
        "_redirects",
        "_requests",
        "_resyncs",
        "_secure",
        "established",
    )

    slacks = (0, SERVER_SLACK)
    """By direction: how far a frame's number may be from the one that is due."""

    def __init__(self, midstream: bool) -> None:
        self.established = midstream
        self._readers = (
            FlapReader(_WANTED[0], midstream, slack=self.slacks[0]),
            FlapReader(_WANTED[1], midstream, whole_signoff=True, slack=self.slacks[1]),
        )
        self._resyncs: tuple[Resync, Resync] | None = None
        self._redirects = Redirects()
        self._requests: dict[int, bytes] = _NONE
        self._peers: dict[tuple[bytes, bytes], str] = _NONE
        self._secure: dict[tuple[bytes, bytes], bool] = _NONE
        self._icq = Icq()

    def scan(self, direction: Direction, data: bytes, start: int, nat: Nat) -> Scan | None:
        """See core.helper.Helper."""
        reader = self._reader(direction, nat)
        try:
            frames = reader.feed(data, start)
        except OutOfSequence:
            nat.count("unsequenced_flows")
            raise
        for _ in range(reader.oversized):
            nat.count("malformed_messages")
        reader.oversized = 0
        kept = len(reader.kept)
        if not frames and (
            kept <= FIRST_EDITABLE or (kept < _SHORTEST and (direction is _ORIGINAL or not nat.server_inside))
        ):
            return None
        nat.set_buffered(len(self._readers[0].kept) + len(self._readers[1].kept))
        edits: list[Edit] = []
        for frame in frames:
            edits += self._frame(direction, frame, nat)
        hold = self._hold(direction, nat) if reader.kept else None
        return Scan(tuple(edits), hold) if edits or hold is not None else None

    def skips(self, direction: Direction, raw: bytes, start: int, nat: Nat) -> bool:
        """See core.helper.Helper."""
        return self._reader(direction, nat).skips(raw, start)

    def _reader(self, direction: Direction, nat: Nat) -> FlapReader:
        reader = self._readers[direction]
        if direction is _REPLY:
            infos = nat.has_standing() and not nat.server_inside
            reader.wanted = _WANTED_WITH_INFOS if infos else _WANTED[1]
        return reader

    def positions(self) -> tuple[bytes, bytes]:
        """See core.helper.Resumable."""
        return self._readers[0].position(), self._readers[1].position()

    def resume(self, positions: tuple[bytes, bytes] | None, starts: tuple[int, int]) -> None:
        """See core.helper.Resumable."""
        self.established = True
        self._resyncs = _resync(0), _resync(1)
        if positions is not None:
            for reader, position, start in zip(self._readers, positions, starts, strict=True):
                reader.resume(position, start)

    def resync(self, direction: Direction, data: bytes, start: int, now: float, joined: bool) -> bool:
        """See core.helper.Resumable; how is the subject of resync.py."""
        assert self._resyncs is not None
        self._resyncs[direction].saw(data, start, now, joined)
        client, server = self._resyncs
        if not (client.sure and server.sure):
            return False
        self._readers, self._resyncs = (client.reader, server.reader), None
        for reader, slack in zip(self._readers, self.slacks, strict=True):
            reader.slack = slack
        return True

    def _hold(self, direction: Direction, nat: Nat) -> int | None:
        """From which offset on an edit could concern what has come of the last frame; None: nowhere yet."""
        reader, home = self._readers[direction], nat.server_inside
        if home and direction is _REPLY and self._begun() and may_be_redirect(reader.kept):
            return reader.kept_at + FIRST_EDITABLE
        relevant = not home if direction is _ORIGINAL else home or nat.has_pinholes()
        if not self.established or not relevant:
            return None
        first = first_in_frame(reader.kept, direction, nat)
        return None if first is None else reader.kept_at + first

    def _begun(self) -> bool:
        """Whether both sides began with a sign-on frame."""
        return self._readers[0].begun and self._readers[1].begun

    def _frame(self, direction: Direction, frame: Frame, nat: Nat) -> list[Edit]:
        data = frame.data
        if frame.channel == _SIGNOFF:
            return self._signoff(frame, nat)
        name = data[FLAP_HEADER.size : FLAP_HEADER.size + 4]
        body = body_of(data)
        if name == HOST_ONLINE:
            self._host_online(data, body, nat)
        elif name in REDIRECTS:
            return (self._redirects.read(frame, nat) or []) if self._begun() else []
        elif name == ICBM_ERR:
            cookie = self._requests.pop(SNAC_HEADER.unpack_from(data, FLAP_HEADER.size)[3], None)
            if cookie is not None:
                nat.withdraw(cookie, "the server could not deliver the proposal")
        elif not self.established:
            return []
        elif name == SET_NICKINFO_FIELDS:
            return [] if nat.server_inside else self._icq.status(frame, body, nat)
        elif name in INFOS:
            return self._icq.user_info(frame, name, body, nat)
        elif len(data) >= body + ICBM.size:
            return self._icbm(direction, frame, body, nat)
        return []

    def _host_online(self, data: bytes, body: int, nat: Nat) -> None:
        """SNAC(01,03), the families that the server has: it may be the end of sign-on."""
        families = [data[at : at + 2] for at in range(body, len(data) - 1, 2)]
        if not self.established and self._begun() and FAMILY_ICBM in families:
            self.established = True
            for reader in self._readers:
                reader.settled = True
            nat.established()

    def _icbm(self, direction: Direction, frame: Frame, body: int, nat: Nat) -> list[Edit]:
        """SNAC(04,06), (04,07) or (04,0B), of whatever channel."""
        data = frame.data
        name = data[FLAP_HEADER.size : FLAP_HEADER.size + 4]
        cookie, channel = ICBM.unpack_from(data, body)
        edits: list[Edit] = []
        icq = not nat.server_inside
        if icq and name == CHANNEL_MSG_TO_CLIENT and nat.has_standing():
            edits = self._icq.user_info(frame, name, body + ICBM.size, nat)
        if channel != _RENDEZVOUS:
            return edits
        if name != CLIENT_ERR:
            return edits + self._rendezvous(direction, frame, nat)
        answer = self._icq.client_error(direction, frame, body, nat) if icq else None
        if answer is None:
            at = body + ICBM.size + 1
            whom = plain_name(data[at : at + data[at - 1]]) if len(data) >= at else b""
            nat.withdraw(_agreement(cookie, whom, nat), "declined")
        return answer or []

    def _signoff(self, frame: Frame, nat: Nat) -> list[Edit]:
        """FLAP channel 4: the end of a session, or in the old sign-on the login reply."""
        if len(frame.data) > FLAP_HEADER.size and self._begun():
            edits = self._redirects.read(frame, nat)
            if edits is not None:
                return edits
        nat.withdraw_all("signed off")
        self._icq.published = None
        return []

    def _rendezvous(self, direction: Direction, frame: Frame, nat: Nat) -> list[Edit]:
        """A message on ICBM channel 2: the only place where scapy is used, and its result is checked."""
        try:
            flap = dissect(frame.data)
        except ValueError:
            nat.count("malformed_messages")
            return []
        if rebuild(flap) != frame.data:
            nat.count("unfaithful")
            return []
        block = rendezvous_of(flap)
        if block is None:
            return []
        if block.type == RdvType.CANCEL:
            nat.withdraw(_agreement(block.cookie, party(flap), nat), "cancelled")
        elif block.type == RdvType.ACCEPT:
            nat.accepted(_agreement(block.cookie, party(flap), nat))
        elif block.type == RdvType.PROPOSE and not (nat.server_inside and direction is _ORIGINAL):
            return self._proposal(direction, Proposal(flap, block), frame, nat)
        return []

    def _proposal(self, direction: Direction, proposal: Proposal, frame: Frame, nat: Nat) -> list[Edit]:
        nat.count("proposals")
        block = proposal.block
        if proposal.flap.payload.payload.cookie != block.cookie:
            return proposal.leave(direction, nat, "message and proposal have different cookies")
        own_kind = block.capability in OWN_RENDEZVOUS and not nat.server_inside
        if not own_kind and (reason := proposal.unfit()):
            return proposal.leave(direction, nat, reason)
        if not nat.editable(direction, frame.at + (first_editable(frame.data, direction) or 0)):
            return proposal.leave(direction, nat, "its addresses had left before its end came")
        if direction is _ORIGINAL:
            return self._outgoing(proposal, frame, nat)
        if nat.server_inside:
            return self._relayed(proposal, frame, nat)
        return self._incoming(proposal, frame, nat)

    def _outgoing(self, proposal: Proposal, frame: Frame, nat: Nat) -> list[Edit]:
        """A client's proposal: announce the outside endpoint in place of its own."""
        cookie = proposal.block.cookie
        peer = self._peers.get((cookie, proposal.whom)) if proposal.stage > 1 else None
        if proposal.block.capability in OWN_RENDEZVOUS:
            self._requests = _remembered(self._requests, proposal.request, cookie)
            return self._icq.outgoing(proposal, frame, nat, peer)
        inside = Endpoint(nat.inside.address, proposal.port)
        own = socket.inet_aton(inside.address)
        requester = proposal.value(RdvTag.REQUESTER_IP)
        if own not in (requester, proposal.value(RdvTag.RDV_IP)):
            return proposal.leave(Direction.ORIGINAL, nat, "not the sender's own address")
        if requester is not None and requester != own and nat.is_ours(socket.inet_ntoa(requester)):
            return proposal.leave(Direction.ORIGINAL, nat, "already announces the outside address")
        # An answer need not repeat that the link will be TLS.
        greetings = () if (cookie, proposal.whom) in self._secure else proposal.greetings
        try:
            outside = nat.expect(Expectation(cookie, proposal.service, inside, peer, greetings=greetings))
        except Refused as refusal:
            return proposal.leave(Direction.ORIGINAL, nat, str(refusal))
        proposal.move(own, inside, outside)
        self._requests = _remembered(self._requests, proposal.request, cookie)
        return proposal.rewritten(frame, nat, inside, outside)

    def _relayed(self, proposal: Proposal, frame: Frame, nat: Nat) -> list[Edit]:
        """A proposal that a server on our side relays out: announce a host of ours as it would itself.

        The server's client may be anybody and name any host of ours: only the server's own word counts.
        """
        cookie = _agreement(proposal.block.cookie, proposal.whom, nat)
        named = {socket.inet_ntoa(address) for tag in ADDRESSES if (address := proposal.value(tag))}
        if not any(nat.is_home(address) for address in named):
            nat.count("left")  # between two clients outside; nothing to tell
            return []
        host = proposal.vouched()
        if host is None or not nat.is_home(host):
            return proposal.leave(_REPLY, nat, "names an inside host that the server does not vouch for")
        inside = Endpoint(host, proposal.port)
        try:
            outside = nat.expect(Expectation(cookie, proposal.service, inside, greetings=proposal.greetings))
        except Refused as refusal:
            return proposal.leave(_REPLY, nat, str(refusal))
        proposal.move(socket.inet_aton(host), inside, outside)
        reason = "host of the inside networks"
        return proposal.rewritten(frame, nat, inside, outside, agreement=cookie, reason=reason)

    def _incoming(self, proposal: Proposal, frame: Frame, nat: Nat) -> list[Edit]:
        """A proposal relayed to a client: if it names one of our pinholes, name the host behind it."""
        if proposal.block.capability in OWN_RENDEZVOUS:
            edits = self._icq.incoming(proposal, frame, nat)
            if edits is not None:
                return edits
        for tag in () if proposal.flaw() else ADDRESSES:
            address = proposal.value(tag)
            announced = Endpoint(socket.inet_ntoa(address), proposal.port) if address else None
            inside = nat.inside_of(announced) if announced else None
            if address and announced and inside:
                proposal.move(address, announced, inside)
                return proposal.mapped_back(frame, nat, announced, inside)
        if proposal.secure:
            self._secure = _remembered(self._secure, (proposal.block.cookie, proposal.whom), True)
        verified = proposal.value(RdvTag.VERIFIED_IP)
        if verified is not None and len(verified) == 4:
            # The server saw this address: if we answer with a proposal of our own, only it may connect. The
            # cookie alone does not tell whom we answer: the first one of every libpurple process is the same.
            peer = socket.inet_ntoa(verified)
            if is_reachable(peer) and not nat.is_ours(peer):
                self._peers = _remembered(self._peers, (proposal.block.cookie, proposal.whom), peer)
        if proposal.block.capability in OWN_RENDEZVOUS:
            return []  # a text message, most of the time
        return proposal.leave(Direction.REPLY, nat, "names no pinhole of this router")


def _resync(direction: int) -> Resync:
    def make() -> FlapReader:
        reader = FlapReader(_WANTED[direction], False, whole_signoff=direction == _REPLY)
        reader.begun = reader.settled = True
        return reader

    return Resync(make)


def _agreement(cookie: bytes, whom: bytes, nat: Nat) -> bytes:
    """The name of an agreement within its flow: the cookie, as long as all of them are one client's.

    A server's flow carries the proposals of all its clients to one of them, and the first cookie of every
    libpurple process is the same: there the other party's name makes the difference, unreadably.
    """
    return blake2b(cookie + whom, digest_size=8).digest() if nat.server_inside else cookie


_K = TypeVar("_K")
_V = TypeVar("_V")


def _remembered(table: dict[_K, _V], key: _K, value: _V) -> dict[_K, _V]:
    """*table*, or one of its own in place of _NONE, with one more entry."""
    table = table or {}
    table[key] = value
    if len(table) > _REMEMBERED:
        del table[next(iter(table))]
    return table
