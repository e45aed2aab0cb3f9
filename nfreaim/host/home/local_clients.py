"""LinuxLocalClients: clients on this router itself, which are served for the users that the operator lists.

The rules queue connections by the user that made their socket. Before anything is opened the kernel is asked
again, because a proposal may come long after: who has the connection now, and who listens at the endpoint
that it announces. Both have to be one listed user, so that no user has another one's port opened.
"""

from __future__ import annotations

from collections.abc import Collection

from nfreaim.core.address import Endpoint, FlowId
from nfreaim.core.backend import LocalClients
from nfreaim.errors import BackendError
from nfreaim.host.home import local_sockets
from nfreaim.host.netfilter.interfaces import is_own


class LinuxLocalClients(LocalClients):
    """*users*: the numbers of the users whose clients are served."""

    def __init__(self, users: Collection[int]) -> None:
        self._users = frozenset(users)

    def serves(self, address: str) -> bool:
        return bool(self._users) and is_own(address)

    def why_not(self, flow: FlowId, inside: Endpoint) -> str | None:
        try:
            user = local_sockets.user_of(flow.client, flow.server)
            listening = local_sockets.listeners(inside.port, inside.address)
        except OSError as error:
            raise BackendError(f"who listens at {inside} cannot be told: {error}") from error
        if user is None:
            return "nobody on this router has this connection"
        if user not in self._users:
            return f"user {user}, who has this connection, is none of local_clients"
        if others := listening - {user}:
            return f"user {min(others)} listens at {inside}, and not user {user}, whose client announces it"
        if not listening:
            return f"nobody listens at {inside} yet; the client has to listen before it announces a port"
        return None
