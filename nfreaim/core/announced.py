"""Which endpoint of its own a client means by what it announces."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from ipaddress import AddressValueError
from typing import NamedTuple

from nfreaim.core.address import Endpoint
from nfreaim.core.helper import Nat, Refused
from nfreaim.core.reach import unreachable


class Own(NamedTuple):
    """An endpoint at which a client listens.

    inside   at its host's own address
    outside  as it announced that, at the outside address of its host; None: it announced the inside one
    """

    inside: Endpoint
    outside: Endpoint | None

    @property
    def announced(self) -> Endpoint:
        """As the client announced it."""
        return self.outside or self.inside

    @property
    def reason(self) -> str:
        """Why it is announced otherwise, for a report."""
        return "own address" if self.outside is None else "own outside address"


def own(announced: Endpoint, nat: Nat) -> Own:
    """What a client on the inside means by *announced*. Raises Refused if it is not its own.

    A client may know the outside address that its host is translated to: from its server, by UPnP or STUN, or
    because its user entered it. Host and port are the same then.
    """
    return all_own([announced.address], announced.port, nat)[0]


def all_own(addresses: Sequence[str], port: int, nat: Nat) -> list[Own]:
    """The same of a message that announces one port at several addresses: those that are its sender's."""
    inside = Endpoint(nat.inside.address, port)
    found = [
        Own(inside, None if address == inside.address else Endpoint(address, port))
        for address in addresses
        if address == inside.address or nat.is_ours(address)
    ]
    if not found:
        raise Refused(not_own(addresses[0], nat))
    return found


def not_own(address: str, nat: Nat) -> str:
    """Why a message that announces *address* is left: no peer reaches its sender there."""
    if nat.server_inside:
        return f"not the sender's own address: {address} is none of the inside networks"
    kind = ""
    with suppress(AddressValueError):
        found = unreachable(address)
        kind = f" ({found})" if found else ""
    return (
        f"not the sender's own address: it announces {address}{kind}, and its connection comes from"
        f" {nat.inside.address}; remedy: have the client announce that, or the router's outside address"
    )
