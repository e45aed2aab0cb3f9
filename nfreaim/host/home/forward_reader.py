"""ForwardReader: the operator's forwards, read again beside the daemon's loop when the rules have changed."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable, Iterable
from typing import Final

from nfreaim.core.address import Endpoint
from nfreaim.errors import BackendError
from nfreaim.host.home.forward_rules import OperatorForward, ruleset_forwards, saved_forwards
from nfreaim.host.netfilter.legacy_tables import LegacyTables
from nfreaim.host.netfilter.nft_generation import generation
from nfreaim.host.rules.background import BackgroundPrograms

_TIMEOUT_S: Final = 5.0
_READ_EVERY_S: Final = 2.0  # at most: hosts may make rules all the time, by UPnP
_LEGACY: Final = (("iptables-legacy-save", "-t", "nat"),)
_NFT: Final = (("iptables-nft-save", "-t", "nat"), ("nft", "-j", "list", "ruleset"))


class ForwardReader:
    """Rules that were read last; *clock* tells the time."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._tables = LegacyTables()
        self._known: frozenset[OperatorForward] | None = None
        self._version: tuple[object, object] | None = None
        self._read_at = 0.0
        self._programs = BackgroundPrograms()
        self._done: list[subprocess.CompletedProcess[str]] = []

    def close(self) -> None:
        """Wait for the programs that run, and close the socket."""
        self._programs.end()
        self._tables.close()

    def look(self) -> None:
        """Begin to read the rules if they have changed, or take over what was read. Raises BackendError."""
        if self._programs:
            self._collect()
            return
        now = self._clock()
        # Of all rules, because one that takes the place of another may leave the table's size as it was.
        version = (self._tables.others("nat"), generation())
        if version != self._version and (self._known is None or now >= self._read_at + _READ_EVERY_S):
            self._version, self._read_at = version, now
            self._begin([*(_LEGACY if version[0] else ()), *(_NFT if version[1] else ())])

    def leads(self, reached: Endpoint, server: Endpoint) -> bool:
        """Whether one of the operator's forwards leads from *reached* to *server*.

        Waits for the programs if the rules were never read. Raises BackendError.
        """
        return any(forward.leads(reached, server) for forward in self._read())

    def port_of(self, server: Endpoint, address: str) -> int | None:
        """The port of the outside *address* that the operator forwards to exactly *server*; None: none.

        Of several it is the server's own, or the lowest. Waits and raises as ``leads``.
        """
        ports = {
            one.port for one in self._read() if one.port and one.leads(Endpoint(address, one.port), server)
        }
        return server.port if server.port in ports else min(ports, default=None)

    def _read(self) -> Iterable[OperatorForward]:
        self.look()
        if self._known is None:
            self._collect(wait=True)
        return self._known or ()

    def _begin(self, programs: Iterable[tuple[str, ...]]) -> None:
        self._done = []
        self._programs.start(programs, _TIMEOUT_S)
        self._collect()

    def _collect(self, wait: bool = False) -> None:
        try:
            for done in self._programs.ended(wait):
                self._done.append(done)
            if not self._programs:
                self._known = frozenset(forward for done in self._done for forward in _forwards(done))
        except BackendError:
            self._version = None  # they will be read again
            raise


def _forwards(done: subprocess.CompletedProcess[str]) -> list[OperatorForward]:
    """What a program printed; nothing if it failed, because a table may not exist."""
    if done.returncode:
        return []
    if "-j" not in done.args:
        return list(saved_forwards(done.stdout))
    try:
        return list(ruleset_forwards(json.loads(done.stdout or "{}")))
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise BackendError(f"the nft rules have an unknown form: {type(error).__name__}") from error


def read_now() -> list[OperatorForward]:
    """The operator's forwards, for a caller that may wait. Raises BackendError."""
    programs = BackgroundPrograms()
    programs.start((*_LEGACY, *_NFT), _TIMEOUT_S)
    return [forward for done in programs.ended(wait=True) for forward in _forwards(done)]
