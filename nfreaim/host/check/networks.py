"""Checks of interfaces: whether they exist, and which networks are inside."""

from __future__ import annotations

import json
from collections.abc import Sequence

from nfreaim.config import Config
from nfreaim.host.check.answer import Check, Checks
from nfreaim.host.check.commands import interface_exists, networks_of
from nfreaim.host.netfilter.interfaces import existing, overlap


def interfaces(lan: Sequence[str], wan: Sequence[str]) -> Checks:
    for option, names in (("--lan", lan), ("--wan", wan)):
        if not names:
            yield Check(
                "FAIL", f"no {option} interface named", f"{option} IF, or `{option[2:]}` in the configuration"
            )
        for name in names:
            if name.endswith("+") and not existing([name]):
                yield Check("warn", f"no interface {name} exists (yet)", "see ip link; is the name right?")
            elif not name.endswith("+") and not interface_exists(name):
                yield Check(
                    "FAIL", f"interface {name} does not exist", "see ip link; correct the name or bring it up"
                )
    for name in existing(lan):
        networks = sorted(networks_of(name))
        if networks:
            yield Check("ok", f"inside networks on {name}: {', '.join(networks)}")
        else:
            yield Check("FAIL", f"{name} has no IPv4 network", f"ip address add ADDRESS/LENGTH dev {name}")


def isolation(config: Config) -> Checks:
    """Whether hosts of one LAN are told addresses of another."""
    isolated, lans = config.isolated_lans, config.lan
    for name in () if isinstance(isolated, bool) else isolated:
        if not any(overlap(name, lan) for lan in lans):
            yield Check(
                "warn",
                f"isolated_lans names {name}, which is no inside interface",
                f"write one of {json.dumps(lans)} instead in {config.file}",
            )
    if len(lans) < 2:
        if isolated:
            text = "isolated_lans separates interfaces, and one inside interface alone is named"
            yield Check("warn", text, "name the others by --lan, or remove isolated_lans")
    elif not isolated:
        yield Check(
            "hint",
            f"hosts on {' and '.join(lans)} are told each other's LAN addresses",
            f"if they may not meet, write isolated_lans = true in {config.file}",
        )
    else:
        names = lans if isinstance(isolated, bool) else isolated
        yield Check("ok", f"hosts on {', '.join(names)} are told no address of another inside interface")
