"""`make install`: one link to a build of its own, and what is refused before."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.unit.source_install import NAMED, REPO, UNITS, WORDS, WRITTEN, Machine, end, machine_at, needs_root


@pytest.fixture
def machine(tmp_path: Path) -> Iterator[Machine]:
    with machine_at(tmp_path) as made:
        yield made


def test_everything_stands_behind_one_link(machine: Machine) -> None:
    said = machine.install(*NAMED).stdout
    (build,) = machine.builds()
    assert build.startswith("0.1.0-")
    assert os.readlink(machine.lib / "current") == build
    for name in ("nfreaim", "nfreaim-rules"):
        assert os.readlink(machine.sbin / name) == f"{machine.lib}/current/bin/{name}"
    assert (machine.conf / "rules.env").read_text() == WRITTEN
    assert (machine.conf / "nfreaim.toml").read_text() == (REPO / "rules/nfreaim.toml").read_text()
    assert f"Start it, now and at each boot: {machine.sbin}/nfreaim run {WORDS} " in said
    assert (machine.sbin / "nfreaim").stat().st_mode & 0o055 == 0o055, "whatever the umask"


def test_optional_libraries_stay_at_an_upgrade_until_others_are_named(machine: Machine) -> None:
    for words, package in (
        (NAMED, "."),
        (("EXTRAS=top,metrics",), ".[top,metrics]"),
        ((), ".[top,metrics]"),
        (("EXTRAS=upstream",), ".[upstream]"),
        ((), ".[upstream]"),
        (("EXTRAS=none",), "."),
        ((), "."),
    ):
        machine.install(*words)
        asked = (machine.lib / "current/bin/pip").read_text().split()
        assert asked[-2:] == ["--use-pep517", package], words


@pytest.mark.parametrize("words", [(), NAMED], ids=["first", "again"])
def test_a_build_that_fails_changes_nothing(machine: Machine, words: tuple[str, ...]) -> None:
    if words:
        machine.install(*words)
    before = machine.state()
    machine.broken.touch()
    done = machine.make("install", "LAN=br0", "WAN=eth1", "ABSENT=yes")
    assert done.returncode != 0
    assert "no such package" in done.stderr
    assert "the build failed; what was installed before is as it was" in done.stderr
    machine.broken.unlink()
    assert machine.state() == before


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("LAN=nosuch8", "WAN=lo"), "--lan nosuch8: there is no such interface; there are "),
        (("LAN=lo", "WAN=nosuch9"), "--lan lo: there is no such interface"),
        (("LAN=a/b", "WAN=eth0"), "'a/b': must be names of network interfaces"),
        (("LAN=br0", "WAN=br+", "ABSENT=yes"), "cannot be --lan and --wan at once"),
        ((*NAMED, "PORTS=99999"), "'99999': must be a whole number from 1 to 65535"),
        ((*NAMED, "PROTOCOLS=aim"), "there is no protocol 'aim'; known are oscar"),
        ((*NAMED, "WORKERS=99"), "'99': must be a whole number from 1 to 16"),
        (("LAN=br0",), "LAN and WAN are named together"),
        (("PROTOCOLS=irc",), "add LAN= and WAN="),
        ((*NAMED, "DESTDIR=/tmp/x"), "make install-units DESTDIR="),
    ],
)
def test_what_cannot_be_used_is_not_written(machine: Machine, words: tuple[str, ...], said: str) -> None:
    machine.install(*NAMED)
    before = machine.state()
    done = machine.make("install", *words)
    assert done.returncode == 2, done.stdout
    assert said in done.stderr
    assert machine.state() == before


def test_without_interfaces_it_says_what_to_do_next(machine: Machine) -> None:
    assert "Name the interfaces next: make install LAN=br-lan WAN=eth0" in machine.install().stdout
    assert not (machine.conf / "rules.env").exists()


def test_a_daemon_keeps_the_directory_that_it_runs_from(machine: Machine) -> None:
    machine.install(*NAMED)
    (first,) = machine.builds()
    daemon = machine.serve()
    said = machine.install().stdout
    assert f"The daemon that runs (process {daemon.pid}" in said
    assert "is still the earlier one: end it (kill" in said
    assert first in machine.builds()
    assert len(machine.builds()) == 2
    machine.install()
    assert first in machine.builds(), "and the one between them is gone"
    assert len(machine.builds()) == 2
    end(daemon)
    machine.install()
    assert machine.builds() == [os.readlink(machine.lib / "current")]


def test_an_installation_without_directories_of_builds_is_taken_over(machine: Machine) -> None:
    """As earlier versions made it."""
    for name in ("bin", "lib", "include", "share"):
        (machine.lib / name).mkdir(parents=True)
    (machine.lib / "pyvenv.cfg").touch()
    (machine.lib / "bin/nfreaim").touch()
    machine.sbin.mkdir()
    (machine.sbin / "nfreaim").symlink_to(machine.lib / "bin/nfreaim")
    (machine.sbin / "nfreaim-rules").write_text("# The static rules of nfreaim\n")
    machine.install(*NAMED)
    assert machine.builds() == [os.readlink(machine.lib / "current")]
    assert (machine.sbin / "nfreaim").resolve() == (machine.lib / "current/bin/nfreaim").resolve()
    assert (machine.sbin / "nfreaim-rules").is_symlink()


@needs_root
def test_the_package_is_in_the_way(machine: Machine) -> None:
    """Our units would hide its units."""
    machine.package()
    before = machine.state()
    done = machine.make("install", *NAMED)
    assert done.returncode != 0
    assert "the package nfreaim is installed" in done.stderr
    assert "apt remove nfreaim" in done.stderr
    assert machine.state() == before


def test_units_alone_are_written_for_packages(machine: Machine) -> None:
    words = ("install-units", f"DESTDIR={machine.place}/package", "UNITDIR=/usr/lib/systemd/system")
    assert machine.make(*words).returncode == 0
    written = machine.place / "package/usr/lib/systemd/system"
    assert {path.name for path in written.iterdir()} == {*UNITS.split()}
    assert f"{machine.place}/usr/sbin/nfreaim run" in (written / "nfreaim.service").read_text()
    assert not machine.lib.exists()
