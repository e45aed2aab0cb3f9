"""Which users may run a server on this router, and what is said about servers that nobody vouches for.

It imports no third-party library, because `nfreaim check` uses it.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Container, Iterable
from typing import Final

from nfreaim.config import user_number
from nfreaim.core.address import Endpoint

log = logging.getLogger("nfreaim")

FIRST_PLAIN_USER: Final = 1000
"""User ids below it are the system's."""


def remedy_for(server: Endpoint, file: str) -> str:
    """What to write where for a server on the inside."""
    return f"write home_servers = {json.dumps([server.address])} in {file}"


def users_remedy(file: str) -> str:
    """What to write where for a server on this router."""
    return f"run it as a system user, or name its user in home_server_users in {file}"


def on_request(port: int) -> str:
    """Why a forward proves nothing on a router that makes forwards at request."""
    what = "UPnP" if port == 1900 else "PCP or NAT-PMP"
    return f"this router serves {what} (UDP port {port}), so a rule may be any program's"


def run_by(user: int) -> str:
    """Why a server on this router is not the operator's."""
    return f"user {user} runs it, or can, who is no system user"


def strangers(users: Iterable[int], configured: Container[int]) -> set[int]:
    """Those of *users* that may not run a server on this router."""
    return {user for user in users if user >= FIRST_PLAIN_USER and user not in configured}


def trusted_users(names: Iterable[str]) -> frozenset[int]:
    """The numbers of the users that are configured. An unknown name is logged."""
    found = set()
    for name in names:
        try:
            found.add(user_number(name))
        except KeyError:
            log.warning("home_server_users: this machine has no user %s", name)
    return frozenset(found)
