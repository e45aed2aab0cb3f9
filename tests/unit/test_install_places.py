"""Places of `make install`: which can be used, and what is not done if one cannot be written."""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.unit.source_install import NAMED, REPO, UNITS, Machine, machine_at, needs_root


@pytest.fixture
def machine(tmp_path: Path) -> Iterator[Machine]:
    with machine_at(tmp_path) as made:
        yield made


@needs_root
def test_who_may_not_write_is_told_in_one_line(machine: Machine) -> None:
    machine.place.chmod(0o755)
    for folder in ("usr", "etc"):
        (machine.place / folder).mkdir()
    command = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", "/bin/sh"]
    for word in ("install", "uninstall"):
        environment = {**os.environ, "PREFIX": f"{machine.place}/usr", "SYSCONFDIR": f"{machine.place}/etc"}
        done = subprocess.run(
            [*command, f"scripts/{word}"],
            cwd=REPO,
            capture_output=True,
            text=True,
            timeout=60,
            env=environment,
        )
        assert (done.returncode, done.stdout, done.stderr.count("\n")) == (1, "", 1), done.stderr
        assert f"{word}: {machine.place}/usr cannot be written to by nobody: run it as root" in done.stderr


@pytest.mark.parametrize(
    ("goal", "name", "end"),
    [
        *(("install", "PREFIX", f"a{sign}b") for sign in " |&'\"*%\\;"),
        ("install", "SYSCONFDIR", "a b"),
        ("install", "UNITDIR", "a b"),
        ("uninstall", "PREFIX", "a b"),
        ("install-units", "UNITDIR", "a b"),
    ],
)
def test_a_place_whose_name_means_something_is_refused(
    machine: Machine, goal: str, name: str, end: str
) -> None:
    before = machine.state()
    done = machine.make(goal, *NAMED, **{name: f"{machine.place}/{end}"})
    assert done.returncode == 2, done.stderr
    assert f"{name}={machine.place}/{end} is no path" in done.stderr
    assert machine.state() == before


def test_a_place_that_is_relative_is_refused(machine: Machine) -> None:
    done = machine.make("install", *NAMED, PREFIX="build/there")
    assert done.returncode == 2
    assert "PREFIX=build/there is no path from / on" in done.stderr


@needs_root
@pytest.mark.parametrize(
    ("goal", "folder"),
    [
        ("install", "etc"),
        ("install", "etc/systemd/system"),
        ("install", "usr/sbin"),
        ("uninstall", "etc/systemd/system"),
    ],
)
def test_root_is_told_of_a_folder_that_is_read_only(machine: Machine, goal: str, folder: str) -> None:
    machine.systemd()
    machine.install(*NAMED)
    before = machine.state()
    place = machine.place / folder
    machine.before = f"mount --bind {place} {place} && mount -o remount,bind,ro {place}"
    done = machine.make(goal)
    assert done.returncode != 0, done.stdout
    assert f"{place} is read-only, and nothing was changed: mount it for writing" in done.stderr
    assert "run it as root" not in done.stderr
    assert machine.state() == before


@needs_root
def test_a_folder_that_is_full_leaves_program_and_units_of_before(machine: Machine) -> None:
    machine.systemd()
    machine.install(*NAMED)
    before = machine.state()
    copy = machine.place / "copy"
    machine.before = (
        f"cp -R {machine.units} {copy} && mount -t tmpfs -o size=40k full {machine.units}"
        f" && cp {copy}/* {machine.units} && rm -r {copy}"
    )
    machine.after = f"ls {machine.units} && sha256sum {machine.units}/*"
    done = machine.make("install", "LAN=br9", "WAN=eth9", "ABSENT=yes")
    assert done.returncode != 0, done.stdout
    assert "what was installed before is as it was" in done.stderr
    assert machine.state() == before
    assert done.stdout.split("\n")[: len(UNITS.split())] == sorted(UNITS.split())


@needs_root
def test_a_file_that_cannot_be_replaced_brings_back_the_others(machine: Machine) -> None:
    machine.systemd()
    machine.install(*NAMED)
    (machine.units / "nfreaim.service").write_text("# of the earlier version\n")
    (machine.sbin / "nfreaim").unlink()
    (machine.sbin / "nfreaim").mkdir()
    before = machine.state()
    done = machine.make("install", "LAN=br9", "WAN=eth9", "ABSENT=yes")
    assert done.returncode != 0, done.stdout
    assert "what was installed before is as it was" in done.stderr
    assert machine.state() == before


@needs_root
@pytest.mark.parametrize("manager", ["systemd", "openrc"])
def test_everything_reads_the_configuration_of_the_place_that_was_named(
    machine: Machine, manager: str
) -> None:
    getattr(machine, manager)()
    machine.install(*NAMED)
    files = [*machine.units.iterdir()] if manager == "systemd" else [machine.place / "etc/init.d/nfreaim"]
    named = []
    for file in files:
        text = file.read_text()
        assert not re.findall("@[A-Z]+@", text), file
        named += re.findall(r"[^\s=\"]*/nfreaim/[a-z.]+", text.replace("=-/", "=/"))
        for line in re.findall("(?m)^(?!#).*/sbin/nfreaim.*", text):
            assert f"{machine.sbin}/nfreaim" in line, file
    assert {*named} == {f"{machine.conf}/nfreaim.toml", f"{machine.conf}/rules.env"}
