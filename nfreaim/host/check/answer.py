"""Check: the answer about one prerequisite, as `nfreaim check` prints it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final, Literal

Group = Literal["machine", "network", "firewall", "protocols", "neighbours", "self-test", ""]

GROUPS: Final[tuple[Group, ...]] = (
    *("machine", "network", "firewall", "protocols", "neighbours", "self-test"),
)
"""In the order in which they are told: this machine and its kernel; links, routes and addresses; rules, ours
and those in our way; what is read, and who speaks for whom; other programs."""


@dataclass(frozen=True)
class Check:
    """The answer about one prerequisite. *remedy* is empty if there is nothing to do.

    A hint is about something that is not amiss; "done" is about something that was repaired just now.
    """

    status: Literal["ok", "warn", "FAIL", "hint", "done"]
    text: str
    remedy: str = ""
    group: Group = ""

    def __str__(self) -> str:
        return f"{self.status:<4} {self.text}" + (f" -> {self.remedy}" if self.remedy else "")

    def document(self) -> dict[str, str]:
        """As JSON has it."""
        return {"group": self.group, "status": self.status, "text": self.text, "remedy": self.remedy}


Checks = Iterator[Check]
