"""YMSG, the protocol of Yahoo! Messenger: its HelperSpec."""

from __future__ import annotations

from typing import Final

from nfreaim.core.address import End
from nfreaim.core.helper import HelperFactory, HelperSpec, Service
from nfreaim.core.redaction import RedactorFactory
from nfreaim.helpers.yahoo.web_request import GREETINGS, OTHER_MESSAGES, SERVICE, WEB_PORT


def _load() -> HelperFactory:
    from nfreaim.helpers.yahoo.pager import YahooHelper  # imports scapy

    return YahooHelper


def _load_redactor() -> RedactorFactory:
    from nfreaim.helpers.yahoo.ymsg_redaction import YmsgRedactor

    return YmsgRedactor


YAHOO: Final = HelperSpec(
    name="yahoo",
    ports=(5050,),
    load=_load,
    load_redactor=_load_redactor,
    services={SERVICE: Service(greetings=GREETINGS)},
    low_ports={"web_hosts": (SERVICE, WEB_PORT)},
    resizes=frozenset({End.CLIENT}),
    counters=OTHER_MESSAGES,
)
