"""A kernel without the legacy iptables tables: on one that has them no module of theirs can be loaded."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.vm import installation
from tests.vm.router import Router, conversation, offers

pytestmark = pytest.mark.timeout(1800)
TABLES = Path("/proc/net/ip_tables_names")


def served() -> None:
    """A file arrives, and no legacy table has a part in it."""
    with Router() as router, conversation(router) as (alice, bob):
        offers(alice, bob)
    assert not TABLES.exists()


def test_it_is_served_through_nftables() -> None:
    installation.run("modprobe", "ip_tables", status=1)
    assert not TABLES.exists(), "the row before has to end with a boot"
    with Router():
        installation.follow("install")
    served()


def test_rules_that_were_legacy_ones_are_made_for_nftables() -> None:
    """The kernel that had the tables is gone; nobody has installed anything since."""
    installation.run("modprobe", "ip_tables", status=1)
    said = installation.run("journalctl", "--no-pager", "-b", "-u", "nfreaim-rules", "-o", "cat")
    assert "which this kernel has not" in said
    assert "made for nftables from now on" in said
    served()
    checked = installation.run("nfreaim", "check", "--lan", "br-lan", "--wan", "eth0", "--self-test")
    assert "FAIL" not in checked, checked
