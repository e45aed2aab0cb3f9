"""OSCAR, the protocol of AIM and ICQ: its HelperSpec."""

from __future__ import annotations

import re
from typing import Final

from nfreaim.core.address import End
from nfreaim.core.helper import HelperFactory, HelperSpec, Service
from nfreaim.helpers.oscar.peer_greetings import greetings

_ICQ_CAP: Final = "icq_per_host"
_ICQ: Final = ("icq-direct", "icq-reverse", "icq-relay")
_UUID: Final = re.compile(r"[0-9a-f]{8}(-?[0-9a-f]{4}){3}-?[0-9a-f]{12}")


def _load() -> HelperFactory:
    from nfreaim.helpers.oscar.session import OscarHelper  # imports scapy

    return OscarHelper


def _service_name(text: str) -> str:
    """The name of a service; of one that has no name, its capability UUID without dashes."""
    name = text.lower()
    return name.replace("-", "") if _UUID.fullmatch(name) else name


OSCAR: Final = HelperSpec(
    name="oscar",
    ports=(5190,),
    load=_load,
    services={
        **{name: Service(greetings=greetings(name)) for name in ("send-file", "get-file", "direct-im")},
        **dict.fromkeys(_ICQ, Service(cap=_ICQ_CAP)),
    },
    switches={"icq_direct": _ICQ},
    caps={_ICQ_CAP: 4},
    resizes=frozenset({End.SERVER}),  # redirects of a server inside
    counters=("unsequenced_flows", "redirects", "redirects_left", "unfaithful"),
    service_name=_service_name,
)
