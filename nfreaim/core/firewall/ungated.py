"""What becomes of open pinholes when first bytes cannot be verified any more."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import replace
from typing import Final

from nfreaim.core.firewall.index import Entry, PinholeIndex, target
from nfreaim.core.firewall.pinhole import Firewall
from nfreaim.core.firewall.policy import PinholePolicy
from nfreaim.errors import BackendError

UNVERIFIABLE: Final = "the first bytes of its peers cannot be verified any more"


def let_in_unverified(index: PinholeIndex, firewall: Firewall, policy: PinholePolicy) -> list[Entry]:
    """Make pinholes admit new peers unverified; returns those that have to be closed instead.

    These are at a port that is opened for verified peers only, or there is another pinhole for unverified
    peers, or *firewall* refuses.
    """
    left: list[Entry] = []
    for entry in [entry for entry in index.by_target.values() if entry.pinhole.verify]:
        pinhole, wanted = entry.pinhole, replace(entry.pinhole, verify=False)
        left.append(entry)
        if policy.refuses_port(pinhole.service, pinhole.inside, False) or target(wanted) in index.by_target:
            continue
        with suppress(BackendError):
            firewall.open(wanted, pinhole)
            index.retarget(entry, wanted)
            left.pop()
    return left
