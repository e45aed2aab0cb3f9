"""Rules that go for good: edited connections end at both ends first, and no wrong byte arrives."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.lab import home
from tests.lab.edited import edited, established
from tests.lab.irc_offers import waiting
from tests.lab.net import Lab
from tests.lab.scene import INSTALL, eventually
from tests.reachable import by_anybody

PROTOCOLS = ("--protocol", "oscar", "--protocol", "irc:6667")
NOBODY = 65534


def removed(lab: Lab) -> subprocess.CompletedProcess[str]:
    words = (sys.executable, "-m", "nfreaim", "rules", "remove", "--reset")
    return lab.run("A", *by_anybody(*words), check=False, seconds=60.0)


@pytest.mark.parametrize("records", [True, False], ids=["known", "forgotten"])
@pytest.mark.parametrize("workers", [1, 2])
def test_edited_connections_are_reset_before_the_rules_go(records: bool, workers: int) -> None:
    more = (*PROTOCOLS, "--workers", str(workers)) if workers > 1 else PROTOCOLS
    with Lab(home_server=True) as lab:
        home.forward(lab)
        before = lab.firewall_rules("A")
        lab.run("A", *INSTALL, *more)
        daemon = lab.start_alg("A", more)
        refused = removed(lab)
        assert refused.returncode == 1
        assert "the daemon runs, and would put the rules back" in refused.stderr
        # One that is busy, and one whose ends say nothing while the rules are removed.
        busy, silent = edited(lab, "client inside", 0.01), edited(lab, "server inside", 60.0)
        eventually(lambda: len(waiting(lab)) == 2)
        assert all(established(lab, node) for node in ("alice", "server", "hsrv", "bob"))
        assert daemon.stop() == 0
        state = lab.dir / "run-A" / "nfreaim" / "flows"
        if records:  # as under systemd, where the daemon is no root
            for path in [state, *state.rglob("*")]:
                os.chown(path, NOBODY, NOBODY)
            lab.run("A", "sh", "-c", "touch /run/xtables.lock; chmod 640 /run/xtables.lock")
        else:
            shutil.rmtree(state)
        done = removed(lab)
        assert done.returncode == 0, done.stderr
        assert "edited connections were reset: 2" in done.stderr
        assert lab.firewall_rules("A") == before
        assert [end["error"] for end in busy.results(30.0)] == ["ConnectionResetError"] * 2
        assert not [node for node in ("alice", "server", "hsrv", "bob") if established(lab, node)]
        for end in (silent.server, silent.client):
            end.process.kill()


def test_make_uninstall_resets_them_too(tmp_path: Path) -> None:
    sbin = tmp_path / "usr/sbin"
    sbin.mkdir(parents=True)
    (sbin / "nfreaim").write_text(f'#!/bin/sh\nexec {sys.executable} -m nfreaim "$@"\n')
    (sbin / "nfreaim").chmod(0o755)
    own_folders = "mount -t tmpfs state /var/lib && mount -t tmpfs modules /etc/modules-load.d"
    places = f"PREFIX={tmp_path}/usr SYSCONFDIR={tmp_path}/etc"
    with Lab() as lab:
        before = lab.firewall_rules("A")
        lab.run("A", *INSTALL, *PROTOCOLS)
        daemon = lab.start_alg("A", PROTOCOLS)
        busy = edited(lab, "client inside", 0.01)
        eventually(lambda: len(waiting(lab)) == 1)
        assert daemon.stop() == 0
        removing = ("unshare", "--mount", "sh", "-c", f"{own_folders} && {places} exec scripts/uninstall")
        done = lab.run("A", *removing, check=False, seconds=60.0)
        assert done.returncode == 0, done.stderr
        assert "edited connections were reset: 1" in done.stderr
        assert lab.firewall_rules("A") == before
        assert [end["error"] for end in busy.results(30.0)] == ["ConnectionResetError"] * 2


def test_without_edited_connections_or_without_rules_it_only_removes() -> None:
    with Lab() as lab:
        before = lab.firewall_rules("A")
        assert removed(lab).returncode == 0
        lab.run("A", *INSTALL)
        assert removed(lab).returncode == 0
        assert lab.firewall_rules("A") == before
