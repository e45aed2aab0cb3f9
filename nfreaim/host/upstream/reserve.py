"""Upstream: keeps mappings of the router in front in reserve, for the daemon (``upstream``).

While somebody is signed on whose outside address peers cannot reach, a few ports of that address are mapped.
No pinhole is behind them until a proposal takes one. A process of its own asks (host.upstream.mapper). What
it was told to ask for is kept in the state directory: the next daemon gives back what this one could not.
"""

from __future__ import annotations

import json
import logging
import os
import secrets
import selectors
import socket
import subprocess
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from typing import Any, Final

from nfreaim import same_program
from nfreaim.config import Config
from nfreaim.core.address import Endpoint, FlowId, is_address
from nfreaim.core.firewall.table import PinholeTable
from nfreaim.core.reach import unreachable
from nfreaim.host.upstream.mapper import LARGEST_MESSAGE, MODULE
from nfreaim.host.upstream.port_control import NONCE_SIZE

log = logging.getLogger("nfreaim")

RESERVE: Final = 4
"""So many ports of an address are mapped beside those that pinholes use."""

_MOST: Final = 128  # mappings in all: routers in front have small tables
_RECORD: Final = "upstream"
_AGAIN_S: Final = 5.0  # between two starts of the process
_STOP_S: Final = 8.0  # for it to give everything back
_STOP_NOTHING_S: Final = 1.0  # if there is nothing
_REMEDY: Final = (
    "switch on UPnP or PCP (NAT-PMP) in that router, or have it forward every port here and set"
    " outside_address to its public address or name"
)


class Upstream:
    """The reserve for *pinholes*. *carries* says whether a connection of a closed pinhole is open still."""

    def __init__(
        self,
        config: Config,
        pinholes: PinholeTable,
        carries: Callable[[FlowId], bool],
        clock: Callable[[], float],
    ) -> None:
        self._record = config.state_dir / _RECORD
        self._settings = config.pinholes.upstream, config.wan
        self._pinholes, self._mappings = pinholes, pinholes.mappings
        self._carries, self._clock = carries, clock
        self._selector: selectors.BaseSelector | None = None
        self._changed: Callable[[], None] = lambda: None
        self._process: subprocess.Popen[bytes] | None = None
        self._link: socket.socket | None = None
        self._start_at = 0.0
        self._nonce = secrets.token_bytes(NONCE_SIZE)
        self._left: dict[Endpoint, Endpoint | None] = {}
        self._spare: list[Endpoint] = []
        self._asked: dict[Endpoint, int] = {}  # the number of the message that first named each wanted one
        self._number = 0
        self._recent: deque[Endpoint] = deque(maxlen=max(1, len(pinholes.policy.ports) // 2))
        self._outside: dict[str, str] = {}
        self._speaks: dict[str, str] = {}
        self._trouble: dict[str, str] = {}

    def begin(self) -> None:
        """Find what an earlier daemon left: its pinholes go on, and their mappings."""
        try:
            found = json.loads(self._record.read_text())
            self._nonce = bytes.fromhex(found["nonce"])[:NONCE_SIZE].ljust(NONCE_SIZE, b"\0")
            self._left = {
                Endpoint(*own): Endpoint(*told) if told else None for own, told in found["mappings"]
            }
        except FileNotFoundError:
            pass
        except (OSError, ValueError, KeyError, TypeError) as error:
            log.warning("upstream: %s cannot be read: %s; what it names ends by itself", self._record, error)
        adopted = {one.outside: one.told for one in self._pinholes if one.told is not None}
        self._mappings.told |= adopted
        self._left |= adopted
        self._asked = dict.fromkeys(adopted, 1)
        self._show()

    def attach(self, selector: selectors.BaseSelector, changed: Callable[[], None] = lambda: None) -> None:
        """Be served by a loop that calls the data of each ready key. *changed* is called when peers reach our
        addresses elsewhere than before."""
        self._selector, self._changed = selector, changed
        self.look()

    def look(self) -> None:
        """Have as many mappings as are wanted now. Never waits; call it about every second."""
        if self._link is None and self._clock() < self._start_at:
            return
        used = [one.outside for one in self._pinholes if one.told is not None]
        used += [own for own in self._mappings.carrying(self._carries) if own not in used]
        for own in self._spare:
            if own in used:
                self._recent.append(own)
        self._spare = self._kept_in_reserve(used)
        wanted = [*used, *self._spare]
        if self._link is None and not self._start():
            return
        if set(wanted) == self._asked.keys() and not self._left:
            return
        self._number += 1
        left = [[*own, *(told or ("", 0))] for own, told in self._left.items()]
        # A mapping that is no longer wanted must not be taken: it is about to be given back.
        self._mappings.told = {own: told for own, told in self._mappings.told.items() if own in wanted}
        self._asked = {own: self._asked.get(own, self._number) for own in wanted}
        self._save()
        if self._send({"number": self._number, "wanted": wanted, "left": left}):
            self._left = {}
        self._show()

    def close(self) -> None:
        """Have everything given back. It takes as long as the router in front does, or _STOP_S."""
        if self._link is not None and self._process is not None:
            # A router that never answered has mapped nothing, and may keep the process waiting.
            nothing = bool(self._trouble) and not self._mappings.told
            self._send({"stop": True})
            try:
                self._process.wait(_STOP_NOTHING_S if nothing else _STOP_S)
            except subprocess.TimeoutExpired:
                if not nothing:
                    log.warning("upstream: mappings were not given back in time; they end within minutes")
                    self._end()
                    return
            with suppress(OSError):
                self._record.unlink(missing_ok=True)
        self._end()

    def _kept_in_reserve(self, used: list[Endpoint]) -> list[Endpoint]:
        """Which endpoints are wanted beside those in use."""
        reserve: list[Endpoint] = []
        room = max(0, _MOST - len(used))
        for address in sorted(self._mappings.addresses()):
            if unreachable(address) is None:
                continue
            mine = [own for own in self._spare if own.address == address and own not in used][:RESERVE]
            while len(mine) < min(RESERVE, room - len(reserve)):
                more = self._pinholes.spare(address, {*used, *mine, *self._recent})
                if more is None:
                    break
                mine.append(more)
            reserve += mine
        return reserve[:room]

    def _start(self) -> bool:
        """Start the process; whether it runs."""
        self._start_at = self._clock() + _AGAIN_S
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        ours.setblocking(False)
        mode, wan = self._settings
        words = [str(theirs.fileno()), mode, self._nonce.hex(), *wan]
        try:
            self._process = subprocess.Popen(
                same_program.command(*words, module=MODULE),
                env=same_program.environment(),
                stdin=subprocess.DEVNULL,
                pass_fds=(theirs.fileno(),),
                start_new_session=True,  # a terminal's Ctrl-C reaches the daemon only, which stops it
            )
        except OSError as error:
            ours.close()
            log.warning("upstream: the process that asks the router in front cannot be started: %s", error)
            return False
        finally:
            theirs.close()
        self._link = ours
        if self._selector is not None:
            self._selector.register(ours, selectors.EVENT_READ, self._read)
        return True

    def _read(self) -> None:
        """Take what the process says."""
        if self._link is None:
            return
        try:
            data = self._link.recv(LARGEST_MESSAGE)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if not data:
            self._again("has ended")
            return
        try:
            self._take(json.loads(data))
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            self._again(f"says what is no answer ({type(error).__name__})")

    def _again(self, why: str) -> None:
        """The process is of no use any more; the next look starts another one."""
        log.warning("upstream: the process that asks the router in front %s, and is started anew", why)
        self._left, self._asked = dict(self._mappings.told), {}
        self._end()

    def _take(self, state: dict[str, Any]) -> None:
        number = int(state["number"])
        told: dict[Endpoint, Endpoint] = {}
        for address, port, there, its_port in state["told"]:
            own = Endpoint(address, port)
            public = is_address(there) and unreachable(there) is None and 0 < its_port <= 0xFFFF
            if public and number >= self._asked.get(own, number + 1):
                told[own] = Endpoint(there, its_port)
        # Of those that it was asked for later than it said this, what was known before holds.
        later = {own for own, since in self._asked.items() if since > number}
        known = self._mappings.told
        self._mappings.told = told | {own: at for own, at in known.items() if own in later}
        pairs = state["outside"].items()
        self._outside = {own: at for own, at in pairs if is_address(at) and unreachable(at) is None}
        self._report(state)
        self._save()
        self._show()
        mapped = self._mappings.told
        lost = {one.outside for one in self._pinholes if one.told not in (None, mapped.get(one.outside))}
        self._pinholes.close_taken(lost.__contains__, "the router in front no longer maps its port")

    def _report(self, state: dict[str, Any]) -> None:
        """Log what is new, once."""
        speaks, trouble = (_printable(state[name]) for name in ("speaks", "trouble"))
        for own, text in trouble.items():
            if text != self._trouble.get(own):
                log.warning(
                    "upstream: the router in front of %s maps no port: %s; nothing is announced where peers"
                    " cannot reach that address; remedy: %s",
                    *(own, text, _REMEDY),
                )
        for own, protocol in speaks.items():
            at = next((told.address for mine, told in self._mappings.told.items() if mine.address == own), "")
            if at and f"{protocol} {at}" != self._speaks.get(own):
                self._speaks[own] = f"{protocol} {at}"
                log.info("upstream: the router in front maps ports of %s to %s (%s)", at, own, protocol)
        self._trouble = {own: text for own, text in self._trouble.items() if own not in speaks} | trouble

    def _show(self) -> None:
        """Say where peers reach our addresses."""
        mapped = {own.address: at.address for own, at in self._mappings.told.items()}
        found = self._outside | mapped
        if found != self._pinholes.reach.in_front:
            self._pinholes.reach.in_front = found
            self._changed()

    def _save(self) -> None:
        """Keep what is asked for, before it is. Without that the mappings end by themselves."""
        own = [*self._asked, *(one for one in self._left if one not in self._asked)]
        told = self._left | self._mappings.told
        document = {"nonce": self._nonce.hex(), "mappings": [[one, told.get(one)] for one in own]}
        aside = self._record.with_suffix(".new")
        with suppress(OSError):
            with open(
                os.open(aside, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW, 0o600), "w"
            ) as file:
                file.write(json.dumps(document))
            aside.replace(self._record)

    def _send(self, message: dict[str, Any]) -> bool:
        try:
            if self._link is not None:
                self._link.send(json.dumps(message).encode())
                return True
        except OSError as error:
            log.warning("upstream: the process that asks the router in front does not listen: %s", error)
            self._asked = {}  # said again with the next look
        return False

    def _end(self) -> None:
        """Let go of the process."""
        if self._link is not None:
            if self._selector is not None:
                with suppress(KeyError, ValueError):
                    self._selector.unregister(self._link)
            self._link.close()
            self._link = None
        if self._process is not None:
            if self._process.poll() is None:
                self._process.kill()
            self._process.wait()
            self._process = None


def _printable(texts: dict[str, str]) -> dict[str, str]:
    """What may be logged of texts by our addresses, which another device may have worded."""
    return {
        own: "".join(letter if letter.isprintable() else "?" for letter in text[:300])
        for own, text in texts.items()
        if is_address(own)
    }
