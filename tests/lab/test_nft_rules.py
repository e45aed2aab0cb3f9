"""The static rules as a table of nftables: what is there afterwards, what stays, and what takes their place.

Each test has a router of its own, whose rules are of the kind that the test names, whatever the lab runs on.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from nfreaim.host.rules import script
from nfreaim.host.rules.rule_settings import Settings
from nfreaim.marks import Marks
from tests.lab.router import Router
from tests.lab.scene import HOG

ARGS = ("--lan", "lan", "--wan", "wan", "--protocol", "one:5190")
NFT = (*ARGS, "--firewall", "nft")
LEGACY = (*ARGS, "--firewall", "legacy")
SKEWED = "203.0.113.9 . 4000 . 10.0.0.9"


@pytest.fixture
def router() -> Iterator[Router]:
    with Router() as made:
        yield made


@contextmanager
def serving(router: Router, queue: int) -> Iterator[None]:
    """A program that has this queue, as the daemon has it."""
    words = ("ip", "netns", "exec", router.ns("router"), sys.executable, "-c", HOG, str(queue))
    with subprocess.Popen(words, stdout=subprocess.PIPE, text=True) as program:
        try:
            assert program.stdout is not None
            assert program.stdout.readline() == "bound\n"
            yield
        finally:
            program.kill()


def chain(router: Router, name: str) -> list[str]:
    """The rules of a chain of our table, without counters."""
    lines = router.shell(f"nft -s list chain ip nfreaim {name}").splitlines()
    return [" ".join(line.split()) for line in lines[2:-2] if not line.strip().startswith("type ")]


def test_a_table_is_all_that_is_added_and_it_goes_without_a_trace(router: Router) -> None:
    router.load("legacy")
    before = router.state()
    router.rules("install", *NFT)
    assert router.shell("ipset list -n; iptables-legacy-save | grep NFREAIM_ENTRY || true") == ""
    once = router.state()
    router.rules("install", *NFT)
    assert router.state() == once
    assert router.show()[0] == 0
    router.rules("remove")
    assert router.state() == before


def test_show_tells_the_settings_that_the_rules_were_made_of(router: Router) -> None:
    helpers = ("--kernel-helper", "ftp:tcp:21@203.0.113.9")
    more = ("--lan", "br+", "--protocol", "two:6667,7000", "--queue", "7", "--workers", "3", *helpers)
    masks = ("--mark-mask", "0x40", "--connmark-mask", "0xff00", "--local-client", "1000")
    router.rules("install", *NFT, *more, *masks)
    found = script.settings(router.show()[1])
    words = [*ARGS, *more, *masks, "--firewall", "nft"]
    assert found == Settings.of_words(words)
    assert found.marks == Marks.of(0x40, 0xFF00)
    assert script.firewall(router.show()[1]) == "nft"
    assert script.difference(router.show()[1], found) == ""


def test_new_arguments_replace_the_old_ones(router: Router) -> None:
    router.rules("install", *NFT, "--queue", "7", "--local-client", "1000")
    router.rules("install", *NFT, "--lan", "lan2", "--queue", "8", "--workers", "2")
    assert "5190" in router.shell("nft list set ip nfreaim servers")
    lans = router.shell("nft list set ip nfreaim lan")
    assert '"lan"' in lans
    assert '"lan2"' in lans
    for name, queues in (
        ("queue_known", "9-10 bypass"),
        ("meet", "41-42 bypass"),
        ("read_gate", "72 bypass"),
        ("queue_skewed", "9-10"),
    ):
        assert chain(router, name)[-1].endswith(queues), name
    assert "users" not in router.shell("nft list table ip nfreaim"), "no client on the router is served now"


def test_interfaces_that_a_pattern_means_are_named_once(router: Router) -> None:
    router.rules("install", *NFT, "--lan", "eth+", "--lan", "eth1", "--lan", "eth1+")
    assert '{ "eth*", "lan", "nfrtest-lan" }' in " ".join(router.shell("nft list set ip nfreaim lan").split())


def test_what_the_daemon_has_put_into_sets_survives_a_second_install(router: Router) -> None:
    router.rules("install", *NFT)
    router.shell(
        "nft 'add element ip nfreaim nfreaim_any { 203.0.113.1 . 4443 : 10.0.0.9 . 4443 }';"
        "nft 'add element ip nfreaim nfreaim_off { 10.0.0.9 . 4000 . 203.0.113.9 }'"
    )
    router.rules("install", *NFT, "--queue", "8")
    shown = router.show()[1]
    assert "nfreaim_any 203.0.113.1 . 4443 " in shown
    assert "nfreaim_off 10.0.0.9 . 4000 . 203.0.113.9 " in shown


@pytest.mark.parametrize(
    "damage",
    [
        "nft delete table ip nfreaim",
        "nft flush ruleset",
        "nft flush chain ip nfreaim from_clients",
        "nft insert rule ip nfreaim forward accept",
        "nft flush table ip nfreaim; nft delete set ip nfreaim nfreaim_off",
    ],
)
@pytest.mark.parametrize("first", ["remove", "install"])
def test_damaged_rules_are_named_and_completed_or_removed(router: Router, damage: str, first: str) -> None:
    before = router.state()
    router.rules("install", *NFT)
    whole = router.state()
    router.shell(damage)
    status, text = router.show()
    assert status == 3
    assert "not installed:" in text
    if first == "install":
        router.rules("install", *NFT)
        assert sorted(router.state().splitlines()) == sorted(whole.splitlines())
        assert router.show()[0] == 0
    router.rules("remove")
    assert router.state() == before


def test_what_an_earlier_table_has_and_this_one_has_not_goes_with_an_install(router: Router) -> None:
    router.rules("install", *NFT)
    whole = router.state()
    router.shell(
        "nft 'table ip nfreaim { set older { type ipv4_addr; elements = { 10.0.0.1 }; }\n"
        "chain older { type filter hook input priority 7; ip saddr @older jump also; }\nchain also { }\n}'"
    )
    router.rules("install", *NFT)
    assert router.state() == whole


# --- one packet filter, and then the other ---


@pytest.mark.parametrize(("first", "then"), [(LEGACY, NFT), (NFT, LEGACY)], ids=["to nft", "to legacy"])
def test_the_rules_of_the_other_packet_filter_are_taken_away_before(
    router: Router, first: tuple[str, ...], then: tuple[str, ...]
) -> None:
    router.load("legacy", "nft")
    before = router.state()
    router.rules("install", *then)
    wanted = router.state()
    router.rules("remove")
    router.rules("install", *first)
    router.rules("install", *then)
    assert router.state() == wanted
    router.rules("remove")
    assert router.state() == before


@pytest.mark.parametrize(("first", "then"), [(LEGACY, NFT), (NFT, LEGACY)], ids=["to nft", "to legacy"])
def test_an_edited_connection_or_a_daemon_is_in_the_way_of_a_change(
    router: Router, first: tuple[str, ...], then: tuple[str, ...]
) -> None:
    router.rules("install", *first)
    before = router.state()
    with serving(router, 5254):
        assert "the daemon runs, and would put the rules back; remedy: stop it first" in router.fails(
            "install", *then
        )
    if first == NFT:
        router.shell(f"nft 'add element ip nfreaim nfreaim_skew {{ {SKEWED} }}'")
    else:
        router.shell("ipset add nfreaim_skew 203.0.113.9,tcp:4000,10.0.0.9")
    for words in (("install", *then), ("remove",)):
        said = router.fails(*words)
        assert "203.0.113.9,tcp:4000,10.0.0.9" in said
        assert "remedy: end them at their clients, or nfreaim-rules remove --force" in said
    router.rules("remove", "--force")
    router.rules("install", *first)
    assert router.state() == before


def test_which_packet_filter_is_taken(router: Router, monkeypatch: pytest.MonkeyPatch) -> None:
    def taken(*words: str) -> str:
        return router.on("router", str(script.path()), "firewall", *words).stdout.strip()

    monkeypatch.delenv("NFREAIM_FIREWALL", raising=False)
    assert taken() == "legacy", "the kernel has its tables"
    assert taken("--firewall", "nft") == "nft"
    router.rules("install", *NFT)
    assert taken() == "nft", "it is installed"
    monkeypatch.setenv("NFREAIM_FIREWALL", "legacy")
    assert taken() == "legacy"
    assert taken("--firewall", "nft") == "nft"
    monkeypatch.setenv("NFREAIM_FIREWALL", "auto")
    assert taken() == "nft"


def test_a_kernel_without_legacy_tables_has_nftables(router: Router, monkeypatch: pytest.MonkeyPatch) -> None:
    """As where `install ip_tables /bin/false` and its like are in modprobe.d: iptables-legacy fails."""
    monkeypatch.delenv("NFREAIM_FIREWALL", raising=False)
    refusing = "mount -t tmpfs none /mnt; printf '#!/bin/sh\\nexit 3\\n' >/mnt/xt; chmod 755 /mnt/xt;"
    refusing += "mount --bind /mnt/xt $(readlink -f $(command -v iptables-legacy));"
    assert router.shell(f"{refusing} {script.path()} firewall") == "nft\n"
    router.shell(f"{refusing} {script.path()} install {' '.join(ARGS)}")
    assert router.show()[0] == 0


def test_a_wrong_name_is_a_wrong_command_line(router: Router) -> None:
    result = router.on("router", "sh", "-c", f"{script.path()} install --firewall iptables || echo $?")
    assert result.stdout == "2\n"
    assert "--firewall is auto, legacy or nft, not 'iptables'" in result.stderr


# --- the kernel ---


def test_what_is_tried_fails_for_the_kernels_reasons_and_not_for_the_words(router: Router) -> None:
    code = (
        "from nfreaim.host.rules.nft_table import NftTable; t = NftTable();"
        "print(t._takes('table ip nfreaim_tried { chain tried { counter; }\\n}'), t.takes_helper('ftp'),"
        "t.takes_helper('nosuch'))"
    )
    assert router.on("router", sys.executable, "-c", code).stdout == "True True False\n"


def test_a_helper_that_the_kernel_does_not_have_is_a_warning(router: Router) -> None:
    said = router.rules("install", *NFT, "--kernel-helper", "nosuch:tcp:99", "--kernel-helper", "ftp:tcp:21")
    assert "warning: the kernel refused its helper nosuch for tcp:99" in said
    assert [rule for rule in chain(router, "kernel_helpers") if "helper set" in rule] == [
        'tcp dport 21 counter ct helper set "ftp-tcp"'
    ]
    assert router.show()[0] == 0


def test_close_takes_all_that_lets_a_peer_in(router: Router) -> None:
    router.rules("install", *NFT)
    router.shell(
        "nft 'add element ip nfreaim nfreaim_any { 203.0.113.1 . 4443 : 10.0.0.9 . 4443 }';"
        "nft 'add element ip nfreaim nfreaim_pin { 203.0.113.1 . 4444 . 203.0.113.9 : 10.0.0.9 . 4444 }';"
        "nft 'add element ip nfreaim nfreaim_open { 203.0.113.1 . 4443 }';"
        "nft 'add element ip nfreaim nfreaim_peer { 203.0.113.1 . 4444 . 203.0.113.9 }';"
        "nft 'add element ip nfreaim nfreaim_off { 10.0.0.9 . 4000 . 203.0.113.9 }'"
    )
    router.rules("close")
    shown = router.show()[1]
    assert "203.0.113.1 . 444" not in shown
    assert "nfreaim_off 10.0.0.9 . 4000 . 203.0.113.9 " in shown
