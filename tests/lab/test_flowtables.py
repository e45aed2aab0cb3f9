"""Where a flowtable may take connections from nfreaim: peers are not verified, claims work, and it is said.

This kernel may have no flowtables, so a program in place of nft tells of one. tests/vm has a real one.
"""

from __future__ import annotations

import os
import re
import shutil
from pathlib import Path

import pytest

from tests.lab import kernel_sets
from tests.lab.net import Lab
from tests.lab.scene import eventually, nfreaim, start
from tests.lab.standin import Client, Server, Transfer

INSTEAD = """#!/bin/sh
[ "$*" != "-at list ruleset" ] || cat {told}
if [ -e {told}.next ] && tr '\\0' ' ' </proc/$PPID/cmdline | grep -q ' install '; then
    mv {told}.next {told} && {nft} add table inet later
fi
exec {nft} "$@"
"""
FLOWTABLE = """table inet fast {
	flowtable f {
		hook ingress priority filter
	}
}
"""
ZONES = """table inet fast {
	flowtable f {
		hook ingress priority filter
	}
	chain zones { # handle 1
		ct original zone set 1 # handle 2
	}
}
"""
JUMP = "-j NFREAIM_FLOWTABLE"


@pytest.fixture
def told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """What nft tells besides the truth. If told.next exists, that is loaded while an installation goes on."""
    file = tmp_path / "told"
    file.write_text(FLOWTABLE)
    program = tmp_path / "nft"
    program.write_text(INSTEAD.format(told=file, nft=shutil.which("nft")))
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    return file


def test_peers_claim_unverified_where_the_kernel_keeps_nothing_out(told: Path) -> None:
    with Lab() as lab:
        before = lab.firewall_rules("A")
        told.write_text(ZONES)
        daemon = start(lab, "A")
        daemon.wait_log("peers' first bytes are not verified")
        assert JUMP not in lab.firewall_rules("A"), "it would make a zone void"
        checked = nfreaim(lab, "A", "check", "--lan", "lan", "--wan", "wan")
        assert "peers' first bytes cannot be relied on" in checked
        server, alice, bob = Server(lab), Client(lab, "alice", "alice1"), Client(lab, "bob", "bob1")
        for end in (server, alice, bob):
            end.wait_ready()
        for client in (alice, bob):
            client.sign_on(server)
        outcome = Transfer(alice, bob, "file").outcome()
        assert outcome.first_attempt, outcome.reason
        daemon.wait_log("claimed")
        assert daemon.stop() == 0
        assert not re.search(r"counters: .*peers_verified=", daemon.log_text())
        assert lab.firewall_rules("A") == before


@kernel_sets.legacy_only("a helper of nftables is given behind connection tracking, and makes no zone void")
def test_rules_are_whole_whether_the_kernel_takes_the_helper_or_not(told: Path) -> None:
    """Otherwise the daemon would install them again and again."""
    with Lab() as lab:
        before = lab.firewall_rules("A")
        words = ("--lan", "lan", "--wan", "wan", "--protocol", "one:5190")
        said = lab.run("A", "rules/nfreaim-rules", "install", *words).stdout
        assert said.startswith("flowtable ")
        assert lab.firewall_rules("A").count(JUMP) == 2
        shown = lab.run("A", "rules/nfreaim-rules", "show")
        assert shown.returncode == 0
        assert said in shown.stdout
        told.write_text(ZONES)
        assert "not installed: raw" in lab.run("A", "rules/nfreaim-rules", "show", check=False).stdout
        assert "ct zone set" in lab.run("A", "rules/nfreaim-rules", "install", *words).stdout
        assert JUMP not in lab.firewall_rules("A")
        told.write_text(FLOWTABLE)
        shown = lab.run("A", "rules/nfreaim-rules", "show", check=False)
        assert "not installed: raw" in shown.stdout
        assert "possible" not in shown.stdout, "nothing is known before the next install"
        told.write_text(ZONES)
        assert "possible: rules of nftables give" in lab.run("A", "rules/nfreaim-rules", "show").stdout
        lab.run("A", "rules/nfreaim-rules", "remove")
        assert lab.firewall_rules("A") == before


@kernel_sets.legacy_only("the daemon mends the table of nftables without an installation")
def test_a_ruleset_that_is_loaded_during_a_repair_of_ours_is_noticed(told: Path) -> None:
    with Lab() as lab:
        daemon = start(lab, "A")
        assert JUMP in lab.firewall_rules("A")
        told.with_name("told.next").write_text(ZONES)
        lab.run("A", "iptables-legacy", "-t", "raw", "-F", "NFREAIM")
        daemon.wait_log("somebody else changed our rules", 20)
        assert told.read_text() == ZONES
        eventually(lambda: JUMP not in lab.firewall_rules("A"), 40)
        assert daemon.stop() == 0


def test_a_table_of_nftables_is_whole_beside_a_flowtable(told: Path) -> None:
    words = ("--lan", "lan", "--wan", "wan", "--firewall", "nft")
    with Lab() as lab:
        for text in ("", FLOWTABLE, ZONES):
            told.write_text(text)
            said = lab.run("A", "rules/nfreaim-rules", "install", *words).stdout
            assert said.startswith("flowtable ") is bool(text)
            shown = lab.run("A", "rules/nfreaim-rules", "show")
            assert said in shown.stdout
            assert "zone" not in said
