"""Checks of other programs beside nfreaim: those that bind queues, and those that make the firewall."""

from __future__ import annotations

import os
import re
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Final

from nfreaim.host.check.answer import Check, Checks
from nfreaim.host.check.commands import run, which
from nfreaim.host.netfilter.names import CHAIN

_HOOKS: Final = {
    ("raw", "PREROUTING"): "connections to servers",
    ("mangle", "POSTROUTING"): "answers of servers",
    ("mangle", "FORWARD"): "connections through pinholes",
    ("mangle", "INPUT"): "connections to servers on this router",
}
_BRIDGED: Final = Path("/proc/sys/net/bridge/bridge-nf-call-iptables")

# Programs that make rules: a chain or table by which each is known, and what is so beside it.
_KNOWN: Final = (
    ("ufw", r":ufw-before-forward\b", "its rules stand behind our accept; before.rules is its own file"),
    (
        "firewalld",
        r"table inet firewalld\b",
        "it loads its own table, which a policy has to open: see nftables above",
    ),
    (
        "fw4 (OpenWrt)",
        r"table inet fw4\b",
        "it includes files of /usr/share/nftables.d, and loses other lines at a reload",
    ),
    (
        "Docker",
        r":DOCKER\b|chain DOCKER\b",
        "it drops what is forwarded by default, and our accept stands before it",
    ),
    ("mwan3", r":mwan3_hook\b", "it leads by marks: see marks"),
    ("libvirt", r":LIBVIRT_FWI\b|chain guest_input\b", "its rejects stand behind our accept"),
    (
        "miniupnpd",
        r":MINIUPNPD\b|chain miniupnpd\b",
        "what it maps comes before pinholes, which then get other ports",
    ),
)


def queues(ours: Collection[int]) -> Checks:
    """Other programs that take packets into queues before ours do, or behind."""
    if os.geteuid() != 0 or which("iptables-legacy-save") is None:
        return
    found = False
    for hook, what, rule in before_ours(run(["iptables-legacy-save"]).stdout, ours):
        found = True
        yield Check(
            "warn",
            f"{hook}: {rule!r} queues for another program, and what that accepts skips our rules: {what}"
            " pass unread",
            "let it queue in another table (filter FORWARD), or except the servers' ports",
        )
    if not found:
        yield Check("ok", "no other program takes packets into a queue before nfreaim")


def before_ours(saved: str, ours: Collection[int]) -> Iterator[tuple[str, str, str]]:
    """(hook, what is lost, rule) of each rule that queues for others before our jump in its chain.

    *saved* is the output of iptables-legacy-save.
    """
    table, passed = "", set[tuple[str, str]]()
    for line in saved.splitlines():
        if line.startswith("*"):
            table = line[1:]
        words = line.split()
        if len(words) < 2 or words[0] != "-A" or (table, words[1]) not in _HOOKS:
            continue
        hook = table, words[1]
        if words[-1].startswith(CHAIN):
            passed.add(hook)
        number = re.search(r" -j NFQUEUE(?: --queue-(?:num|balance) (\d+))?", line)
        if number and hook not in passed and int(number[1] or 0) not in ours:
            yield " ".join(hook), _HOOKS[hook], line


def programs() -> Checks:
    """The programs that make rules here, and what is so beside each."""
    if os.geteuid() != 0:
        return
    commands = (["iptables-legacy-save"], ["iptables-nft-save"], ["nft", "list", "ruleset"])
    rules = "\n".join(run(words).stdout for words in commands if which(words[0]) is not None)
    for name, text in known(rules):
        yield Check("ok", f"{name} makes rules here: {text}")
    if _BRIDGED.exists() and _BRIDGED.read_text().strip() == "1":
        text = (
            "bridge-nf-call-iptables is 1: what is bridged passes the rules of IPv4, too (Docker does that)"
        )
        yield Check("ok", text)


def known(rules: str) -> Iterator[tuple[str, str]]:
    """The programs whose rules are among *rules*, and what is so beside each."""
    for name, pattern, text in _KNOWN:
        if re.search(pattern, rules, re.MULTILINE):
            yield name, text
