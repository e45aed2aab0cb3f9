"""The host modules against the real kernel, each without the others; see on_router.py for what is done."""

from __future__ import annotations

import sys

import pytest

from tests.lab import kernel_sets
from tests.lab.net import ADDRESS, Lab
from tests.lab.scene import INSTALL, Scene
from tests.lab.sockets import HTTP, connect, listener, pour

LEGACY = (*INSTALL, "--firewall", "legacy")  # test_firewalls.py and test_nft_table.py have what is nftables'
PROGRAM = ("env", "NFREAIM_FIREWALL=legacy", sys.executable, "-m")

# Names, because on_router.py imports libraries that only a router needs.
ALONE = (
    "taken_ports_are_seen",
    "only_completed_connections_through_pinholes_are_events",
    "end_before_the_start_is_known_as_one_when_its_entry_expires",
)
# What test_firewalls.py does not ask of both: entries as ipset has them, and the nat table.
OF_IPSET = (
    "pinholes_read_back_as_written",
    "changes_of_others_at_the_same_time_are_not_lost",
    "lock_held_by_another_program_refuses_and_changes_nothing",
    "destinations_are_made_ahead_and_repaired",
    "followed_servers_are_taken_over_with_client_and_protocol",
    "pinholes_of_a_version_that_knew_one_protocol_are_its",
)
LEASES = (
    "short_time_outs_are_renewed_and_nothing_else_changes",
    "what_nobody_renews_ends_by_itself",
    "what_others_removed_is_told",
    "entries_of_the_version_before_become_short",
    "a_thousand_are_renewed_in_slices",
)
OF_SENDERS = (
    "neighbours_are_told_apart",
    "handshakes_are_told_from_connections_met_midstream",
)


def run(lab: Lab, router: str, name: str, *arguments: str, module: str = "on_router") -> None:
    print(lab.run(router, *PROGRAM, f"tests.lab.{module}", name, *arguments).stdout)


@pytest.mark.parametrize("name", ALONE)
def test_with_rules_installed(name: str) -> None:
    with Lab() as lab:
        lab.run("A", *LEGACY)
        run(lab, "A", name)


@kernel_sets.legacy_only("nftables has other sets")
@pytest.mark.parametrize("name", OF_IPSET)
def test_with_legacy_rules(name: str) -> None:
    with Lab() as lab:
        lab.run("A", *INSTALL)
        run(lab, "A", name)


@kernel_sets.legacy_only("nftables has other sets")
@pytest.mark.parametrize("name", LEASES)
def test_time_outs_of_pinholes(name: str) -> None:
    with Lab() as lab:
        lab.run("A", *LEGACY)
        run(lab, "A", name, module="leases_on_router")


@pytest.mark.parametrize("name", OF_SENDERS)
def test_of_senders_and_handshakes(name: str) -> None:
    with Lab() as lab:
        lab.run("A", *LEGACY)
        run(lab, "A", name, module="on_router_senders")


def test_a_queue_that_is_being_bound() -> None:
    with Lab() as lab:
        run(
            lab,
            "A",
            "packets_that_come_while_it_is_bound_wait_for_its_first_turn",
            module="queue_on_router",
        )


def test_without_rules() -> None:
    with Lab() as lab:
        run(lab, "A", "nothing_works_without_the_rules")


def test_control_connection_is_looked_up() -> None:
    with Lab() as lab, listener(Scene(lab), "bob", ADDRESS["bob"]) as server:
        client, accepted = connect(Scene(lab), "alice", ADDRESS["bob"], server)
        with client, accepted:
            lab.run("A", *LEGACY)
            port = str(client.getsockname()[1])
            run(lab, "A", "connections_are_known_until_they_end", port)


def test_exception_in_the_engine_stalls_nobody() -> None:
    with Lab() as lab, listener(Scene(lab), "bob", ADDRESS["bob"]) as server:
        lab.run("A", *LEGACY)
        name = "broken_engine_still_answers_every_packet"
        serving = lab.spawn("A", *PROGRAM, "tests.lab.on_router", name, pipes=True)
        assert serving.stdout is not None
        assert serving.stdin is not None
        assert serving.stdout.readline() == b"ready\n"
        client, accepted = connect(Scene(lab), "alice", ADDRESS["bob"], server)
        with client, accepted:
            for _ in range(20):
                pour(client, accepted, HTTP)
                pour(accepted, client, HTTP)
        serving.stdin.close()
        assert int(serving.stdout.readline()) >= 40
        assert serving.wait(10) == 0
