"""`nfreaim check --fix`: installs our rules, and loads modules for them. No file of others is touched."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Final

from nfreaim.config import Config
from nfreaim.config_values import LEGACY, NFT
from nfreaim.errors import BackendError, ConfigError
from nfreaim.host.check.answer import Check, Checks, Group
from nfreaim.host.check.commands import run, which
from nfreaim.host.check.doctor import reinstall
from nfreaim.host.check.packet_filter import firewall_of
from nfreaim.host.netfilter import queue_stats
from nfreaim.host.rules import script

_MODULES: Final = Path("/sys/module")
_NEEDED: Final = {
    LEGACY: ("nfnetlink_queue", "nf_conntrack_netlink", "ip_tables", "ip_set"),
    NFT: ("nfnetlink_queue", "nf_conntrack_netlink", "nf_tables"),
}
"""Those that the kernel does not always load by itself. One that is built in may have no folder there."""

LOADED_AT_BOOT: Final = Path("/etc/modules-load.d/nfreaim.conf")
"""Ours; systemd-modules-load.service and others load what it names."""

_HEAD: Final = "# Written by `nfreaim check --fix`: modules that nfreaim needs and that nothing else loads.\n"


def repair(config: Config) -> list[Check]:
    """Do what can be done; a line for each thing that was. Raises nothing."""
    if os.geteuid() != 0:
        return [
            Check("FAIL", "nothing was repaired: not running as root", "sudo nfreaim check --fix", "machine")
        ]
    return [*_tried("machine", lambda: _modules(config)), *_tried("firewall", lambda: _rules(config))]


def _tried(group: Group, act: Callable[[], Checks]) -> Checks:
    try:
        for check in act():
            yield replace(check, group=group)
    except (BackendError, ConfigError, OSError) as error:
        yield Check("FAIL", f"could not be repaired: {error}", "see what dmesg says", group)


def _modules(config: Config) -> Checks:
    needed = _NEEDED[firewall_of(script.Settings.of(config))]
    missing = [name for name in needed if not _is_there(name)]
    if not missing or which("modprobe") is None:
        return
    done = [name for name in missing if run(["modprobe", name]).returncode == 0]
    loaded = [name for name in done if _is_there(name)]  # others are built in
    if lacking := [name for name in missing if name not in done]:
        yield Check(
            "warn",
            f"modules not loaded: {' '.join(lacking)}",
            "the kernel may have them built in, or lack them",
        )
    if not loaded:
        return
    yield Check("done", f"loaded modules: {' '.join(loaded)}")
    if remember(loaded):
        yield Check("done", f"{LOADED_AT_BOOT} names them, so that they are loaded at each boot")


def remember(loaded: Sequence[str], file: Path | None = None) -> bool:
    """Add modules to our file, if its folder exists; returns whether it has changed. Raises OSError."""
    file = file or LOADED_AT_BOOT
    if not file.parent.is_dir():
        return False
    lines = file.read_text().splitlines(keepends=True) if file.exists() else [_HEAD]
    new = [f"{name}\n" for name in loaded if f"{name}\n" not in lines]
    if new:
        file.write_text("".join([*lines, *new]))
    return bool(new)


def _is_there(module: str) -> bool:
    return (_MODULES / module).exists() or (module == "nfnetlink_queue" and queue_stats.PATH.exists())


def _rules(config: Config) -> Checks:
    """Install the rules unless they are complete and of these settings."""
    settings = script.Settings.of(config)
    if not (settings.lan and settings.wan):
        yield Check("warn", "the rules were left alone, because no interfaces are named", "--lan IF --wan IF")
        return
    shown = script.run(["show", *settings.native_words()])
    if shown.returncode not in (0, script.ABSENT):
        raise BackendError(script.message(shown.stderr))
    differ = script.difference(shown.stdout, settings) or script.helpers_differ(shown.stdout, settings)
    if shown.returncode == 0 and not differ and not script.locals_differ(shown.stdout, settings):
        return
    script.install(settings)
    yield Check("done", f"installed the rules: {reinstall(settings)}")
