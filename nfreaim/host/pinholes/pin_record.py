"""The record of a pinhole in the comment of its element in the kernel, from which a daemon reads it back."""

from __future__ import annotations

import re
import socket
from typing import Final

from nfreaim.core.address import Endpoint, FlowId
from nfreaim.core.firewall.pinhole import Pinhole
from nfreaim.host.netfilter.names import COMMENT
from nfreaim.old_spellings import DEFAULT_PROTOCOL

# The words stay, because entries of earlier installations are in running kernels. Installations that knew one
# protocol named none.
_RECORD: Final = re.compile(
    rf"{COMMENT}(?: in=(?P<in>\S+))? flow=(?P<client>\S+)>(?P<server>\S+) for=(?P<service>\S+)"
    r" cookie=(?P<agreement>[0-9a-f]*) until=(?P<until>\S+) since=(?P<since>\S+)(?: proto=(?P<protocol>\S+))?"
    r"(?: unverified=(?P<unverified>\S+))?(?: told=(?P<told>\S+))?"
)


def written(pinhole: Pinhole, with_inside: bool) -> str:
    """The record of *pinhole*; *with_inside* if the rest of its element does not hold the inside endpoint."""
    inside = f" in={pinhole.inside}" if with_inside else ""
    record = (
        f"{COMMENT}{inside} flow={pinhole.flow.client}>{pinhole.flow.server}"
        f" for={pinhole.service} cookie={pinhole.agreement.hex()} until={pinhole.deadline:.3f}"
        f" since={pinhole.since:.3f} proto={pinhole.protocol}"
    )
    if pinhole.unverified:
        record += f" unverified={pinhole.unverified}"
    if pinhole.told is not None:
        record += f" told={pinhole.told}"
    return record


def read(
    record: str, outside: Endpoint, peer: str, verify: bool, inside: Endpoint | None = None
) -> Pinhole | None:
    """The pinhole of one element, which admits *peer* ("": everybody); None if the record is not ours.

    inside  what the element says, if that says more than the record
    """
    found = _RECORD.fullmatch(record)
    if found is None or (inside is None and not found["in"]):
        return None
    try:
        return Pinhole(
            inside=inside or _endpoint(found["in"]),
            outside=outside,
            flow=FlowId(_endpoint(found["client"]), _endpoint(found["server"])),
            agreement=bytes.fromhex(found["agreement"]),
            service=found["service"],
            deadline=float(found["until"]),
            peers=(peer,) if peer else (),
            since=float(found["since"]),
            verify=verify,
            protocol=found["protocol"] or DEFAULT_PROTOCOL,
            unverified=found["unverified"] or "",
            told=_endpoint(found["told"]) if found["told"] else None,
        )
    except ValueError:
        return None


def _endpoint(text: str) -> Endpoint:
    address, _, port = text.rpartition(":")
    return Endpoint(socket.inet_ntoa(socket.inet_pton(socket.AF_INET, address)), int(port))
