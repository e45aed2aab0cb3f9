"""LinuxHomeServers: decides which servers, on the inside or on this router, may speak for which hosts.

Any program that can be reached on a server's port looks like a server, and what it relays are its own words.
So somebody else has to say that it is a server: the configuration; a forward that the operator made; the user
that runs it, on the router itself; or, for one host alone, this host's own connection to it.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Hashable
from contextlib import suppress
from typing import Final

from nfreaim.config import Config
from nfreaim.core.address import Endpoint, FlowId
from nfreaim.errors import BackendError
from nfreaim.host.home import local_sockets
from nfreaim.host.home.clients import Clients
from nfreaim.host.home.forward_reader import ForwardReader
from nfreaim.host.home.sight import Sight
from nfreaim.host.home.trust import on_request, remedy_for, run_by, strangers, trusted_users, users_remedy
from nfreaim.host.netfilter.interfaces import is_own

log = logging.getLogger("nfreaim")

_CACHE_S: Final = 1.0
_CACHE_SIZE: Final = 1024
_SAID_SIZE: Final = 256


class LinuxHomeServers:
    """core.backend.HomeServers. *clock* tells the time."""

    def __init__(self, config: Config, clock: Callable[[], float]) -> None:
        self._named = config.home_servers
        self._users = trusted_users(config.home_server_users)
        self._file = config.file
        self._clock = clock
        self._forwards = ForwardReader(clock)
        self._clients = Clients(clock)
        self._sight = Sight()
        self._on_request: int | None = None
        self._answers: dict[Hashable, tuple[float, str | None]] = {}
        self._said: set[tuple[Endpoint, str]] = set()

    def obey(self, config: Config) -> None:
        """From now on the servers and users that *config* names are trusted."""
        self._named = config.home_servers
        self._users = trusted_users(config.home_server_users)
        self._answers.clear()

    def close(self) -> None:
        """Close the sockets."""
        self._forwards.close()
        self._clients.close()

    def look(self) -> None:
        """Call it every few seconds: notices UPnP and PCP, which must not become unnoticed by a pause."""
        with suppress(OSError):  # whoever asks is told
            self._notice_requests()

    # --- core.backend.HomeServers ---

    def met(self, flow: FlowId) -> None:
        if not self._is_named(flow.server) and not is_own(flow.server.address):
            self._forwards.look()

    def why_not(self, flow: FlowId, reached: Endpoint, host: str) -> str | None:
        server = flow.server
        if self._is_named(server):
            return None
        own = is_own(server.address)
        remedy = users_remedy(self._file) if own else remedy_for(server, self._file)
        try:
            if own:
                problem = self._kept(flow, lambda: self._run_by_stranger(flow))
            else:
                problem = self._kept((server, reached, host), lambda: self._unknown_at(server, reached, host))
        except (OSError, ValueError) as error:
            named = remedy_for(server, self._file)
            raise BackendError(f"who runs {server} cannot be told: {error}; remedy: {named}") from error
        if problem is None:
            return None
        if (server, problem) not in self._said and len(self._said) < _SAID_SIZE:
            self._said.add((server, problem))
            log.warning(
                "%s may not speak for others: %s; if it is a server of yours, %s", server, problem, remedy
            )
        return f"{server} may not speak for {host}: {problem}; remedy: {remedy}"

    def port_of(self, server: Endpoint, address: str) -> int | None:
        if is_own(server.address):
            return server.port
        return self._forwards.port_of(server, address)

    def _is_named(self, server: Endpoint) -> bool:
        return any(named.covers(server) for named in self._named)

    def _run_by_stranger(self, flow: FlowId) -> str | None:
        """Why a server on this router is not the operator's."""
        accepted = local_sockets.accepted_by(flow)
        if accepted is None:
            return "nobody on this router has this connection"
        listening = local_sockets.listeners(flow.server.port, flow.server.address)
        found = strangers({accepted, *listening}, self._users)
        return run_by(min(found)) if found else None

    def _unknown_at(self, server: Endpoint, reached: Endpoint, host: str) -> str | None:
        """Why a server on the inside is not the operator's, or not for *host*."""
        problem = self._kept((server, reached), lambda: self._no_forward(server, reached))
        if problem is None:
            if self._may_be_client(host, server):
                return None
            return "the hosts that it names have no connection to it"
        if self._sight.cannot_imitate(host, server.address) and self._clients.has(host, server, whole=True):
            return None
        return problem

    def _no_forward(self, server: Endpoint, reached: Endpoint) -> str | None:
        """Why no forward says that *server* is the operator's."""
        self._notice_requests()
        if self._on_request is not None:
            return on_request(self._on_request)
        if not self._forwards.leads(reached, server):
            return f"no rule forwards exactly {reached} to it"
        return None

    def _kept(self, question: Hashable, answer: Callable[[], str | None]) -> str | None:
        """The answer, which is asked for once in a second."""
        now = self._clock()
        until, known = self._answers.get(question, (0.0, None))
        if now >= until:
            known = answer()
            if len(self._answers) >= _CACHE_SIZE:
                self._answers.clear()
            self._answers[question] = now + _CACHE_S, known
        return known

    def _notice_requests(self) -> None:
        if self._on_request is None:
            self._on_request = local_sockets.serves_on_request()

    def _may_be_client(self, host: str, server: Endpoint) -> bool:
        """Whether *host* is a client of *server*, or its connection would not be seen here."""
        if host == server.address or not self._sight.passes(host, server.address):
            return True
        return self._clients.has(host, server, whole=False)
