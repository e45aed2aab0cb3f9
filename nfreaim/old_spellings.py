"""Spellings of the first version that still work, and the spelling of today for each.

The first version read OSCAR (AIM and ICQ) only, so its configuration, its options, its records and the
comments of its pinholes name no protocol. This file alone says which protocol they mean.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final, NamedTuple

from nfreaim.errors import ConfigError

DEFAULT_PROTOCOL: Final = "oscar"
"""The protocol of a configuration, option, record or comment that names none."""

DEFAULT_QUEUE: Final = 5190
"""The queue of an installation that names none. It stays, because installed rules fill it."""

_PINHOLES: Final = "pinholes"


class Key(NamedTuple):
    """A key of the configuration file; the section of the top level is ""."""

    section: str
    name: str

    def __str__(self) -> str:
        return f"{self.section}.{self.name}" if self.section else self.name


MOVED: Final = {
    Key("", "ports"): Key(DEFAULT_PROTOCOL, "ports"),
    Key("", "icq_direct"): Key(DEFAULT_PROTOCOL, "icq_direct"),
    Key(_PINHOLES, "icq_per_host"): Key(DEFAULT_PROTOCOL, "icq_per_host"),
}
"""Keys of the configuration file that are in a protocol's section today."""


def move_keys(document: dict[str, Any], name: str) -> dict[Key, Key]:
    """Move the values of old keys in *document*, of the file *name*, to the keys of today.

    Returns the old key of each new one that got such a value. Raises ConfigError if both are given.
    """
    moved: dict[Key, Key] = {}
    for old, new in MOVED.items():
        source = document.get(old.section) if old.section else document
        target = document.get(new.section, {})
        if not isinstance(source, dict) or old.name not in source or not isinstance(target, dict):
            continue  # config.py refuses a value in place of a section
        if new.name in target:
            raise ConfigError(
                f"{name}: {old} is the older spelling of {new}, and both are given; remove {old}"
            )
        document[new.section] = target
        target[new.name] = source.pop(old.name)
        moved[new] = old
    return moved


def migrate_record(record: Mapping[str, Any]) -> dict[str, Any]:
    """A flow's record of any earlier daemon, with the name of its protocol."""
    return {"protocol": DEFAULT_PROTOCOL, **record}
