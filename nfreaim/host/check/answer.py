"""Check: the answer about one prerequisite, as `nfreaim check` prints it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class Check:
    """The answer about one prerequisite. *remedy* is empty if there is nothing to do."""

    status: Literal["ok", "warn", "FAIL"]
    text: str
    remedy: str = ""

    def __str__(self) -> str:
        return f"{self.status:<4} {self.text}" + (f" -> {self.remedy}" if self.remedy else "")


Checks = Iterator[Check]
