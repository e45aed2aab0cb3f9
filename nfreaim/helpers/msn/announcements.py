"""Announcements: what becomes of one message in which a client of MSN Messenger says where it listens.

It is an SLP text in a P2P frame (a MSG of a switchboard), or alone (UUN and UBN of a notification server), or
an ACCEPT of MSNFTP. A message is edited as a whole or left as it came. The peer acknowledges a frame of
version 1 by its size, which is then that of the edited frame: it is translated back.
"""

from __future__ import annotations

from contextlib import suppress
from hashlib import blake2b
from typing import Final, TypeVar

from nfreaim.core.address import Direction, Endpoint
from nfreaim.core.announced import not_own
from nfreaim.core.helper import UNFIT, Action, Expectation, Nat, Refused, Report
from nfreaim.core.tcp.offsets import Edit
from nfreaim.helpers.msn.first_bytes import FILE, FTP, OBJECT, greetings
from nfreaim.helpers.msn.framing import Command
from nfreaim.helpers.msn.rewriting import (
    LONGEST_SENT,
    Changes,
    Left,
    Message,
    acknowledged,
    is_sent,
    rewritten,
)
from nfreaim.layers.msn_invite import Listener, invitation_of
from nfreaim.layers.msn_p2p import Frame, frame_of
from nfreaim.layers.msn_slp import (
    ENDS,
    FILE_GUID,
    Addresses,
    Text,
    addresses_of,
    mixes_spellings,
    text_of,
)
from nfreaim.layers.msn_text import Place

_AFTER_FLOW_S: Final = 60.0
"""A switchboard may close before the peers have met; they try for less than a minute."""
_REMEMBERED: Final = 16  # of each kind in one connection


_K = TypeVar("_K")
_V = TypeVar("_V")
_D = TypeVar("_D")
_Table = tuple[tuple[_K, _V], ...]
"""A few pairs, the latest last: most connections have one, for which a dict takes four times as much."""


class Announcements:
    """Those of one connection.

    services  what each agreement is about
    peers     who takes part in an agreement of MSNFTP, by its cookie: the first who has named it
    open      with whom each agreement is that a pinhole was opened for
    acks      by direction, number and size of a frame that was edited: its size before
    """

    __slots__ = ("_acks", "_open", "_peers", "_services")

    def __init__(self) -> None:
        self._services: _Table[bytes, str] = ()
        self._peers: _Table[bytes, bytes] = ()
        self._open: _Table[bytes, bytes] = ()
        self._acks: _Table[tuple[int, int, int], int] = ()

    @property
    def awaits(self) -> bool:
        """Whether an acknowledgement that has to be translated may come."""
        return bool(self._acks)

    # --- what comes ---

    def frame(self, direction: Direction, command: Command, at: int, peer: bytes, nat: Nat) -> list[Edit]:
        """A P2P frame, whose header begins at *at* in the payload; *peer* sent it, if it comes in."""
        try:
            frame = frame_of(command.payload, at)
        except ValueError:
            nat.count("malformed_messages")
            return []
        if frame is None:
            return []
        if frame.acknowledges:
            return self._acknowledged(direction, command, frame, nat)
        text = text_of(command.payload[frame.start : frame.end])
        if text is None:
            return []
        named = frame.to if direction is Direction.ORIGINAL else peer
        return self._slp(direction, command, text, named, frame, nat)

    def text(self, direction: Direction, command: Command, peer: bytes, nat: Nat) -> list[Edit]:
        """An SLP text without a frame, to or from *peer*."""
        text = text_of(command.payload)
        return [] if text is None else self._slp(direction, command, text, peer, None, nat)

    def invitation(
        self, direction: Direction, command: Command, at: int, peer: bytes, nat: Nat
    ) -> list[Edit]:
        """An invitation whose lines begin at *at* in the payload; *peer* sent it, if it comes in."""
        invitation = invitation_of(command.payload, at)
        cookie = invitation.cookie
        if not cookie:
            return []
        key = _hashed(b"cookie", cookie)
        if direction is Direction.REPLY and invitation.command in (b"invite", b"accept"):
            self._peers = _remember(self._peers, key, _found(self._peers, key, peer))
        other = _found(self._peers, key, b"")
        name = _hashed(b"ftp", cookie, other if direction is Direction.ORIGINAL else peer)
        if invitation.command == b"cancel":
            nat.withdraw(name, "cancelled")
            if not other:  # nobody is known who could be another one
                nat.withdraw(_hashed(b"ftp", cookie, b""), "cancelled")
            return []
        try:
            listener = invitation.listener()
        except ValueError as error:
            return self._contradicts(Message(direction, command, FTP, name, peer), error, nat)
        if listener is None:
            return []
        if direction is Direction.ORIGINAL:
            peer = other
        return self._ftp(Message(direction, command, FTP, name, peer), listener, nat)

    def left(self, peer: bytes, nat: Nat) -> None:
        """*peer* has left the conversation: what was agreed with it is begun by now, or soon."""
        gone = [name for name, other in self._open if other in (peer, b"")]
        self._open = tuple(one for one in self._open if one[0] not in gone)
        for name in gone:
            nat.accepted(name)

    # --- what they are about ---

    def _slp(
        self,
        direction: Direction,
        command: Command,
        text: Text,
        peer: bytes,
        frame: Frame | None,
        nat: Nat,
    ) -> list[Edit]:
        if not text.call:
            return []
        name = _hashed(b"slp", text.call, peer)
        if text.kind in ENDS:
            nat.withdraw(name, "declined or over")
            return []
        if guid := text.body.value(b"euf-guid"):
            self._services = _remember(self._services, name, FILE if guid == FILE_GUID else OBJECT)
        if not text.listens():
            return []
        message = Message(direction, command, _found(self._services, name, FILE), name, peer, frame, text)
        nat.count("proposals")
        try:
            if mixes_spellings(text):
                raise ValueError("names forwards and backwards")
            external, internal = addresses_of(text, "External"), addresses_of(text, "Internal")
        except ValueError as error:
            return self._contradicts(message, error, nat, counted=True)
        if not _is_ours_to_edit(message, nat):
            return []
        try:
            if direction is Direction.REPLY and not nat.server_inside:
                return self._mapped_back(message, [side for side in (external, internal) if side], nat)
            return self._announced(message, external, internal, nat)
        except Left as left:
            return self._leave(message, left.place, str(left), nat)

    def _announced(
        self, message: Message, external: Addresses | None, internal: Addresses | None, nat: Nat
    ) -> list[Edit]:
        """Whoever listens is inside: name the outside endpoint. Raises Left."""
        side = external or internal
        if side is None:
            raise Left(Place("", 0), "it names no address")
        own = list(dict.fromkeys(one.place for one in side.listed if _is_own(one.place, nat)))
        mine = own + [one.place for one in side.listed if nat.is_ours(one.place.address)]
        if not mine:
            first = side.listed[0].place
            raise Left(first, not_own(first.address, nat))
        if nat.server_inside and len(own) > 1:
            # Any private address looks like one of ours: the first that may be opened is meant.
            before, outside = self._first(message, own, nat)
            mine = [before]
        elif len({place.port for place in mine}) > 1:
            raise Left(mine[0], "several ports of its own")
        else:
            before, inside = mine[0], Endpoint(*mine[0])
            if not own:
                inside = _hidden(before, _inner(internal if external else None, nat), nat)
            outside = self._expect(message, before, inside, nat)
        after = Place(*outside)
        changes = side.replaced(dict.fromkeys(mine, after))
        if changes is None:
            nat.withdraw(message.name, "it cannot be announced")
            raise Left(before, "a port that would change is another address's, too")
        return self._made(message, before, after, changes, nat)

    def _first(self, message: Message, places: list[Place], nat: Nat) -> tuple[Place, Endpoint]:
        """The first of *places* that gets a pinhole, with its outside endpoint. Raises Left."""
        for place in places[:-1]:
            with suppress(Left):
                return place, self._expect(message, place, Endpoint(*place), nat)
        return places[-1], self._expect(message, places[-1], Endpoint(*places[-1]), nat)

    def _mapped_back(self, message: Message, sides: list[Addresses], nat: Nat) -> list[Edit]:
        """A neighbour listens: name its inside endpoint. Raises Left."""
        first = sides[0].listed[0].place if sides else Place("", 0)
        found = {
            one.place: Place(*inside)
            for side in sides
            for one in side.listed
            if (inside := nat.inside_of(Endpoint(*one.place)))
        }
        if not found:
            raise Left(first, "names no pinhole of this router")
        before = next(iter(found))
        changes: Changes = []
        for side in sides:
            some = side.replaced(found)
            if some is None:
                raise Left(before, "a port that would change is another address's, too")
            changes += some
        return self._made(message, before, found[before], sorted(changes), nat)

    def _ftp(self, message: Message, listener: Listener, nat: Nat) -> list[Edit]:
        before = listener.outer
        nat.count("proposals")
        if not _is_ours_to_edit(message, nat):
            return []
        try:
            if message.direction is Direction.REPLY and not nat.server_inside:
                inside = nat.inside_of(Endpoint(*before))
                if inside is None:
                    raise Left(before, "names no pinhole of this router")
                return self._made(message, before, Place(*inside), listener.replaced(Place(*inside)), nat)
            if _is_own(before, nat):
                inner = Endpoint(*before)
            elif nat.is_ours(before.address):
                inner = _hidden(before, listener.inner, nat)
            else:
                raise Left(before, not_own(before.address, nat))
            after = Place(*self._expect(message, before, inner, nat))
            return self._made(message, before, after, listener.replaced(after), nat)
        except Left as left:
            return self._leave(message, left.place, str(left), nat)

    def _expect(self, message: Message, before: Place, inside: Endpoint, nat: Nat) -> Endpoint:
        """Have a pinhole opened. Raises Left."""
        numbered = message.frame is not None and message.frame.version == 2
        wanted = Expectation(
            message.name,
            message.service,
            inside,
            greetings=greetings(message.service),
            after_flow=_AFTER_FLOW_S,
            widths=(len(before.address), len(str(before.port))) if numbered else None,
            announced=Endpoint(*before) if before.address != inside.address else None,
            # Clients on the side of their server have sessions that do not pass here.
            needs_session=not nat.server_inside,
        )
        late = not nat.editable(message.direction, message.command.length_at)
        if late or (is_sent(message) and len(message.command.payload) > LONGEST_SENT):
            nat.offered(wanted)
            reason = "its beginning had left before its end came" if late else "the server would refuse it"
            raise Left(before, reason)
        try:
            outside = nat.expect(wanted)
        except Refused as refusal:
            if str(refusal) == UNFIT:
                nat.count("numbered_left")
            raise Left(before, str(refusal)) from refusal
        self._open = _remember(self._open, message.name, message.peer)
        return outside

    # --- what becomes of them ---

    def _made(self, message: Message, before: Place, after: Place, changes: Changes, nat: Nat) -> list[Edit]:
        """The edits that make *changes*. Raises Left."""
        opened = message.direction is Direction.ORIGINAL or nat.server_inside
        try:
            if not nat.editable(message.direction, message.command.length_at):
                raise Left(before, "its beginning had left before its end came")
            edits, grown = rewritten(message, changes, before, nat)
        except Left:
            if opened:
                nat.withdraw(message.name, "it cannot be announced")
            raise
        frame = message.frame
        if grown and frame is not None:
            key = (message.direction, frame.message, frame.total + grown)
            self._acks = _remember(self._acks, key, frame.total)
        action: Action = "rewritten" if opened else "mapped-back"
        reason = "own address" if _is_own(before, nat) else "own outside address"
        if not opened:
            reason = "pinhole of this router"
        self._report(message, (before, after), action, reason, nat)
        return edits

    def _acknowledged(self, direction: Direction, command: Command, frame: Frame, nat: Nat) -> list[Edit]:
        """An acknowledgement: its sender has received what we edited, and the other has not sent it so."""
        back = 1 - direction
        edits = acknowledged(
            command, frame, lambda size: _found(self._acks, (back, frame.message, size), None)
        )
        if not edits or not nat.editable(direction, edits[0].start):
            return []
        nat.count("acknowledgements")
        return edits

    def _contradicts(
        self, message: Message, error: ValueError, nat: Nat, counted: bool = False
    ) -> list[Edit]:
        """It has an address, and cannot be read."""
        if not counted:
            nat.count("proposals")
        nat.count("malformed_messages")
        return self._leave(message, Place("", 0), str(error) or "unreadable", nat)

    def _leave(self, message: Message, place: Place, reason: str, nat: Nat) -> list[Edit]:
        self._report(message, (place, place), "left", reason, nat)
        return []

    def _report(
        self, message: Message, change: tuple[Place, Place], action: Action, reason: str, nat: Nat
    ) -> None:
        outgoing = (message.direction is Direction.ORIGINAL) is not nat.server_inside
        before, after = (Endpoint(*place) for place in change)
        nat.count(action.replace("-", "_"))
        nat.report(
            Report(
                "out" if outgoing else "in",
                message.service,
                1,
                message.name,
                before,
                after,
                action=action,
                reason=reason,
            )
        )


def _is_ours_to_edit(message: Message, nat: Nat) -> bool:
    """Whether it may be a message of a host of ours, or to one: not what a client outside says itself."""
    if nat.server_inside and message.direction is Direction.ORIGINAL:
        nat.count("left")
        return False
    return True


def _is_own(place: Place, nat: Nat) -> bool:
    """Whether *place* is at the inside host that sent it; a server inside relays what any of them sent."""
    if nat.server_inside:
        return nat.is_home(place.address)
    return place.address == nat.inside.address


def _hidden(outer: Place, inner: Place | None, nat: Nat) -> Endpoint:
    """Where the host listens that announces the outside address. Raises Left.

    inner  what it says of its inside endpoint; an address of another network says no more than a port
    """
    if not nat.server_inside:
        return Endpoint(nat.inside.address, inner.port if inner is not None else outer.port)
    if inner is None or not nat.is_home(inner.address):
        raise Left(outer, "it does not say which host listens")
    return Endpoint(*inner)


def _inner(internal: Addresses | None, nat: Nat) -> Place | None:
    """What an Internal pair says of where its sender listens."""
    places = [one.place for one in internal.listed] if internal else []
    return next((place for place in places if _is_own(place, nat)), places[0] if places else None)


def _hashed(*words: bytes) -> bytes:
    """A name of fixed length for what strangers chose."""
    return blake2b(b"\0".join(words), digest_size=8).digest()


def _found(table: _Table[_K, _V], key: _K, otherwise: _D) -> _V | _D:
    return next((value for known, value in table if known == key), otherwise)


def _remember(table: _Table[_K, _V], key: _K, value: _V) -> _Table[_K, _V]:
    return (*(one for one in table if one[0] != key), (key, value))[-_REMEMBERED:]
