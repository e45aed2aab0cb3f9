"""ReadingTime and Pace: how much time flows may take to read, so that nobody makes others' packets wait.

All flows of an engine are read by one process, one packet after the other. The time that a helper spends on
one message is measured, and counts for the flow's direction, for the client and for all. Once a share is
spent the helper leaves the messages of that direction as they are for a second. It goes on finding their
limits, which costs little, and reads again afterwards.

A direction has a share of its own, so nobody can silence a host's messages by sending it many.

Finding the limits of messages takes time, too, if these are thousands in a segment. Who spends an eighth of a
processor on that has packets dropped for a moment: TCP sends them again, and slower.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Final

from nfreaim.core.address import Direction, flow_id

log = logging.getLogger(__name__)

PERIOD_S: Final = 1.0
"""Shares are of this time, and messages are left alone for as long."""

_FLOW_S: Final = 0.1  # a hundred offers of an honest client: one takes 0.5 ms, on a busy processor 1 ms
_CLIENT_S: Final = 0.15  # of the flows of one client in one direction: it may have thousands
_ALL_S: Final = 0.3  # then clients that have had more than an equal share have to wait
_LEAST_S: Final = 0.001  # which every client has nevertheless
_MOST_SHARES: Final = 16384
_MOST_LINES: Final = 10  # in the log, and for a flow one, in this time
_LINES_S: Final = 60.0

_PACE_PERIOD_S: Final = 0.25
_PACE_FLOW_S: Final = 0.02  # of that period
_PACE_CLIENT_S: Final = 0.03
_PACE_ALL_S: Final = 0.075  # then everybody has to do with the least
_PACE_LEAST_S: Final = 0.005
_PACE_MOST_SHARES: Final = 4096

_Share = tuple[bytes, Direction]


class ReadingTime:
    """The shares of one engine.

    cpu  seconds of processor time that this process has had; a constant means that nothing is measured
    """

    def __init__(self, cpu: Callable[[], float]) -> None:
        self._cpu = cpu
        self._ends = 0.0
        self._spent: dict[_Share, float] = {}  # in this period, by flow and by client
        self._clients: dict[Direction, int] = dict.fromkeys(Direction, 0)
        self._all = 0.0
        self._paused: dict[_Share, float] = {}  # until when
        self.spent_elsewhere = 0.0
        self._reader: _Share | None = None
        self._since = 0.0
        self._said: set[bytes] = set()
        self._said_until = 0.0

    def begin(self, key: bytes, direction: Direction, now: float) -> bool:
        """Whether a message of this direction of the flow *key* may be read; if so its time runs.

        It runs until the next call of ``begin`` or ``stop``.
        """
        self.stop(now)
        if now >= self._ends:
            self._ends = now + PERIOD_S
            self._spent.clear()
            self._clients = dict.fromkeys(Direction, 0)
            self._all = 0.0
            self._paused = {share: until for share, until in self._paused.items() if until > now}
        flow = (key, direction)
        if self._paused or self._all >= _ALL_S:
            client = (key[:4], direction)
            if now < self._paused.get(flow, 0.0) or now < self._paused.get(client, 0.0):
                return False
            if self._all >= _ALL_S and self._spent.get(client, 0.0) >= self._fair(direction):
                return False
        self._reader = flow
        self._since = self._cpu()
        return True

    def stop(self, now: float) -> None:
        """The message that was begun has been read."""
        if self._reader is None:
            return
        flow, self._reader = self._reader, None
        took = self._cpu() - self._since
        if took <= 0.0:
            return
        key, direction = flow
        client = (key[:4], direction)
        self._all += took
        if len(self._spent) >= _MOST_SHARES and flow not in self._spent:
            return  # in a second nobody can have so many messages read that this matters
        if client not in self._spent:
            self._clients[direction] += 1
        for share, most in ((flow, _FLOW_S), (client, _CLIENT_S)):
            spent = self._spent[share] = self._spent.get(share, 0.0) + took
            if spent >= most and share not in self._paused:
                self._paused[share] = now + PERIOD_S
                self._say(key, now)

    @contextmanager
    def elsewhere(self) -> Iterator[None]:
        """What happens meanwhile is no reading: pinholes have rates of their own, and the kernel is slow.

        What ends by an exception counts as reading, because no rate counts what is refused.
        """
        began = self._cpu()
        yield
        took = self._cpu() - began
        self._since += took
        self.spent_elsewhere += took

    def _fair(self, direction: Direction) -> float:
        return max(_LEAST_S, _ALL_S / max(1, self._clients[direction]))

    def _say(self, key: bytes, now: float) -> None:
        """Log that a flow's messages are left alone: once a minute, and for few flows in that time."""
        if now >= self._said_until:
            if len(self._said) > _MOST_LINES:
                log.info("messages of %d more connections were left alone", len(self._said) - _MOST_LINES)
            self._said.clear()
            self._said_until = now + _LINES_S
        if key in self._said or len(self._said) >= _MOST_SHARES:
            return
        self._said.add(key)
        if len(self._said) <= _MOST_LINES:
            log.info(
                "%s: its messages take too long to read: those of the next second pass as they are",
                flow_id(key),
            )


class Pace:
    """What the bytes of a flow's direction may take to read, messages and all, in a short time."""

    LEAST_BYTES: Final = 256
    """Shorter segments are not measured: what they take is mostly the packet's own."""

    def __init__(self) -> None:
        self.paused: dict[_Share, float] = {}
        """Until when the packets of a direction are dropped."""
        self._ends = self._all = 0.0
        self._spent: dict[_Share, float] = {}

    def drops(self, key: bytes, direction: Direction, now: float) -> bool:
        """Whether a packet with data has to be dropped. Ask only if somebody is paused."""
        for share in ((key, direction), (key[:4], direction)):
            until = self.paused.get(share)
            if until is not None:
                if now < until:
                    return True
                del self.paused[share]
        return False

    def took(self, key: bytes, direction: Direction, seconds: float, now: float) -> None:
        """Reading a segment took so long."""
        if now >= self._ends:
            self._ends = now + _PACE_PERIOD_S
            self._spent.clear()
            self._all = 0.0
            self.paused = {share: until for share, until in self.paused.items() if until > now}
        if len(self._spent) >= _PACE_MOST_SHARES:
            return  # so many have a small share each
        self._all += seconds
        client_s = _PACE_CLIENT_S if self._all < _PACE_ALL_S else _PACE_LEAST_S
        for share, most in (((key, direction), _PACE_FLOW_S), ((key[:4], direction), client_s)):
            spent = self._spent[share] = self._spent.get(share, 0.0) + seconds
            if spent >= most:
                self.paused[share] = self._ends
