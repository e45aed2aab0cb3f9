"""Checks of the packet filter: our rules, and other rules that stop packets before or behind ours."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Final

from nfreaim.config_values import LEGACY, NFT
from nfreaim.errors import BackendError
from nfreaim.host.check.answer import Check, Checks
from nfreaim.host.check.commands import json_from, networks_of, run, which
from nfreaim.host.check.native_remedies import remedy
from nfreaim.host.netfilter import nftables
from nfreaim.host.netfilter.interfaces import existing
from nfreaim.host.netfilter.names import CHAIN, CHAINS, GUARD_TABLE, LAN_SET, NFT_TABLE, VERIFIED_CHAIN
from nfreaim.host.rules import script

_RULESETS: Final = (
    Path("/etc/nftables.conf"),
    *sorted(Path("/etc/nftables.d").glob("*.nft")),
    *sorted(Path("/etc/nftables").glob("*.nft")),
)
_JUMPS: Final = (
    ("raw", "PREROUTING"),
    ("raw", "OUTPUT"),
    ("mangle", "POSTROUTING"),
    ("mangle", "INPUT"),
    ("mangle", "FORWARD"),
)


def firewall_of(settings: script.Settings) -> str:
    """The packet filter that has our rules, or that an install with these *settings* takes: LEGACY or NFT.

    Raises BackendError, and ConfigError.
    """
    if os.geteuid() == 0 and (installed := script.firewall(script.run(["show"]).stdout)):
        return installed
    try:
        return script.chosen(settings)
    except BackendError:
        if os.geteuid() == 0:
            raise
        return LEGACY  # only root can ask the kernel, and nobody has named one


def our_rules(settings: script.Settings, reinstall: str) -> Checks:
    """Whether our rules are installed, complete, and of these *settings*; *reinstall* installs them."""
    if os.geteuid() != 0:
        return
    shown = script.run(["show"])
    if shown.returncode not in (0, script.ABSENT):
        raise BackendError(shown.stderr.strip())
    lines = shown.stdout.splitlines()
    present = [line for line in lines if not line.startswith("not installed:")]
    missing = " ".join(line.partition(":")[2] for line in lines if line.startswith("not installed:")).split()
    if not present:
        yield Check("warn", "rules are not installed", f"{reinstall} (nfreaim run does it for its own time)")
        return
    if missing:
        yield Check("FAIL", f"rules incomplete, missing: {', '.join(missing)}", reinstall)
    elif found := script.difference(shown.stdout, settings):
        yield Check("FAIL", found.partition(";")[0], reinstall)
    else:
        yield Check("ok", "rules installed: chains, jumps and sets")
    if unlike := script.helpers_differ(shown.stdout, settings):
        yield Check("warn", f"the rules for the kernel's helpers {unlike}", reinstall)
    if unlike := script.locals_differ(shown.stdout, settings):
        yield Check("warn", f"the rules for clients on this router {unlike}", reinstall)
    for variant in ("iptables-legacy", "iptables-nft"):
        if any(line.split()[:2] == [variant, "filter"] for line in present):
            yield Check("ok", f"the {variant} firewall accepts pinholes")
    members = {line.split()[1] for line in present if line.startswith(f"{LAN_SET} ")}
    strange = {network for name in existing(settings.lan) for network in networks_of(name)} - members
    if strange:
        yield Check("warn", f"inside networks unknown to the rules: {', '.join(sorted(strange))}", reinstall)


def saved_rules(files: Iterable[Path] = _RULESETS, firewall: str = LEGACY) -> Checks:
    """Saved rules that hold ours: of legacy tables they are loaded at a boot before our sets exist.

    files     that are loaded as a ruleset of nftables
    firewall  the packet filter of our rules: sets are made for legacy ones alone
    """
    enabling = "" if firewall == NFT else "systemctl enable nfreaim-sets, or: "
    for path in files:
        if path.is_file() and f"table ip {NFT_TABLE} {{" in path.read_text(errors="replace"):
            yield Check(
                "warn",
                f"{path} holds our table: whoever loads it brings back the rules and pinholes of that day",
                f"take `table ip {NFT_TABLE}` and each `table ip {GUARD_TABLE}...` out of it",
            )
    for file in script.run(["saved"]).stdout.split():
        yield Check(
            "warn",
            f"{file} holds rules of nfreaim: at a boot nothing of it is loaded where our sets do not exist",
            f"{enabling}sed -i /{CHAIN}/d {file}",
        )


def legacy_neighbours(reinstall: str) -> Checks:
    """Other rules behind our jumps to the queue: queued packets never reach them."""
    if which("iptables-legacy-save") is None or os.geteuid() != 0:
        return
    saved = run(["iptables-legacy-save"])
    if saved.returncode != 0:
        yield Check("FAIL", f"legacy tables not readable: {saved.stderr.strip()}", "modprobe ip_tables")
        return
    if not Path("/proc/net/ip_tables_names").exists():
        return  # no table was ever used here; whether the kernel has any is among its features
    yield Check("ok", "legacy tables readable")
    for hook, rule in behind_jump(saved.stdout):
        yield Check(
            "warn",
            f"{hook}: queued packets never reach {rule!r}",
            reinstall,
        )


def behind_jump(saved: str) -> Iterator[tuple[str, str]]:
    """(hook, rule) of each foreign rule behind our jumps in the chains of raw and mangle.

    *saved* is the output of iptables-legacy-save. A hook is a table and a built-in chain ("raw PREROUTING").
    """
    table, passed = "", set[tuple[str, str]]()
    for line in saved.splitlines():
        if line.startswith("*"):
            table = line[1:]
        for hook in _JUMPS:
            if table != hook[0] or not line.startswith(f"-A {hook[1]} "):
                continue
            target = line.rpartition(" -j ")[2]
            if target == VERIFIED_CHAIN:
                continue  # this jump comes first, and its chain queues nothing
            if target in CHAINS:
                passed.add(hook)
            elif hook in passed:
                yield " ".join(hook), line


def native_rules(settings: script.Settings, firewall: str = LEGACY) -> Checks:
    """Native nftables rules that stop connections through pinholes, or take packets before our rules do.

    firewall  the packet filter that has our rules
    """
    lan, wan = settings.lan, settings.wan
    if which("nft") is None or os.geteuid() != 0:
        return
    ruleset = nftables.Ruleset(json_from(["nft", "-j", "list", "ruleset"]), settings.marks)
    # If iptables-nft can read its chains, the rules script has put our accepts there.
    managed = "*filter" in run(["iptables-nft-save"]).stdout.split() if which("iptables-nft-save") else False
    found = False
    obstacles = [*ruleset.obstacles(wan)]
    if settings.locals:
        obstacles += ruleset.obstacles(wan, "input")
    for obstacle in obstacles:
        named = f"nftables chain {obstacle.family} {obstacle.table} {obstacle.chain}"
        ours = "ip", "filter", obstacle.hook.upper()
        if managed and (obstacle.family, obstacle.table, obstacle.chain) == ours:
            continue
        found = True
        cure = remedy(obstacle, ruleset, lan, wan)
        if obstacle.certain:
            to = "" if obstacle.hook == "forward" else " to clients on this router"
            yield Check("FAIL", f"{named} drops pinhole connections{to}", cure)
        else:
            yield Check("warn", f"{named} has drop rules; if one of them hits pinholes", cure)
    if not found:
        yield Check("ok", "no native nftables chain stops pinholes")
    for chain in settings.native:
        family, table, name = chain.split()
        if not ruleset.has_chain(family, table, name):
            yield Check(
                "warn",
                f"native_accept names nftables chain {chain}, which does not exist",
                "load the ruleset that has it, or correct the name (`nft list chains` shows all)",
            )
        elif ruleset.is_owned(family, table):
            owned = nftables.Obstacle(family, table, name, False, settings.marks.pinhole)
            yield Check(
                "warn",
                f"native_accept names nftables chain {chain}, whose table takes no rules of other programs",
                remedy(owned, ruleset, lan, wan),
            )
    for chain in ruleset.redirectors() if firewall == LEGACY else ():
        yield Check(
            "warn",
            f"nft and legacy NAT are both in use: chain {chain} may claim the port of a pinhole",
            "keep its port forwards out of the range of pinholes (40000-40999 unless configured) and off the "
            "ports that clients listen on",
        )
