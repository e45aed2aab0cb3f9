"""Proposal: one rendezvous proposal, what it announces and what may be set in it.

It decides nothing about pinholes: session.py and icq.py do, and report through it.
"""

from __future__ import annotations

import socket
from typing import Final, Literal

from nfreaim.core.address import Direction, Endpoint
from nfreaim.core.greeting import Greeting
from nfreaim.core.helper import Nat, Report
from nfreaim.core.tcp.offsets import Edit, differences
from nfreaim.helpers.oscar.flap import SNAC_BODY, Frame
from nfreaim.helpers.oscar.peer_greetings import Party, greetings
from nfreaim.layers.oscar_icq import REVERSE_CONNECT, SERVER_RELAY
from nfreaim.layers.oscar_messages import (
    CAPABILITIES,
    FLAP,
    FLAP_HEADER,
    RENDEZVOUS_HEADER,
    SNAC_FLAG_EXTRA,
    SNAC_HEADER,
    TLV,
    TLV_HEADER,
    IcbmChannel,
    IcbmTag,
    IcbmToClient,
    RdvTag,
    RdvType,
    Rendezvous,
    rebuild,
)
from nfreaim.layers.structs import header_struct

ADDRESSES: Final = (RdvTag.VERIFIED_IP, RdvTag.REQUESTER_IP, RdvTag.RDV_IP)
# What may be edited. VERIFIED_IP is the server's to write, but nothing keeps a client from it.
_EDITABLE: Final = frozenset({*ADDRESSES, RdvTag.PORT, RdvTag.IP_XOR, RdvTag.PORT_XOR})
_LENGTHS: Final[dict[int, int]] = {
    tag: 2 if tag in (RdvTag.PORT, RdvTag.PORT_XOR) else 4 for tag in _EDITABLE
}
_NOWHERE: Final = bytes(4)
ICBM: Final = header_struct(IcbmToClient)
OWN_RENDEZVOUS: Final = frozenset({REVERSE_CONNECT, SERVER_RELAY})
"""Capabilities of ICQ's own kinds, whose service data names an address, too (see icq.py)."""
# A plain number: before Python 3.12 reading an enum's member costs as much as unpacking a header.
_RENDEZVOUS: Final = IcbmChannel.RENDEZVOUS.value


class Proposal:
    """A dissected message whose rendezvous block is a proposal, and what may be done to it."""

    def __init__(self, flap: FLAP, block: Rendezvous) -> None:
        self.flap = flap
        self.block = block
        self.request: int = flap.payload.request_id
        self.service = CAPABILITIES.get(block.capability) or block.capability.hex()
        self.whom = party(flap)
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

    @property
    def secure(self) -> bool:
        """The peers will talk TLS on their link."""
        return self.block.first(RdvTag.REQUEST_SECURE) is not None

    @property
    def greetings(self) -> tuple[Greeting, ...]:
        """What a peer that connects because of this proposal says first; nothing where that is not known.

        The first proposal of a file transfer is the sender's and names the file; the second answers it.
        """
        peer: Party | None = None
        if self.stage == 2:
            peer = "sender"
        elif self.stage == 1 and self.service_data:
            peer = "receiver"
        return () if self.secure else greetings(self.service, self.block.cookie, peer)

    def value(self, tag: int) -> bytes | None:
        """The value of an address or port TLV, or None if it is absent."""
        tlvs = self._tlvs[tag]
        return tlvs[0].value if tlvs else None

    def ports(self) -> tuple[int, ...]:
        """The port as it should be read, and as Licq writes it: with its bytes swapped."""
        value = self.value(RdvTag.PORT)
        return (int.from_bytes(value, "big"), int.from_bytes(value, "little")) if value else ()

    @property
    def service_data(self) -> bytes:
        """The value of TLV 0x2711; empty if there is none, or more than one."""
        found = self.block.all(RdvTag.SVC_DATA)
        return bytes(found[0].value) if len(found) == 1 else b""

    @service_data.setter
    def service_data(self, value: bytes) -> None:
        for tlv in self.block.all(RdvTag.SVC_DATA):
            tlv.value = value

    def flaw(self) -> str | None:
        """What forbids to touch this proposal, or None."""
        if self.block.first(RdvTag.USE_ARS) is not None:
            return "goes through a relay"  # the address is the relay's and the port a PIN
        for tag, tlvs in self._tlvs.items():
            if any(len(tlv.value) != _LENGTHS[tag] for tlv in tlvs):
                return f"TLV {tag:#06x} has another length than {_LENGTHS[tag]}"
            if any(tlv.value != tlvs[0].value for tlv in tlvs):
                # Clients do not agree on which one counts: libpurple the first, joscar and Kopete the last.
                return f"TLV {tag:#06x} stands there twice and differs"
        return None

    def unfit(self) -> str | None:
        """Why no one can act on this proposal, or None."""
        if reason := self.flaw():
            return reason
        if not self.port:
            return "announces no port"
        if all(self.value(tag) in (None, _NOWHERE) for tag in ADDRESSES):
            return "announces no address"
        return None

    def vouched(self) -> str | None:
        """The address that the server saw the sender at and puts into its name; None if it does not say.

        open-oscar-server v0.24.0 overwrites 0x0003 with it and appends 0x0004, AOL's servers only append;
        both do so only where the sender wrote a 0x0003. One without the other is the sender's word alone.
        """
        address = self.value(RdvTag.REQUESTER_IP)
        return socket.inet_ntoa(address) if address and address == self.value(RdvTag.VERIFIED_IP) else None

    def move(self, address: bytes, before: Endpoint, after: Endpoint) -> None:
        """Put *after* where *address* and the port of *before* stand.

        The complements 0x0016 and 0x0017 are kept right where they were right, each on its own: Kopete
        sends the second without the first.
        """
        self.swap_address(address, socket.inet_aton(after.address))
        self.swap_port(before.port, after.port)

    def swap_address(self, old: bytes, new: bytes) -> None:
        """Put the address *new* wherever *old* stands."""
        checked = self.value(RdvTag.IP_XOR) == _complement(self.value(RdvTag.RDV_IP))
        for tag in ADDRESSES:
            if self.value(tag) == old:
                self._set(tag, new)
        if checked:
            self._set(RdvTag.IP_XOR, _complement(self.value(RdvTag.RDV_IP)))

    def swap_port(self, old: int, new: int) -> bool:
        """Put the port *new* where *old* stands, in its byte order; whether it stood there."""
        value = self.value(RdvTag.PORT)
        order: Literal["big", "little"] = "big" if value == old.to_bytes(2, "big") else "little"
        if value != old.to_bytes(2, order):
            return False
        checked = self.value(RdvTag.PORT_XOR) == _complement(value)
        self._set(RdvTag.PORT, new.to_bytes(2, order))
        if checked:
            self._set(RdvTag.PORT_XOR, _complement(self.value(RdvTag.PORT)))
        return True

    def rewritten(
        self,
        frame: Frame,
        nat: Nat,
        before: Endpoint,
        after: Endpoint,
        agreement: bytes | None = None,
        reason: str = "own address",
    ) -> list[Edit]:
        """The edits of a proposal on its way out; reports them. What cannot be edited gets no pinhole.

        agreement  the name its pinhole is kept under, if that is not the cookie
        """
        edits = self._edits(frame)
        if edits is None:
            nat.withdraw(agreement or self.block.cookie, "edit refused")
            nat.count("unfaithful")
            return self.leave(Direction.ORIGINAL, nat, "cannot be edited in place", before)
        nat.count("rewritten")
        nat.report(self.report("out", before, after, "rewritten", reason))
        return edits

    def mapped_back(self, frame: Frame, nat: Nat, before: Endpoint, after: Endpoint) -> list[Edit]:
        """The edits of an incoming proposal; reports them."""
        edits = self._edits(frame)
        if edits is None:
            nat.count("unfaithful")
            return self.leave(Direction.REPLY, nat, "cannot be edited in place", before)
        nat.count("mapped_back")
        nat.report(self.report("in", before, after, "mapped-back", "pinhole of this router"))
        return edits

    def _edits(self, frame: Frame) -> list[Edit] | None:
        """What was set, as edits; None if the message would have another length."""
        data = rebuild(self.flap)
        return differences(frame.data, data, frame.at) if len(data) == len(frame.data) else None

    def leave(self, direction: Direction, nat: Nat, reason: str, named: Endpoint | None = None) -> list[Edit]:
        """Report that the message, which names an endpoint, stays as it is; no edits."""
        tags = ADDRESSES if direction is Direction.REPLY else (RdvTag.REQUESTER_IP, RdvTag.RDV_IP)
        values = [value for tag in tags if (value := self.value(tag)) is not None and len(value) == 4]
        named = named or Endpoint(socket.inet_ntoa(values[0] if values else _NOWHERE), self.port & 0xFFFF)
        nat.count("left")
        way: Literal["out", "in"] = (
            "out" if (direction is Direction.ORIGINAL) is not nat.server_inside else "in"
        )
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
        return Report(
            direction=way,
            service=self.service,
            stage=self.stage,
            agreement=self.block.cookie,
            before=before,
            after=after,
            action=action,
            reason=reason,
        )

    def _set(self, tag: int, value: bytes | None) -> None:
        for tlv in self._tlvs[tag]:
            tlv.value = value


def party(flap: FLAP) -> bytes:
    """The other party of a dissected ICBM, in the one form that is the same however the name is written."""
    icbm = flap.payload.payload
    return plain_name(getattr(icbm, "sender", icbm).screen_name)


def plain_name(name: bytes) -> bytes:
    """*name* without spaces and in lower case: screen names differ in neither."""
    return name.replace(b" ", b"").lower()


def _complement(value: bytes | None) -> bytes:
    return bytes(byte ^ 0xFF for byte in value or b"")


def first_editable(frame: bytes, direction: Direction) -> int | None:
    """Where in *frame*, of which the end may be missing, the first byte stands that an edit could change.

    None if there is none in what is there. Read by structure, as far as the bytes go: user-info TLVs 0x0003
    and 0x0005 (sign-on time, member since) look exactly like an address and a port.
    """
    pos = body_of(frame)
    size = len(frame)
    if size < pos + ICBM.size + 1 or ICBM.unpack_from(frame, pos)[1] != _RENDEZVOUS:
        return None
    pos += ICBM.size
    pos += 1 + frame[pos]
    if direction is Direction.REPLY:  # user info: warning level and a count that alone delimits its TLVs
        count = int.from_bytes(frame[pos + 2 : pos + 4], "big")
        pos += 4
        while count and pos + TLV_HEADER.size <= size:
            pos += TLV_HEADER.size + TLV_HEADER.unpack_from(frame, pos)[1]
            count -= 1
    while pos + TLV_HEADER.size <= size:
        tag, length = TLV_HEADER.unpack_from(frame, pos)
        pos += TLV_HEADER.size
        if tag == IcbmTag.DATA:
            return _first_in_block(frame, pos, min(pos + length, size))
        pos += length
    return None


def _first_in_block(frame: bytes, pos: int, size: int) -> int | None:
    if pos + RENDEZVOUS_HEADER.size > size:
        return None
    kind, _, capability = RENDEZVOUS_HEADER.unpack_from(frame, pos)
    if kind != RdvType.PROPOSE:
        return None
    editable = _EDITABLE
    if capability in OWN_RENDEZVOUS:
        editable |= {RdvTag.SVC_DATA}
    first = None
    pos += RENDEZVOUS_HEADER.size
    while pos + TLV_HEADER.size <= size:
        tag, length = TLV_HEADER.unpack_from(frame, pos)
        pos += TLV_HEADER.size
        if tag == RdvTag.USE_ARS:
            return None
        if first is None and tag in editable:
            first = pos
        pos += length
    return first


def body_of(frame: bytes) -> int:
    """Where the SNAC body begins: behind the extra block, if the flags announce one."""
    if len(frame) >= SNAC_BODY + 2 and SNAC_HEADER.unpack_from(frame, FLAP_HEADER.size)[2] & SNAC_FLAG_EXTRA:
        return SNAC_BODY + 2 + int.from_bytes(frame[SNAC_BODY : SNAC_BODY + 2], "big")
    return SNAC_BODY
