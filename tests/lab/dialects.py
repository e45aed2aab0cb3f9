"""What the ends of tests.lab.stream say: units that are edited on the way, and others that must not be.

A dialect makes the bytes of one direction, and puts each edited unit back into the form that was sent, so
that both ends can hash the same bytes. ``OSCAR``: FLAP frames, among them redirects of a server. ``IRC``:
lines, among them DCC offers, in both directions. ``MSN``: messages of a switchboard, among them answers in
P2P frames that say where their sender listens, in both directions.
"""

from __future__ import annotations

import random
import struct
from collections.abc import Iterator
from typing import Final, NamedTuple, Protocol

from tests.msn.commands import command, commands_of
from tests.msn.fields import Message, get, text
from tests.msn.p2p import P2P, Frame, Header
from tests.msn.slp import RESPONSE, Addresses, Dialogue, Slp, transport_response
from tests.oscar.flap import FLAP_SNAC, flap
from tests.oscar.signon import hello
from tests.oscar.snac import Snac
from tests.oscar.tlv import first_tlv, parse_tlvs, tlvs

_GUID: Final = "{0216231B-E9E8-1F16-E7CD-90118D43EF66}"
_ANSWERING: Final = Dialogue("alice@lab.test", "bob@lab.test", _GUID, _GUID)
_STAMP: Final = struct.Struct("!d")


class Unit(NamedTuple):
    """One received unit.

    sent    the bytes as they were sent, as far as that can be told
    stamp   the sender's clock when it was made, in seconds; None where it carries none
    edited  True if it names what it shall become, False if what was sent, None if it is not one to be edited
    counts  it is one of the plan's, not of the opening
    """

    sent: bytes
    stamp: float | None = None
    edited: bool | None = None
    counts: bool = True


class Dialect(Protocol):
    """How one end speaks. *named*, *becomes*: what is announced, and what that shall be at the other end."""

    smallest: int
    """Where a unit may be cut at the earliest for its beginning to be held."""
    waits: bool
    """A client says nothing behind its opening before the server has answered."""

    def opening(self, serves: bool) -> list[bytes]:
        """What an end says first."""

    def opened(self, seen: bytes) -> bool:
        """Whether a server that has *seen* this of its client may open."""

    def unit(self, number: int, stamp: float, body: bytes) -> bytes:
        """One that must not be edited."""

    def announcement(self, number: int, stamp: float, named: str) -> bytes:
        """One that is to be edited."""

    def pieces(self, unit: bytes) -> Iterator[bytes]:
        """It, written as a server does that makes a system call for each field."""

    def split(self, data: bytes) -> tuple[bytes, bytes] | None:
        """The first unit of *data* and the rest, or None if it is not complete."""

    def received(self, unit: bytes, named: str, becomes: str) -> Unit:
        """What *unit* was."""


def redirect(named: str, stamp: bytes) -> bytes:
    """Body of SNAC(01,05): family, host and port, a cookie."""
    return tlvs([(0x000D, b"\0\x18"), (0x0005, named.encode()), (0x0006, stamp.ljust(24, b"c"))])


class _Oscar:
    smallest, waits = 5, False

    def opening(self, serves: bool) -> list[bytes]:
        return [hello()]

    def opened(self, seen: bytes) -> bool:
        return bool(seen)

    def unit(self, number: int, stamp: float, body: bytes) -> bytes:
        return self._frame(number, Snac(0x10, 5, _STAMP.pack(stamp) + body, number))

    def announcement(self, number: int, stamp: float, named: str) -> bytes:
        return self._redirect(number, number, named, _STAMP.pack(stamp))

    def pieces(self, unit: bytes) -> Iterator[bytes]:
        return (unit[low:high] for low, high in ((0, 1), (1, 2), (2, 4), (4, 6), (6, len(unit))))

    def split(self, data: bytes) -> tuple[bytes, bytes] | None:
        end = 6 + int.from_bytes(data[4:6], "big")
        return None if len(data) < max(6, end) else (data[:end], data[end:])

    def received(self, unit: bytes, named: str, becomes: str) -> Unit:
        if unit[1] != FLAP_SNAC or len(unit) < 24:
            return Unit(unit, counts=False)
        snac = Snac.decode(unit[6:])
        if snac.kind != (1, 5) or not named:
            return Unit(unit, _STAMP.unpack_from(snac.body)[0])
        items = parse_tlvs(snac.body)[0]
        value, cookie = first_tlv(items, 0x0005), first_tlv(items, 0x0006)
        if value is None or cookie is None:
            return Unit(unit)
        stamp, edited = _STAMP.unpack_from(cookie)[0], value == becomes.encode()
        if not edited:
            return Unit(unit, stamp, False if value == named.encode() else None)
        number = int.from_bytes(unit[2:4], "big")
        return Unit(self._redirect(number, snac.request, named, cookie[: _STAMP.size]), stamp, True)

    @staticmethod
    def _frame(number: int, snac: Snac) -> bytes:
        return flap(FLAP_SNAC, number & 0xFFFF, snac.encode())

    def _redirect(self, number: int, request: int, named: str, stamp: bytes) -> bytes:
        return self._frame(number, Snac(1, 5, redirect(named, stamp), request))


class _Irc:
    smallest, waits = 1, True

    def opening(self, serves: bool) -> list[bytes]:
        if serves:
            return [b":irc.example 001 alice :Welcome\r\n"]
        return [b"NICK alice\r\n", b"USER alice 0 * :Alice\r\n"]

    def opened(self, seen: bytes) -> bool:
        return seen.count(b"\n") >= 2

    def unit(self, number: int, stamp: float, body: bytes) -> bytes:
        text = body.hex()[:300]
        return f":bob!b@example PRIVMSG alice :{stamp!r} {number} {text}\r\n".encode()

    def announcement(self, number: int, stamp: float, named: str) -> bytes:
        return f":bob!b@example PRIVMSG alice :\x01DCC SEND {stamp!r} {named} 30000\x01\r\n".encode()

    def pieces(self, unit: bytes) -> Iterator[bytes]:
        return _cut(unit)

    def split(self, data: bytes) -> tuple[bytes, bytes] | None:
        line, end, rest = data.partition(b"\n")
        return (line + end, rest) if end else None

    def received(self, unit: bytes, named: str, becomes: str) -> Unit:
        words = unit.split()
        if b"PRIVMSG" not in words:
            return Unit(unit, counts=False)
        if words[3] != b":\x01DCC":
            return Unit(unit, float(words[3][1:]))
        stamp, told = float(words[5]), b" ".join(words[6:8]).decode()
        if told == becomes:
            return Unit(unit.replace(becomes.encode(), named.encode()), stamp, True)
        return Unit(unit, stamp, False if told == named else None)


class _Msn:
    smallest, waits = 1, True

    def opening(self, serves: bool) -> list[bytes]:
        return [b"USR 1 OK alice@lab.test alice\r\n" if serves else b"USR 1 alice@lab.test token\r\n"]

    def opened(self, seen: bytes) -> bool:
        return seen.endswith(b"\n")

    def unit(self, number: int, stamp: float, body: bytes) -> bytes:
        # Either end's line has as many words: a server names the sender where a client has a number.
        return command("MSG", number, "U", payload=text(f"{stamp!r} {body.hex()}").encode()).encode()

    def announcement(self, number: int, stamp: float, named: str) -> bytes:
        address, port = named.split(":")
        fields = transport_response(Addresses(address, int(port)), _GUID)
        said = _ANSWERING.answer(RESPONSE, (*fields, ("Stamp", repr(stamp)))).encode()
        header = Header(message=number, total=len(said), size=len(said), ack=number)
        return command(
            "MSG", number, "D", payload=Frame("bob@lab.test", header, said).message().encode()
        ).encode()

    def pieces(self, unit: bytes) -> Iterator[bytes]:
        return _cut(unit)

    def split(self, data: bytes) -> tuple[bytes, bytes] | None:
        line, end, rest = data.partition(b"\r\n")
        if not end:
            return None
        size = int(line.rpartition(b" ")[2]) if line.startswith(b"MSG ") else 0
        return (line + end + rest[:size], rest[size:]) if len(rest) >= size else None

    def received(self, unit: bytes, named: str, becomes: str) -> Unit:
        (one,) = commands_of(unit, from_client=True)
        if one.payload is None:
            return Unit(unit, counts=False)
        message = Message.decode(one.payload)
        if message.content_type != P2P:
            return Unit(unit, float(message.body.partition(b" ")[0]))
        said = Slp.decode(Frame.of(message).data)
        stamp = float(get(said.body, "Stamp") or 0)
        told = ["{}:{}".format(*pair) for pair in Addresses.pairs(said.body)]
        if told == [becomes] and unit == self.announcement(int(one.transaction), stamp, becomes):
            return Unit(self.announcement(int(one.transaction), stamp, named), stamp, True)
        return Unit(unit, stamp, False if told == [named] else None)


def _cut(unit: bytes) -> Iterator[bytes]:
    """A unit in pieces of any size, mostly short."""
    chance = random.Random(unit)
    low = 0
    while low < len(unit):
        high = low + chance.choice((1, 2, 3, 5, 40))
        yield unit[low:high]
        low = high


OSCAR: Final[Dialect] = _Oscar()
IRC: Final[Dialect] = _Irc()
MSN: Final[Dialect] = _Msn()
DIALECTS: Final = {"oscar": OSCAR, "irc": IRC, "msn": MSN}
