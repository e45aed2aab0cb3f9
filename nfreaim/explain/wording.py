"""How the story names endpoints, connections and what became of them."""

from __future__ import annotations

from contextlib import suppress

from nfreaim.core.address import Endpoint
from nfreaim.core.reach import unreachable
from nfreaim.explain.connections import Connection, Pair
from nfreaim.explain.sides import UNKNOWN


def spoken(endpoint: Endpoint) -> str:
    """An endpoint as the story writes it; of a message that names a port alone, or none, that."""
    if not endpoint.address:
        return f"port {endpoint.port}"
    address = host(endpoint.address)
    return f"{address}:{endpoint.port}" if endpoint.port else f"{address} without a port"


def host(address: str) -> str:
    """An address; that of the router by its function where the capture does not show it."""
    return "<router>" if address == UNKNOWN else address


def replaced(text: str) -> str:
    """A reason of the engine, with the router's address as the story writes it."""
    return text.replace(UNKNOWN, host(UNKNOWN))


def hidden(address: str) -> str:
    """The kind of network that hides *address* from the Internet; "" if none does."""
    if address == UNKNOWN:
        return ""
    with suppress(ValueError):
        return unreachable(address) or ""
    return ""


def deciding(pair: Pair) -> Connection:
    """The side of *pair* that knows most of how it ended."""
    known = [one for one in (pair.lan, pair.wan) if one is not None]
    return next((one for one in known if one.outcome != "no answer"), known[0])


def met(pair: Pair) -> bool:
    """Whether both ends of *pair* have talked: it came about, and was not reset before its first byte."""
    one = deciding(pair)
    return one.outcome == "open" and (one.reset is None or any(one.sent))


def result(pair: Pair) -> str:
    """What became of a connection."""
    one = deciding(pair)
    if one.outcome == "open":
        there, back = one.sent
        carried = f"connected, {there} bytes there, {back} back"
        return carried if met(pair) else "connected, and reset before the first byte"
    if one.outcome == "refused":
        return "refused"
    if one.outcome == "not completed":
        return "answered, but the answer did not arrive"
    if one.syns < 2:
        return "no answer"
    return f"no answer to {one.syns} tries in {one.last - one.time:.0f} s"
