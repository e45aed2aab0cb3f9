"""What a messenger of the second table is made of: see demo.messengers, which lists them and runs them."""

from __future__ import annotations

from collections.abc import Callable, Hashable
from dataclasses import dataclass
from typing import Protocol

from tests.lab.net import Lab


@dataclass(frozen=True)
class Result:
    """What came of one attempt: whether all of it arrived, after how many seconds, and why not.

    *note* stands in the table beside the time, such as "(server)" for bytes that took the server's way.
    """

    ok: bool
    seconds: float
    reason: str = ""
    note: str = ""


@dataclass(frozen=True)
class Attempt:
    """One row in one network.

    title      first column of the table; one of its messenger's `titles`
    pair       attempts with equal pairs are made one after the other, all others side by side
    make       makes the attempt
    objection  what is wrong with a result where nfreaim runs on these routers; empty if nothing
    """

    title: str
    pair: Hashable
    make: Callable[[], Result]
    objection: Callable[[Result, tuple[str, ...]], str]


class Messenger(Protocol):
    """One messenger's part of the second table."""

    @property
    def protocol(self) -> str:
        """Its name in the configuration's ``protocols``, and in ``make demo MESSENGERS=...``."""

    @property
    def settings(self) -> str:
        """What else the daemons need in their configuration, as TOML; with ``protocols`` on top of it."""

    @property
    def titles(self) -> tuple[str, ...]:
        """Its rows, from top to bottom."""

    @property
    def footnotes(self) -> tuple[str, ...]:
        """What is said below the table."""

    def prepare(self, lab: Lab) -> None:
        """What an operator sets up on the routers, before nfreaim starts."""

    def online(self, lab: Lab) -> list[Attempt]:
        """Start servers and clients, sign on (nfreaim is running, where it shall), and say what to try."""
