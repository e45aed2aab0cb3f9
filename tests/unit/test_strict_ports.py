"""Outside ports that are kept within the ranges of the configuration."""

from __future__ import annotations

import pytest

from nfreaim.core.helper import Refused
from tests.unit.pinhole_table import ALICE, AMY, A, B, C, Table

RANGES = (4096, 4097, 8192)


def test_the_announced_port_is_taken_only_within_the_ranges() -> None:
    table = Table(ports=RANGES, strict=True)
    assert table.ask(A, 5190).outside.port == 4096
    assert table.ask(B, 8192).outside.port == 8192
    assert table.ask(C, 5191).outside.port == 4097
    with pytest.raises(Refused, match="no free outside port in 4096-8192"):
        table.ask(b"COOKIE-D", 5192)


def test_without_strict_the_announced_port_is_the_first_choice() -> None:
    assert Table(ports=RANGES).ask(A, 5190).outside.port == 5190


def test_a_pinhole_that_gives_way_gives_a_port_of_the_ranges() -> None:
    table = Table(ports=RANGES, strict=True, per_host=4)
    for number in range(3):
        table.ask(b"ALICE-%d" % number, 5190 + number)
    port = table.ask(A, 6000, flow=AMY).outside.port
    assert port in RANGES
    assert table.gave_way == 1


def test_a_pinhole_of_an_earlier_daemon_outside_the_ranges_is_closed() -> None:
    before = Table()
    kept, lost = before.ask(A, 8192), before.ask(B, 5190)
    after = Table(ports=RANGES, strict=True)
    after.firewall.pinholes = [kept, lost]
    after.adopt(lambda flow: flow == ALICE, 1.0)
    assert [one.outside.port for one in after] == [8192]
    assert after.ends == ["its port is none of ports in [pinholes], and strict is true there"]
