"""FlapRedactor: redacts an OSCAR connection; see core.redaction.

What stays: headers of FLAP and SNAC; types and lengths of TLVs; of a rendezvous its cookie, capability,
addresses and ports; the server that a redirect names; where an ICQ client listens. Names become pseudonyms.
All else is overwritten: passwords, cookies of a sign-on, texts, profiles, names of files.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from nfreaim.core.address import Direction
from nfreaim.core.redaction import FILL, Pseudonyms, filled, kept
from nfreaim.errors import Foreign, Malformed
from nfreaim.helpers.oscar.flap import MAX_FRAME, SNAC_BODY
from nfreaim.helpers.oscar.outline import tlvs_in
from nfreaim.helpers.oscar.proposal import ICBM, body_of, plain_name
from nfreaim.helpers.oscar.relay_redaction import Range, relay_ranges, reverse_ranges
from nfreaim.layers.oscar_icq import REVERSE_CONNECT, SERVER_RELAY, UserTag
from nfreaim.layers.oscar_messages import (
    FLAP_HEADER,
    FLAP_MAGIC,
    RENDEZVOUS_HEADER,
    FlapChannel,
    IcbmChannel,
    IcbmTag,
    RdvTag,
)
from nfreaim.layers.oscar_names import (
    ARRIVED,
    CHANNEL_MSG_TO_CLIENT,
    CHANNEL_MSG_TO_HOST,
    CLIENT_ERR,
    DEPARTED,
    HOST_ONLINE,
    ICBM_ERR,
    MIGRATE_GROUPS,
    NICK_INFO_UPDATE,
    SET_NICKINFO_FIELDS,
    USER_INFO_REPLY,
)
from nfreaim.layers.oscar_redirect import REDIRECTS, SERVER_TLV

_HEADER: Final = FLAP_HEADER.size
_SIGNON: Final = FlapChannel.SIGNON.value
_DATA: Final = FlapChannel.DATA.value
_SIGNOFF: Final = FlapChannel.SIGNOFF.value
_VERSION: Final = b"\0\0\0\1"
_USERS: Final = frozenset({NICK_INFO_UPDATE, USER_INFO_REPLY, ARRIVED, DEPARTED})
_SEVERAL: Final = frozenset({NICK_INFO_UPDATE, ARRIVED, DEPARTED})
_LISTENER: Final = 11  # bytes of TLV 0x000C: address, port, way, version; a secret of the peers follows
_PLAIN: Final = frozenset(
    {RdvTag.RDV_CHAN, RdvTag.RDV_IP, RdvTag.REQUESTER_IP, RdvTag.VERIFIED_IP, RdvTag.PORT, RdvTag.SEQ_NUM}
    | {RdvTag.CANCEL_REASON, RdvTag.REQUEST_HOST_CHK, RdvTag.USE_ARS, RdvTag.REQUEST_SECURE}
    | {RdvTag.MAX_PROTO_VERSION, RdvTag.MIN_PROTO_VERSION, RdvTag.COUNTER_REASON}
    | {RdvTag.IP_XOR, RdvTag.PORT_XOR}
)
_LONGEST_PLAIN: Final = 4  # bytes; a longer value is no number or address


class FlapRedactor:
    """See the head of this module, and core.redaction.Redactor."""

    __slots__ = ("_buffers", "_names", "_skips", "_started", "_synced", "account", "party", "recognised")

    def __init__(self, pseudonyms: Pseudonyms, midstream: bool) -> None:
        self.account, self.party, self.recognised = "", "", False
        self._names = pseudonyms
        self._buffers = [b"", b""]
        self._skips = [0, 0]  # bytes of a frame that is too long to be read
        self._started = [midstream, midstream]
        self._synced = [not midstream, not midstream]

    def redacted(self, direction: Direction, data: bytes) -> bytes:
        """See Redactor."""
        if not self._synced[direction]:
            self._synced[direction] = _are_frames(data)
            if not self._synced[direction]:
                return filled(data)
        skipped = min(self._skips[direction], len(data))
        self._skips[direction] -= skipped
        made = [FILL * skipped]
        data = self._buffers[direction] + data[skipped:]
        pos = 0
        while len(data) - pos >= _HEADER:
            magic, channel, _, length = FLAP_HEADER.unpack_from(data, pos)
            if magic != FLAP_MAGIC or not _SIGNON <= channel <= FlapChannel.KEEPALIVE:
                raise Malformed("a frame does not begin as one")
            size = _HEADER + length
            frame = data[pos : pos + size]
            if size > MAX_FRAME:
                short = frame[:SNAC_BODY] if channel == _DATA else frame[:_HEADER]
                if len(frame) < SNAC_BODY:
                    break
                self._skips[direction] = size - len(frame)
                made.append(short + filled(frame[len(short) :]))
            elif len(frame) < size:
                break
            else:
                self._begin(direction, channel, frame)
                made.append(bytes(self._frame(channel, frame)))
            pos += len(frame)
        self._buffers[direction] = data[pos:]
        return b"".join(made)

    def _begin(self, direction: Direction, channel: int, frame: bytes) -> None:
        """The first frame of each side shows the protocol."""
        if not self._started[direction]:
            if channel != _SIGNON or frame[_HEADER : _HEADER + 4] != _VERSION:
                raise Foreign("the first frame is not a sign-on frame")
            self._started[direction] = True
            self.recognised = all(self._started)

    def _frame(self, channel: int, frame: bytes) -> bytearray:
        made = kept(frame, [(0, _HEADER)])
        try:
            if channel == _SIGNON:
                made[_HEADER : _HEADER + 4] = frame[_HEADER : _HEADER + 4]
                self._put(made, frame, _headers(frame, _HEADER + 4))
            elif channel == _SIGNOFF:
                self._put(made, frame, _redirect(frame, _HEADER))
            elif channel == _DATA and len(frame) >= SNAC_BODY:
                body = body_of(frame)
                made[_HEADER:SNAC_BODY] = frame[_HEADER:SNAC_BODY]
                if body > SNAC_BODY:
                    made[SNAC_BODY : SNAC_BODY + 2] = frame[SNAC_BODY : SNAC_BODY + 2]
                self._snac(made, frame, frame[_HEADER : _HEADER + 4], body)
        except (ValueError, IndexError):
            made[SNAC_BODY:] = filled(frame[SNAC_BODY:])
        return made

    @staticmethod
    def _put(made: bytearray, frame: bytes, ranges: Iterator[Range]) -> None:
        for start, end in list(ranges):
            made[start:end] = frame[start:end]

    def _snac(self, made: bytearray, frame: bytes, name: bytes, body: int) -> None:
        if name == HOST_ONLINE:
            for at in range(body, len(frame) - 1, 2):  # numbers of families, of which none is high
                if not frame[at]:
                    made[at : at + 2] = frame[at : at + 2]
        elif name == ICBM_ERR:
            made[body : body + 2] = frame[body : body + 2]
        elif name in REDIRECTS:
            at = body
            if name == MIGRATE_GROUPS:
                at += 2 + 2 * int.from_bytes(frame[body : body + 2], "big")
                made[body:at] = frame[body:at]
            self._put(made, frame, _redirect(frame, at))
        elif name == SET_NICKINFO_FIELDS:
            self._put(made, frame, _fields_of_user(frame, body, None))
        elif name in _USERS:
            pos = body
            while pos < len(frame) and (pos == body or name in _SEVERAL):
                if name == NICK_INFO_UPDATE and pos == body and not self.account:
                    self.account = frame[pos + 1 : pos + 1 + frame[pos]].decode("latin-1")
                pos = self._user(made, frame, pos)
        elif name in (CHANNEL_MSG_TO_HOST, CHANNEL_MSG_TO_CLIENT, CLIENT_ERR):
            self._icbm(made, frame, name, body)

    def _user(self, made: bytearray, frame: bytes, pos: int) -> int:
        """A user-info block that begins at *pos*; returns where it ends. Raises ValueError."""
        pos = self._name(made, frame, pos)
        made[pos : pos + 4] = frame[pos : pos + 4]
        if pos + 4 > len(frame):
            raise ValueError("a user-info block overruns its frame")
        count = int.from_bytes(frame[pos + 2 : pos + 4], "big")
        end = pos + 4
        for start, stop in list(_fields_of_user(frame, pos + 4, count)):
            made[start:stop] = frame[start:stop]
        for _ in range(count):
            end += 4 + int.from_bytes(frame[end + 2 : end + 4], "big")
        return end

    def _name(self, made: bytearray, frame: bytes, pos: int) -> int:
        """A name behind its length of one byte, at *pos*; returns where it ends."""
        end = pos + 1 + frame[pos]
        if end > len(frame):
            raise ValueError("a name overruns its frame")
        made[pos] = frame[pos]
        name = frame[pos + 1 : end]
        letters = iter(self._names.plain(plain_name(name)))
        made[pos + 1 : end] = bytes(byte if byte == 0x20 else next(letters) for byte in name)
        return end

    def _icbm(self, made: bytearray, frame: bytes, name: bytes, body: int) -> None:
        at = body + ICBM.size
        if at >= len(frame):
            raise ValueError("cut short")
        made[body:at] = frame[body:at]
        _, channel = ICBM.unpack_from(frame, body)
        if channel == IcbmChannel.RENDEZVOUS:
            self.party = frame[at + 1 : at + 1 + frame[at]].decode("latin-1")
        whom = self._user if name == CHANNEL_MSG_TO_CLIENT else self._name
        pos = whom(made, frame, at)
        if name == CLIENT_ERR:
            made[pos : pos + 2] = frame[pos : pos + 2]
            self._put(made, frame, relay_ranges(frame, pos + 2, len(frame)))
            return
        for tag, start, end in list(tlvs_in(frame, pos, len(frame))):
            made[start - 4 : start] = frame[start - 4 : start]
            if channel == IcbmChannel.RENDEZVOUS and tag == IcbmTag.DATA:
                self._put(made, frame, _rendezvous(frame, start, end))


def _are_frames(data: bytes) -> bool:
    """Whether *data*, a segment of a flow that was met in its midst, is a chain of whole frames."""
    pos = 0
    while len(data) - pos >= _HEADER:
        magic, channel, _, length = FLAP_HEADER.unpack_from(data, pos)
        if magic != FLAP_MAGIC or not _SIGNON <= channel <= FlapChannel.KEEPALIVE:
            return False
        pos += _HEADER + length
    return pos == len(data)


def _headers(frame: bytes, pos: int) -> Iterator[Range]:
    """Types and lengths of the TLVs from *pos* on. Raises ValueError."""
    yield from ((start - 4, start) for _, start, _ in tlvs_in(frame, pos, len(frame)))


def _redirect(frame: bytes, pos: int) -> Iterator[Range]:
    for tag, start, end in tlvs_in(frame, pos, len(frame)):
        yield start - 4, end if tag == SERVER_TLV else start


def _fields_of_user(frame: bytes, pos: int, count: int | None) -> Iterator[Range]:
    """Of *count* TLVs, or of all to the end: their headers, and where the user listens. Raises ValueError."""
    while pos < len(frame) if count is None else count:
        tag, length = (
            int.from_bytes(frame[pos : pos + 2], "big"),
            int.from_bytes(frame[pos + 2 : pos + 4], "big"),
        )
        start = pos + 4
        pos = start + length
        if pos > len(frame):
            raise ValueError("a TLV overruns its frame")
        stays = _LISTENER if tag == UserTag.DIRECT_INFO and length > _LISTENER else 0
        if tag == UserTag.EXTERNAL_IP and length == 4:
            stays = 4
        yield start - 4, start + stays
        if count:
            count -= 1


def _rendezvous(frame: bytes, start: int, end: int) -> Iterator[Range]:
    """The rendezvous block [start, end). Raises ValueError."""
    first = start + RENDEZVOUS_HEADER.size
    if first > end:
        raise ValueError("a rendezvous block is cut short")
    yield start, first
    capability = frame[first - 16 : first]
    for tag, at, behind in tlvs_in(frame, first, end):
        yield at - 4, behind if tag in _PLAIN and behind - at <= _LONGEST_PLAIN else at
        if tag == RdvTag.SVC_DATA and capability == REVERSE_CONNECT:
            yield from reverse_ranges(at, behind)
        elif tag == RdvTag.SVC_DATA and capability == SERVER_RELAY:
            yield from relay_ranges(frame, at, behind)
