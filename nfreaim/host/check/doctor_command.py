"""`nfreaim check`: prints what the doctor finds, after it has repaired what is ours, and tests what runs."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from dataclasses import replace

from nfreaim.config import Config
from nfreaim.host.check import doctor, repairs
from nfreaim.host.check.answer import GROUPS, Check


def main(
    config: Config,
    *,
    as_json: bool = False,
    fix: bool = False,
    self_test: bool = False,
    unnamed: str | None = None,
) -> int:
    """Print the findings; return 0 if nothing failed, else 1. Warnings do not count.

    fix        repair our own rules and modules before, and tell what was done
    self_test  let an offer go through the daemon that runs
    unnamed    nobody named the interfaces: why there are none, or "" if they were found
    """
    found = [Check("warn", notice, group="protocols") for notice in config.notices]
    found += _interfaces(config, unnamed)
    if fix:
        found += repairs.repair(config)
    found += doctor.run_checks(config)
    if self_test:
        from nfreaim.host.check.self_test import self_test as test  # imports what protocols need

        found += (replace(check, group="self-test") for check in test(config))
    failed = any(check.status == "FAIL" for check in found)
    if as_json:
        findings = [check.document() for check in sorted(found, key=_place)]
        print(json.dumps({"failed": failed, "findings": findings}, indent=1))
    else:
        print("\n".join(told(found)))
    return int(failed)


def _interfaces(config: Config, unnamed: str | None) -> Iterator[Check]:
    """What is to be said of interfaces that nobody named."""
    if unnamed:
        yield Check("hint", unnamed, group="network")
    elif unnamed is not None:
        inside, outside = ", ".join(config.lan), ", ".join(config.wan)
        text = f"interfaces that nobody named: {inside} towards clients, {outside} towards the Internet"
        yield Check("ok", text, group="network")


def told(found: Iterable[Check]) -> Iterator[str]:
    """The lines of text: the name of each group, and its findings."""
    group = ""
    for check in sorted(found, key=_place):
        if check.group != group:
            group = check.group
            yield f"{group}:"
        yield str(check)


def _place(check: Check) -> int:
    return GROUPS.index(check.group)
