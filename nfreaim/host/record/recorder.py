"""Recorder: writes what passes the router's interfaces to a file, without secrets, until it is stopped."""

from __future__ import annotations

import os
import selectors
import signal
import sys
import time
from collections.abc import Iterable
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any, Final

from nfreaim.core.address import Endpoint
from nfreaim.core.helper import HelperSpec
from nfreaim.errors import BackendError, ConfigError
from nfreaim.host.netfilter.interfaces import existing
from nfreaim.host.record.tap import Tap, places
from nfreaim.host.report import status
from nfreaim.recording.copying import Copying, Packet
from nfreaim.recording.recording_file import RecordingFile

_LOOK_S: Final = 1.0  # between two looks at the daemon's pinholes and at the interfaces
_WAIT_S: Final = 0.25
_NICE: Final = -10  # a peer may connect a millisecond after the message that says where
_SIGNALS: Final = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class Recorder:
    """One recording into *out*.

    written  the interfaces as the operator names them
    status_socket  where the daemon tells its pinholes
    """

    def __init__(
        self, written: Iterable[str], servers: dict[int, HelperSpec], status_socket: Path, out: RecordingFile
    ) -> None:
        self._written, self._status_socket, self._out = list(written), status_socket, out
        self._copying = Copying(servers, os.urandom(32))
        self._copying.grew = self._grow
        self._taps: dict[str, tuple[Tap, int]] = {}
        self._numbers: dict[str, int] = {}
        self._selector = selectors.DefaultSelector()
        self._grown = self._stopping = False
        self._told = False
        # The time of the latest packet, on the clock of packets, and when it was read.
        self._latest, self._read_at = 0.0, time.monotonic()
        self.lost = 0

    def run(self, seconds: float | None) -> None:
        """Record until a signal, for *seconds* at most, or until the file is full.

        Raises BackendError, and ConfigError if there is no such interface.
        """
        with ExitStack() as stack:
            for number in _SIGNALS:
                stack.callback(signal.signal, number, signal.signal(number, self._stop))
            stack.callback(self._close)
            with suppress(PermissionError):  # then a quick peer's first bytes may be missing
                os.setpriority(os.PRIO_PROCESS, 0, _NICE)
            self._look()
            if not self._taps:
                names = ", ".join(self._written)
                raise ConfigError(f"there is no interface {names}; name them with --lan and --wan")
            print(f"nfreaim record: {', '.join(self._taps)}; end it with Ctrl-C", file=sys.stderr, flush=True)
            end = None if seconds is None else time.monotonic() + seconds
            look = time.monotonic() + _LOOK_S
            while not self._stopping and not self._out.full:
                now = time.monotonic()
                if end is not None and now >= end:
                    break
                if now >= look:
                    self._look()
                    self._write(self._copying.tick(self._latest + time.monotonic() - self._read_at))
                    self._out.flush()
                    look = time.monotonic() + _LOOK_S
                self._selector.select(_WAIT_S)
                self._read()
            self._read()
            self._write(self._copying.close())

    def _stop(self, *_: Any) -> None:
        self._stopping = True

    def _grow(self) -> None:
        self._grown = True

    def _read(self) -> None:
        packets = [
            Packet(when, number, raw) for tap, number in self._taps.values() for when, raw in tap.read()
        ]
        for packet in sorted(packets, key=lambda packet: packet.time):
            self._latest, self._read_at = packet.time, time.monotonic()
            self._write(self._copying.packet(packet))
            if self._grown:  # at once, because peers are quick
                self._filter()

    def _write(self, packets: Iterable[Packet]) -> None:
        for packet in packets:
            self._out.packet(packet)

    def _filter(self) -> None:
        self._grown = False
        ports = self._copying.ports
        for tap, _ in self._taps.values():
            tap.filter(ports)

    def _look(self) -> None:
        """Open taps on interfaces that have come, and ask the daemon for its pinholes."""
        wanted = [place for name in existing(self._written) for place in places(name)]
        for name in wanted:
            if name not in self._taps:
                try:
                    tap = Tap(name, self._copying.ports)
                except BackendError:
                    if self._taps:
                        continue  # it has gone again, or comes later
                    raise
                if name not in self._numbers:
                    self._numbers[name] = self._out.interface(name)
                self._taps[name] = tap, self._numbers[name]
                self._selector.register(tap, selectors.EVENT_READ)
        for name in set(self._taps) - set(wanted):
            self._leave(name)
        try:
            document = status.fetch(self._status_socket)
        except BackendError as error:
            if not self._told:
                print(f"nfreaim record: pinholes are known by messages only: {error}", file=sys.stderr)
            self._told, document = True, None
        for pinhole in (document or {}).get("pinholes", ()):
            for end in (pinhole["outside"], pinhole["inside"]):
                address, _, port = end.rpartition(":")
                self._copying.expect(Endpoint(address, int(port)), pinhole["protocol"], pinhole["service"])
        if self._grown:
            self._filter()

    def _leave(self, name: str) -> None:
        tap, _ = self._taps.pop(name)
        self._selector.unregister(tap)
        tap.close()
        self.lost += tap.lost

    def _close(self) -> None:
        for name in list(self._taps):
            self._leave(name)
        self._selector.close()
