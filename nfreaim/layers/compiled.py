"""Readers compiled from scapy declarations: they find what scapy's dissection finds, in a tenth of the time.

scapy makes a packet of each item of a list, with a dozen tables and copies of its fields, which takes 20 us.
A reader makes a record, which has the values of the fields and nothing else. It is compiled once, of the
fields_desc of a class: names, order, widths, conditions, and what says how long or how many, are those of the
declaration. So the declaration remains the only one.

A reader is strict where scapy is lenient: scapy shortens what reaches beyond its container and wraps what no
field covers in Raw. A reader raises ValueError, so every byte that it was given is in exactly one field.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterable, Iterator
from types import SimpleNamespace
from typing import Any

from scapy.fields import (
    ConditionalField,
    Field,
    PacketField,
    PacketLenField,
    PacketListField,
    StrField,
    StrLenField,
)
from scapy.packet import Packet

from nfreaim.layers.structs import code_of


class Record(SimpleNamespace):
    """The fields of one *layer* by name: numbers, bytes, records, and lists of these.

    A field whose condition does not hold is absent.
    """

    layer: type[Packet]


Step = Callable[[Record, bytes, int, int], int]
"""Reads one field or more into the record, from the bytes [pos, end); returns where the next one begins."""


class Reader:
    """Reads one layer. Raises TypeError for a kind of field that none of our layers needed so far."""

    __slots__ = ("_layer", "_steps")

    def __init__(self, layer: type[Packet]) -> None:
        self._layer = layer
        self._steps = tuple(_steps(layer, layer.fields_desc))

    def read(self, data: bytes, pos: int, end: int) -> tuple[Record, int]:
        """The layer that begins at *pos*, and where its last field ends, which is *end* at most.

        Raises ValueError if a field reaches beyond *end*, or a list has more items than it may.
        """
        record = Record()
        record.__dict__["layer"] = self._layer
        for step in self._steps:
            pos = step(record, data, pos, end)
        return record, pos

    def whole(self, data: bytes, pos: int, end: int) -> Record:
        """The layer that fills [pos, end). Raises ValueError if bytes are left over, too."""
        record, after = self.read(data, pos, end)
        if after != end:
            raise ValueError(f"{end - after} bytes left over behind {self._layer.__name__}")
        return record


_readers: dict[type[Packet], Reader] = {}


def reader_of(layer: type[Packet]) -> Reader:
    """The reader of *layer*, which is compiled once."""
    reader = _readers.get(layer)
    if reader is None:
        reader = _readers[layer] = Reader(layer)
    return reader


def _steps(layer: type[Packet], fields: Iterable[Any]) -> Iterator[Step]:
    names: list[str] = []
    codes = "!"
    for field in fields:
        if field.name == "layer":
            raise TypeError(f"{layer.__name__}: a record has a 'layer' already")
        code = code_of(layer, field)
        if code is None:
            if names:
                yield _fixed(tuple(names), struct.Struct(codes))
            names, codes = [], "!"
            yield _step(layer, field)
            continue
        if type(field).m2i not in (Field.m2i, StrField.m2i):
            raise TypeError(f"{layer.__name__}.{field.name}: its value is not what the wire has")
        names.append(field.name)
        codes += code
    if names:
        yield _fixed(tuple(names), struct.Struct(codes))


def _step(layer: type[Packet], field: Any) -> Step:
    """How *field* is read, whose size is not fixed."""
    kind = type(field)
    if kind is ConditionalField:
        (step,) = _steps(layer, [field.fld])
        return _conditional(field.cond, step)
    if kind is StrLenField and field.length_from is not None:
        return _text(field.name, field.length_from)
    if kind is StrField:
        return _rest(field.name)
    if kind is PacketField:
        return _inner(field.name, reader_of(field.cls))
    if kind is PacketLenField:
        return _bounded(field.name, field.length_from, reader_of(field.cls))
    if kind is PacketListField and field.length_from is None and field.max_count:
        return _listed(field)
    raise TypeError(f"{layer.__name__}.{field.name}: there is no reader for a {kind.__name__}")


def _fixed(names: tuple[str, ...], form: struct.Struct) -> Step:
    unpack, size = form.unpack_from, form.size

    def step(record: Record, data: bytes, pos: int, end: int) -> int:
        after = pos + size
        if after > end:
            raise ValueError(f"{record.layer.__name__} is cut short at {names[0]}")
        record.__dict__.update(zip(names, unpack(data, pos), strict=False))  # strict costs a tenth
        return after

    return step


def _conditional(condition: Callable[[Record], bool], inner: Step) -> Step:
    def step(record: Record, data: bytes, pos: int, end: int) -> int:
        return inner(record, data, pos, end) if condition(record) else pos

    return step


def _text(name: str, length_from: Callable[[Record], int]) -> Step:
    def step(record: Record, data: bytes, pos: int, end: int) -> int:
        after = pos + length_from(record)
        if after > end:
            raise ValueError(f"{record.layer.__name__}.{name} overruns: {end - pos} bytes left")
        record.__dict__[name] = data[pos:after]
        return after

    return step


def _rest(name: str) -> Step:
    def step(record: Record, data: bytes, pos: int, end: int) -> int:
        record.__dict__[name] = data[pos:end]
        return end

    return step


def _inner(name: str, reader: Reader) -> Step:
    def step(record: Record, data: bytes, pos: int, end: int) -> int:
        record.__dict__[name], after = reader.read(data, pos, end)
        return after

    return step


def _bounded(name: str, length_from: Callable[[Record], int], reader: Reader) -> Step:
    def step(record: Record, data: bytes, pos: int, end: int) -> int:
        after = pos + length_from(record)
        if after > end:
            raise ValueError(f"{record.layer.__name__}.{name} overruns: {end - pos} bytes left")
        record.__dict__[name] = reader.whole(data, pos, after)
        return after

    return step


def _listed(field: Any) -> Step:
    name, most, choose, count_from = field.name, field.max_count, field.next_cls_cb, field.count_from
    only = None if choose else reader_of(field.cls)

    def step(record: Record, data: bytes, pos: int, end: int) -> int:
        items: list[Record] = []
        record.__dict__[name] = items
        count = None if only is None or count_from is None else count_from(record)
        while pos < end if count is None else len(items) < count:
            if len(items) == most:
                raise ValueError(f"{record.layer.__name__}.{name} has more than {most} items")
            reader = only
            if reader is None:
                cls = choose(record, items, items[-1] if items else None, data[pos:end])
                if cls is None:
                    break
                reader = reader_of(cls)
            item, pos = reader.read(data, pos, end)
            items.append(item)
        return pos

    return step
