"""Counts and logs why a helper gives up its flow."""

from __future__ import annotations

import logging

from nfreaim.core.counters import Counters
from nfreaim.core.flow import Event, Flow
from nfreaim.errors import Foreign, Malformed

log = logging.getLogger(__name__)


def given_up(flow: Flow, error: Exception, counters: Counters) -> Event:
    """The helper of *flow* raised *error*: what that is for the flow."""
    if isinstance(error, Foreign):
        counters.foreign_flows += 1
        log.debug("%s: not read: %s", flow.id, error)
        return Event.NOT_OURS
    if isinstance(error, Malformed):
        counters.malformed_flows += 1
        log.info("%s: no longer read: %s", flow.id, error)
    else:
        counters.failed_flows += 1
        log.error("%s: no longer read: %s", flow.id, type(error).__name__, exc_info=error)
    return Event.GIVEN_UP
