"""`make uninstall`: what goes, what stays, and edited connections."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.unit.source_install import NAMED, UNITS, WRITTEN, Machine, machine_at, needs_root


@pytest.fixture
def machine(tmp_path: Path) -> Iterator[Machine]:
    with machine_at(tmp_path) as made:
        yield made


def test_uninstall_removes_everything_but_an_edited_configuration(machine: Machine) -> None:
    before = machine.state()
    machine.install(*NAMED)
    machine.install()
    assert machine.make("uninstall").returncode == 0
    assert machine.state() == before
    machine.install(*NAMED)
    (machine.conf / "nfreaim.toml").write_text("# mine\n")
    assert f"Kept, because it was edited: {machine.conf}/nfreaim.toml" in machine.make("uninstall").stdout
    assert {*machine.state()} == {*before, f"{machine.conf}/nfreaim.toml"}


def test_uninstall_under_a_daemon_removes_nothing_and_says_so(machine: Machine) -> None:
    machine.install(*NAMED)
    daemon, before = machine.serve(), machine.state()
    done = machine.make("uninstall")
    assert done.returncode != 0
    assert f"the daemon runs, and nothing was removed: end it (kill {daemon.pid}" in done.stderr
    assert machine.state() == before


@needs_root
def test_what_was_stopped_for_nothing_runs_again(machine: Machine) -> None:
    """As beside a daemon that no service manager has started."""
    machine.systemd('case "$1" in is-active) echo active ;; esac')
    machine.install(*NAMED)
    daemon = machine.serve()
    done = machine.make("uninstall")
    assert f"end it (kill {daemon.pid})" in done.stderr
    units = "nfreaim-textfile.timer nfreaim-metrics.service nfreaim.service"
    assert f"what was stopped runs again: {units}" in done.stderr
    assert machine.logged()[-1] == f"systemctl start {units}"
    assert not [line for line in machine.logged() if "disable" in line]


EDITED = (
    "NFREAIM_FIREWALL=legacy sh rules/nfreaim-rules sets"
    " && ipset add nfreaim_skew 203.0.113.9,tcp:4000,10.0.0.9"
)


@needs_root
def test_edited_connections_are_reset_first(machine: Machine) -> None:
    """That of this entry has ended meanwhile."""
    machine.systemd()
    machine.install(*NAMED)
    machine.before, machine.after = EDITED, "echo sets: $(ipset list -n)"
    done = machine.make("uninstall")
    assert done.returncode == 0, done.stderr
    assert "sets:\n" in done.stdout
    assert not machine.lib.exists()


@needs_root
@pytest.mark.parametrize("manager", ["systemd", "openrc"])
def test_edited_connections_that_cannot_be_reset_keep_the_daemon_and_everything_else(
    machine: Machine, manager: str
) -> None:
    getattr(machine, manager)(
        'case "$*" in is-active*service) echo active ;; "nfreaim status") exit 0 ;; esac'
    )
    machine.install(*NAMED)
    (machine.conf / "nfreaim.toml").write_text("hold_ms = 9999\n")
    machine.log.write_text("")
    before = machine.state()
    machine.before, machine.after = EDITED, "echo sets: $(ipset list -n)"
    done = machine.make("uninstall")
    assert done.returncode != 0, done.stdout
    assert "the rules stay, and so does everything else" in done.stderr
    assert "what was stopped runs again: nfreaim" in done.stderr
    started = {
        "systemd": "systemctl start nfreaim-metrics.service nfreaim.service",
        "openrc": "rc-service nfreaim start",
    }
    assert machine.logged()[-1] == started[manager]
    assert not [line for line in machine.logged() if "disable" in line or "del" in line]
    assert "nfreaim_skew" in done.stdout
    assert {**machine.state(), str(machine.log): ""} == before
    done = machine.make("uninstall", "FORCE=1")
    assert done.returncode == 0, done.stderr
    assert "sets:\n" in done.stdout
    assert not machine.lib.exists()


@needs_root
@pytest.mark.parametrize("packaged", [False, True])
def test_files_that_its_programs_wrote_elsewhere_go(machine: Machine, packaged: bool) -> None:
    machine.systemd()
    machine.install(*NAMED)
    if packaged:
        machine.package()
    files = (
        "/etc/modules-load.d/nfreaim.conf",
        "/var/lib/prometheus/node-exporter/nfreaim.prom",
        "/var/lib/nfreaim-rules/firewall",
        "/var/lib/nfreaim/history",
        "/run/nfreaim/status",
    )
    machine.before = " && ".join(f"mkdir -p {file.rpartition('/')[0]} && echo x >{file}" for file in files)
    machine.after = f"for file in {' '.join(files)}; do [ ! -e $file ] || echo left: $file; done"
    done = machine.make("uninstall")
    assert done.returncode == 0, done.stderr
    left = [line.removeprefix("left: ") for line in done.stdout.splitlines() if line.startswith("left: ")]
    assert left == [*files] * packaged


@needs_root
def test_what_the_package_has_too_stays_and_its_daemon_takes_over(machine: Machine) -> None:
    """It was installed over this."""
    machine.systemd()
    machine.install(*NAMED)
    wants = machine.units / "multi-user.target.wants"
    wants.mkdir()
    for name in ("nfreaim.service", "nfreaim-rules.service"):
        (wants / name).symlink_to(machine.units / name)
    machine.package()
    machine.log.unlink()
    machine.before, machine.after = EDITED, "echo sets: $(ipset list -n)"
    done = machine.make("uninstall")
    assert done.returncode == 0, done.stderr
    assert machine.logged() == [
        "systemctl daemon-reload",
        "systemctl reenable nfreaim.service nfreaim-rules.service",
        "systemctl try-reload-or-restart nfreaim-rules.service",
        "systemctl try-restart nfreaim.service nfreaim-metrics.service",
    ]
    assert "nfreaim_skew" in done.stdout
    assert (machine.conf / "rules.env").read_text() == WRITTEN
    assert (machine.conf / "nfreaim.toml").exists()
    assert not [name for name in UNITS.split() if (machine.units / name).exists()]
    assert not machine.lib.exists()
    assert not (machine.sbin / "nfreaim").is_symlink()


@needs_root
def test_the_package_alone_stays_as_it_is(machine: Machine) -> None:
    machine.systemd()
    machine.package()
    machine.units.mkdir(parents=True)
    (machine.units / "nfreaim.service").write_text("# edited\nExecStart=/usr/sbin/nfreaim run --auto\n")
    machine.conf.mkdir(parents=True)
    for name in ("nfreaim.toml", "rules.env"):
        (machine.conf / name).write_text("")
    before = machine.state()
    assert machine.make("uninstall").returncode == 0
    assert machine.state() == before


@needs_root
def test_a_configuration_that_the_package_left_behind_stays_its_own(machine: Machine) -> None:
    """After `apt remove`: dpkg would not bring it back."""
    machine.systemd()
    machine.install(*NAMED)
    machine.program("dpkg", f'#!/bin/sh\n[ "$2" = {machine.conf}/nfreaim.toml ]\n')
    done = machine.make("uninstall")
    assert done.returncode == 0, done.stderr
    assert (machine.conf / "nfreaim.toml").exists()
    assert "userdel nfreaim" in machine.logged()
