"""Checks of this process and of the software it needs: capabilities, programs, Python libraries."""

from __future__ import annotations

import importlib
import os

from nfreaim.config_values import NFT
from nfreaim.errors import BackendError
from nfreaim.host.check import capabilities
from nfreaim.host.check.answer import Check, Checks
from nfreaim.host.check.commands import which
from nfreaim.host.netfilter.libnftables import Nftables


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


def programs(firewall: str) -> Checks:
    """Those that our rules need, which the packet filter *firewall* has."""
    needed = (
        [("nft", "nftables")] if firewall == NFT else [("iptables-legacy", "iptables"), ("ipset", "ipset")]
    )
    for program, package in (*needed, ("ip", "iproute2")):
        if which(program) is None:
            yield Check("FAIL", f"the program {program} is missing", f"apt install {package}")


def libraries(firewall: str) -> Checks:
    """The same for libraries."""
    rules = [] if firewall == NFT else [("iptables", "python-iptables")]
    for module, library in (("packet_queue", "NetfilterQueue"), *rules, ("conntrack", "pyroute2")):
        try:
            importlib.import_module(f"nfreaim.host.netfilter.{module}")
        except Exception as error:  # a binding without its C library may raise any type
            yield Check("FAIL", f"{library} does not work: {error}", "install nfreaim again: make install")
        else:
            yield Check("ok", f"{library} importable")
    if firewall == NFT:
        try:
            Nftables()
        except BackendError as error:
            text, _, remedy = str(error).partition("; remedy: ")
            yield Check("FAIL", text, remedy)
        else:
            yield Check("ok", "libnftables importable")
