"""Accounts: the names of users in a capture, as far as their connections say them."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field

from nfreaim.capture.link_layer import network_offset
from nfreaim.core.helper import HelperSpec
from nfreaim.explain.frames import Frames
from nfreaim.recording.copying import Copying, Packet


@dataclass(frozen=True, slots=True)
class Names:
    """*hosts*: under which name each has signed on. *parties*: whom the message in a frame is to or from."""

    hosts: Mapping[str, str] = field(default_factory=dict)
    parties: Mapping[int, str] = field(default_factory=dict)


def names_in(frames: Frames, servers: dict[int, HelperSpec], outside: str) -> Names:
    """The names. *outside*, the router's address, has none: it stands for many hosts."""
    copying = Copying(servers, os.urandom(32))
    hosts: dict[str, str] = {}
    parties: dict[int, str] = {}
    for frame in frames:
        at = network_offset(frame.link, frame.data)
        if at is None:
            continue
        packet = Packet(frame.time, 0, frame.data[at:])
        for _ in copying.packet(packet):
            pass
        control = copying.control(packet)
        if control is not None and control.redactor.party:
            parties[frame.number], control.redactor.party = control.redactor.party, ""
        if control is not None and control.redactor.account and control.flow.client.address != outside:
            hosts.setdefault(control.flow.client.address, control.redactor.account)
    return Names(hosts, parties)
