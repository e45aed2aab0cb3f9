"""Mapper: a process of its own that has the router in front map the ports that the daemon wants.

An answer of that router may take seconds, so the daemon does not wait for one: it says which of our endpoints
are wanted, and is told which are mapped. The process has no privileges, because it reads what another device
says. Messages are JSON, one a datagram of a SOCK_SEQPACKET pair:

    to it    {"number": n, "wanted": [[address, port], ...], "left": [[address, port, address, port], ...]}
    back     {"number": n, "told": [[address, port, address, port], ...], "outside": {address: address},
              "speaks": {address: text}, "trouble": {address: text}}
    at last  {"stop": true}

``wanted`` are endpoints of ours; ``told`` has those that are mapped, each with the endpoint that it is
reached at; ``left`` are such of an earlier daemon. By our address, ``outside`` is that of the router in
front, ``speaks`` what it speaks, ``trouble`` what is wrong. A message replaces what was said before.
"""

from __future__ import annotations

import json
import signal
import socket
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Final

from nfreaim.core.address import Endpoint
from nfreaim.core.reach import unreachable
from nfreaim.host.upstream import igd
from nfreaim.host.upstream.gateway import Gateway, Mapped, NoMapping, hidden_addresses, in_front_of
from nfreaim.host.upstream.port_control import NONCE_SIZE, PortControl
from nfreaim.host.upstream.unprivileged import become_nobody

MODULE: Final = "nfreaim.host.upstream.mapper"
"""The name of this module, which is run as a program."""

LARGEST_MESSAGE: Final = 1 << 16

_AGAIN_FIRST_S, _AGAIN_MOST_S = 15.0, 300.0  # after the router in front refused, doubled each time
_PRIVATE: Final = "its own outside address is {} ({}), so it is behind another router itself"
_SEND_S: Final = 60.0  # for the daemon to read what it is told
_STOP_S: Final = 5.0  # to give all mappings back
_LOOK_S: Final = 120.0  # between two questions for the outside address of the router in front
_LEAST_S: Final = 1.0  # between two renewals, whatever lifetime the router grants

Ask = Callable[[str], Iterator[Callable[[], Gateway]]]
"""Our address -> the ways to ask the router in front of it, the best one first. Each raises NoMapping."""


@dataclass
class _Held:
    """A mapping that the router in front has granted: where it is reached, and until when.

    told  None: that is not known, of one that an earlier daemon asked for
    """

    told: Endpoint | None
    renew: float
    ends: float


@dataclass
class _Uplink:
    """What is known of the router in front of one of our addresses."""

    gateway: Gateway | None = None
    outside: str | None = None
    trouble: str = ""
    again: float = 0.0
    wait: float = _AGAIN_FIRST_S


class Mapper:
    """Brings what is mapped in line with what is wanted, one request after another.

    addresses  returns those of ours that peers cannot reach: servers at home are told by the address of the
               router in front, also while nothing is mapped
    """

    def __init__(
        self,
        ask: Ask,
        addresses: Callable[[], list[str]] = list,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._ask, self._addresses, self._clock = ask, addresses, clock
        self._look_at = 0.0
        self._unasked: list[str] = []
        self._wanted: list[Endpoint] = []
        self._held: dict[Endpoint, _Held] = {}
        self._uplinks: dict[str, _Uplink] = {}

    def left(self, found: Iterable[tuple[Endpoint, Endpoint | None]]) -> None:
        """An earlier daemon asked for these: they are renewed or given back."""
        for own, told in found:
            self._held.setdefault(own, _Held(told, 0.0, self._clock() + _AGAIN_MOST_S))

    def want(self, wanted: list[Endpoint]) -> None:
        """From now on these endpoints of ours are to be mapped, and no others."""
        self._wanted = wanted

    def told(self) -> dict[Endpoint, Endpoint]:
        """The wanted ones that are mapped, and where they are reached."""
        known = ((own, self._held.get(own)) for own in self._wanted)
        return {own: held.told for own, held in known if held is not None and held.told is not None}

    def outside(self) -> dict[str, str]:
        """The outside address of the router in front of each of our addresses, as far as it tells."""
        return {own: uplink.outside for own, uplink in self._uplinks.items() if uplink.outside}

    def speaks(self) -> dict[str, str]:
        """What the router in front of each address speaks, where it has answered."""
        uplinks = self._uplinks.items()
        return {own: uplink.gateway.protocol for own, uplink in uplinks if uplink.gateway is not None}

    def trouble(self) -> dict[str, str]:
        """What is wrong, by our address."""
        return {own: uplink.trouble for own, uplink in self._uplinks.items() if uplink.trouble}

    def step(self) -> bool:
        """Make one request, if one is due."""
        now = self._clock()
        self._held = {own: held for own, held in self._held.items() if held.ends > now}
        for own in [own for own in self._held if own not in self._wanted]:
            self._give_back(own)
            return True
        for own in [*self._held, *self._wanted]:
            held = self._held.get(own)
            if (held is None or held.renew <= now) and self._uplink(own).again <= now:
                self._map(own)
                return True
        if now >= self._look_at:
            self._look_at = now + _LOOK_S
            self._unasked = list(self._addresses())
        if self._unasked:
            self._look(self._unasked.pop())
            return True
        return False

    def due(self) -> float:
        """When ``step`` has something to do next."""
        times = [max(held.renew, self._uplink(own).again) for own, held in self._held.items()]
        times += [held.ends for held in self._held.values()]
        times += [self._uplink(own).again for own in self._wanted if own not in self._held]
        return min([*times, self._look_at])

    def stop(self) -> None:
        """Give everything back, as far as there is time."""
        until = self._clock() + _STOP_S
        self._wanted = []
        while self._held and self._clock() < until:
            self.step()

    def _uplink(self, own: Endpoint) -> _Uplink:
        return self._uplinks.setdefault(own.address, _Uplink())

    def _look(self, address: str) -> None:
        """Ask for the outside address of the router in front of *address*."""
        uplink = self._uplinks.setdefault(address, _Uplink())
        reasons = []
        for make in self._ask(address):
            try:
                found = make().outside()
                if found is not None and (kind := unreachable(found)):
                    raise NoMapping(_PRIVATE.format(found, kind))
            except NoMapping as error:
                reasons.append(str(error))
                continue
            uplink.outside = found
            return
        uplink.outside = None
        if uplink.gateway is None:  # else mappings tell
            self._failed(uplink, _joined(reasons))

    def _map(self, own: Endpoint) -> None:
        """Have *own* mapped, or renew that."""
        uplink, held = self._uplink(own), self._held.get(own)
        suggested = held.told.port if held is not None and held.told is not None else own.port
        try:
            mapped = self._granted(uplink, own, suggested)
            if kind := unreachable(mapped.told.address):
                self._held[own] = _Held(mapped.told, 0.0, 0.0)
                self._give_back(own)
                raise NoMapping(_PRIVATE.format(mapped.told.address, kind))
        except NoMapping as error:
            self._failed(uplink, str(error))
            return
        now = self._clock()
        uplink.trouble, uplink.again, uplink.wait = "", 0.0, _AGAIN_FIRST_S
        if uplink.gateway is not None and uplink.gateway.forgot:
            for other, known in self._held.items():
                if other.address == own.address:
                    known.renew = 0.0
        renew = now + max(_LEAST_S, mapped.seconds / 2)
        self._held[own] = _Held(mapped.told, renew, now + mapped.seconds)

    def _granted(self, uplink: _Uplink, own: Endpoint, suggested: int) -> Mapped:
        if uplink.gateway is not None:
            return uplink.gateway.map(own.port, suggested)
        reasons = []
        for make in self._ask(own.address):
            try:
                gateway = make()
                mapped = gateway.map(own.port, suggested)
            except NoMapping as error:
                reasons.append(str(error))
                continue
            uplink.gateway = gateway
            return mapped
        raise NoMapping(_joined(reasons))

    def _failed(self, uplink: _Uplink, why: str) -> None:
        uplink.trouble, uplink.gateway = why, None  # it is looked for anew, as it may be another one now
        uplink.again = self._clock() + uplink.wait
        uplink.wait = min(_AGAIN_MOST_S, 2 * uplink.wait)

    def _give_back(self, own: Endpoint) -> None:
        """End a mapping. If that fails it ends by itself, for want of a renewal."""
        held, uplink = self._held.pop(own), self._uplink(own)
        if uplink.again > self._clock():
            return
        port = held.told.port if held.told is not None else own.port
        if uplink.gateway is not None:
            with suppress(NoMapping):
                uplink.gateway.unmap(own.port, port)
            return
        for make in self._ask(own.address):
            with suppress(NoMapping):
                make().unmap(own.port, port)
                return


def _joined(reasons: Iterable[str]) -> str:
    """Each of them once."""
    return "; ".join(dict.fromkeys(reasons))


def ways(mode: str, nonce: bytes) -> Ask:
    """How the router in front is asked by the setting ``upstream`` = *mode*: "auto", "pcp" or "upnp"."""

    def ask(own: str) -> Iterator[Callable[[], Gateway]]:
        gateway = ""

        def at() -> str:
            nonlocal gateway
            gateway = gateway or in_front_of(own)
            return gateway

        if mode in ("auto", "pcp"):
            yield lambda: PortControl(own, at(), nonce)
        if mode in ("auto", "upnp"):
            yield lambda: igd.InternetGateway(own, at(), igd.library())

    return ask


def serve(link: socket.socket, mapper: Mapper) -> None:
    """Do what the daemon at the other end of *link* wants, until it says stop or has gone.

    What is mapped when it has gone without a word stays for the next one, which knows of it, and ends soon.
    """
    number, said = 0, ""
    while True:
        busy = mapper.step()
        state = {
            "number": number,
            "told": [[*own, *told] for own, told in mapper.told().items()],
            "outside": mapper.outside(),
            "speaks": mapper.speaks(),
            "trouble": mapper.trouble(),
        }
        if (text := json.dumps(state)) != said:
            link.settimeout(_SEND_S)
            link.send(text.encode())
            said = text
        link.settimeout(0.0 if busy else min(60.0, max(0.001, mapper.due() - time.monotonic())))
        try:
            data = link.recv(LARGEST_MESSAGE)
        except (BlockingIOError, TimeoutError):
            continue
        if not data:
            return
        message = json.loads(data)
        if message.get("stop"):
            mapper.stop()
            return
        number = message["number"]
        mapper.left(_left(message["left"]))
        mapper.want([Endpoint(address, port) for address, port in message["wanted"]])


def _left(found: Iterable[list[Any]]) -> Iterator[tuple[Endpoint, Endpoint | None]]:
    for address, port, told, told_port in found:
        yield Endpoint(address, port), Endpoint(told, told_port) if told else None


def main(words: list[str]) -> None:
    """The process: the descriptor of its socket, the setting ``upstream``, the nonce in hexadecimal, and the
    outside interfaces.
    """
    for number in (
        signal.SIGTERM,
        signal.SIGINT,
        signal.SIGHUP,
    ):  # systemd sends them to all; the daemon tells
        signal.signal(number, signal.SIG_IGN)
    link, mode, nonce = socket.socket(fileno=int(words[0])), words[1], bytes.fromhex(words[2])
    assert len(nonce) == NONCE_SIZE
    with suppress(NoMapping):
        igd.library()  # while it can be read
    become_nobody(MODULE, words)
    with suppress(ConnectionError):
        serve(link, Mapper(ways(mode, nonce), lambda: hidden_addresses(words[3:])))


if __name__ == "__main__":
    main(sys.argv[1:])
