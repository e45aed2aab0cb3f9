"""A firewall below the table of pinholes, which holds them in a list."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from nfreaim.core.address import Endpoint
from nfreaim.core.firewall.pinhole import Pinhole
from nfreaim.errors import BackendError


class FakeFirewall:
    """Holds pinholes in a list. Set `refuse_add`, `refuse_remove`, `taken` to make it difficult.

    changes   how often something was put or dropped
    renewing  whether the time of all pinholes has come to be renewed
    prepared  the hosts that were announced to it
    """

    def __init__(self) -> None:
        self.pinholes: list[Pinhole] = []
        self.taken: set[Endpoint] = set()
        self.foreign: set[Endpoint] = set()
        self.refuse_add: bool | Callable[[Pinhole], bool] = False
        self.refuse_remove: bool | Callable[[Pinhole], bool] = False
        self.changes = self.upkeeps = 0
        self.renewing = False
        self.prepared: list[str] = []

    def open(self, pinhole: Pinhole, earlier: Pinhole | None) -> None:
        assert pinhole != earlier, "the kernel is asked for what it has"
        self._refuse(self.refuse_add, pinhole)
        assert earlier is None or earlier in self.pinholes, "what is replaced was never there"
        self.changes += 1
        self.pinholes = [*(old for old in self.pinholes if old != earlier), pinhole]
        outside = [pinhole.outside for pinhole in self.pinholes]
        assert len(set(outside)) == len(outside), "two pinholes share an outside endpoint"

    def close(self, pinhole: Pinhole) -> None:
        self._refuse(self.refuse_remove, pinhole)
        self.changes += 1
        self.pinholes = [old for old in self.pinholes if old != pinhole]

    def renew(self, pinholes: Sequence[Pinhole]) -> Sequence[Pinhole]:
        """Keeps them, and puts back what a test has taken out of `pinholes`."""
        absent = [pinhole for pinhole in pinholes if pinhole not in self.pinholes]
        for pinhole in absent if self.renewing else ():
            self.open(pinhole, None)
        return absent if self.renewing else []

    def prepare(self, host: str) -> None:
        self.prepared.append(host)

    def upkeep(self) -> None:
        self.upkeeps += 1

    @staticmethod
    def _refuse(wish: bool | Callable[[Pinhole], bool], pinhole: Pinhole) -> None:
        if wish is True or (callable(wish) and wish(pinhole)):
            raise BackendError("resource temporarily unavailable")

    def list(self) -> list[Pinhole]:
        return list(self.pinholes)

    def busy(self, outside: Endpoint) -> bool:
        return outside in self.taken

    def forwarded(self, outside: Endpoint) -> bool:
        return outside in self.foreign
