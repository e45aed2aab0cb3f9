"""Both firewalls on the real kernel: each does what the other does; see firewalls_on_router.py."""

from __future__ import annotations

import sys

import pytest

from tests.lab.net import Lab
from tests.lab.scene import INSTALL

CONTRACT = (
    "flows_come_and_go",
    "a_set_that_is_missing_says_so",
    "followed_servers_keep_client_protocol_and_time",
    "endpoints_are_bounded",
    "networks_in_one_another_keep_their_edges",
    "edited_connections_are_protected",
    "pinholes_read_back_as_written",
    "what_cannot_be_changed_stays_as_it_was",
    "forwards_are_replaced_as_a_whole",
    "short_time_outs_are_renewed_and_nothing_else_changes",
    "what_nobody_renews_ends_by_itself",
    "what_others_removed_is_told",
    "a_thousand_are_renewed_in_slices",
)


@pytest.mark.parametrize("firewall", ["legacy", "nft"])
@pytest.mark.parametrize("name", CONTRACT)
def test_the_contract(name: str, firewall: str) -> None:
    with Lab() as lab:
        lab.run("A", *INSTALL, "--firewall", firewall)
        run = ("env", f"NFREAIM_FIREWALL={firewall}", sys.executable, "-m", "tests.lab.firewalls_on_router")
        print(lab.run("A", *run, name).stdout)


def test_a_saved_ruleset_can_be_loaded_again() -> None:
    with Lab() as lab:
        lab.run("A", *INSTALL, "--firewall", "nft")
        run = ("env", "NFREAIM_FIREWALL=nft", sys.executable, "-m", "tests.lab.firewalls_on_router")
        lab.run("A", *run, "what_was_saved_can_be_loaded_again")


def test_random_changes_leave_the_same_pinholes_in_both() -> None:
    """Both are installed here at once."""
    with Lab() as lab:
        lab.run("A", *INSTALL, "--firewall", "legacy")
        print(lab.run("A", sys.executable, "-m", "tests.lab.compared_firewalls").stdout)
