"""ShutPorts: outside ports of pinholes that were closed, where new connections get no answer for a while.

Some clients wait for ever if their connection is refused, and go another way only if nothing answers. The
kernel forgets an entry of the set by itself; a port that somebody else has by now is taken out.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from contextlib import suppress
from typing import Final

from nfreaim.core.address import Endpoint
from nfreaim.errors import BackendError
from nfreaim.host.netfilter.kernel_sets import EndpointSet
from nfreaim.host.netfilter.names import MOST_SHUT, SHUT_TIMEOUT_S

log = logging.getLogger("nfreaim")

_LOOKED_AT: Final = 64
"""Ports that are looked at in one call; each takes some microseconds."""


class ShutPorts:
    """The ports. *busy* tells whether something else on the router answers there, *clock* the time.

    shut_set  has them in the kernel
    """

    def __init__(
        self, busy: Callable[[Endpoint], bool], clock: Callable[[], float], shut_set: EndpointSet
    ) -> None:
        self._busy = busy
        self._clock = clock
        self._set = shut_set
        self._until: dict[Endpoint, float] = {}
        self._troubled = False

    def close(self) -> None:
        """Close the socket."""
        self._set.close()

    def shut(self, outside: Endpoint) -> None:
        """The pinhole there is closed. Raises nothing: then peers are refused."""
        if len(self._until) >= MOST_SHUT or self._busy(outside):
            return
        try:
            self._set.add(outside)
        except BackendError as error:
            log.log(logging.DEBUG if self._troubled else logging.WARNING, "closed pinholes: %s", error)
            self._troubled = True
            return
        self._until[outside] = self._clock() + SHUT_TIMEOUT_S

    def opened(self, outside: Endpoint) -> None:
        """A pinhole is there, or somebody else."""
        if self._until.pop(outside, None) is not None:
            with suppress(BackendError):  # then it ends by its time-out, and the rules prefer a pinhole
                self._set.delete(outside)

    def upkeep(self) -> None:
        """Forget what is over, and what belongs to somebody else by now. Call it every second."""
        now = self._clock()
        for outside, until in list(self._until.items())[:_LOOKED_AT]:
            del self._until[outside]
            if until > now:
                self._until[outside] = until  # at the end, so that each has its turn
                if self._busy(outside):
                    self.opened(outside)
