"""The service script for OpenRC."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.unit.source_install import LOGGED, NAMED, REPO, WORDS, WRITTEN, Machine, machine_at, needs_root


@pytest.fixture
def machine(tmp_path: Path) -> Iterator[Machine]:
    with machine_at(tmp_path) as made:
        yield made


@needs_root
def test_openrc_gets_a_service_script(machine: Machine) -> None:
    machine.openrc()
    said = machine.install(*NAMED).stdout
    assert "rc-update add nfreaim default && rc-service nfreaim start" in said
    service = machine.place / "etc/init.d/nfreaim"
    assert service.stat().st_mode & 0o777 == 0o755
    assert machine.make("uninstall").returncode == 0
    assert machine.logged() == [
        "rc-service nfreaim status",
        "rc-service nfreaim stop",
        "rc-update del nfreaim",
    ]
    assert not service.exists()


def driven(machine: Machine, what: str, **programs: str) -> subprocess.CompletedProcess[str]:
    """OpenRC reads the script as shell; its functions are stand-ins.

    programs  what ours do, which are stand-ins, too
    """
    text = (REPO / "rules/nfreaim.initd").read_text()
    text = text.replace("@PREFIX@", f"{machine.place}/usr").replace("@SYSCONFDIR@", f"{machine.place}/etc")
    machine.conf.mkdir(parents=True, exist_ok=True)
    machine.sbin.mkdir(parents=True, exist_ok=True)
    (machine.conf / "rules.env").write_text(WRITTEN)
    for name in ("nfreaim", "nfreaim-rules"):
        (machine.sbin / name).write_text(
            LOGGED.format(log=machine.log, more=programs.get(name[8:] or "nfreaim", ""))
        )
        (machine.sbin / name).chmod(0o755)
    stand_ins = 'checkpath() { :; }; ewarn() { echo "$*" >&2; }'
    command = ["/bin/sh", "-eu", "-c", f"{stand_ins}\n{text}\n{what}"]
    return subprocess.run(command, capture_output=True, text=True, timeout=30)


def test_the_service_script_starts_what_was_installed(machine: Machine) -> None:
    done = driven(
        machine,
        "start_pre && $command $command_args && reload\n"
        "RC_CMD=restart; stop_pre && stop_post; RC_CMD=stop; stop_pre && stop_post",
    )
    assert (done.returncode, done.stderr) == (0, "")
    settings = f"--config {machine.conf}/nfreaim.toml"
    assert machine.logged() == [
        f"nfreaim validate --absent {settings} {WORDS}",
        f"nfreaim rules install {settings} {WORDS}",
        f"nfreaim run {settings} {WORDS}",
        f"nfreaim reload {settings}",
        f"nfreaim validate --absent {settings} {WORDS}",
        "nfreaim-rules remove",
    ]


def test_a_restart_with_a_broken_configuration_stops_nothing(machine: Machine) -> None:
    """openrc-run goes on to stop, or ends with the status of stop_pre."""
    broken = 'case "$1" in validate) echo "hold_ms = 9999" >&2; exit 2 ;; esac'
    done = driven(machine, "RC_CMD=restart; stop_pre || exit $?; echo stopped", nfreaim=broken)
    assert (done.returncode, done.stdout, done.stderr) == (2, "", "hold_ms = 9999\n")
    done = driven(machine, "RC_CMD=stop; stop_pre || exit $?; echo stopped", nfreaim=broken)
    assert (done.returncode, done.stdout) == (0, "stopped\n"), "whatever the configuration says"


def test_rules_that_have_to_stay_do_not_keep_the_service_from_being_started_again(machine: Machine) -> None:
    done = driven(machine, "RC_CMD=stop; stop_post", rules="exit 1")
    assert done.returncode == 0
    assert "the rules stay until the next start" in done.stderr
