"""MSN Messenger (MSNP): its HelperSpec."""

from __future__ import annotations

from typing import Final

from nfreaim.core.address import End
from nfreaim.core.helper import REDIRECT_COUNTERS, HelperFactory, HelperSpec, Service
from nfreaim.core.redaction import RedactorFactory
from nfreaim.helpers.msn.first_bytes import FILE, FTP, OBJECT, greetings


def _load() -> HelperFactory:
    from nfreaim.helpers.msn.connection import MsnHelper

    return MsnHelper


def _load_redactor() -> RedactorFactory:
    from nfreaim.helpers.msn.msn_redaction import MsnRedactor

    return MsnRedactor


MSN: Final = HelperSpec(
    name="msn",
    ports=(1863, 1864),
    load=_load,
    load_redactor=_load_redactor,
    services={name: Service(greetings=greetings(name), quiet_end=True) for name in (FILE, OBJECT, FTP)},
    resizes=frozenset({End.CLIENT, End.SERVER}),  # every address is a text
    counters={
        **REDIRECT_COUNTERS,
        "numbered_left": "announcements that stayed as they were because their length is part of a numbering",
        "acknowledgements": "acknowledgements of edited messages that were fitted to what their sender sent",
    },
    ports_of_one_server=True,
)
