"""The session of the self-test: a helper reads it, edits the offer, and takes the withdrawal for one."""

from __future__ import annotations

import pytest

from nfreaim.core.address import Direction, Endpoint
from nfreaim.helpers.oscar import OSCAR
from nfreaim.helpers.oscar.session import OscarHelper
from tests.oscar.flap import FlapReader
from tests.oscar.icbm import parse_icbm
from tests.oscar.rendezvous import PORT, RDV_IP
from tests.oscar.snac import Snac
from tests.unit.fakes import CLIENT, OUTSIDE
from tests.unit.oscar_fixtures import Router, Wire

INSIDE = Endpoint(CLIENT.address, 5190)


def signed_on() -> Wire:
    assert OSCAR.load_sample is not None
    sample = OSCAR.load_sample()
    wire = Wire(Router(helper=OscarHelper))
    wire.handshake()
    for direction, message in sample.sign_on():
        wire.send(0 if direction is Direction.ORIGINAL else 1, message)
    return wire


def test_offer_is_edited_opened_and_withdrawn() -> None:
    wire = signed_on()
    assert OSCAR.load_sample is not None
    sample = OSCAR.load_sample()
    list(sample.sign_on())
    offer = sample.offer(INSIDE)
    assert sample.announced(offer) == INSIDE
    told = sample.announced(wire.client(offer))
    assert told.address == OUTSIDE
    (pinhole,) = list(wire.router.pinholes)
    assert pinhole.inside == INSIDE
    assert pinhole.outside.port == told.port
    assert pinhole.verify
    assert all(
        sample.greeting[field.at : field.at + len(min(field.values))] in field.values
        for greeting in wire.router.pinholes.expected(INSIDE)
        for field in greeting
    )
    wire.client(sample.withdrawal())
    assert list(wire.router.pinholes) == []


def test_offer_is_what_another_reader_of_the_protocol_reads() -> None:
    assert OSCAR.load_sample is not None
    sample = OSCAR.load_sample()
    ((channel, _, data),) = FlapReader().feed(sample.offer(INSIDE))
    assert channel == 2
    block = parse_icbm(Snac.decode(data)).rendezvous()
    assert block is not None
    assert (block.address(RDV_IP), block.number(PORT)) == (INSIDE.address, INSIDE.port)


@pytest.mark.parametrize("message", [b"", b"*\2\0\0\0\0", b"nothing at all, and long enough for headers"])
def test_other_bytes_announce_nothing(message: bytes) -> None:
    assert OSCAR.load_sample is not None
    with pytest.raises(ValueError, match=r"."):
        OSCAR.load_sample().announced(message)
