"""Makes the firewall of the kind whose rules are installed."""

from __future__ import annotations

from collections.abc import Callable

from nfreaim.errors import BackendError
from nfreaim.host.netfilter.firewall_kind import FirewallKind, firewall_kind
from nfreaim.host.pinholes.kernel_firewall import KernelFirewall
from nfreaim.marks import DEFAULT, Marks


def maker(kind: FirewallKind) -> Callable[[Callable[[], float], Marks], KernelFirewall]:
    """What makes the firewall of this *kind*. Its modules are loaded by this call.

    The libraries for legacy tables fail in unforeseen ways if they are loaded when no more files may be
    opened, so the daemon calls it before it opens any. Raises BackendError if python-iptables is missing.
    """
    if kind is FirewallKind.NFT:
        from nfreaim.host.pinholes.nft_firewall import NftFirewall

        return NftFirewall
    try:
        from nfreaim.host.pinholes.ipset_firewall import IpsetFirewall
    except ModuleNotFoundError as error:
        if error.name != "iptc":
            raise
        raise BackendError(
            "no rules in nftables are installed, and the library for those of iptables-legacy,"
            ' python-iptables, is missing; remedy: firewall = "nft" in the configuration, or install it'
        ) from error

    return IpsetFirewall


def kernel_firewall(
    clock: Callable[[], float], marks: Marks = DEFAULT, kind: FirewallKind | None = None
) -> KernelFirewall:
    """The firewall of this *kind*, by default of that which is installed. See KernelFirewall."""
    return maker(kind or firewall_kind())(clock, marks)
