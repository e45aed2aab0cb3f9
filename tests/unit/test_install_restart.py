"""`make install RESTART=1`: what is restarted, and the way back if the new version does not run."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.unit.source_install import NAMED, UNITS, WRITTEN, Machine, machine_at, needs_root


@pytest.fixture
def machine(tmp_path: Path) -> Iterator[Machine]:
    with machine_at(tmp_path) as made:
        yield made


@needs_root
def test_systemd_restarts_what_runs_if_it_is_asked_to(machine: Machine) -> None:
    pid = machine.place / "pid"
    machine.systemd(f'case "$*" in "restart nfreaim") kill -9 -$(cat {pid}) ;; esac')
    said = machine.install(*NAMED).stdout
    assert "systemctl enable --now nfreaim-sets nfreaim-rules nfreaim" in said
    assert machine.logged() == ["systemctl daemon-reload"]
    assert {path.name for path in machine.units.iterdir()} == {*UNITS.split()}
    assert f"ExecStart={machine.sbin}/nfreaim run" in (machine.units / "nfreaim.service").read_text()
    pid.write_text(str(machine.serve().pid))
    said = machine.install().stdout
    remedy = (
        "systemctl reload-or-restart nfreaim-rules && systemctl restart nfreaim"
        " && systemctl try-restart nfreaim-metrics"
    )
    assert f"is still the earlier one: {remedy} (make install RESTART=1 does it)" in said
    assert len(machine.builds()) == 2
    machine.log.unlink()
    machine.install("RESTART=1")
    assert machine.logged() == [
        "systemctl daemon-reload",
        "systemctl reload-or-restart nfreaim-rules",
        "systemctl restart nfreaim",
        "systemctl try-restart nfreaim-metrics",
    ]
    machine.processes[0].wait(10)
    assert machine.builds() == [os.readlink(machine.lib / "current")], "nothing runs from the earlier ones"


SETS = "NFREAIM_FIREWALL=legacy sh rules/nfreaim-rules sets"
TABLE = "nft add table ip nfreaim"


@needs_root
@pytest.mark.parametrize(
    ("before", "wanted", "changes"),
    [
        (SETS, "nft", True),
        (TABLE, "legacy", True),
        (SETS, "legacy", False),
        (TABLE, "auto", False),
        ("true", "nft", False),
    ],
)
def test_for_another_packet_filter_the_daemon_is_stopped_before_its_rules(
    machine: Machine, before: str, wanted: str, changes: bool
) -> None:
    """A reload of the rules would be refused while a daemon serves those of the other one."""
    machine.systemd()
    machine.install(*NAMED)
    machine.serve()
    machine.before = before
    commands = ["systemctl reload-or-restart nfreaim-rules", "systemctl restart nfreaim"]
    if changes:
        commands = ["systemctl restart nfreaim-rules nfreaim"]
    commands.append("systemctl try-restart nfreaim-metrics")
    said = machine.install(f"FIREWALL={wanted}").stdout
    assert f"is still the earlier one: {' && '.join(commands)} (make install RESTART=1" in said
    machine.log.unlink()
    machine.install("RESTART=1")
    assert machine.logged() == ["systemctl daemon-reload", *commands]


def tried(machine: Machine, command: str) -> None:
    environment = {**os.environ, "PATH": f"{machine.bin}:{os.environ['PATH']}"}
    done = subprocess.run(
        ["/bin/sh", "-c", command], env=environment, capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0, done.stderr


@needs_root
@pytest.mark.parametrize("manager", ["systemd", "openrc"])
def test_a_new_version_that_does_not_run_names_the_way_back_which_works(
    machine: Machine, manager: str
) -> None:
    start = {"systemd": "restart nfreaim", "openrc": "nfreaim restart"}[manager]
    getattr(machine, manager)()
    machine.install(*NAMED)
    (earlier,) = machine.builds()
    service = {"systemd": machine.units / "nfreaim.service", "openrc": machine.place / "etc/init.d/nfreaim"}[
        manager
    ]
    service.write_text("# of the earlier version\n")
    started = f'case "$*" in "{start}") echo "started $(readlink {machine.lib}/current)" >>{machine.log}'
    pid = machine.serve().pid
    getattr(machine, manager)(f"{started}; kill -9 -{pid}; exit 1 ;; esac")
    done = machine.make("install", "LAN=br9", "WAN=eth9", "ABSENT=yes", "FIREWALL=legacy", "RESTART=1")
    assert done.returncode != 0, done.stdout
    assert "the new version does not run; its log says why" in done.stderr
    assert os.readlink(machine.lib / "current") != earlier
    assert service.read_text() != "# of the earlier version\n"
    command = done.stderr.partition("linked back and started by:\ninstall: ")[2].splitlines()[0]
    getattr(machine, manager)(f"{started} ;; esac")
    machine.log.unlink()
    tried(machine, command)
    assert f"started {earlier}" in machine.logged()
    assert os.readlink(machine.lib / "current") == earlier
    assert service.read_text() == "# of the earlier version\n"
    assert (machine.conf / "rules.env").read_text() == WRITTEN
    if manager == "systemd":
        assert "systemctl daemon-reload" in machine.logged()
