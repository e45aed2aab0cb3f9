"""What a machine shows of itself and which rules it has, for tests of who is served where nobody is named."""

from __future__ import annotations

from dataclasses import replace

import pytest

from nfreaim.config import Config
from nfreaim.errors import BackendError
from nfreaim.host.auto import served_interfaces
from nfreaim.host.auto.auto_interfaces import Interfaces, Unclear

Seen = Interfaces | Unclear | BackendError


class Stage:
    """*found*: what is seen at a look. *rules*: the interfaces of rules that are installed."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.found: Seen = Unclear("it is none")
        self.rules: tuple[str, str] | None = None
        monkeypatch.setattr(served_interfaces, "look", self._look)
        monkeypatch.setattr(served_interfaces, "_installed", self._installed)

    def _look(self) -> Interfaces | Unclear:
        if isinstance(self.found, BackendError):
            raise self.found
        return self.found

    def _installed(self, config: Config) -> Config | None:
        return None if self.rules is None else replace(config, lan=(self.rules[0],), wan=(self.rules[1],))
