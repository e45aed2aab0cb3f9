"""The Yahoo! Messenger helper: edits offers of files that are at the sender's own web server.

Such an offer is a packet of service 0x4D with key 20, the URL. On the way out, the sender's own address
becomes the outside one, and a pinhole is opened for its web server; the peer's request for the URL's path is
what the gate wants to see. On the way in, a URL that leads to one of our pinholes becomes the inside one
again, so that two hosts of one network meet there. The edit changes the packet's length, and so its length
field. The server copies the URL and looks at nothing, so of a server inside nothing can be believed.

All other messages leave as they came. Those about files and links are counted (OTHER_MESSAGES): no server
that is known to run relays 0x4F and 0xDC to 0xDE between clients.
"""

from __future__ import annotations

from contextlib import suppress
from hashlib import blake2b
from typing import Final, Literal, NamedTuple

from nfreaim.core.address import Direction, Endpoint
from nfreaim.core.announced import Own, own
from nfreaim.core.helper import Action, Expectation, Nat, Refused, Report, Scan
from nfreaim.core.tcp.offsets import Edit
from nfreaim.errors import Foreign
from nfreaim.helpers.yahoo.boundary import Boundary
from nfreaim.helpers.yahoo.web_request import OTHER_MESSAGES, SERVICE, Location, location, requests_of
from nfreaim.helpers.yahoo.ymsg_reader import MAX_DATA, YmsgPacket, YmsgReader
from nfreaim.layers.yahoo_packets import (
    AUTHRESP,
    BY_RELAY,
    FILETRANS_15,
    FILETRANS_ACC_15,
    FILETRANS_INFO_15,
    FILETRANSFER,
    HEADER,
    LENGTH_AT,
    LIST,
    LIST_15,
    LOGOFF,
    LOGON,
    P2PFILEXFER,
    PEER_ADDRESS,
    PEERTOPEER,
    RECIPIENT,
    SENDER_URL,
    WAY,
    Pair,
    pairs_of,
)

_ORIGINAL: Final = Direction.ORIGINAL
_PEER_LINKS, _NEGOTIATIONS, _RELAYS, _UPLOADS = OTHER_MESSAGES
_COUNTED: Final = {
    PEERTOPEER: _PEER_LINKS,
    FILETRANS_15: _NEGOTIATIONS,
    FILETRANS_INFO_15: _NEGOTIATIONS,
    FILETRANS_ACC_15: _NEGOTIATIONS,
    FILETRANSFER: _UPLOADS,
}
_READ: Final = frozenset({*_COUNTED, P2PFILEXFER, LOGOFF})
_WHOLE: Final = frozenset({P2PFILEXFER, FILETRANS_INFO_15, FILETRANS_ACC_15})
_WAYS: Final[tuple[tuple[Literal["out", "in"], Action], ...]] = ("out", "rewritten"), ("in", "mapped-back")
_SIGNED_ON: Final = frozenset({0, 1})  # the status of a LOGON that is no refusal


class YahooHelper:
    """Reads one connection between a client and a YMSG server.

    It counts from its first byte on: the client begins with a packet of a sign-on, and is established once
    the server has sent its list of buddies, or a LOGON, after the client's AUTHRESP.
    """

    __slots__ = ("_answered", "_boundaries", "_readers", "established")

    def __init__(self, midstream: bool) -> None:
        self.established = midstream
        self._answered = False
        self._readers = YmsgReader(_WHOLE, midstream, first=True), YmsgReader(_WHOLE, midstream, first=False)
        self._boundaries: tuple[Boundary, Boundary] | None = None

    def scan(self, direction: Direction, data: bytes, start: int, nat: Nat) -> Scan | None:
        """See core.helper.Helper: every byte comes here once and in order, and segments mean nothing."""
        if nat.server_inside:
            raise Foreign("its server is inside: what that relays is not its own to open")
        self._readers[1 - direction].check()
        edits: list[Edit] = []
        for packet in self._readers[direction].feed(data, start):
            if not self.established:
                self._sign_on(direction, packet, nat)
            elif packet.service == LOGOFF and direction is _ORIGINAL:
                nat.withdraw_all("signed off")
            elif packet.service in _COUNTED or packet.service == P2PFILEXFER:
                edits += self._about_files(direction, packet, nat)
        nat.set_buffered(sum(len(reader.kept) for reader in self._readers))
        hold = self._hold(direction, nat)
        return Scan(tuple(edits), hold) if edits or hold is not None else None

    def skips(self, direction: Direction, raw: bytes, start: int, nat: Nat) -> bool:
        """See core.helper.Helper."""
        return self.established and self._readers[direction].skips(raw, start, _READ)

    def positions(self) -> tuple[bytes, bytes]:
        """See core.helper.Resumable."""
        return self._readers[0].position(), self._readers[1].position()

    def resume(self, positions: tuple[bytes, bytes] | None, starts: tuple[int, int]) -> None:
        """See core.helper.Resumable."""
        self.established = True
        self._boundaries = Boundary(_reader), Boundary(_reader)
        if positions is not None:
            for reader, position, start in zip(self._readers, positions, starts, strict=True):
                reader.resume(position, start)

    def resync(self, direction: Direction, data: bytes, start: int, now: float, joined: bool) -> bool:
        """See core.helper.Resumable; how is the subject of boundary.py."""
        assert self._boundaries is not None
        self._boundaries[direction].saw(data, start, now, joined)
        client, server = self._boundaries
        if not (client.sure and server.sure):
            return False
        self._readers, self._boundaries = (client.reader, server.reader), None
        return True

    def _sign_on(self, direction: Direction, packet: YmsgPacket, nat: Nat) -> None:
        """A packet before the flow is established."""
        if direction is _ORIGINAL:
            self._answered |= packet.service == AUTHRESP
            return
        welcome = packet.service in (LIST, LIST_15) or (
            packet.service == LOGON and packet.status in _SIGNED_ON
        )
        if self._answered and welcome:
            self.established = True
            for reader in self._readers:
                reader.settled = True
            nat.established()

    def _hold(self, direction: Direction, nat: Nat) -> int | None:
        """From where on an edit could concern the packet whose end is missing: its length comes first."""
        relevant = self.established and (direction is _ORIGINAL or nat.has_pinholes())
        reader = self._readers[direction]
        begun = reader.begun() if relevant else None
        if begun is None or begun[0] > MAX_DATA or begun[1] not in (P2PFILEXFER, -1):
            return None
        return reader.kept_at + LENGTH_AT

    def _about_files(self, direction: Direction, packet: YmsgPacket, nat: Nat) -> list[Edit]:
        """What becomes of one packet about a file or a peer link."""
        if packet.service in _COUNTED:
            nat.count(_COUNTED[packet.service])
        if packet.service not in _WHOLE or not nat.may_read(direction):
            return []
        try:
            if not packet.data:
                raise ValueError("longer than any that is read")
            pairs = pairs_of(packet.data, padded=direction is not _ORIGINAL)
        except ValueError:
            nat.count("malformed_messages")
            return []
        keys = [pair.key for pair in pairs]
        if packet.service != P2PFILEXFER:
            if any(pair.key == WAY and pair.value == BY_RELAY for pair in pairs):
                nat.count(_RELAYS)
        elif SENDER_URL in keys:
            return self._offer(direction, packet, pairs, nat)
        elif PEER_ADDRESS in keys:
            nat.count(_PEER_LINKS)
        return []

    def _offer(self, direction: Direction, packet: YmsgPacket, pairs: list[Pair], nat: Nat) -> list[Edit]:
        """An offer of a file, or what its receiver says of its URL."""
        urls = [pair for pair in pairs if pair.key == SENDER_URL]
        where = location(urls[0].value)
        if where is None:
            return []  # names a host by its name, or no web server
        nat.count("proposals")
        recipient = next((pair.value for pair in pairs if pair.key == RECIPIENT), b"")
        offer = _Offer(direction, packet, where, urls[0].at, recipient)
        try:
            if len(urls) > 1 or any(pair.key == PEER_ADDRESS for pair in pairs):
                raise Refused("names more than one address")
            if not nat.editable(direction, packet.at + LENGTH_AT):
                _left(offer, nat)
                raise Refused("its length had left before its end came")
            decide = _outgoing if direction is _ORIGINAL else _incoming
            before, after, reason = decide(offer, nat)
        except Refused as refusal:
            return offer.leaves(nat, str(refusal))
        return offer.leaves(nat, reason, (before, after))


class _Offer(NamedTuple):
    """One offer. *where* is what its URL says, whose first byte is *at* in the packet."""

    direction: Direction
    packet: YmsgPacket
    where: Location
    at: int
    recipient: bytes

    @property
    def agreement(self) -> bytes:
        """The same URL offered to the same user again is the same agreement."""
        recipient, (_, port) = self.recipient, self.where.endpoint
        said = b"%d %d %b%b" % (port, len(recipient), recipient, self.where.path)
        return blake2b(said, digest_size=8).digest()

    def expectation(self, whose: Own) -> Expectation:
        """That a peer will ask for the file there."""
        greetings = requests_of(self.where.path)
        return Expectation(
            self.agreement, SERVICE, whose.inside, greetings=greetings, announced=whose.outside
        )

    def leaves(self, nat: Nat, reason: str, change: tuple[Endpoint, Endpoint] | None = None) -> list[Edit]:
        """It leaves as it came or, if *change* says what becomes of what, with another URL and length."""
        named = self.where.endpoint
        before, after = change or (named, named)
        way, action = _WAYS[self.direction]
        action = action if change else "left"
        nat.count(action.replace("-", "_"))
        nat.report(Report(way, SERVICE, 1, self.agreement, before, after, action=action, reason=reason))
        return [] if after == named else self._edits(after)

    def _edits(self, after: Endpoint) -> list[Edit]:
        begins = self.packet.at
        start, end = (begins + self.at + place for place in (self.where.start, self.where.end))
        url = self.where.naming(after)
        grown = len(url) - (end - start)
        length = len(self.packet.data) - HEADER.size + grown
        edits = [Edit(start, end, url)]
        if grown:
            edits.insert(0, Edit(begins + LENGTH_AT, begins + LENGTH_AT + 2, length.to_bytes(2, "big")))
        return edits


def _outgoing(offer: _Offer, nat: Nat) -> tuple[Endpoint, Endpoint, str]:
    """A client's offer: have a pinhole opened, and announce it. What may be opened is for nat to say."""
    whose = own(offer.where.endpoint, nat)
    wanted = offer.expectation(whose)
    if not wanted.greetings:
        raise Refused("its path does not tell its peer from others")
    return whose.inside, nat.expect(wanted), whose.reason


def _left(offer: _Offer, nat: Nat) -> None:
    """An offer that may go out stays as it is, and its peer may come nevertheless."""
    with suppress(Refused):
        wanted = offer.expectation(own(offer.where.endpoint, nat))
        if offer.direction is _ORIGINAL and wanted.greetings:
            nat.offered(wanted)


def _incoming(offer: _Offer, nat: Nat) -> tuple[Endpoint, Endpoint, str]:
    """An offer to a client: if it names one of our pinholes, name the host behind it."""
    if inside := nat.inside_of(offer.where.endpoint):
        return offer.where.endpoint, inside, "pinhole of this router"
    raise Refused("names no pinhole of this router")


def _reader() -> YmsgReader:
    """A reader that begins anywhere, past sign-on."""
    reader = YmsgReader(_WHOLE, midstream=False, first=False)
    reader.settled = True
    return reader
