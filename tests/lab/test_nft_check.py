"""`nfreaim check` where the rules are a table of nftables."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from nfreaim.host.check import nft_features, packet_filter
from tests.lab.checking import PROGRAM, check, remedies
from tests.lab.net import Lab
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


# --- before anything is installed, in a shell that has nothing of what units have ---

WRITTEN = """import sys
from nfreaim.config import Config
from nfreaim.host.check import doctor_command
config = Config(lan=('lan',), wan=('wan',), file=sys.argv[1])
sys.exit(doctor_command.main(config, fix=len(sys.argv) > 2))"""


@pytest.fixture
def written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A configuration, beside which an installation has written nft."""
    monkeypatch.delenv("NFREAIM_FIREWALL", raising=False)
    (tmp_path / "rules.env").write_text("NFREAIM_FIREWALL=nft\n")
    return tmp_path / "nfreaim.toml"


def test_what_an_installation_has_written_is_what_is_looked_at(router: Router, written: Path) -> None:
    said = router.on("router", "sh", "-c", '"$@" || true', "sh", sys.executable, "-c", WRITTEN, str(written))
    assert "libnftables importable" in said.stdout
    assert "python-iptables" not in said.stdout


def test_what_is_repaired_is_of_the_packet_filter_that_was_written(router: Router, written: Path) -> None:
    words = (sys.executable, "-c", WRITTEN, str(written), "fix")
    said = router.on("router", "sh", "-c", '"$@" || true', "sh", *words)
    assert "installed the rules" in said.stdout
    assert "table ip nfreaim" in router.state()
    assert "NFREAIM" not in router.shell("iptables-legacy-save")
    assert router.shell("ipset list -n") == ""


def test_a_daemon_that_is_started_by_hand_installs_what_was_written(written: Path) -> None:
    written.write_text("")
    with Lab() as lab:
        daemon = lab.start_alg("A", ("--config", str(written)))
        assert "table ip nfreaim" in lab.run("A", "nft", "list", "tables", "ip").stdout
        assert daemon.stop() == 0


def test_where_legacy_tables_are_missing_the_remedy_is_nftables(router: Router) -> None:
    """They are what the setting wants."""
    legacy = PROGRAM.replace("wan=('wan',)", "wan=('wan',), firewall='legacy'")
    refusing = (
        "mount -t tmpfs none /mnt; printf '#!/bin/sh\\necho none >&2; exit 3\\n' >/mnt/xt; chmod 755 /mnt/xt;"
    )
    refusing += "mount --bind /mnt/xt $(readlink -f $(command -v iptables-legacy));"
    command = f'{refusing} "$@" || true'
    said = router.on("router", "sh", "-c", command, "sh", sys.executable, "-c", legacy).stdout
    (line,) = remedies(said.splitlines(), "the kernel has no legacy iptables tables")
    assert 'firewall = "nft" in nfreaim.toml takes nftables instead' in line
    assert "make install FIREWALL=auto RESTART=1" in line
    assert "another one is needed" not in line
