"""Checks of flowtables: whether they may take connections from nfreaim, and what to do."""

from __future__ import annotations

import os

from nfreaim.host.check.answer import Check, Checks
from nfreaim.host.netfilter import conntrack_helper
from nfreaim.host.rules import script
from nfreaim.protocols import Ports


def flowtables(ports: Ports, reinstall: str) -> Checks:
    """Whether a flowtable may take connections to *ports*, or of peers. *reinstall* installs the rules."""
    if os.geteuid() == 0:
        shown = script.run(["show"]).stdout
        yield from judged(script.unguarded(shown), script.guarded(shown), ports, reinstall)


def judged(reason: str, guarded: bool, ports: Ports, reinstall: str) -> Checks:
    """What the output of `show` says, see ``script.unguarded`` and ``script.guarded``."""
    if guarded:
        yield Check("ok", "flowtables take no connection that nfreaim has to read")
    if not reason:
        return
    listed = ", ".join(str(port) for numbers in ports.values() for port in numbers)
    left_out = (
        "until then leave the servers' ports out of the rule that fills the flowtable, such as"
        f" `tcp dport != {{ {listed} }} tcp sport != {{ {listed} }} flow add @f`: then sessions are read, and"
        " only peers are not verified"
    )
    remedy = reinstall
    if "zone" in reason:
        remedy = f"leave out the servers' ports and pinholes where zones are given; {left_out}"
    elif lacking := conntrack_helper.unavailable():
        remedy = f"a kernel with nfnetlink_cthelper ({lacking}), and then {reinstall}; {left_out}"
    yield Check(
        "warn",
        "flowtables may take connections from nfreaim: peers' first bytes cannot be relied on and are not"
        f" verified, and sessions may pass unread: {reason}",
        remedy,
    )
