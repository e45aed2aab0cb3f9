"""A kernel without the legacy iptables tables: on one that has them no module of theirs can be loaded."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.vm import installation
from tests.vm.router import Router, conversation, offers

pytestmark = pytest.mark.timeout(1800)
TABLES = Path("/proc/net/ip_tables_names")


def test_it_is_served_through_nftables() -> None:
    installation.run("modprobe", "ip_tables", status=1)
    assert not TABLES.exists(), "the row before has to end with a boot"
    with Router() as router:
        installation.follow("install")
        with conversation(router) as (alice, bob):
            offers(alice, bob)
    assert not TABLES.exists()
