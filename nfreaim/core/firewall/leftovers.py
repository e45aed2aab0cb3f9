"""Leftovers: which pinholes go on, of an earlier daemon in the kernel, or of an earlier policy."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Final

from nfreaim.core.address import FlowId
from nfreaim.core.firewall.index import AgreementKey, Entry, PinholeIndex, target
from nfreaim.core.firewall.pinhole import Firewall, Pinhole
from nfreaim.core.firewall.policy import PinholePolicy
from nfreaim.core.greeting import GreetingsOf

_ENDING_S: Final = 1.0  # before its deadline a pinhole may be closed by the kernel while it is looked for


def stray(
    pinhole: Pinhole, index: PinholeIndex, policy: PinholePolicy, alive: Callable[[FlowId], bool], now: float
) -> str | None:
    """Why a pinhole that was found in the kernel is not taken over beside those of *index*, or None."""
    if not pinhole.standing and not now < pinhole.deadline <= now + policy.lifetime:
        return "deadline passed while no daemon ran"
    if not alive(pinhole.flow):
        return "control connection lost while no daemon ran"
    inside = pinhole.inside
    if policy.refuses(pinhole.service, inside.address) or policy.refuses_port(pinhole.service, inside):
        return "switched off while no daemon ran"
    if reason := _port_lost(pinhole, policy):
        return reason
    if pinhole.outside in index.by_outside or target(pinhole) in index.by_target:
        return "duplicate"
    if (pinhole.flow, pinhole.agreement) in index.by_agreement:
        return "replaced before the restart"
    return None


def unwanted(
    index: PinholeIndex, policy: PinholePolicy, verifies: bool
) -> list[tuple[Entry, AgreementKey, str]]:
    """The agreements of open pinholes that *policy* does not allow, and why.

    verifies  first bytes can be looked at
    """
    found = []
    for entry in index.by_target.values():
        inside = entry.pinhole.inside
        lost = _port_lost(entry.pinhole, policy)
        for agreement in entry.agreements:
            _, service = entry.purposes.get(agreement, ("", entry.pinhole.service))
            refused = policy.refuses(service, inside.address)
            refused = refused or policy.refuses_port(service, inside, verifies)
            if reason := lost or refused:
                found.append((entry, agreement, reason))
    return found


def _port_lost(pinhole: Pinhole, policy: PinholePolicy) -> str | None:
    if not policy.arrives(pinhole.outside.port):
        return "its port is none of ports in [pinholes], and strict is true there"
    if not policy.leaves_free(pinhole.outside.port, pinhole.inside):
        return "a forward in the configuration has its port"
    return None


def put_back(pinholes: Iterable[Pinhole], firewall: Firewall, now: float) -> list[Pinhole]:
    """Open those of *pinholes* again that the kernel lost before their time; returns them.

    Raises BackendError.
    """
    present = {(it.outside, it.inside, frozenset(it.peers)) for it in firewall.list()}
    missing = []
    for pinhole in pinholes:
        there = (pinhole.outside, pinhole.inside, frozenset(pinhole.peers)) in present
        if not there and pinhole.deadline > now + _ENDING_S:
            firewall.open(pinhole, None)
            missing.append(pinhole)
    return missing


def take_over(
    pinhole: Pinhole, index: PinholeIndex, policy: PinholePolicy, greetings: GreetingsOf | None
) -> None:
    """Enter a pinhole that was found in the kernel into *index*.

    Of several agreements that share it only one was kept.
    """
    entry = Entry(pinhole)
    index.add(entry)
    agreement = (pinhole.flow, pinhole.agreement)
    cap, _ = policy.caps.get(pinhole.service, ("", 0))
    index.agree(agreement, entry, pinhole.deadline, cap if pinhole.standing else None)
    entry.purposes[agreement] = (pinhole.protocol, pinhole.service)
    if greetings is not None:
        entry.greetings[agreement] = greetings(pinhole.protocol, pinhole.service)
        if pinhole.unverified:
            entry.greetings[agreement] += greetings(pinhole.protocol, pinhole.unverified)
