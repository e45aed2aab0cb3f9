"""Finds the first byte of an incomplete frame that an edit could change; the bytes before it can leave."""

from __future__ import annotations

from nfreaim.core.address import Direction
from nfreaim.core.helper import Nat
from nfreaim.helpers.oscar.icq import first_field, first_in_error
from nfreaim.helpers.oscar.proposal import ICBM, body_of, first_editable
from nfreaim.layers.oscar_messages import FLAP_HEADER
from nfreaim.layers.oscar_names import (
    CHANNEL_MSG_TO_CLIENT,
    CHANNEL_MSG_TO_HOST,
    CLIENT_ERR,
    SET_NICKINFO_FIELDS,
)


def first_in_frame(frame: bytes, direction: Direction, nat: Nat) -> int | None:
    """Offset in *frame*, whose end is missing, of the first byte that an edit could change; None if none."""
    name, body = frame[FLAP_HEADER.size : FLAP_HEADER.size + 4], body_of(frame)
    if nat.server_inside:
        return first_editable(frame, direction) if name == CHANNEL_MSG_TO_CLIENT else None
    if name == SET_NICKINFO_FIELDS:
        return first_field(frame, name, body)
    if name == CLIENT_ERR:
        return first_in_error(frame, body) if direction is Direction.ORIGINAL else None
    first = None
    if direction is Direction.REPLY and nat.has_standing():
        first = first_field(frame, name, body + (ICBM.size if name == CHANNEL_MSG_TO_CLIENT else 0))
    if first is None and name in (CHANNEL_MSG_TO_HOST, CHANNEL_MSG_TO_CLIENT):
        first = first_editable(frame, direction)
    return first
