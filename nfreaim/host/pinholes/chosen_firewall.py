"""Makes the firewall of the kind whose rules are installed."""

from __future__ import annotations

from collections.abc import Callable

from nfreaim.host.netfilter.firewall_kind import FirewallKind, firewall_kind
from nfreaim.host.pinholes.kernel_firewall import KernelFirewall
from nfreaim.marks import DEFAULT, Marks


def maker(kind: FirewallKind) -> Callable[[Callable[[], float], Marks], KernelFirewall]:
    """What makes the firewall of this *kind*. Its modules are loaded by this call.

    The libraries for legacy tables fail in unforeseen ways if they are loaded when no more files may be
    opened, so the daemon calls it before it opens any.
    """
    if kind is FirewallKind.NFT:
        from nfreaim.host.pinholes.nft_firewall import NftFirewall

        return NftFirewall
    from nfreaim.host.pinholes.ipset_firewall import IpsetFirewall

    return IpsetFirewall


def kernel_firewall(
    clock: Callable[[], float], marks: Marks = DEFAULT, kind: FirewallKind | None = None
) -> KernelFirewall:
    """The firewall of this *kind*, by default of that which is installed. See KernelFirewall."""
    return maker(kind or firewall_kind())(clock, marks)


def prepare() -> None:
    """Load the modules of the firewall that is probably there, or will be."""
    maker(firewall_kind())
