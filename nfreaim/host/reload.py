"""Reload: reads the configuration again while the daemon serves, and puts in force what can be changed.

SIGHUP asks for it, as ``reload_command`` does. A configuration that is wrong changes nothing.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import fields, replace
from typing import Any, Final

from nfreaim.config import Config
from nfreaim.errors import BackendError, ConfigError
from nfreaim.host.loop import clock

log = logging.getLogger("nfreaim")

_IN_FORCE: Final = {"log_level", "home_servers", "home_server_users", "pinholes"}
_OF_REACH: Final = ("announce", "upstream")  # fields of the policy that make core.reach.Reach
# The keys of fields whose names are others in the file.
_KEYS: Final = {
    "ports": "protocols or their ports",
    "marks": "mark_mask or connmark_mask",
    "engine": "hold_ms or server_names",
    "announce": "outside_address",
    "log_format": "format in [log]",
}


def in_force(old: Config, new: Config) -> Config:
    """*old* with what a daemon that runs takes over from *new*."""
    same_ports = new.serving(old.ports)  # the limits of the protocols that are read
    began = {name: getattr(old.pinholes, name) for name in _OF_REACH}
    policy = replace(same_ports.pinholes, **began)
    return replace(
        old,
        log_level=new.log_level,
        home_servers=new.home_servers,
        home_server_users=new.home_server_users,
        pinholes=policy,
        sections=new.sections,
    )


def for_a_restart(old: Config, new: Config) -> list[str]:
    """The keys whose change takes effect at the next start."""
    found = [
        _KEYS.get(field.name, field.name)
        for field in fields(Config)
        if field.compare
        and field.name not in _IN_FORCE
        and getattr(old, field.name) != getattr(new, field.name)
    ]
    changed = [name for name in _OF_REACH if getattr(old.pinholes, name) != getattr(new.pinholes, name)]
    return found + [_KEYS.get(name, name) for name in changed]


class Reload:
    """Of a daemon that began with *config*; *reread* reads its file and command line again, or raises
    ConfigError.

    obeyers  are called with the settings that have come into force. They may raise BackendError
    """

    def __init__(self, config: Config, reread: Callable[[], Config]) -> None:
        self.obeyers: list[Callable[[Config], None]] = []
        self._began, self._config, self._reread = config, config, reread
        self._told: dict[str, Any] = {"at": None, "error": "", "restart": []}

    def as_dict(self) -> dict[str, Any]:
        """For the status: when it was last done, on the clock of the daemon; what was wrong; and the keys
        whose change takes effect at the next start."""
        return self._told

    def work(self) -> None:
        """Do it. Raises nothing, because the daemon goes on with what it had."""
        problem, restart = "", []
        try:
            wanted = self._reread()
            restart = for_a_restart(self._began, wanted)
            config = in_force(self._config, wanted)
            for obey in self.obeyers:
                obey(config)
            self._config = config
        except (ConfigError, BackendError) as error:
            problem = str(error)
            log.error("the configuration was not taken over: %s", problem)
        else:
            logging.getLogger("nfreaim").setLevel(self._config.log_level.upper())
            log.info("the configuration was read again")
        if restart:
            log.warning("changed, and in force only after a restart: %s", ", ".join(restart))
        self._told = {"at": clock(), "error": problem, "restart": restart}
