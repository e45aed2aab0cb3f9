"""Finds the first byte of an incomplete frame that an edit could change; the bytes before it can leave."""

from __future__ import annotations

from nfreaim.core.address import Direction
from nfreaim.core.helper import Nat
from nfreaim.helpers.oscar.icq import first_in_error
from nfreaim.helpers.oscar.icq_at_home import INFOS_AT_HOME
from nfreaim.helpers.oscar.icq_fields import first_field
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
        return _first_at_home(frame, name, body, direction)
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


def _first_at_home(frame: bytes, name: bytes, body: int, direction: Direction) -> int | None:
    """The same in a frame of a server inside."""
    if name == CHANNEL_MSG_TO_CLIENT:
        first = first_field(frame, name, body + ICBM.size)
        return first_editable(frame, direction) if first is None else first
    return first_field(frame, name, body) if name in INFOS_AT_HOME else None
