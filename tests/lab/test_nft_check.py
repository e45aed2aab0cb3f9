"""`nfreaim check` where the rules are a table of nftables."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from nfreaim.host.check import nft_features, packet_filter
from tests.lab.checking import PROGRAM, check, remedies
from tests.lab.router import Router

INSTALL = ("install", "--firewall", "nft", "--lan", "lan", "--wan", "wan")
NFT = PROGRAM.replace("wan=('wan',)", "wan=('wan',), firewall='nft'")


@pytest.fixture
def router() -> Iterator[Router]:
    with Router() as made:
        yield made


def test_router_in_order_has_no_failure_and_nothing_is_said_of_legacy_tables(router: Router) -> None:
    router.rules(*INSTALL)
    before = router.state()
    status, lines = check(router)  # what is installed counts
    assert [line for line in lines if line.startswith(("FAIL", "warn nft"))] == []
    assert status == 0
    said = "\n".join(lines)
    assert "libnftables importable" in said
    assert "tables with an owner" in said
    assert "legacy" not in said
    assert "ipset" not in said
    assert router.state() == before


def test_what_is_not_installed_yet_is_looked_at_as_the_setting_says(router: Router) -> None:
    before = router.state()
    _, lines = check(router, NFT)
    assert "ok   libnftables importable" in lines
    (line,) = remedies(lines, "rules are not installed")
    assert "--firewall nft" in line
    assert router.state() == before


def test_line_for_a_native_firewall_is_one_that_nft_takes_and_check_believes(router: Router) -> None:
    router.load("native-nft")
    router.rules(*INSTALL)
    status, lines = check(router, NFT)
    assert status == 1
    (line,) = remedies(lines, "drops pinhole connections")
    assert line.startswith("nft insert rule inet router forward ")
    router.shell(line)
    status, lines = check(router, NFT)
    assert remedies(lines, "nftables chain") == []
    assert status == 0


@pytest.mark.parametrize(
    ("trouble", "complaint"),
    [
        ("nft flush chain ip nfreaim gate", "FAIL rules incomplete"),
        ("ip address add 10.5.0.1/24 dev lan", "warn inside networks unknown to the rules: 10.5.0.0/24"),
        (
            "nft add table ip theirs; "
            "nft add chain ip theirs c '{ type filter hook prerouting priority 0; }'; "
            "nft add rule ip theirs c meta mark set meta mark or 0x10000000",
            "FAIL mark_mask: bits 0x10000000 are used by others",
        ),
    ],
)
def test_trouble_is_named(router: Router, trouble: str, complaint: str) -> None:
    router.rules(*INSTALL)
    assert not any(line.startswith(complaint) for line in check(router, NFT)[1])
    router.shell(trouble)
    _, lines = check(router, NFT)
    (line,) = [line for line in lines if line.startswith(complaint)]
    assert " -> " in line


def test_a_kernel_that_lacks_something_is_told_with_the_remedy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(nft_features.FEATURES, "expression of tomorrow", "chain c { tomorrow; }")
    (found,) = nft_features.features()
    assert (found.status, found.text) == ("FAIL", "the kernel's nftables has no expression of tomorrow")


def test_a_saved_ruleset_with_our_table_is_named(tmp_path: Path) -> None:
    file = tmp_path / "nftables.conf"
    file.write_text("flush ruleset\ntable inet filter {\n}\n")
    assert not [one for one in packet_filter.saved_rules([file]) if str(file) in one.text]
    file.write_text("flush ruleset\ntable ip nfreaim {\n}\n")
    (found,) = [one for one in packet_filter.saved_rules([file]) if str(file) in one.text]
    assert found.status == "warn"
