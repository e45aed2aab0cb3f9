"""What can be done where another router in front hides an outside address, by what that router answers.

It is asked whether it serves UPnP, PCP or NAT-PMP, and for no mapping.
"""

from __future__ import annotations

from collections.abc import Callable

from nfreaim.core.reach import remedy
from nfreaim.host.check.answer import Check
from nfreaim.host.upstream import igd, port_control
from nfreaim.host.upstream.gateway import NoMapping, in_front_of

Spoken = Callable[[str], tuple[str, list[str]]]
"""Our outside address -> that of the router in front, and what it speaks. Raises NoMapping."""


def spoken(own: str) -> tuple[str, list[str]]:
    """What the router in front of *own* speaks. Raises NoMapping if it cannot be asked."""
    gateway = in_front_of(own)
    found = ["PCP or NAT-PMP"] if port_control.answers(own, gateway) else []
    try:
        igd.description(own, gateway)
    except NoMapping:
        return gateway, found
    return gateway, [*found, "UPnP"]


def hidden(what: str, address: str, kind: str, upstream: str, ask: Spoken = spoken) -> Check:
    """About *what*, whose *address* is of this *kind*, so out of peers' reach. *upstream* is the setting."""
    text = f"{what} is {kind}: peers cannot reach it"
    try:
        gateway, protocols = ask(address)
    except NoMapping as error:
        return Check("warn", f"{text}, so nothing is announced; {error}", remedy(kind))
    speaks = f"the router in front, {gateway}, speaks {' and '.join(protocols) or 'neither UPnP nor PCP'}"
    if upstream == "off":
        way = 'set upstream = "auto" in the configuration, and nfreaim asks it for ports'
        return Check("warn", f"{text}, so nothing is announced; {speaks}", way if protocols else remedy(kind))
    wanted = {"upnp": ["UPnP"], "pcp": ["PCP or NAT-PMP"]}.get(upstream, protocols)
    if not set(wanted) & set(protocols):
        way = f"switch that on in the router in front; or {remedy(kind)}"
        return Check("warn", f'{text}; upstream = "{upstream}", but {speaks}', way)
    if wanted == ["UPnP"]:
        try:
            igd.library()
        except NoMapping as error:
            return Check("warn", f"{text}; {speaks}", str(error))
    return Check("ok", f"{text} but by ports that are asked for (upstream): {speaks}")
