"""Checks of this process and of the software it needs: capabilities, programs, Python libraries."""

from __future__ import annotations

import importlib
import os

from nfreaim.host.check import capabilities
from nfreaim.host.check.answer import Check, Checks
from nfreaim.host.check.commands import which


def privileges() -> Checks:
    if os.geteuid() == 0:
        yield Check("ok", "running as root")
    else:
        yield Check("FAIL", "not running as root", "sudo nfreaim check")
    absent = capabilities.missing()
    if absent:
        yield Check("FAIL", f"{' and '.join(absent)} missing", "grant them (unit: AmbientCapabilities=)")
    else:
        yield Check("ok", f"{' and '.join(capabilities.CAPABILITIES)} effective")


def programs() -> Checks:
    for program, package in (("iptables-legacy", "iptables"), ("ipset", "ipset"), ("ip", "iproute2")):
        if which(program) is None:
            yield Check("FAIL", f"the program {program} is missing", f"apt install {package}")


def libraries() -> Checks:
    for module, library in (
        ("packet_queue", "NetfilterQueue"),
        ("iptables", "python-iptables"),
        ("conntrack", "pyroute2"),
    ):
        try:
            importlib.import_module(f"nfreaim.host.netfilter.{module}")
        except Exception as error:  # a binding without its C library may raise any type
            yield Check("FAIL", f"{library} does not work: {error}", "install nfreaim again: make install")
        else:
            yield Check("ok", f"{library} importable")
