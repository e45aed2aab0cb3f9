"""FlapReader: reads one direction of an OSCAR connection as FLAP frames, whatever its segments are.

The reader finds the limits of each frame and returns the few frames that the helper wants; it counts through
the others. It keeps one frame at most, of at most MAX_FRAME bytes, and never searches for a lost boundary.

**Numbering.** Each side numbers its frames on its own, from any value. Measured: in 28 recorded and
third-party connections (libpurple 2.12.1, open-oscar-server v0.24.0, a client of 2009 with AOL's servers,
Adium 1.5 with ICQ's) every frame of any channel, keep-alive, sign-off and skipped ones included, is
numbered one higher than the frame before it; 558 frames had no exception. open-oscar-server numbers under a
lock, so its many writers do not change the order. Clients' sources agree; their counters have 16 bits, some
15, and AOL's servers ended the connection of a client whose numbers jumped. So a client's numbers have to be
consecutive, and a counter of 8, 15 or 16 bits may wrap to 0 or 1. A server's number may differ from the
expected one by SERVER_SLACK: no client checks it, and a strict check could cost a user the transfers. A frame
beyond that ends the reading of the flow, which goes on untouched.

Recorded: open-oscar-server v0.24.0 writes every frame as five segments (1+1+2+2+n bytes), libpurple 2.12.1
up to 13 frames into one segment; a server may end a connection with a four-byte sign-off frame that has no
length field, for AIM 1.x to 4.1, or with the first byte of a frame that never comes.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping
from typing import Final, NamedTuple

from nfreaim.errors import Foreign, Malformed
from nfreaim.layers.oscar_messages import (
    FLAP_HEADER,
    FLAP_MAGIC,
    SNAC_FLAG_EXTRA,
    SNAC_HEADER,
    FlapChannel,
    IcbmChannel,
)

SNAC_BODY: Final = FLAP_HEADER.size + SNAC_HEADER.size
"""Where in a frame the body of a SNAC without an extra block begins."""
MAX_FRAME: Final = 8192
"""The longest frame that is kept in whole, in bytes with its header; proposals have some hundred."""

SERVER_SLACK: Final = 16
"""Most that a server's frame number may differ from the expected one, by writers that mix up their order."""

# A frame's first two bytes, magic and channel, as plain numbers: before Python 3.12 reading an enum's member
# costs as much as unpacking a header.
_SIGNON: Final = FLAP_MAGIC << 8 | FlapChannel.SIGNON
_DATA: Final = FLAP_MAGIC << 8 | FlapChannel.DATA
_SIGNOFF: Final = FLAP_MAGIC << 8 | FlapChannel.SIGNOFF
_LAST: Final = FLAP_MAGIC << 8 | FlapChannel.KEEPALIVE
_BEGIN: Final = struct.Struct("!HHH")  # these two, number, length
_HEADER: Final = FLAP_HEADER.size
_SNAC: Final = SNAC_HEADER.size
_NAMED: Final = _HEADER + 4  # enough to read a SNAC's family and subtype
# Where an ICBM says its channel, if the SNAC has no extra block: behind the cookie of 8 bytes.
_FLAGS: Final = _NAMED
_ICBM: Final = _HEADER + _SNAC + 8
_RENDEZVOUS: Final = IcbmChannel.RENDEZVOUS.to_bytes(2, "big")
_EXTRA: Final = SNAC_FLAG_EXTRA >> 8
_VERSION: Final = b"\x00\x00\x00\x01"
# The beginning of a frame with an ICBM, all at once: magic and channel, number, length, the SNAC's name and
# flags, and where a SNAC without an extra block has the channel of the ICBM.
_FIRST: Final = struct.Struct(f"!HHH4sH{_ICBM - _FLAGS - 2}xH")
_FIRST_SIZE: Final = _FIRST.size
_CHANNEL_2: Final = IcbmChannel.RENDEZVOUS.value
# The last numbers of counters with 8, 15 (two ways) and 16 bits, behind which they begin anew.
_TURNS: Final = (0xFF, 0x7FFF, 0x8000, 0xFFFF)
# A position: number due or -1, bytes to skip, and how many bytes of a frame's header have come, and which.
_POSITION: Final = struct.Struct("!iIB5s")
_NO_FRAME: Final = "a frame does not begin as one"
# Segments without a verifiable beginning before a flow that was met in the middle is given up.
_MAX_MISSES: Final = 64


class OutOfSequence(Malformed):
    """A frame has a number that does not run on: the reader has lost its position, or was misled."""


class Frame(NamedTuple):
    """A frame that was asked for: its stream offset, its FLAP channel and its bytes, header included."""

    at: int
    channel: int
    data: bytes


class FlapReader:
    """Cuts one direction into frames.

    wanted     family and subtype (4 bytes, as on the wire) of the SNACs to pick out; True: an ICBM, which is
               wanted on the rendezvous channel only, so that text is passed over without another look
    begun      its first frame was a sign-on frame of FLAP version 1
    introduced that frame held more than the version: a name and a password, or a cookie
    kept       the bytes of the last frame, if it is not complete and may be wanted; *kept_at* their offset
    oversized  wanted frames that were longer than MAX_FRAME, and so passed unread
    due        the number that the next frame should have, or -1 before the first
    slack      how far from it the number may be
    settled    the session is past sign-on: another sign-on frame is none of it
    broken     what ended the reading, if frames before it were returned first
    """

    __slots__ = (
        "_awaits",
        "_misses",
        "_skip",
        "_synced",
        "_whole_signoff",
        "begun",
        "broken",
        "due",
        "introduced",
        "kept",
        "kept_at",
        "oversized",
        "settled",
        "slack",
        "wanted",
    )

    def __init__(
        self, wanted: Mapping[bytes, bool], midstream: bool, whole_signoff: bool = False, slack: int = 0
    ) -> None:
        """*whole_signoff*: sign-off frames come with their data (up to MAX_FRAME), not as headers only."""
        self.wanted = wanted
        self._whole_signoff = whole_signoff
        self.begun = midstream
        self.introduced = False
        self.kept = b""
        self.kept_at = 0
        self.oversized = 0
        self._skip = 0
        self._synced = not midstream
        self._misses = 0
        self.broken: Malformed | None = None
        self.due = -1
        self.slack = slack
        self.settled = False
        # The number due, if the next byte begins a frame and nothing stands in its way; else -1. See skips.
        self._awaits = -1

    def feed(self, data: bytes, start: int) -> list[Frame]:
        """The wanted frames that *data*, the bytes from offset *start* on, completes; sign-off frames, too.

        Raises Malformed where a frame does not begin as one (OutOfSequence: but for its number), Foreign if
        the very first does not. The frames before such a place are returned first, and the next call raises:
        cuts make no difference.
        """
        if self.broken is not None:
            raise self.broken
        pos, self._skip = self._skip, 0
        if self.kept:
            data, start = self.kept + data, self.kept_at
        elif not self._synced and not self._synchronise(data):
            return []
        frames: list[Frame] = []
        size = len(data)
        while size - pos >= _HEADER:
            begin, number, length = _BEGIN.unpack_from(data, pos)
            if (number != self.due or not _SIGNON < begin <= _LAST) and (flaw := self._flaw(begin, number)):
                return self._break(flaw, frames)
            length += _HEADER
            if begin == _DATA and self.begun:
                icbm = self.wanted.get(data[pos + _HEADER : pos + _NAMED])
                if icbm is None:
                    taken = 0 if size - pos >= _NAMED or length < SNAC_BODY else length
                else:
                    taken = self._of_snac(data, pos, length, icbm)
            else:
                taken = self._of_channel(data, pos, begin, length)
            if taken:
                if pos + taken > size:
                    break
                frames.append(Frame(start + pos, begin & 0xFF, data[pos : pos + taken]))
            pos += length
            self.due = (number + 1) & 0xFFFF
        if pos < size and data[pos] != FLAP_MAGIC:
            return self._break(self._error(_NO_FRAME), frames)
        self.kept = data[pos:]
        self.kept_at = start + pos
        self._skip = pos - size if pos > size else 0
        self._awaits = self.due if pos == size else -1
        return frames

    def skips(self, raw: bytes, start: int) -> bool:
        """Whether *raw* from *start* on, the next bytes, is one whole frame nobody wants; then it is read.

        If not, nothing has happened. For most frames this answers in a third of the time that ``feed`` takes.
        """
        size = len(raw) - start
        if size < _FIRST_SIZE:
            return False
        begin, number, length, name, flags, channel = _FIRST.unpack_from(raw, start)
        if number != self._awaits or begin != _DATA or length + _HEADER != size:
            return False
        icbm = self.wanted.get(name)
        if icbm is not None and (not icbm or flags & SNAC_FLAG_EXTRA or channel == _CHANNEL_2):
            return False
        self.due = self._awaits = (number + 1) & 0xFFFF
        return True

    @property
    def resting(self) -> bool:
        """Whether what was read last ended with the end of a frame."""
        return not self._skip and not self.kept

    def position(self) -> bytes:
        """Where reading stands: numbers, and at most five bytes of a frame's header, never of its data.

        A frame of which more has come is to be skipped from there on: the rest alone says nothing.
        """
        kept, skip, due = self.kept, self._skip, self.due
        if len(kept) >= _HEADER:
            _, _, number, length = FLAP_HEADER.unpack_from(kept)
            skip, due = _HEADER + length - len(kept), (number + 1) & 0xFFFF
            kept = b""
        return _POSITION.pack(due, skip, len(kept), kept)

    def resume(self, position: bytes, at: int) -> None:
        """Go on at *position*, which is stream offset *at*, past sign-on. Raises ValueError if it is none."""
        if len(position) != _POSITION.size:
            raise ValueError(f"a position has {_POSITION.size} bytes, not {len(position)}")
        due, skip, count, header = _POSITION.unpack(position)
        if not (-1 <= due <= 0xFFFF and skip <= 0xFFFF + _HEADER and count < _HEADER):
            raise ValueError("no position in a stream of frames")
        self.begun = self.settled = self._synced = True
        self.due, self._skip, self._awaits = due, skip, -1
        self.kept, self.kept_at = header[:count], at - count

    def _of_snac(self, data: bytes, pos: int, size: int, icbm: bool) -> int:
        """How many bytes to take of the frame of *size* bytes at *pos*, whose SNAC is a wanted one."""
        if size < SNAC_BODY:
            return 0
        at = pos + _ICBM
        there = at + 2 <= min(pos + size, len(data)) and not data[pos + _FLAGS] & _EXTRA
        if icbm and there and data[at : at + 2] != _RENDEZVOUS:
            return 0  # a text
        if size > MAX_FRAME:
            self.oversized += 1
            return 0
        return size

    def _of_channel(self, data: bytes, pos: int, begin: int, size: int) -> int:
        """How many bytes to take of any other frame: all as long as too few are there to tell."""
        if not self.begun:
            return 0 if self._sign_on(data, pos, begin, size) else size
        if begin == _SIGNOFF:
            return size if self._whole_signoff and size <= MAX_FRAME else _HEADER
        return 0

    def _flaw(self, begin: int, number: int) -> Malformed | None:
        """Why no frame of this session begins with *begin* and has this number; None if one may."""
        if not _SIGNON <= begin <= _LAST:
            return self._error(_NO_FRAME)
        if number != self.due and not self._runs_on(number):
            return self._error(f"frame has the number {number}, not {self.due}", OutOfSequence)
        if begin == _SIGNON and self.settled:
            return self._error("signs on a second time")
        return None

    def _runs_on(self, number: int) -> bool:
        """Whether a frame may have this number, though it is not the one that is due."""
        if self.due < 0:
            return True
        if number <= 1 and (self.due - 1) & 0xFFFF in _TURNS:
            return True
        off = (number - self.due) & 0xFFFF
        return min(off, 0x10000 - off) <= self.slack

    def _sign_on(self, data: bytes, pos: int, begin: int, size: int) -> bool:
        """Whether the first frame's beginning is there; raises Foreign if it is not a sign-on frame."""
        if begin != _SIGNON or size < _HEADER + len(_VERSION):
            raise Foreign("the first frame is not a sign-on frame")
        version = data[pos + _HEADER : pos + _HEADER + len(_VERSION)]
        if not _VERSION.startswith(version):
            raise Foreign("another version of FLAP")
        self.begun = len(version) == len(_VERSION)
        self.introduced = size > _HEADER + len(_VERSION)
        return self.begun

    def _synchronise(self, data: bytes) -> bool:
        """In a flow met in the middle: whether *data* is a chain of whole frames, so that reading begins."""
        pos, size, due = 0, len(data), -1
        while size - pos >= _HEADER:
            magic, channel, number, length = FLAP_HEADER.unpack_from(data, pos)
            if magic != FLAP_MAGIC or not 1 <= channel <= 5 or (due >= 0 and number != due):
                break
            pos += _HEADER + length
            due = (number + 1) & 0xFFFF
        self._synced = pos == size
        if not self._synced:
            self._misses += 1
            if self._misses > _MAX_MISSES:
                raise Malformed("no segment begins with a frame")
        return self._synced

    def _error(self, text: str, kind: type[Malformed] = Malformed) -> Malformed:
        """What ends the reading; before sign-on it says that the flow is none of this protocol."""
        return kind(text) if self.begun else Foreign(text)

    def _break(self, error: Malformed, frames: list[Frame]) -> list[Frame]:
        """Reading ends here: with *frames*, if there are any."""
        self._awaits = -1
        if not frames:
            raise error
        self.broken = error
        self.kept = b""
        return frames
