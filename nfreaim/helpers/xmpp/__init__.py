"""XMPP (Jabber) in clear text: its HelperSpec."""

from __future__ import annotations

from typing import Final

from nfreaim.core.address import End
from nfreaim.core.helper import HelperFactory, HelperSpec, Service
from nfreaim.core.redaction import RedactorFactory
from nfreaim.helpers.xmpp.socks5_greetings import GREETINGS


def _load() -> HelperFactory:
    from nfreaim.helpers.xmpp.xmpp_helper import XmppHelper

    return XmppHelper


def _load_redactor() -> RedactorFactory:
    from nfreaim.helpers.xmpp.xmpp_redaction import XmppRedactor

    return XmppRedactor


XMPP: Final = HelperSpec(
    name="xmpp",
    ports=(5222,),
    load=_load,
    load_redactor=_load_redactor,
    services={"xmpp-file": Service(greetings=GREETINGS)},
    condition="only if the client speaks clear text",
    resizes=frozenset(End),  # an address is written in decimal, whoever says it
)
