"""Our table of nftables beside programs that delete and change it: what is read, told and made again."""

import subprocess
import sys
from collections.abc import Iterator

import pytest

from tests.lab.router import Router


@pytest.fixture
def router() -> Iterator[Router]:
    with Router() as made:
        yield made


@pytest.mark.parametrize(
    "name",
    [
        "deleted_table_is_made_again_as_it_was",
        "each_damage_is_named",
        "refused_transaction_changes_nothing",
        "changes_are_announced_and_those_of_elements_not",
        "more_announcements_than_fit_count_as_a_change_of_all",
        "changes_of_others_are_counted_and_those_of_our_processes_not",
        "guard_outlives_a_reload_and_ends_with_its_process",
    ],
)
def test_on_router(router: Router, name: str) -> None:
    try:
        router.on("router", sys.executable, "-m", "tests.lab.nft_on_router", name)
    except subprocess.CalledProcessError as error:
        pytest.fail(error.stderr)


def test_packet_of_an_edited_flow_is_queued_once_though_the_kernel_comes_to_our_chain_again(
    router: Router,
) -> None:
    router.rules("install", "--firewall", "nft", "--lan", "lan", "--wan", "wan")
    name = "packet_that_waits_while_a_chain_is_made_is_queued_once"
    try:
        router.on("router", sys.executable, "-m", "tests.lab.nft_on_router", name, router.ns("client"))
    except subprocess.CalledProcessError as error:
        pytest.fail(error.stderr)
