"""The interfaces of a daemon that runs with --auto: those that are named, or that this machine shows.

Forwarding, the default route and the firewall may all come after the daemon, at a boot or when the operator
sets up the router. So it waits as long as there are none (``idling``).
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from nfreaim.config import Config
from nfreaim.errors import BackendError
from nfreaim.host.auto.auto_interfaces import Interfaces, Unclear, look
from nfreaim.host.rules import script


def named(config: Config, rules_first: bool) -> Config | Unclear:
    """*config* with interfaces, or why there are none.

    Interfaces that the configuration names count. Otherwise those that are found do, and those that rules
    are installed for: connections go on if the daemon is restarted, or the rules are made anew, while an
    uplink is down. *rules_first*: the rules are not made anew, so theirs count more. Raises BackendError.
    """
    if config.lan or config.wan:
        return config
    if rules_first and (installed := _installed(config)):
        return installed
    found = shown(config)
    if isinstance(found, Unclear) and not rules_first and (installed := _installed(config)):
        return installed
    return found


def shown(config: Config) -> Config | Unclear:
    """The same without the rules, which take programs long to look at."""
    if config.lan or config.wan:
        return config
    found = look()
    if isinstance(found, Interfaces):
        return replace(config, lan=found.lan, wan=(found.wan,))
    return found


def found_or_told(config: Config) -> tuple[Config, str | None]:
    """For a command beside the daemon: *config* with interfaces and "", or as it was with the reason.

    None in place of "" if interfaces are named. Raises nothing: what the machine does not tell is the reason.
    """
    if config.lan or config.wan:
        return config, None
    try:
        found = named(config, rules_first=True)
    except BackendError as error:
        found = Unclear(str(error))
    return (config, found.told(config.file)) if isinstance(found, Unclear) else (found, "")


def as_document(config: Config) -> dict[str, Any]:
    """For a daemon that serves what nobody named: what it would serve if it began now.

    named  whether the configuration names interfaces by now; then nothing else is told
    lan, wan, why  the interfaces that are found, and why nobody would be served ("": somebody would be)

    Raises BackendError.
    """
    if config.lan or config.wan:
        return {"named": True}
    found = shown(config)
    if isinstance(found, Unclear):
        return {"named": False, "lan": [], "wan": [], "why": found.why}
    return {"named": False, "lan": [*found.lan], "wan": [*found.wan], "why": ""}


def _installed(config: Config) -> Config | None:
    listed, _ = script.shown(script.start(["show"]))
    found = script.settings(listed)
    return None if found is None else replace(config, lan=found.lan, wan=found.wan)
