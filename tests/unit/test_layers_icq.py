"""ICQ's layers: their sizes, golden packets field by field, and nothing at all where bytes are missing."""

from __future__ import annotations

import pytest
from scapy.packet import Packet

from nfreaim.layers.oscar_icq import (
    REVERSE_CONNECT,
    SERVER_RELAY,
    DirectInfo,
    ReverseConnect,
    listening,
    read,
    relay_message,
)
from nfreaim.layers.structs import header_struct
from tests.golden import load

GOLDEN = load()
INFO = GOLDEN["icq-status"].data[34:71]
REVERSE = GOLDEN["icq-reverse-connect"].data[77:104]
MESSAGE = GOLDEN["icq-file-ack"].data[91:]


def test_sizes_and_capabilities() -> None:
    assert header_struct(DirectInfo).size == len(bytes(DirectInfo())) == 37
    assert len(bytes(ReverseConnect())) == 27
    assert REVERSE_CONNECT.hex() == "094613444c7f11d18222444553540000"
    assert SERVER_RELAY.hex() == "094613494c7f11d18222444553540000"


def test_golden_fields() -> None:
    info = read(DirectInfo, INFO)
    assert info is not None
    assert (info.address, info.port, info.type, info.version) == (bytes((10, 0, 0, 5)), 4001, 4, 8)
    assert info.cookie == 0x11223344
    reverse = read(ReverseConnect, REVERSE)
    assert reverse is not None
    assert (reverse.uin, reverse.address) == (100003, bytes((10, 0, 0, 5)))
    assert (reverse.port, reverse.failed_port, reverse.port_again) == (4001, 4002, 4001)
    assert (reverse.mode, reverse.version, reverse.connection) == (4, 8, 257)
    message = relay_message(MESSAGE)
    assert message is not None
    assert (message.type, message.status, message.text) == (0x1A, 0, b"\0")
    assert listening(message).port == 4010  # type: ignore[union-attr]


@pytest.mark.parametrize(("layer", "data"), [(DirectInfo, INFO), (ReverseConnect, REVERSE)])
def test_a_block_of_another_size_is_none(layer: type[Packet], data: bytes) -> None:
    for size in range(len(data)):
        assert read(layer, data[:size]) is None
    assert read(layer, data + b"\0") is None


def test_a_message_that_is_cut_or_goes_on_names_no_port() -> None:
    for size in range(len(MESSAGE)):
        message = relay_message(MESSAGE[:size])
        assert message is None or listening(message) is None, size
    longer = relay_message(MESSAGE + b"\0")
    assert longer is not None
    assert listening(longer) is None


@pytest.mark.parametrize("port", [1, 4010, 40001, 65535])
def test_a_moved_port_stands_in_both_places(port: int) -> None:
    message = relay_message(MESSAGE)
    assert message is not None
    moved = listening(message).moved(port)  # type: ignore[union-attr]
    assert moved[105:107] == port.to_bytes(2, "big")
    assert moved[121:] == port.to_bytes(4, "little")
    assert moved[:105] + moved[107:121] == MESSAGE[:105] + MESSAGE[107:121]
