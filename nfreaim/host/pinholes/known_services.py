"""KnownServices: what the protocols say of the services that peers connect for."""

from __future__ import annotations

from collections.abc import Iterable

from nfreaim.core.greeting import Greeting
from nfreaim.core.helper import HelperSpec, Service


class KnownServices:
    """The services of the protocols *specs*."""

    def __init__(self, specs: Iterable[HelperSpec]) -> None:
        self._specs = {spec.name: spec for spec in specs}

    def greetings(self, protocol: str, service: str) -> tuple[Greeting, ...]:
        """What a peer's first bytes may be; nothing of an unknown protocol or service."""
        spec = self._specs.get(protocol)
        if spec is None:
            return ()
        return spec.unverified.get(service) or spec.services.get(service, Service()).greetings

    def quiet_end(self, protocol: str, service: str) -> bool:
        """Whether peers that come after the pinhole was closed get no answer."""
        spec = self._specs.get(protocol)
        return spec is not None and spec.services.get(service, Service()).quiet_end
