"""The OSCAR helper: AIM's and ICQ's rendezvous proposals, in both directions.

A proposal carries the address and port its sender listens on: SNAC(04,06) from a client, SNAC(04,07) to the
other, on ICBM channel 2. Out, the sender's own address becomes the outside one, with a pinhole behind it. In,
an outside endpoint that is one of our pinholes becomes the inside one again, so that two hosts of one network
meet on it. All fields have a fixed width: no length, order or number of TLVs ever changes. Everything else
(other channels, relays, text, cancels, what cannot be rebuilt to the very byte) leaves as it came.

Works on bytes until a message is known to be a rendezvous; only then scapy sees it.
"""

from __future__ import annotations

import socket
from typing import Final, Literal, TypeVar

from nfreaim.core.flow import Direction, Endpoint
from nfreaim.core.helper import Expectation, Nat, Refused, Report, Scan
from nfreaim.core.nat import is_reachable
from nfreaim.core.stream import Edit
from nfreaim.helpers.flap import FLAP_HEADER, SNAC_HEADER, FlapReader, Frame
from nfreaim.layers.fixed import header_struct
from nfreaim.layers.oscar import (
    CAPABILITIES,
    FLAP,
    SNAC_FLAG_EXTRA,
    TLV,
    FlapChannel,
    IcbmChannel,
    IcbmTag,
    IcbmToClient,
    RdvTag,
    RdvType,
    Rendezvous,
    dissect,
    rebuild,
    rendezvous_of,
)

_HOST_ONLINE: Final = b"\x00\x01\x00\x03"
_ICBM_ERROR: Final = b"\x00\x04\x00\x01"
_TO_HOST: Final = b"\x00\x04\x00\x06"
_TO_CLIENT: Final = b"\x00\x04\x00\x07"
_CLIENT_ERROR: Final = b"\x00\x04\x00\x0b"
# By direction, for FlapReader: True marks ICBMs.
_WANTED: Final = (
    {_TO_HOST: True, _CLIENT_ERROR: True},
    {_TO_CLIENT: True, _CLIENT_ERROR: True, _ICBM_ERROR: False, _HOST_ONLINE: False},
)
_FAMILY_ICBM: Final = b"\x00\x04"

# Plain numbers: before Python 3.12 reading an enum's member costs as much as unpacking a header.
_SIGNOFF: Final = FlapChannel.SIGNOFF.value
_RENDEZVOUS: Final = IcbmChannel.RENDEZVOUS.value
_BODY: Final = FLAP_HEADER.size + SNAC_HEADER.size
_ICBM: Final = header_struct(IcbmToClient)
_TLV: Final = header_struct(TLV)
_BLOCK: Final = header_struct(Rendezvous)

_ADDRESSES: Final = (RdvTag.VERIFIED_IP, RdvTag.REQUESTER_IP, RdvTag.RDV_IP)
# What may be edited, by direction; VERIFIED_IP is the server's own and comes with the replies only.
_EDITABLE: Final = (
    frozenset({RdvTag.RDV_IP, RdvTag.REQUESTER_IP, RdvTag.PORT, RdvTag.IP_XOR, RdvTag.PORT_XOR}),
    frozenset({*_ADDRESSES, RdvTag.PORT, RdvTag.IP_XOR, RdvTag.PORT_XOR}),
)
_LENGTHS: Final[dict[int, int]] = {
    tag: 2 if tag in (RdvTag.PORT, RdvTag.PORT_XOR) else 4 for tag in _EDITABLE[1]
}
_SHORTEST: Final = _BODY + _ICBM.size  # nothing shorter can hold a byte that an edit could change
_REMEMBERED: Final = 32  # proposals of one flow whose request or peer is remembered
_NOWHERE: Final = bytes(4)


class OscarHelper:
    """Reads one connection between a client and an OSCAR server.

    It is established once both sides began with a sign-on frame and the server listed the ICBM family
    in SNAC(01,03): that is a BOS connection, the only kind that carries rendezvous.
    """

    def __init__(self, midstream: bool) -> None:
        self.established = midstream
        self._readers = (FlapReader(_WANTED[0], midstream), FlapReader(_WANTED[1], midstream))
        self._requests: dict[int, bytes] = {}
        self._peers: dict[tuple[bytes, bytes], str] = {}

    def scan(self, direction: Direction, data: bytes, start: int, nat: Nat) -> Scan | None:
        """See core.helper.Helper."""
        reader = self._readers[direction]
        frames = reader.feed(data, start)
        if reader.oversized:
            nat.counters.malformed_messages += reader.oversized
            reader.oversized = 0
        if not frames and len(reader.kept) < _SHORTEST:
            return None
        edits: list[Edit] = []
        for frame in frames:
            edits += self._frame(direction, frame, nat)
        hold = None
        if reader.kept and self.established and (direction is Direction.ORIGINAL or nat.mappings()):
            first = first_editable(reader.kept, direction)
            hold = None if first is None else reader.kept_at + first
        return Scan(tuple(edits), hold) if edits or hold is not None else None

    def _frame(self, direction: Direction, frame: Frame, nat: Nat) -> list[Edit]:
        data = frame.data
        if frame.channel == _SIGNOFF:
            nat.withdraw_all("signed off")
            return []
        name = data[FLAP_HEADER.size : FLAP_HEADER.size + 4]
        body = _body(data)
        if name == _HOST_ONLINE:
            both = self._readers[0].begun and self._readers[1].begun
            families = [data[at : at + 2] for at in range(body, len(data) - 1, 2)]
            self.established = self.established or (both and _FAMILY_ICBM in families)
        elif name == _ICBM_ERROR:
            cookie = self._requests.pop(SNAC_HEADER.unpack_from(data, FLAP_HEADER.size)[3], None)
            if cookie is not None:
                nat.withdraw(cookie, "the server could not deliver the proposal")
        elif len(data) >= body + _ICBM.size:
            cookie, channel = _ICBM.unpack_from(data, body)
            if channel == _RENDEZVOUS and self.established:
                if name == _CLIENT_ERROR:
                    nat.withdraw(cookie, "declined")
                else:
                    return self._rendezvous(direction, frame, nat)
        return []

    def _rendezvous(self, direction: Direction, frame: Frame, nat: Nat) -> list[Edit]:
        """A message on ICBM channel 2: the only place where scapy is used, and its result is checked."""
        try:
            flap = dissect(frame.data)
        except ValueError:
            nat.counters.malformed_messages += 1
            return []
        if rebuild(flap) != frame.data:
            nat.counters.unfaithful += 1
            return []
        block = rendezvous_of(flap)
        if block is None:
            return []
        if block.type == RdvType.CANCEL:
            nat.withdraw(block.cookie, "cancelled")
        elif block.type == RdvType.ACCEPT:
            nat.agreed(block.cookie)
        elif block.type == RdvType.PROPOSE:
            nat.counters.proposals += 1
            proposal = Proposal(flap, block)
            start = frame.at + (first_editable(frame.data, direction) or 0)
            if flap.payload.payload.cookie != block.cookie:
                return proposal.leave(direction, nat, "message and proposal have different cookies")
            if reason := proposal.unfit():
                return proposal.leave(direction, nat, reason)
            if not nat.editable(direction, start):
                return proposal.leave(direction, nat, "its addresses had left before its end came")
            if direction is Direction.ORIGINAL:
                return self._outgoing(proposal, frame, nat)
            return self._incoming(proposal, frame, nat)
        return []

    def _outgoing(self, proposal: Proposal, frame: Frame, nat: Nat) -> list[Edit]:
        """A client's proposal: announce the outside endpoint in place of its own."""
        inside = Endpoint(nat.inside.address, proposal.port)
        own = socket.inet_aton(inside.address)
        requester = proposal.value(RdvTag.REQUESTER_IP)
        if own not in (requester, proposal.value(RdvTag.RDV_IP)):
            return proposal.leave(Direction.ORIGINAL, nat, "not the sender's own address")
        if requester is not None and requester != own and nat.is_ours(socket.inet_ntoa(requester)):
            return proposal.leave(Direction.ORIGINAL, nat, "already announces the outside address")
        cookie = proposal.block.cookie
        try:
            peer = self._peers.get((cookie, proposal.whom)) if proposal.stage > 1 else None
            outside = nat.expect(Expectation(cookie, proposal.service, inside, peer))
        except Refused as refusal:
            return proposal.leave(Direction.ORIGINAL, nat, str(refusal))
        edits = proposal.move(own, inside, outside, frame)
        if edits is None:
            nat.withdraw(cookie, "edit refused")
            nat.counters.unfaithful += 1
            return proposal.leave(Direction.ORIGINAL, nat, "cannot be edited in place")
        _remember(self._requests, proposal.request, cookie)
        nat.counters.rewritten += 1
        nat.report(proposal.report("out", inside, outside, "rewritten", "own address"))
        return edits

    def _incoming(self, proposal: Proposal, frame: Frame, nat: Nat) -> list[Edit]:
        """A proposal relayed to a client: if it names one of our pinholes, name the host behind it."""
        for tag in _ADDRESSES:
            address = proposal.value(tag)
            announced = Endpoint(socket.inet_ntoa(address), proposal.port) if address else None
            inside = nat.inside_of(announced) if announced else None
            if address and announced and inside:
                edits = proposal.move(address, announced, inside, frame)
                if edits is None:
                    nat.counters.unfaithful += 1
                    return proposal.leave(Direction.REPLY, nat, "cannot be edited in place")
                nat.counters.mapped_back += 1
                nat.report(proposal.report("in", announced, inside, "mapped-back", "pinhole of this router"))
                return edits
        verified = proposal.value(RdvTag.VERIFIED_IP)
        if verified is not None:
            # The server saw this address: if we answer with a proposal of our own, only it may connect. The
            # cookie alone does not tell whom we answer: the first one of every libpurple process is the same.
            peer = socket.inet_ntoa(verified)
            if is_reachable(peer) and not nat.is_ours(peer):
                _remember(self._peers, (proposal.block.cookie, proposal.whom), peer)
        return proposal.leave(Direction.REPLY, nat, "names no pinhole of this router")


class Proposal:
    """A dissected message whose rendezvous block is a proposal, and what may be done to it."""

    def __init__(self, flap: FLAP, block: Rendezvous) -> None:
        self.flap = flap
        self.block = block
        self.request: int = flap.payload.request_id
        self.service = CAPABILITIES.get(block.capability) or block.capability.hex()
        icbm = flap.payload.payload
        name: bytes = getattr(icbm, "sender", icbm).screen_name
        self.whom = name.replace(b" ", b"").lower()  # the other party; names differ in neither
        self._tlvs: dict[int, list[TLV]] = {tag: block.all(tag) for tag in _LENGTHS}

    @property
    def port(self) -> int:
        """The announced port; 0 if there is none."""
        return int.from_bytes(self.value(RdvTag.PORT) or b"", "big")

    @property
    def stage(self) -> int:
        """Which proposal of its conversation this is, from 1; 0 if it does not say."""
        number = self.block.first(RdvTag.SEQ_NUM)
        return int.from_bytes(number.value, "big") if number is not None else 0

    def value(self, tag: int) -> bytes | None:
        """The value of an address or port TLV, or None if it is absent."""
        tlvs = self._tlvs[tag]
        return tlvs[0].value if tlvs else None

    def unfit(self) -> str | None:
        """Why no one can act on this proposal, or None."""
        if self.block.first(RdvTag.USE_ARS) is not None:
            return "goes through a relay"  # the address is the relay's and the port a PIN
        for tag, tlvs in self._tlvs.items():
            if any(len(tlv.value) != _LENGTHS[tag] for tlv in tlvs):
                return f"TLV {tag:#06x} has another length than {_LENGTHS[tag]}"
            if any(tlv.value != tlvs[0].value for tlv in tlvs):
                # Clients do not agree on which one counts: libpurple the first, joscar and Kopete the last.
                return f"TLV {tag:#06x} stands there twice and differs"
        if not self.port:
            return "announces no port"
        if all(self.value(tag) in (None, _NOWHERE) for tag in _ADDRESSES):
            return "announces no address"
        return None

    def move(self, address: bytes, before: Endpoint, after: Endpoint, frame: Frame) -> list[Edit] | None:
        """Edits that put *after* where *address* and the port of *before* stand; None if they cannot be made.

        The complements 0x0016 and 0x0017 are kept right where they were right, each on its own: Kopete
        sends the second without the first.
        """
        to, port = socket.inet_aton(after.address), after.port.to_bytes(2, "big")
        checked_ip = self.value(RdvTag.IP_XOR) == _complement(self.value(RdvTag.RDV_IP))
        checked_port = self.value(RdvTag.PORT_XOR) == _complement(before.port.to_bytes(2, "big"))
        for tag in _ADDRESSES:
            if self.value(tag) == address:
                self._set(tag, to)
        self._set(RdvTag.PORT, port)
        if checked_ip:
            self._set(RdvTag.IP_XOR, _complement(self.value(RdvTag.RDV_IP)))
        if checked_port:
            self._set(RdvTag.PORT_XOR, _complement(port))
        data = rebuild(self.flap)
        return _differences(frame.data, data, frame.at) if len(data) == len(frame.data) else None

    def leave(self, direction: Direction, nat: Nat, reason: str) -> list[Edit]:
        """Report that the message stays as it is; no edits."""
        tags = _ADDRESSES if direction is Direction.REPLY else (RdvTag.REQUESTER_IP, RdvTag.RDV_IP)
        values = [value for tag in tags if (value := self.value(tag)) is not None and len(value) == 4]
        named = Endpoint(socket.inet_ntoa(values[0] if values else _NOWHERE), self.port & 0xFFFF)
        nat.counters.left += 1
        way: Literal["out", "in"] = "out" if direction is Direction.ORIGINAL else "in"
        nat.report(self.report(way, named, named, "left", reason))
        return []

    def report(
        self,
        way: Literal["out", "in"],
        before: Endpoint,
        after: Endpoint,
        action: Literal["rewritten", "mapped-back", "left"],
        reason: str,
    ) -> Report:
        return Report(way, self.service, self.stage, self.block.cookie, before, after, action, reason)

    def _set(self, tag: int, value: bytes | None) -> None:
        for tlv in self._tlvs[tag]:
            tlv.value = value


def first_editable(frame: bytes, direction: Direction) -> int | None:
    """Where in *frame*, of which the end may be missing, the first byte stands that an edit could change.

    None if there is none in what is there. Read by structure, as far as the bytes go: user-info TLVs 0x0003
    and 0x0005 (sign-on time, member since) look exactly like an address and a port.
    """
    pos = _body(frame)
    size = len(frame)
    if size < pos + _ICBM.size + 1 or _ICBM.unpack_from(frame, pos)[1] != _RENDEZVOUS:
        return None
    pos += _ICBM.size
    pos += 1 + frame[pos]
    if direction is Direction.REPLY:  # user info: warning level and a count that alone delimits its TLVs
        count = int.from_bytes(frame[pos + 2 : pos + 4], "big")
        pos += 4
        while count and pos + _TLV.size <= size:
            pos += _TLV.size + _TLV.unpack_from(frame, pos)[1]
            count -= 1
    while pos + _TLV.size <= size:
        tag, length = _TLV.unpack_from(frame, pos)
        pos += _TLV.size
        if tag == IcbmTag.DATA:
            return _first_in_block(frame, pos, min(pos + length, size), direction)
        pos += length
    return None


def _first_in_block(frame: bytes, pos: int, size: int, direction: Direction) -> int | None:
    if pos + _BLOCK.size > size or _BLOCK.unpack_from(frame, pos)[0] != RdvType.PROPOSE:
        return None
    first = None
    pos += _BLOCK.size
    while pos + _TLV.size <= size:
        tag, length = _TLV.unpack_from(frame, pos)
        pos += _TLV.size
        if tag == RdvTag.USE_ARS:
            return None
        if first is None and tag in _EDITABLE[direction]:
            first = pos
        pos += length
    return first


def _body(frame: bytes) -> int:
    """Where the SNAC body begins: behind the extra block, if the flags announce one."""
    if len(frame) >= _BODY + 2 and SNAC_HEADER.unpack_from(frame, FLAP_HEADER.size)[2] & SNAC_FLAG_EXTRA:
        return _BODY + 2 + int.from_bytes(frame[_BODY : _BODY + 2], "big")
    return _BODY


def _complement(value: bytes | None) -> bytes:
    return bytes(byte ^ 0xFF for byte in value or b"")


def _differences(old: bytes, new: bytes, at: int) -> list[Edit]:
    """Edits, at stream offset *at* on, that turn *old* into *new*; nearby differences make one edit."""
    edits: list[Edit] = []
    for pos in (index for index in range(len(old)) if old[index] != new[index]):
        near = edits and at + pos - edits[-1].end < 3
        start = edits.pop().start if near else at + pos
        edits.append(Edit(start, at + pos + 1, new[start - at : pos + 1]))
    return edits


_K = TypeVar("_K")
_V = TypeVar("_V")


def _remember(table: dict[_K, _V], key: _K, value: _V) -> None:
    table[key] = value
    if len(table) > _REMEMBERED:
        del table[next(iter(table))]
