"""OSCAR, the protocol of AIM and ICQ: its HelperSpec."""

from __future__ import annotations

from typing import Final

from nfreaim.core.address import End
from nfreaim.core.helper import REDIRECT_COUNTERS, HelperFactory, HelperSpec, Service
from nfreaim.core.redaction import RedactorFactory
from nfreaim.core.sample import Sample
from nfreaim.helpers.oscar.capability_names import NAMES, canonical
from nfreaim.helpers.oscar.peer_greetings import TLS, TLS_GREETINGS, greetings

_ICQ_CAP: Final = "icq_per_host"
_ICQ: Final = ("icq-direct", "icq-reverse", "icq-relay")
# Those whose first bytes are not known. A service that has no name, but its capability alone, is in no list.
_OTHERS: Final = (
    *("talk", "direct-play", "buddy-icon", "add-ins", "games", "send-buddy-list", "video", "live-video"),
    *("camera", "microphone", "rtc-audio", "ichat-av", "chat-invite"),
)


def _load() -> HelperFactory:
    from nfreaim.helpers.oscar.session import OscarHelper  # imports scapy

    return OscarHelper


def _load_redactor() -> RedactorFactory:
    from nfreaim.helpers.oscar.flap_redaction import FlapRedactor

    return FlapRedactor


def _load_sample() -> Sample:
    from nfreaim.helpers.oscar.offered_file import OfferedFile  # imports scapy

    return OfferedFile()


OSCAR: Final = HelperSpec(
    name="oscar",
    ports=(5190,),
    load=_load,
    load_redactor=_load_redactor,
    load_sample=_load_sample,
    services={
        **{name: Service(greetings=greetings(name)) for name in ("send-file", "get-file", "direct-im")},
        **{name: Service(cap=_ICQ_CAP, greetings=greetings(name)) for name in _ICQ},
        **dict.fromkeys(_OTHERS, Service()),
    },
    closed=True,
    unverified={TLS: TLS_GREETINGS},
    switches={"icq_direct": _ICQ},
    caps={_ICQ_CAP: 4},
    resizes=frozenset({End.SERVER}),  # redirects of a server inside
    counters={
        **REDIRECT_COUNTERS,
        "unsequenced_flows": "connections given up because their frames were not numbered one after another",
        "unfaithful": "messages that stayed as they were because they could not be rebuilt byte by byte",
    },
    service_name=canonical,
    unlisted=NAMES,
)
