"""The fakes and the wire of fakes.py, with OSCAR spoken on it."""

from __future__ import annotations

from dataclasses import replace
from typing import Final, Self

from nfreaim.core.firewall.policy import PinholePolicy
from nfreaim.core.helper import Helper, HelperFactory, HelperSpec
from nfreaim.core.settings import EngineSettings
from nfreaim.helpers.oscar import OSCAR
from nfreaim.helpers.oscar.session import OscarHelper
from tests.oscar.signon import CLIENT_SIGNON, HOST_ONLINE, SIGNON
from tests.unit import fakes


class AnyNumbers(OscarHelper):
    """For tests that are about anything else: golden frames keep the numbers that they were recorded with."""

    slacks = (0x8000, 0x8000)


def capped(most: int) -> dict[str, tuple[str, int]]:
    """PinholePolicy.caps: so many standing pinholes for a host."""
    return dict.fromkeys(OSCAR.switches["icq_direct"], ("icq_per_host", most))


CAPS: Final = capped(4)


def spec_of(helper: HelperFactory) -> HelperSpec:
    """OSCAR, read by *helper*."""
    return replace(OSCAR, load=lambda: helper)


def kept_bytes(helper: Helper | None, direction: int) -> int:
    """How many bytes of an incomplete frame the helper keeps."""
    return len(helper._readers[direction].kept) if isinstance(helper, OscarHelper) else 0


class Router(fakes.Router):
    """An engine that reads OSCAR, with its fakes."""

    def __init__(
        self,
        settings: EngineSettings | None = None,
        policy: PinholePolicy | None = None,
        helper: HelperFactory = AnyNumbers,
    ) -> None:
        super().__init__(settings, policy or PinholePolicy(caps=CAPS), spec_of(helper))

    def kept_bytes(self, helper: Helper, direction: int) -> int:
        return kept_bytes(helper, direction)


class Wire(fakes.Wire):
    """A connection between an OSCAR client and its server."""

    def make_router(self) -> fakes.Router:
        return Router()

    def sign_on(self) -> Self:
        """Everything up to the point where proposals are read."""
        self.handshake()
        self.server(SIGNON, [1, 2, 4, 6])
        self.client(CLIENT_SIGNON)
        self.server(HOST_ONLINE, [1, 2, 4, 6])
        return self
