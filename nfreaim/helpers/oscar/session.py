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

Messages are read as bytes (outline.py); those that are edited are read again by their layers, to confirm it.
"""

from __future__ import annotations

import socket
from typing import Final

from nfreaim.core.address import Direction, Endpoint
from nfreaim.core.announced import all_own
from nfreaim.core.helper import Nat, Refused, Scan
from nfreaim.core.reach import unreachable
from nfreaim.core.tcp.offsets import Edit
from nfreaim.helpers.oscar.flap import SERVER_SLACK, SNAC_BODY, FlapReader, Frame, OutOfSequence
from nfreaim.helpers.oscar.icq import INFOS, Icq
from nfreaim.helpers.oscar.icq_at_home import INFOS_AT_HOME, IcqAtHome
from nfreaim.helpers.oscar.incomplete import first_in_frame
from nfreaim.helpers.oscar.outline import Outline
from nfreaim.helpers.oscar.peer_greetings import offer_anything
from nfreaim.helpers.oscar.proposal import (
    ADDRESSES,
    ICBM,
    OWN_RENDEZVOUS,
    Proposal,
    agreement,
    body_of,
    first_editable,
    plain_name,
)
from nfreaim.helpers.oscar.redirects import FIRST_EDITABLE, REQUESTS, Redirects, may_be_redirect
from nfreaim.helpers.oscar.remembered import NONE, remembered, request_of
from nfreaim.helpers.oscar.resync import Resync
from nfreaim.layers.oscar_messages import (
    FLAP_HEADER,
    TLV_HEADER,
    FlapChannel,
    IcbmChannel,
    RdvTag,
    RdvType,
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
    {CHANNEL_MSG_TO_HOST: True, CLIENT_ERR: True, SET_NICKINFO_FIELDS: False}
    | dict.fromkeys(REQUESTS, False),
    {CHANNEL_MSG_TO_CLIENT: True, CLIENT_ERR: True, ICBM_ERR: False, HOST_ONLINE: False}
    | dict.fromkeys(REDIRECTS, False),
)
# While an ICQ client has published where it listens, every message that says who its sender is counts, too.
_WANTED_WITH_INFOS: Final = _WANTED[1] | {CHANNEL_MSG_TO_CLIENT: False} | dict.fromkeys(INFOS, False)
# A server inside says who its inside clients are whether or not anybody is known to have published.
_WANTED_AT_HOME: Final = _WANTED[1] | {CHANNEL_MSG_TO_CLIENT: False} | dict.fromkeys(INFOS_AT_HOME, False)

# Plain numbers: before Python 3.12 reading an enum's member costs as much as unpacking a header.
_SIGNOFF: Final = FlapChannel.SIGNOFF.value
_RENDEZVOUS: Final = IcbmChannel.RENDEZVOUS.value

_ORIGINAL: Final = Direction.ORIGINAL
_REPLY: Final = Direction.REPLY
_SHORTEST: Final = SNAC_BODY + TLV_HEADER.size  # nothing shorter can hold a byte that an edit could change
_NAME: Final = slice(FLAP_HEADER.size, FLAP_HEADER.size + 4)  # of a SNAC, in its frame


class OscarHelper:
    """Reads one connection between a client and an OSCAR server.

    It is established once both sides began with a sign-on frame and the server listed the ICBM family
    in SNAC(01,03): that is a BOS connection, the only kind that carries rendezvous. From then on a sign-on
    frame, like one out of sequence at any time, ends the reading.
    """

    __slots__ = (
        "_accepted",
        "_at_home",
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
        self._requests: dict[int, bytes] = NONE
        self._peers: dict[bytes, str] = NONE
        self._accepted: dict[bytes, bool] = NONE
        self._secure: dict[bytes, bool] = NONE
        self._icq = Icq()
        self._at_home = IcqAtHome()

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
            if frame.data[_NAME] == HOST_ONLINE or frame.channel == _SIGNOFF or nat.may_read(direction):
                edits += self._frame(direction, frame, nat)
        hold = self._hold(direction, nat) if reader.kept else None
        return Scan(tuple(edits), hold) if edits or hold is not None else None

    def skips(self, direction: Direction, raw: bytes, start: int, nat: Nat) -> bool:
        """See core.helper.Helper."""
        return self._reader(direction, nat).skips(raw, start)

    def _reader(self, direction: Direction, nat: Nat) -> FlapReader:
        reader = self._readers[direction]
        if direction is _REPLY:
            away = _WANTED_WITH_INFOS if nat.has_standing() else _WANTED[1]
            reader.wanted = _WANTED_AT_HOME if nat.server_inside else away
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
        name = data[_NAME]
        body = body_of(data)
        if name == HOST_ONLINE:
            self._host_online(data, body, nat)
        elif name in REDIRECTS:
            return (self._redirects.read(frame, nat, self.established) or []) if self._begun() else []
        elif name in REQUESTS:
            self._redirects.asked(name)
        elif name == ICBM_ERR:
            # It names no party, but no client can send it: the number is that of the client's own request.
            refused = self._requests.pop(request_of(data), None)
            if refused is not None:
                nat.withdraw(refused, "the server could not deliver the proposal")
        elif not self.established:
            return []
        elif name == SET_NICKINFO_FIELDS:
            return [] if nat.server_inside else self._icq.status(frame, body, nat)
        elif name in INFOS_AT_HOME if nat.server_inside else name in INFOS:
            return self._infos(frame, name, body, nat)
        elif len(data) >= body + ICBM.size:
            return self._icbm(direction, frame, body, nat)
        return []

    def _host_online(self, data: bytes, body: int, nat: Nat) -> None:
        """SNAC(01,03), the families that the server has: it may be the end of sign-on."""
        if self.established or not self._begun():
            return
        if any(data[at : at + 2] == FAMILY_ICBM for at in range(body, len(data) - 1, 2)):
            self.established = True
            for reader in self._readers:
                reader.settled = True
            nat.established()

    def _icbm(self, direction: Direction, frame: Frame, body: int, nat: Nat) -> list[Edit]:
        """SNAC(04,06), (04,07) or (04,0B), of whatever channel."""
        data = frame.data
        name = data[_NAME]
        cookie, channel = ICBM.unpack_from(data, body)
        if direction is _ORIGINAL and self._requests:
            self._requests.pop(request_of(data), None)  # an error with this number is about this message now
        edits: list[Edit] = []
        if name == CHANNEL_MSG_TO_CLIENT and (nat.server_inside or nat.has_standing()):
            edits = self._infos(frame, name, body + ICBM.size, nat)
        if channel != _RENDEZVOUS:
            return edits
        if name != CLIENT_ERR:
            return edits + self._rendezvous(direction, frame, nat)
        at = body + ICBM.size + 1
        named = agreement(cookie, plain_name(data[at : at + data[at - 1]]) if len(data) >= at else b"")
        answer = self._icq.client_error(direction, frame, body, named, nat)
        if answer is None:
            nat.withdraw(named, "declined")
        return answer or []

    def _infos(self, frame: Frame, name: bytes, body: int, nat: Nat) -> list[Edit]:
        """User info that begins at *body*."""
        icq = self._at_home if nat.server_inside else self._icq
        return icq.user_info(frame, name, body, nat)

    def _signoff(self, frame: Frame, nat: Nat) -> list[Edit]:
        """FLAP channel 4: the end of a session, or in the old sign-on the login reply."""
        if len(frame.data) > FLAP_HEADER.size and self._begun() and nat.may_read(_REPLY):
            signing_on = self._readers[0].introduced and not self.established
            edits = self._redirects.read(frame, nat, signing_on)
            if edits is not None:
                return edits
        nat.withdraw_all("signed off")
        self._icq.published = None
        return []

    def _rendezvous(self, direction: Direction, frame: Frame, nat: Nat) -> list[Edit]:
        """A message on ICBM channel 2."""
        try:
            block = Outline(frame.data, body_of(frame.data))
        except ValueError:
            nat.count("malformed_messages")
            if direction is _ORIGINAL:
                offer_anything(nat)
            return []
        named = agreement(block.agreement, plain_name(block.whom))
        if block.kind == RdvType.CANCEL:
            nat.withdraw(named, self._why_over(direction, named, nat))
        elif block.kind == RdvType.ACCEPT:
            self._accepted = remembered(self._accepted, named, True)
            nat.accepted(named)
        elif block.kind == RdvType.PROPOSE and not (nat.server_inside and direction is _ORIGINAL):
            return self._proposal(direction, Proposal(block), frame, nat)
        return []

    def _why_over(self, direction: Direction, named: bytes, nat: Nat) -> str:
        """Why an agreement was cancelled. Clients decline what they have not accepted by the same message."""
        if (direction is _ORIGINAL) is not nat.server_inside:
            return "cancelled"
        return "cancelled by the peer" if named in self._accepted or named in self._peers else "declined"

    def _proposal(self, direction: Direction, proposal: Proposal, frame: Frame, nat: Nat) -> list[Edit]:
        nat.count("proposals")
        block = proposal.block
        if block.cookie != block.agreement:
            return self._leave(direction, proposal, nat, "message and proposal have different cookies")
        if block.capability not in OWN_RENDEZVOUS and (reason := proposal.unfit()):
            return self._leave(direction, proposal, nat, reason)
        if not nat.editable(direction, frame.at + (first_editable(frame.data, direction) or 0)):
            return self._leave(direction, proposal, nat, "its addresses had left before its end came")
        if direction is _ORIGINAL:
            return self._outgoing(proposal, frame, nat)
        if nat.server_inside:
            return self._relayed(proposal, frame, nat)
        return self._incoming(proposal, frame, nat)

    def _leave(self, direction: Direction, proposal: Proposal, nat: Nat, reason: str) -> list[Edit]:
        return proposal.stay(direction, nat, reason, proposal.agreement in self._secure)

    def _outgoing(self, proposal: Proposal, frame: Frame, nat: Nat) -> list[Edit]:
        """A client's proposal: announce the outside endpoint in place of its own."""
        named = proposal.agreement
        peer = self._peers.get(named) if proposal.stage > 1 else None
        if proposal.block.capability in OWN_RENDEZVOUS:
            self._requests = remembered(self._requests, proposal.block.request, named)
            return self._icq.outgoing(proposal, frame, nat, peer)
        try:
            told = all_own(proposal.told(), proposal.port, nat)
        except Refused as refusal:
            return self._leave(_ORIGINAL, proposal, nat, str(refusal))
        inside = told[0].inside
        announced = next((own.outside for own in told if own.outside), None)
        # An answer need not repeat that the link will be TLS.
        secure = named in self._secure
        try:
            outside = nat.expect(proposal.expectation(inside, peer, secure, announced))
        except Refused as refusal:
            return proposal.leave(Direction.ORIGINAL, nat, str(refusal))
        proposal.swap_port(inside.port, outside.port)
        for own in told:
            proposal.swap_address(*map(socket.inet_aton, (own.announced.address, outside.address)))
        self._requests = remembered(self._requests, proposal.block.request, named)
        return proposal.rewritten(frame, nat, told[0].announced, outside, told[0].reason)

    def _relayed(self, proposal: Proposal, frame: Frame, nat: Nat) -> list[Edit]:
        """A proposal that a server on our side relays out: announce a host of ours as it would itself.

        The server's client may be anybody and name any host of ours: only the server's own word counts.
        """
        if proposal.block.capability in OWN_RENDEZVOUS:
            return self._at_home.relayed(proposal, frame, nat)
        named = {socket.inet_ntoa(address) for tag in ADDRESSES if (address := proposal.value(tag))}
        if not any(nat.is_home(address) for address in named):
            nat.count("left")  # between two clients outside; nothing to tell
            return []
        host = proposal.vouched()
        if host is None or not nat.is_home(host):
            return proposal.leave(_REPLY, nat, "names an inside host that the server does not vouch for")
        inside = Endpoint(host, proposal.port)
        try:
            outside = nat.expect(proposal.expectation(inside))
        except Refused as refusal:
            return proposal.leave(_REPLY, nat, str(refusal))
        proposal.move(socket.inet_aton(host), inside, outside)
        return proposal.rewritten(frame, nat, inside, outside, reason="host of the inside networks")

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
            self._secure = remembered(self._secure, proposal.agreement, True)
        verified = proposal.value(RdvTag.VERIFIED_IP)
        if verified is not None and len(verified) == 4:
            # The server saw this address: if we answer with a proposal of our own, only it may connect.
            peer = socket.inet_ntoa(verified)
            if unreachable(peer) is None and not nat.is_ours(peer):
                self._peers = remembered(self._peers, proposal.agreement, peer)
        if proposal.block.capability in OWN_RENDEZVOUS:
            return []  # a text message, most of the time
        return proposal.leave(Direction.REPLY, nat, "names no pinhole of this router")


def _resync(direction: int) -> Resync:
    def make() -> FlapReader:
        reader = FlapReader(_WANTED[direction], False, whole_signoff=direction == _REPLY)
        reader.begun = reader.settled = True
        return reader

    return Resync(make)
