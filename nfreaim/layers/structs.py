"""struct formats, compiled from scapy declarations for code that is too busy to build scapy objects.

Every format follows from the fields_desc of a class, so the fast path and the readable definition agree.
"""

from __future__ import annotations

import struct

from scapy.fields import ConditionalField, Field, StrField, StrFixedLenField
from scapy.packet import Packet

_INTEGERS = frozenset("BHIQ")


def code_of(cls: type[Packet], field: Field) -> str | None:
    """The format of *field* of *cls* in a struct; None if its size is not fixed.

    Raises TypeError for an integer that is not big-endian.
    """
    if isinstance(field, ConditionalField) or field.islist or field.holds_packets:
        return None
    if isinstance(field, StrFixedLenField):
        return f"{field.sz}s"
    form: str = field.fmt
    order, code = form[0], form[1:]
    if isinstance(field, StrField) or code not in _INTEGERS:
        return None
    if order not in "!>" and code != "B":
        raise TypeError(f"{cls.__name__}.{field.name} is not big-endian")
    return code


def header_struct(cls: type[Packet]) -> struct.Struct:
    """The leading fields of *cls* that have a fixed size, as one big-endian struct of the same width.

    The struct ends before the first field that is optional, a list, a packet or a string of variable length.

    >>> from nfreaim.layers.oscar_messages import FLAP
    >>> header_struct(FLAP).format
    '!BBHH'

    Raises TypeError if an integer among them is not big-endian, or if no field has a fixed size.
    """
    codes = []
    for field in cls.fields_desc:
        code = code_of(cls, field)
        if code is None:
            break
        codes.append(code)
    if not codes:
        raise TypeError(f"{cls.__name__} does not begin with a field of fixed size")
    return struct.Struct("!" + "".join(codes))
