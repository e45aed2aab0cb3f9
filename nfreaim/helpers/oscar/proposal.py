"""Proposal: reads the address and port of one rendezvous proposal, and edits them.

Its callers, session.py and icq.py, ask for pinholes; Proposal makes their edits and reports.
"""

from __future__ import annotations

import socket
from hashlib import blake2b
from typing import Final, Literal

from nfreaim.core.address import Direction, Endpoint
from nfreaim.core.greeting import Greeting
from nfreaim.core.helper import Expectation, Nat, Report
from nfreaim.core.tcp.offsets import Edit, differences
from nfreaim.helpers.oscar.capability_names import name_of
from nfreaim.helpers.oscar.flap import SNAC_BODY, Frame
from nfreaim.helpers.oscar.outline import Item, Outline
from nfreaim.helpers.oscar.peer_greetings import TLS, TLS_GREETINGS, Party, greetings
from nfreaim.layers.oscar_icq import REVERSE_CONNECT, SERVER_RELAY
from nfreaim.layers.oscar_messages import (
    CAPABILITIES,
    FLAP_HEADER,
    MAX_TLVS,
    RENDEZVOUS_HEADER,
    SNAC_FLAG_EXTRA,
    SNAC_HEADER,
    TLV_HEADER,
    IcbmChannel,
    IcbmTag,
    IcbmToClient,
    RdvTag,
    RdvType,
)
from nfreaim.layers.oscar_reading import read_icbm, rendezvous_in
from nfreaim.layers.structs import header_struct

ADDRESSES: Final = (RdvTag.VERIFIED_IP, RdvTag.REQUESTER_IP, RdvTag.RDV_IP)
# The TLVs that may be edited. VERIFIED_IP is for the server to add, but a client can send it.
_EDITABLE: Final = frozenset({*ADDRESSES, RdvTag.PORT, RdvTag.IP_XOR, RdvTag.PORT_XOR})
_LENGTHS: Final[dict[int, int]] = {
    tag: 2 if tag in (RdvTag.PORT, RdvTag.PORT_XOR) else 4 for tag in _EDITABLE
}
_NOWHERE: Final = bytes(4)
_NO_PORT: Final = "announces no port"  # as every invitation, icon and add-in: nobody is to connect
ICBM: Final = header_struct(IcbmToClient)
OWN_RENDEZVOUS: Final = frozenset({REVERSE_CONNECT, SERVER_RELAY})
"""Capabilities of ICQ's own kinds: their service data names an address or a port (see icq.py)."""
# A plain number, because before Python 3.12 reading an enum's member takes as long as unpacking a header.
_RENDEZVOUS: Final = IcbmChannel.RENDEZVOUS.value


class Proposal:
    """A message whose rendezvous block, *block*, is a proposal."""

    def __init__(self, block: Outline) -> None:
        self.block = block
        self.service = CAPABILITIES.get(block.capability) or name_of(block.capability)
        self.agreement = agreement(block.agreement, plain_name(block.whom))
        self._tlvs: dict[int, list[Item]] = {tag: [] for tag in _LENGTHS}
        for item in block.items:
            if item.type in _LENGTHS:
                self._tlvs[item.type].append(item)

    @property
    def port(self) -> int:
        """The announced port; 0 if there is none."""
        return int.from_bytes(self.value(RdvTag.PORT) or b"", "big")

    @property
    def stage(self) -> int:
        """The number of this proposal in its conversation, from 1; 0 if it has none."""
        number = self.block.first(RdvTag.SEQ_NUM)
        return int.from_bytes(number.value, "big") if number is not None else 0

    @property
    def secure(self) -> bool:
        """Whether the peers will use TLS on their link."""
        return self.block.first(RdvTag.REQUEST_SECURE) is not None

    @property
    def greetings(self) -> tuple[Greeting, ...]:
        """The greetings of a peer that connects because of this proposal; empty if they are not known.

        The first proposal of a file transfer comes from the sender and names the file; the second answers it.
        """
        peer: Party | None = None
        if self.stage == 2:
            peer = "sender"
        elif self.stage == 1 and self.service_data:
            peer = "receiver"
        return TLS_GREETINGS if self.secure else greetings(self.service, self.block.agreement, peer)

    def expectation(
        self,
        inside: Endpoint,
        peer: str | None = None,
        secure: bool = False,
        announced: Endpoint | None = None,
    ) -> Expectation:
        """That a peer will connect to *inside* because of this proposal.

        secure     an earlier proposal said that the link will be TLS. Then peers may begin with it, or
                   without
        announced  see Expectation
        """
        first, tls = self.greetings, secure or self.secure
        if secure and not self.secure:
            first += TLS_GREETINGS
        unverified = TLS if tls else ""
        return Expectation(
            self.agreement,
            self.service,
            inside,
            peer,
            greetings=first,
            unverified=unverified,
            announced=announced,
        )

    def value(self, tag: int) -> bytes | None:
        """The value of an address or port TLV, or None if it is absent."""
        tlvs = self._tlvs[tag]
        return tlvs[0].value if tlvs else None

    def told(self) -> list[str]:
        """The addresses that its sender says it is at; 0.0.0.0 if it says none."""
        values = [self.value(tag) for tag in (RdvTag.REQUESTER_IP, RdvTag.RDV_IP)]
        said = [value for value in values if value and value != _NOWHERE]
        return [socket.inet_ntoa(value) for value in said or [_NOWHERE]]

    def all_ports(self) -> list[int]:
        """Each port that it names; more than one is a flaw."""
        return [int.from_bytes(tlv.value, "big") for tlv in self._tlvs[RdvTag.PORT] if len(tlv.value) == 2]

    def ports(self) -> tuple[int, ...]:
        """The port as big-endian, and as little-endian, which Licq writes. Empty if there is none."""
        value = self.value(RdvTag.PORT)
        return (int.from_bytes(value, "big"), int.from_bytes(value, "little")) if value else ()

    @property
    def service_data(self) -> bytes:
        """The value of TLV 0x2711; empty if there is none, or more than one."""
        found = self.block.all(RdvTag.SVC_DATA)
        return found[0].value if len(found) == 1 else b""

    @service_data.setter
    def service_data(self, value: bytes) -> None:
        for tlv in self.block.all(RdvTag.SVC_DATA):
            tlv.value = value

    def flaw(self) -> str | None:
        """The reason why this proposal must not be edited, or None."""
        if self.block.first(RdvTag.USE_ARS) is not None:
            return "goes through a relay"  # the address is the relay's and the port a PIN
        for tag, tlvs in self._tlvs.items():
            if any(len(tlv.value) != _LENGTHS[tag] for tlv in tlvs):
                return f"TLV {tag:#06x} has another length than {_LENGTHS[tag]}"
            if any(tlv.value != tlvs[0].value for tlv in tlvs):
                # Clients disagree about which one counts: libpurple takes the first, joscar and Kopete the
                # last.
                return f"TLV {tag:#06x} stands there twice and differs"
        return None

    def unfit(self) -> str | None:
        """The reason why no peer can act on this proposal, or None."""
        if reason := self.flaw():
            return reason
        if not self.port:
            return _NO_PORT
        if all(self.value(tag) in (None, _NOWHERE) for tag in ADDRESSES):
            return "announces no address"
        return None

    def vouched(self) -> str | None:
        """The sender's address as the server saw it; None if the server does not vouch for one.

        open-oscar-server v0.24.0 writes the address over TLV 0x0003 and appends it as 0x0004, AOL's servers
        only append; both do so only if the sender wrote a 0x0003. So a TLV without an equal other one is the
        sender's claim alone.
        """
        address = self.value(RdvTag.REQUESTER_IP)
        return socket.inet_ntoa(address) if address and address == self.value(RdvTag.VERIFIED_IP) else None

    def move(self, address: bytes, before: Endpoint, after: Endpoint) -> None:
        """Put *after* in place of *address* and of the port of *before*.

        If a complement (0x0016 of the address, 0x0017 of the port) was right it is corrected. Each is treated
        on its own, because Kopete sends the second without the first.
        """
        self.swap_address(address, socket.inet_aton(after.address))
        self.swap_port(before.port, after.port)

    def swap_address(self, old: bytes, new: bytes) -> None:
        """Put the address *new* in each address TLV that holds *old*."""
        checked = self.value(RdvTag.IP_XOR) == _complement(self.value(RdvTag.RDV_IP))
        for tag in ADDRESSES:
            if self.value(tag) == old:
                self._set(tag, new)
        if checked:
            self._set(RdvTag.IP_XOR, _complement(self.value(RdvTag.RDV_IP)))

    def swap_port(self, old: int, new: int) -> bool:
        """Put the port *new* in place of *old*, in the same byte order. Returns whether *old* was there."""
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
        reason: str = "own address",
    ) -> list[Edit]:
        """The edits of a proposal on its way out, which are reported. Without edits its pinhole is closed."""
        edits = self._edits(frame)
        if edits is None:
            nat.withdraw(self.agreement, "edit refused")
            nat.count("unfaithful")
            return self.leave(Direction.ORIGINAL, nat, "cannot be edited in place", before)
        nat.count("rewritten")
        nat.report(self.report("out", before, after, "rewritten", reason))
        return edits

    def mapped_back(self, frame: Frame, nat: Nat, before: Endpoint, after: Endpoint) -> list[Edit]:
        """The edits of an incoming proposal, which are reported."""
        edits = self._edits(frame)
        if edits is None:
            nat.count("unfaithful")
            return self.leave(Direction.REPLY, nat, "cannot be edited in place", before)
        nat.count("mapped_back")
        nat.report(self.report("in", before, after, "mapped-back", "pinhole of this router"))
        return edits

    def _edits(self, frame: Frame) -> list[Edit] | None:
        """The values that were set, as edits; None if they cannot be made in place.

        The layers confirm them: read as it is declared, the edited frame has these values. Nothing else
        differs from the frame that came.
        """
        data = self.block.patched(frame.data)
        if data is None:
            return None
        try:
            _, _, icbm = read_icbm(data)
            edits = differences(frame.data, data, frame.at)
        except ValueError:
            return None
        block, told = rendezvous_in(icbm), self.block.told()
        tags = {tag for tag, _ in told}
        if block is None or [(tlv.type, tlv.value) for tlv in block.tlvs if tlv.type in tags] != told:
            return None
        return edits if all(self.block.has_within(edit, frame.at) for edit in edits) else None

    def stay(self, direction: Direction, nat: Nat, reason: str, secure: bool) -> list[Edit]:
        """Report that a proposal stays as it is, and returns no edits. *secure*: see ``expectation``.

        One that goes out may bring its peer to a pinhole all the same, where its server writes the router's
        address into it.
        """
        if direction is Direction.ORIGINAL:
            for port in dict.fromkeys(self.all_ports()):
                nat.offered(self.expectation(Endpoint(nat.inside.address, port), secure=secure))
        return self.leave(direction, nat, reason)

    def leave(self, direction: Direction, nat: Nat, reason: str, named: Endpoint | None = None) -> list[Edit]:
        """Report that the message stays as it is. *named* is the endpoint it names. Returns no edits."""
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
            agreement=self.block.agreement,
            before=before,
            after=after,
            action=action,
            reason=reason,
            routine=reason == _NO_PORT,
            name=self.agreement,
        )

    def _set(self, tag: int, value: bytes) -> None:
        for tlv in self._tlvs[tag]:
            tlv.value = value


def agreement(cookie: bytes, whom: bytes) -> bytes:
    """The name of an agreement within its flow, from its cookie and the plain name of the other party.

    The cookie alone is no name: the first one of every libpurple process is the same, so a stranger need not
    guess it to cancel, decline or accept what others agreed on. The name does not show either of the two.
    """
    return blake2b(cookie + whom, digest_size=8).digest()


def plain_name(name: bytes) -> bytes:
    """*name* without spaces and in lower case, because screen names that differ in these are the same."""
    return name.replace(b" ", b"").lower()


def _complement(value: bytes | None) -> bytes:
    return bytes(byte ^ 0xFF for byte in value or b"")


def first_editable(frame: bytes, direction: Direction) -> int | None:
    """Offset in *frame*, whose end may be missing, of the first byte that an edit could change; None: none
    yet.

    The frame is parsed as far as its bytes go, because a search for TLVs would be misled: user-info TLVs
    0x0003 and 0x0005 (sign-on time, member since) look exactly like an address and a port. Behind MAX_TLVS
    nothing is edited, and each segment of an incomplete frame comes here.
    """
    room = MAX_TLVS
    pos = body_of(frame)
    size = len(frame)
    if size < pos + ICBM.size + 1 or ICBM.unpack_from(frame, pos)[1] != _RENDEZVOUS:
        return None
    pos += ICBM.size
    pos += 1 + frame[pos]
    if direction is Direction.REPLY:  # user info: warning level, and a count that alone ends its TLVs
        count = int.from_bytes(frame[pos + 2 : pos + 4], "big")
        pos += 4
        if count > room:
            return None
        room -= count
        while count and pos + TLV_HEADER.size <= size:
            pos += TLV_HEADER.size + TLV_HEADER.unpack_from(frame, pos)[1]
            count -= 1
    while room and pos + TLV_HEADER.size <= size:
        room -= 1
        tag, length = TLV_HEADER.unpack_from(frame, pos)
        pos += TLV_HEADER.size
        if tag == IcbmTag.DATA:
            return _first_in_block(frame, pos, min(pos + length, size), room)
        pos += length
    return None


def _first_in_block(frame: bytes, pos: int, size: int, room: int) -> int | None:
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
        if not room:
            return None
        room -= 1
        tag, length = TLV_HEADER.unpack_from(frame, pos)
        pos += TLV_HEADER.size
        if tag == RdvTag.USE_ARS:
            return None
        if first is None and tag in editable:
            first = pos
        pos += length
    return first


def body_of(frame: bytes) -> int:
    """Offset of the SNAC body: behind the extra block, if the flags announce one."""
    if len(frame) >= SNAC_BODY + 2 and SNAC_HEADER.unpack_from(frame, FLAP_HEADER.size)[2] & SNAC_FLAG_EXTRA:
        return SNAC_BODY + 2 + int.from_bytes(frame[SNAC_BODY : SNAC_BODY + 2], "big")
    return SNAC_BODY
