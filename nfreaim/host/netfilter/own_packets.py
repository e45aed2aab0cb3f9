"""The daemon's own packets: the rules tell them by the group of the socket that sends them.

A packet mark would be looked at by the `ip rule`s of others. The group is ``names.OWN_GROUP``, of which a
process under systemd is a member (rules/nfreaim.service). Root takes it for the moment in which a socket is
made: what a socket's packets count as is decided then.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager

from nfreaim.errors import BackendError
from nfreaim.host.netfilter.names import OWN_GROUP


@contextmanager
def own_group() -> Iterator[None]:
    """Sockets that are made meanwhile send packets that the rules know as ours. Raises BackendError."""
    former = os.getegid()
    if OWN_GROUP in (former, *os.getgroups()):
        yield
        return
    try:
        os.setegid(OWN_GROUP)
    except OSError as error:
        raise BackendError(
            f"the daemon is not in group {OWN_GROUP}, by which the rules know its packets ({error}); remedy: "
            f"make install, or SupplementaryGroups={OWN_GROUP} in its unit, or run it as root"
        ) from error
    try:
        yield
    finally:
        os.setegid(former)
