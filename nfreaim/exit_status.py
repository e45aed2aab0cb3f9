"""The exit statuses of every command. Their texts here are also those of `--help`, README and manual page."""

from __future__ import annotations

from enum import IntEnum
from typing import Final

from nfreaim.errors import AbsentError, BackendError, ConfigError


class Exit(IntEnum):
    """What a command's end says to scripts and service managers."""

    FINE = 0
    TROUBLED = 1
    MISUSED = 2
    ABSENT = 3

    @classmethod
    def of(cls, error: ConfigError | BackendError) -> Exit:
        """The status of a command that *error* ends."""
        if isinstance(error, ConfigError):
            return cls.MISUSED
        return cls.ABSENT if isinstance(error, AbsentError) else cls.TROUBLED


MEANING: Final = {
    Exit.FINE: "done, and nothing is amiss",
    Exit.TROUBLED: "the machine refused, or what runs is in trouble: a check failed, the daemon had to end",
    Exit.MISUSED: "the command line or the configuration is wrong; the same again ends the same",
    Exit.ABSENT: "what was asked about is not there: a daemon that answers, a history, or all of the rules",
}
"""One line for each, in the order of the numbers."""


def table() -> str:
    """The statuses and their meanings, one line each."""
    return "\n".join(f"{status:d}  {text}" for status, text in MEANING.items())
