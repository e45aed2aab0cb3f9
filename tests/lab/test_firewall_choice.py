"""Which packet filter the rules' script takes where nobody names one: decided once, and written down.

Each test has a router of its own, whatever the lab runs on.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.lab.confine import confined, passable
from tests.lab.net import Lab
from tests.lab.router import RECORD, SCRIPT, Router

ARGS = "--lan lan --wan wan --protocol one:5190"
GONE = """
mount -t tmpfs none /mnt; printf '#!/bin/sh\\nexit 3\\n' >/mnt/failing; chmod 755 /mnt/failing
for name in {programs}; do mount --bind /mnt/failing $(readlink -f $(command -v $name)); done
"""
"""As on a kernel that has not what these programs speak to; it ends with the shell."""

NO_LEGACY = GONE.format(programs="iptables-legacy")
NO_NFT = GONE.format(programs="nft")
ANEW = "warning: the rules were those of {}, which this kernel has not, and are gone with the one that had it"


@pytest.fixture
def router() -> Iterator[Router]:
    with Router() as made:
        yield made


@pytest.fixture
def record(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where the decision is written down; nothing names a packet filter."""
    monkeypatch.delenv("NFREAIM_FIREWALL", raising=False)
    monkeypatch.setenv("NFREAIM_SETTINGS", str(tmp_path / "none.toml"))
    monkeypatch.setenv(RECORD, str(tmp_path / "state/firewall"))
    return tmp_path / "state/firewall"


def said(router: Router, *words: str, before: str = "") -> tuple[str, str]:
    """What the script prints, and what it complains of, after the shell lines *before*."""
    done = router.on("router", "sh", "-ec", f"{before}\nexec {SCRIPT} {' '.join(words)}")
    return done.stdout.strip(), done.stderr.strip()


# --- the record ---


def test_what_was_installed_is_written_down_and_taken_again(router: Router, record: Path) -> None:
    assert said(router, "firewall") == ("legacy", "")
    assert not record.exists(), "a question decides nothing"
    router.rules("install", *ARGS.split(), "--firewall", "nft")
    assert record.read_text() == "nft\n"
    assert (record.stat().st_mode & 0o777, record.parent.stat().st_mode & 0o777) == (0o644, 0o755)
    router.rules("remove")
    assert record.read_text() == "nft\n", "rules are removed at each stop"
    assert said(router, "firewall") == ("nft", "")
    router.rules("install", *ARGS.split(), "--firewall", "legacy")
    assert record.read_text() == "legacy\n"


@pytest.mark.parametrize(
    ("before", "gone", "was", "kind", "became"),
    [
        ("legacy", NO_LEGACY, "legacy iptables with ipset", "nft", "nftables"),
        ("nft", NO_NFT, "nftables", "legacy", "legacy iptables with ipset"),
    ],
)
def test_where_the_kernel_has_it_no_longer_it_is_decided_anew_in_one_line(
    router: Router, record: Path, before: str, gone: str, was: str, kind: str, became: str
) -> None:
    record.parent.mkdir()
    record.write_text(f"{before}\n")
    found, complaint = said(router, "firewall", before=gone)
    assert found == kind
    assert complaint.count("\n") == 0
    assert ANEW.format(was) in complaint
    assert complaint.endswith(f"made for {became} from now on")
    assert record.read_text() == f"{before}\n", "a question decides nothing"
    _, complaint = said(router, "install", ARGS, before=gone)
    assert ANEW.format(was) in complaint
    assert record.read_text() == f"{kind}\n"
    assert said(router, "install", ARGS) == ("", ""), "from then on it is as it was decided"
    assert said(router, "firewall") == (kind, "")


def test_sets_that_another_program_restored_make_no_kernel_have_the_tables(
    router: Router, record: Path
) -> None:
    """Whoever saves sets of ipset saves ours, and loads them at a boot whatever kernel that has."""
    record.parent.mkdir()
    record.write_text("legacy\n")
    router.shell("ipset create nfreaim_lan hash:net")
    assert said(router, "firewall", before=NO_LEGACY)[0] == "nft"
    said(router, "record", before=NO_LEGACY)
    assert record.read_text() == "nft\n"
    router.shell(f"{NO_LEGACY} {SCRIPT} install {ARGS}")
    assert router.show()[0] == 0
    assert router.shell("ipset list -n") == ""


def test_rules_that_are_there_do_not_overrule_it(router: Router, record: Path) -> None:
    """A saved ruleset of nftables that holds our table is loaded at a boot before our rules are."""
    router.rules("install", *ARGS.split(), "--firewall", "nft")
    record.write_text("legacy\n")
    router.rules("install", *ARGS.split())
    assert "table ip nfreaim" not in router.state()
    assert record.read_text() == "legacy\n"


def test_a_missing_program_is_named_and_changes_no_decision(
    router: Router, record: Path, tmp_path: Path
) -> None:
    record.parent.mkdir()
    record.write_text("legacy\n")
    text = SCRIPT.read_text()
    assert "have ipset" in text
    script = tmp_path / "nfreaim-rules"
    script.write_text(text.replace("have ipset", "have no-such-program"))
    assert router.on("router", "sh", str(script), "firewall").stdout == "legacy\n"
    done = router.on("router", "sh", "-c", f"sh {script} install {ARGS} || true")
    assert done.stderr == "nfreaim-rules: the program ipset is missing; remedy: apt install ipset\n"
    assert record.read_text() == "legacy\n"


def test_a_record_of_something_else_is_none(router: Router, record: Path) -> None:
    record.parent.mkdir()
    record.write_text("iptables\n")
    assert said(router, "firewall") == ("legacy", "")


def test_in_a_folder_of_the_daemons_user_nothing_is_believed_or_written(
    router: Router, record: Path, tmp_path: Path
) -> None:
    """The script that installs may be root's, and would write through a link of that user's."""
    victim = tmp_path / "victim"
    victim.write_text("precious\n")
    record.parent.mkdir()
    record.write_text("nft\n")
    for name in ("firewall.new", "other"):
        (record.parent / name).symlink_to(victim)
    os.chown(record.parent, 65534, 65534)
    assert said(router, "firewall") == ("legacy", "")
    complaint = router.rules("install", *ARGS.split())
    assert "could not be written down" in complaint
    assert 'is not root\'s alone; remedy: firewall = "legacy" in ' in complaint
    assert victim.read_text() == "precious\n"
    assert record.read_text() == "nft\n"
    os.chown(record.parent, 0, 0)
    record.parent.chmod(0o777)
    assert said(router, "firewall") == ("legacy", "")
    record.parent.chmod(0o755)
    elsewhere = tmp_path / "link"
    elsewhere.symlink_to(record.parent)
    assert said(router, "firewall", before=f"export {RECORD}={elsewhere}/firewall") == ("legacy", "")
    assert said(router, "firewall") == ("nft", "")


def test_units_install_as_another_user_and_root_writes_it_down(record: Path) -> None:
    """nfreaim-rules.service: the script has two capabilities, and a step of root's follows."""
    record.parent.mkdir()
    passable(record.parents[1])
    script = str(SCRIPT)
    with Lab() as lab:
        lab.run("A", *confined(script, "install", *ARGS.split(), "--firewall", "nft"))
        assert not record.exists()
        lab.run("A", script, "record")
        assert record.read_text() == "nft\n"
        lab.run("A", script, "remove")
        lab.run("A", *confined(script, "install", *ARGS.split(), "--firewall", "legacy"))
        lab.run("A", script, "record")
        assert record.read_text() == "legacy\n", "what is there, whoever named it"
        lab.run("A", script, "install", *ARGS.split(), "--firewall", "nft")
        lab.run("A", *confined(script, "remove"))
        assert lab.run("A", *confined(script, "firewall")).stdout == "nft\n"


def test_a_machine_that_serves_nobody_decides_too_and_gets_no_table(router: Router, record: Path) -> None:
    before = router.state()
    tables = router.shell("cat /proc/net/ip_tables_names")
    assert said(router, "record") == ("", "")
    assert record.read_text() == "legacy\n"
    assert router.state() == before
    assert router.shell("cat /proc/net/ip_tables_names") == tables == ""


# --- what is refused ---


def test_without_legacy_tables_the_remedy_is_the_other_packet_filter(router: Router, record: Path) -> None:
    refusing = GONE.format(programs="iptables-legacy iptables-legacy-restore")
    done = router.on("router", "sh", "-c", f"{refusing} {SCRIPT} install {ARGS} --firewall legacy || true")
    assert f'remedy: write firewall = "nft" into {record.parents[1] / "none.toml"}' in done.stderr
    assert "make install FIREWALL=auto RESTART=1" in done.stderr
    assert not record.exists()


def test_where_the_kernel_has_legacy_tables_another_kernel_is_not_the_remedy(
    router: Router, record: Path
) -> None:
    router.shell("ipset create nfreaim_lan hash:ip")
    assert 'firewall = "nft"' not in router.fails("install", *ARGS.split(), "--firewall", "legacy")


# --- where the settings are elsewhere ---


def test_the_script_reads_the_settings_that_its_caller_reads(router: Router, record: Path) -> None:
    """A unit of `make install SYSCONFDIR=` names them; the usual file is another's."""
    settings = record.parents[1] / "none.toml"
    settings.write_text('firewall = "nft"\nmark_mask = 0x40\nconnmark_mask = 0xf00\n[irc]\nports = [7001]\n')
    settings.write_text('protocols = ["irc"]\n' + settings.read_text())
    python = f"export NFREAIM_PYTHON={sys.executable}"
    assert said(router, "install", "--lan lan --wan wan", before=python) == ("", "")
    shown = router.show()[1]
    assert "--mark-mask 0x40" in shown
    assert "--protocol irc:7001" in shown
