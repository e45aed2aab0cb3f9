"""Which packet filter of the kernel has our rules and sets: the legacy tables with ipset, or nftables.

Nothing else asks this question: who needs a set or the firewall gets the right one by ``KernelSets`` or
``host.pinholes.chosen_firewall``. Modules of the other kind are not imported, because their libraries and the
kernel's parts may be missing.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from enum import StrEnum
from typing import Final

from nfreaim.errors import BackendError, ConfigError
from nfreaim.host.netfilter.kernel_sets import EndpointSet, FlowSet, FollowedSet, NetworkSet, SetPresence
from nfreaim.host.netfilter.names import LAN_SET, SKEW_SET

VARIABLE: Final = "NFREAIM_FIREWALL"
"""The environment variable that decides for one program: legacy or nft."""


_AUTO: Final = "auto"


class FirewallKind(StrEnum):
    """What the setting `firewall` may choose."""

    LEGACY = "legacy"
    NFT = "nft"


def firewall_kind() -> FirewallKind:
    """The kind that the environment names, or the one whose rules are installed, or else the legacy one.

    It is about rules that are there: which kind they shall be of is the script's to say. Raises ConfigError
    if the environment names no kind.
    """
    return _asked_for() or installed() or FirewallKind.LEGACY


def settle() -> FirewallKind:
    """Let this process and those that it starts go by the rules that are installed now, and say which.

    Another program may remove the rules later, and that must not make them of the other kind. Raises
    ConfigError if none are installed and the environment names no kind.
    """
    kind = installed() or firewall_kind()
    os.environ[VARIABLE] = kind
    return kind


def _asked_for() -> FirewallKind | None:
    asked = os.environ.get(VARIABLE) or _AUTO
    if asked == _AUTO:
        return None
    try:
        return FirewallKind(asked)
    except ValueError:
        raise ConfigError(f"{VARIABLE} must be auto, legacy or nft, not {asked!r}") from None


def installed() -> FirewallKind | None:
    """The kind whose rules are installed; None without rules."""
    return next((kind for kind in (FirewallKind.NFT, FirewallKind.LEGACY) if _has_sets(kind)), None)


def _has_sets(kind: FirewallKind) -> bool:
    presence = None
    try:
        presence = KernelSets(kind).presence()
        return presence.of(LAN_SET)
    except (BackendError, OSError):  # the kernel has not this kind, or this user may not ask
        return False
    finally:
        if presence is not None:
            presence.close()


class KernelSets:
    """Makes the sets of one kind, by default of that which is installed; each has a socket of its own."""

    flows: Callable[[str], FlowSet]
    skewed: Callable[[int, bool], FlowSet]
    """Of the skewed flows: the bit of the packet mark, and whether every flow in it is this process's."""
    followed: Callable[[str], FollowedSet]
    endpoints: Callable[[str], EndpointSet]
    networks: Callable[[str], NetworkSet]
    presence: Callable[[], SetPresence]

    def __init__(self, kind: FirewallKind | None = None) -> None:
        self.kind = kind or firewall_kind()
        if self.kind is FirewallKind.NFT:
            from nfreaim.host.netfilter import nft_guard, nft_sets

            self.skewed = nft_guard.GuardedFlows
            self.flows, self.followed = nft_sets.FlowSet, nft_sets.FollowedSet
            self.endpoints, self.networks = nft_sets.EndpointSet, nft_sets.NetworkSet
            self.presence = nft_sets.SetPresence
        else:
            from nfreaim.host.netfilter import ipset

            self.skewed = lambda bit, alone: ipset.FlowSet(SKEW_SET)
            self.flows, self.followed = ipset.FlowSet, ipset.FollowedSet
            self.endpoints, self.networks = ipset.EndpointSet, ipset.NetworkSet
            self.presence = ipset.SetPresence
