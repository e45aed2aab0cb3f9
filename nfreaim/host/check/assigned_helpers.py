"""Checks of the kernel's own helpers that are assigned: whether they are there, and what stops them."""

from __future__ import annotations

import os
import re
from collections.abc import Collection, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Final

from nfreaim.config_values import NFT
from nfreaim.errors import BackendError
from nfreaim.host.check import nft_features
from nfreaim.host.check.answer import Check, Checks
from nfreaim.host.check.commands import json_from, run, which
from nfreaim.host.netfilter import nftables
from nfreaim.host.netfilter.interfaces import overlap
from nfreaim.host.netfilter.libnftables import Nftables
from nfreaim.host.netfilter.names import CHAIN, HELPER_CHAIN
from nfreaim.host.rules import nft_text
from nfreaim.host.rules.script import Settings
from nfreaim.kernel_helpers import KERNEL_HELPERS, Assignment, Assignments, has_own_helper

_PARAMETERS: Final = Path("/sys/module")
_DIRECT_MEDIA: Final = "nf_conntrack_sip/parameters/sip_direct_media"
_RELATED: Final = re.compile(r"(?<!! )--(?:ct)?state (\S+)")
_DPORTS: Final = re.compile(r"(?<!! )--dports? (\S+)")


def helpers(settings: Settings, firewall: str) -> Checks:
    """All that concerns the helpers of *settings*; nothing if there are none. *firewall* has the rules."""
    if not settings.helpers or os.geteuid() != 0:
        return
    yield from _in_the_kernel(settings.helpers, firewall)
    saved = {
        name: run([f"{name}-save"]).stdout for name in ("iptables-legacy", "iptables-nft") if _there(name)
    }
    ruleset = nftables.Ruleset(json_from(["nft", "-j", "list", "ruleset"])) if which("nft") else None
    yield from _related(settings.helpers, saved, ruleset)
    yield from _taken(settings, saved, ruleset)


def _there(variant: str) -> bool:
    return which(f"{variant}-save") is not None


def _in_the_kernel(wanted: Assignments, firewall: str) -> Checks:
    """Try each helper in a network namespace of its own, which ends with the attempt."""
    try:
        found = _of_nftables(wanted) if firewall == NFT else _of_legacy_tables(wanted)
    except OSError as error:
        yield Check("warn", f"the kernel's helpers not probed: {error}", "needs CAP_SYS_ADMIN")
        return
    for one in wanted:
        modules = KERNEL_HELPERS[one.name].modules
        if one.name not in found:
            yield Check(
                "warn",
                f"the kernel has no helper {one.shown}",
                f"modprobe -a {' '.join(modules)}, and install the rules again",
            )
            continue
        edits = f"; it edits addresses if the kernel has {modules[1]}" if modules[1:] else ""
        yield Check("ok", f"the kernel's helper {one.shown} is there{edits}")
        if has_own_helper(one.name):
            yield Check(
                "warn",
                f"nfreaim reads protocol {one.name} itself, and opens less than the kernel's helper",
                "name it in `protocols`, and take it out of `kernel_helpers`",
            )
    media = _PARAMETERS / _DIRECT_MEDIA
    if any(one.name == media.parts[-3].removeprefix("nf_conntrack_") for one in wanted) and media.exists():
        only = media.read_text().strip() not in ("0", "N")
        who = "the server's address only; 0 lets anybody send" if only else "anybody; 1 means the server only"
        yield Check("ok", f"{media.name} = {int(only)}: audio and video come in from {who}")


def _of_nftables(wanted: Assignments) -> Collection[str]:
    """The names of those that nftables takes. Raises OSError, and BackendError if the library is missing."""
    nft = Nftables()

    def taken() -> Iterator[str]:
        for one in wanted:
            with suppress(BackendError):
                nft.run(nft_text.helper_object(one))
                yield one.name

    return nft_features.in_new_namespace(taken)


def _of_legacy_tables(wanted: Assignments) -> Collection[str]:
    """The same of the legacy tables. Raises OSError."""
    lines = [
        f"iptables-legacy -w -t raw -A PREROUTING -p {transport} -j CT --helper {name} && echo '{name}'"
        for name, transport in sorted({(one.name, one.transport) for one in wanted})
    ]
    result = run(["unshare", "--net", "sh", "-c", "echo inside; " + "; ".join(lines)])
    found = result.stdout.splitlines()
    if "inside" not in found:
        raise OSError(result.stderr.strip())
    return found


# --- what comes in as RELATED ---


def _related(wanted: Assignments, saved: dict[str, str], ruleset: nftables.Ruleset | None) -> Checks:
    names = sorted({one.name for one in wanted})
    stopped = False
    for variant, text in saved.items():
        first = "FORWARD 2" if f"-A FORWARD -j {CHAIN}\n" in text else "FORWARD"  # ours has to stay the first
        for name in names:
            if not accepts_related(text, name):
                stopped = True
                yield Check(
                    "warn",
                    f"the {variant} firewall stops what helper {name} expects: it accepts nothing RELATED",
                    f"{variant} -I {first} -m conntrack --ctstate RELATED -m helper --helper {name}"
                    " -j ACCEPT",
                )
    managed = "*filter" in saved.get("iptables-nft", "").split()
    for chain in ruleset.unrelated() if ruleset else ():
        if managed and chain == ("ip", "filter", "FORWARD"):
            continue
        stopped = True
        place = " ".join(chain)
        yield Check(
            "warn",
            f"nftables chain {place} stops what helpers expect: it accepts no related connections",
            f"nft insert rule {place} ct state related accept",
        )
    if not stopped:
        yield Check("ok", "the firewall accepts what the kernel's helpers expect (RELATED)")


def accepts_related(saved: str, name: str) -> bool:
    """Whether a filter table lets in what helper *name* expects, or stops nothing that is forwarded.

    *saved* is the output of iptables-save. A rule counts if some packet could reach it from FORWARD.
    """
    drops, rules = _forwarding(saved)
    accepts = False
    for rule in rules:
        states, helper = _RELATED.search(rule), re.search(r"--helper (\S+)", rule)
        drops |= bool(re.search(r" -j (?:DROP|REJECT)\b", rule)) and not (states and states[1] == "INVALID")
        if rule.endswith(" -j ACCEPT") and states and "RELATED" in states[1].split(","):
            accepts |= helper is None or helper[1].strip('"') == name
        accepts |= rule == "-A FORWARD -j ACCEPT"
    return accepts or not drops


def _forwarding(saved: str) -> tuple[bool, list[str]]:
    """Whether FORWARD drops by default, and the rules of the chains that it leads to."""
    drops, table = False, ""
    chains: dict[str, list[str]] = {}
    for line in saved.splitlines():
        table = line[1:] if line.startswith("*") else table
        if table == "filter" and line.startswith("-A "):
            chains.setdefault(line.split()[1], []).append(line)
        drops |= table == "filter" and re.match(r":FORWARD (?!ACCEPT)", line) is not None
    ahead, rules = ["FORWARD"], list[str]()
    while ahead:
        found = chains.pop(ahead.pop(), [])
        rules += found
        ahead += [target for rule in found for target in re.findall(r" -[jg] (\S+)", rule)]
    return drops, rules


# --- rules of others that come first ---


def _taken(settings: Settings, saved: dict[str, str], ruleset: nftables.Ruleset | None) -> Checks:
    found = [
        (f"{variant} raw", rule, one)
        for variant, text in saved.items()
        for one in settings.helpers
        for rule in taken_by(text, one, settings.lan)
    ]
    for place, rule, one in found:
        yield Check(
            "warn",
            f"{place}: {rule!r} comes first: connections that it matches do not get helper {one.shown}",
            "except these ports in that rule",
        )
    for chain in ruleset.untracking() if ruleset else ():
        yield Check(
            "warn",
            f"nftables chain {' '.join(chain)} takes packets out of connection tracking; they get no helper",
            "except the ports of `kernel_helpers` in its rules",
        )


def taken_by(saved: str, one: Assignment, lan: Collection[str]) -> Iterator[str]:
    """The rules of other programs that decide about connections of *one* before ours does.

    *saved* is the output of iptables-save. The first CT rule counts, whatever it says.
    """
    table = ""
    passed = False
    for line in saved.splitlines():
        table = line[1:] if line.startswith("*") else table
        if table != "raw" or not line.startswith("-A "):
            continue
        chain = line.split()[1]
        passed |= chain == "PREROUTING" and line.endswith(f" -j {HELPER_CHAIN}")
        if chain.startswith(CHAIN) or chain == "OUTPUT" or (chain == "PREROUTING" and passed):
            continue
        if (
            re.search(r" -j (?:CT|NOTRACK)\b", line)
            and f"--helper {one.name}" not in line
            and _may_match(line, one, lan)
        ):
            yield line


def _may_match(rule: str, one: Assignment, lan: Collection[str]) -> bool:
    """Whether *rule* could be true of the first packet of a connection of *one*."""
    transport, interface = re.search(r" (! )?-p (\S+)", rule), re.search(r" (! )?-i (\S+)", rule)
    if transport and (transport[2] in (one.transport, "all")) == bool(transport[1]):
        return False
    if interface and not interface[1] and not any(overlap(interface[2], name) for name in lan):
        return False
    ports = _DPORTS.search(rule)
    if ports is None:
        return True
    for part in ports[1].split(","):
        low, _, high = part.partition(":")
        if any(int(low) <= port <= int(high or low) for port in one.ports):
            return True
    return False
