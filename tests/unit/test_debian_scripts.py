"""What the Debian package's scripts do when dpkg calls them, with stand-ins for all that they start."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from pathlib import Path
from typing import Final

import pytest

from nfreaim.host.check.repairs import LOADED_AT_BOOT
from nfreaim.host.netfilter.names import OWN_GROUP
from tests.reachable import REPO

DEBIAN: Final = REPO / "packaging" / "debian"
SCRIPTS: Final = ("preinst", "postinst", "prerm", "postrm")
RULES: Final = "nfreaim-sets.service nfreaim-rules.service"
UNITS: Final = f"{RULES} nfreaim.service"
STOPPED: Final = "nfreaim-textfile.timer nfreaim-textfile.service nfreaim-metrics.service nfreaim.service"
METRICS: Final = "/var/lib/prometheus/node-exporter/nfreaim.prom"
CAPABLE, CONFINED = "000001ffffffffff", "00000000a80425fb"
"""Root of a machine, and of a container of Docker: that lacks CAP_NET_ADMIN."""


class Machine:
    """A root directory in which a script runs. Stand-ins write down how they were called."""

    def __init__(self, place: Path) -> None:
        self.place, self.log = place, place / "log"
        self.stopped = place / "run/nfreaim-stopped"
        (place / "run/systemd/system").mkdir(parents=True)
        for name in ("deb-systemd-invoke", "nfreaim", "nfreaim-rules"):
            self.program(name, "")
        self.running(*UNITS.split())
        self.program("getent", f"echo nfreaim-own:x:{OWN_GROUP}:")
        self.program("ipset", "exit 1")
        self.program("nft", "exit 1")
        self.program("ischroot", "exit 1")
        self.may(CAPABLE)

    def program(self, name: str, does: str) -> None:
        path = self.place / "bin" / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(f'#!/bin/sh\necho "{name} $*" >>{self.log}\n{does}\n')
        path.chmod(0o755)

    def running(self, *units: str) -> None:
        """These are active, and no others."""
        asked = "".join(f"*is-active*{unit}) echo active ;; " for unit in units)
        self.program("systemctl", f'case "$*" in {asked}*is-active*) echo inactive; exit 3 ;; esac')

    def may(self, capabilities: str) -> None:
        self.write("/proc/self/status", f"Name:\tdpkg\nCapEff:\t{capabilities}\n")

    def write(self, path: str, text: str = "") -> Path:
        file = self.place / path.lstrip("/")
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
        return file

    def without_systemd(self) -> None:
        (self.place / "run/systemd/system").rmdir()
        for name in ("systemctl", "deb-systemd-invoke"):
            self.program(name, "exit 127")

    def run(self, script: str, *words: str) -> subprocess.CompletedProcess[str]:
        text = (DEBIAN / f"nfreaim.{script}").read_text()
        text = re.sub(r"(?<![\w.])/(?=(run|etc|var/lib|usr/lib|usr/local|proc)/)", f"{self.place}/", text)
        environment = {"PATH": f"{self.place}/bin:{os.environ['PATH']}"}
        command = ["/bin/sh", "-c", text, script, *words]
        self.log.write_text("")
        return subprocess.run(command, capture_output=True, text=True, env=environment, timeout=30)

    def done(self) -> list[str]:
        """What the last script called, without questions."""
        asked = ("systemctl", "getent", "ipset", "ischroot", "nft ", "nfreaim-rules saved")
        lines = [line.removeprefix("deb-systemd-") for line in self.log.read_text().splitlines()]
        return [line for line in lines if not line.startswith(asked)]

    def did(self, script: str, *words: str) -> list[str]:
        """The same of a script that succeeds."""
        done = self.run(script, *words)
        assert done.returncode == 0, done.stderr
        return self.done()


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    return Machine(tmp_path)


@pytest.mark.skipif(shutil.which("shellcheck") is None, reason="shellcheck is absent; apt install shellcheck")
@pytest.mark.parametrize("name", SCRIPTS)
def test_shellcheck_finds_nothing(name: str) -> None:
    done = subprocess.run(
        ["shellcheck", "-s", "sh", DEBIAN / f"nfreaim.{name}"], capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0, done.stdout


def test_an_installation_starts_and_an_upgrade_reloads_the_rules_and_restarts_the_daemon(
    machine: Machine,
) -> None:
    assert machine.did("preinst", "install") == []
    assert machine.did("postinst", "configure", "") == [f"invoke start {UNITS}"]
    upgrade = ["invoke reload nfreaim-rules.service", "invoke restart nfreaim.service"]
    assert machine.did("prerm", "upgrade", "0.2") == [], (
        "the earlier daemon serves until the new one is there"
    )
    assert machine.did("preinst", "upgrade", "0.0.9") == []
    assert machine.did("postrm", "upgrade", "0.2") == []
    assert machine.did("postinst", "configure", "0.0.9") == upgrade
    machine.running()
    started = [f"invoke start {name}" for name in RULES.split()]
    assert machine.did("postinst", "configure", "0.0.9") == [*started, "invoke restart nfreaim.service"]
    machine.running(*UNITS.split(), "nfreaim-metrics.service")
    assert machine.did("postinst", "configure", "0.0.9") == [
        *upgrade,
        "invoke restart nfreaim-metrics.service",
    ]


def test_a_daemon_that_systemd_gave_up_amid_the_unpacking_is_restarted_all_the_same(machine: Machine) -> None:
    machine.did("postinst", "configure", "0.0.9")
    called = machine.log.read_text().splitlines()
    forgotten = called.index("systemctl reset-failed nfreaim.service")
    assert forgotten < called.index("deb-systemd-invoke restart nfreaim.service")


def test_a_unit_that_fails_does_not_fail_the_installation(machine: Machine) -> None:
    machine.program("deb-systemd-invoke", "exit 1")
    done = machine.run("postinst", "configure", "")
    assert done.returncode == 0
    assert "journalctl -u nfreaim" in done.stderr


def test_without_systemd_nothing_is_started(machine: Machine) -> None:
    machine.without_systemd()
    assert machine.did("preinst", "install") == []
    assert machine.did("postinst", "configure", "") == []
    assert machine.did("prerm", "remove") == ["nfreaim rules remove --reset"]
    assert machine.did("postrm", "remove") == []


def test_a_chroot_leaves_the_machines_daemon_rules_and_state_alone(machine: Machine) -> None:
    machine.program("ischroot", "")
    state = machine.write("/run/nfreaim/flows")
    assert machine.did("prerm", "remove") == []
    assert machine.did("postrm", "remove") == []
    assert state.exists()
    assert not machine.stopped.exists()


def test_a_container_without_the_capabilities_can_remove_the_package(machine: Machine) -> None:
    """Without them nothing of ours was made there, and both programs refuse to look."""
    machine.without_systemd()
    machine.may(CONFINED)
    for name in ("nfreaim", "nfreaim-rules"):
        machine.program(name, "exit 1")
    machine.did("prerm", "remove")


def test_another_groups_number_is_named(machine: Machine) -> None:
    machine.program(
        "getent", 'case "$2" in nfreaim-own) echo nfreaim-own:x:998: ;; *) echo other:x:28262: ;; esac'
    )
    done = machine.run("postinst", "configure", "")
    assert done.returncode == 1
    assert "the number 28262, which other has" in done.stderr


def from_source(machine: Machine, prefix: str) -> None:
    unit = (REPO / "rules/nfreaim.service").read_text().replace("@PREFIX@", prefix)
    machine.write("/etc/systemd/system/nfreaim.service", unit.replace("@SYSCONFDIR@", "/etc"))


def linked(machine: Machine, prefix: str) -> None:
    current = machine.place / prefix.lstrip("/") / "lib/nfreaim/current"
    current.parent.mkdir(parents=True)
    current.symlink_to("0.1.0-1")


def openrc(machine: Machine, prefix: str) -> None:
    script = (REPO / "rules/nfreaim.initd").read_text().replace("@PREFIX@", prefix)
    machine.write("/etc/init.d/nfreaim", script)


@pytest.mark.parametrize(
    ("made", "prefix"),
    [
        *((from_source, prefix) for prefix in ("/usr/local", "/opt/nfreaim")),
        *((linked, prefix) for prefix in ("/usr/local", "/usr")),
        (openrc, "/opt/nfreaim"),
    ],
)
def test_an_installation_from_source_is_refused_before_anything_is_unpacked(
    machine: Machine, made: object, prefix: str
) -> None:
    assert callable(made)
    made(machine, prefix)
    for words in (["install"], ["install", "0.0.9", "0.1.0"]):
        done = machine.run("preinst", *words)
        assert done.returncode == 1, words
        assert f"make uninstall PREFIX={prefix}" in done.stderr.replace(str(machine.place), "")
        assert "rules.env" not in done.stderr
    machine.write("/etc/nfreaim/rules.env", 'NFREAIM_ARGS="--lan br-lan --wan eth0"\n')
    assert "rules.env" in machine.run("preinst", "install").stderr, "it goes with make uninstall"


def test_units_that_an_earlier_make_install_put_before_the_packages_are_left_alone(machine: Machine) -> None:
    """dpkg could not refuse what came after it: an upgrade says so, and a removal ends nothing of it."""
    from_source(machine, "/usr/local")
    assert machine.did("preinst", "upgrade", "0.0.9") == []
    done = machine.run("postinst", "configure", "0.0.9")
    assert done.returncode == 0
    assert "make uninstall" in done.stderr
    assert machine.done() == []
    state = [machine.write(f"/{one}/nfreaim/x") for one in ("run", "var/lib", "var/lib/nfreaim-rules")]
    for words in (["remove"], ["purge"]):
        if words == ["remove"]:
            assert machine.did("prerm", *words) == []
        machine.did("postrm", *words)
    assert all(file.exists() for file in state)


@pytest.mark.parametrize(
    "starts",
    [
        "/usr/sbin/nfreaim run --config /etc/nfreaim/nfreaim.toml",
        "-/usr/sbin/nfreaim run",
        "/usr/bin/nice -n -5 /usr/sbin/nfreaim run",
    ],
)
def test_a_unit_that_the_operator_edited_as_a_whole_is_the_packages(machine: Machine, starts: str) -> None:
    """`systemctl edit --full nfreaim` writes it into /etc/systemd/system."""
    text = f"[Service]\nExecStartPre=/bin/true\nExecStart=\nExecStart={starts}\n"
    machine.write("/etc/systemd/system/nfreaim.service", text)
    assert machine.did("preinst", "install", "0.0.9", "0.1.0") == []
    assert "invoke restart nfreaim.service" in machine.did("postinst", "configure", "0.0.9")
    assert "nfreaim rules remove --reset" in machine.did("prerm", "remove")


def test_a_removal_resets_what_was_edited_between_the_daemons_end_and_that_of_the_rules(
    machine: Machine,
) -> None:
    whole = [
        f"invoke stop {STOPPED}",
        "nfreaim rules remove --reset",
        "invoke stop nfreaim-rules.service nfreaim-sets.service",
    ]
    assert machine.did("prerm", "remove") == whole
    machine.did("postrm", "remove")
    assert not machine.stopped.exists()


def test_a_configuration_that_is_wrong_leaves_neither_rules_nor_edited_connections_behind(
    machine: Machine,
) -> None:
    last = "invoke stop nfreaim-rules.service nfreaim-sets.service"
    usual = "nfreaim rules remove --reset --config /dev/null"
    machine.program("nfreaim", 'case "$*" in *config*) ;; *) exit 2 ;; esac')
    assert machine.did("prerm", "remove")[1:] == ["nfreaim rules remove --reset", usual, last]
    machine.program("nfreaim", "exit 2")
    assert machine.did("prerm", "remove")[2:] == [usual, "nfreaim-rules remove", last]
    machine.program("nfreaim", "exit 1")
    assert machine.did("prerm", "remove")[2:] == ["nfreaim-rules remove", last]


@pytest.mark.parametrize("systemd", [True, False])
def test_what_cannot_be_removed_keeps_the_package_and_is_served_again(
    machine: Machine, systemd: bool
) -> None:
    """Edited connections that go on, and a daemon under another supervisor: both say why."""
    running = [*UNITS.split(), "nfreaim-textfile.timer"]
    machine.running(*running)
    if not systemd:
        machine.without_systemd()
    machine.program("nfreaim", "echo not reset >&2; exit 1")
    machine.program("nfreaim-rules", "echo edited connections wait >&2; exit 1")
    done = machine.run("prerm", "remove")
    assert done.returncode == 1
    assert "edited connections wait" in done.stderr
    assert "nfreaim-rules remove --force" in done.stderr
    assert not any(line.startswith("invoke stop nfreaim-rules") for line in machine.done())
    machine.did("postinst", "abort-remove")
    started = [line for line in machine.log.read_text().splitlines() if " start " in line]
    wanted = [f"systemctl start {' '.join(running)}"] if systemd else []
    assert started == wanted, "also what no boot starts, which deb-systemd-invoke would leave out"
    assert not machine.stopped.exists()


def test_what_did_not_run_before_a_removal_is_not_started_by_its_failure(machine: Machine) -> None:
    machine.running("nfreaim-sets.service")
    for name in ("nfreaim", "nfreaim-rules"):
        machine.program(name, "exit 1")
    assert machine.run("prerm", "remove").returncode == 1
    machine.did("postinst", "abort-remove")
    assert machine.log.read_text().splitlines()[-1] == "systemctl start nfreaim-sets.service"


def test_a_package_that_another_one_could_not_replace_serves_again(machine: Machine) -> None:
    """dpkg has removed it in favour of the other, which then failed: rules and daemon were away."""
    machine.did("prerm", "remove", "in-favour", "other", "1.0")
    machine.did("postinst", "abort-remove", "in-favour", "other", "1.0")
    assert machine.log.read_text().splitlines()[-1] == f"systemctl start {UNITS}"


@pytest.mark.parametrize("script", SCRIPTS)
def test_other_calls_of_dpkg_change_nothing(machine: Machine, script: str) -> None:
    state = machine.write("/run/nfreaim/flows")
    for words in (
        ["abort-upgrade", "0.2"],
        ["abort-install"],
        ["abort-deconfigure", "in-favour", "other", "1"],
        ["deconfigure", "in-favour", "other", "1"],
        ["failed-upgrade", "0.0.9", "0.1.0"],
        ["disappear", "other", "1"],
        ["abort-remove"],
    ):
        assert machine.did(script, *words) == [], words
    assert state.exists()


def test_a_purge_takes_what_the_daemon_and_its_tools_wrote(machine: Machine) -> None:
    kept = machine.write("/etc/nfreaim/nfreaim.toml")
    at_removal = [machine.write("/run/nfreaim/x"), machine.write(METRICS)]
    at_purge = [
        machine.write(path)
        for path in (
            "/etc/nfreaim/rules.env",
            "/var/lib/nfreaim/x",
            "/var/lib/nfreaim-rules/firewall",
            f"{LOADED_AT_BOOT}",
        )
    ]
    foreign = machine.write("/var/lib/prometheus/node-exporter/apt.prom")
    machine.did("postrm", "remove")
    assert [file.exists() for file in (*at_removal, *at_purge)] == [False] * 2 + [True] * 4
    machine.did("postrm", "purge")
    assert not any(file.exists() for file in at_purge)
    assert not any(file.parent.exists() for file in at_purge[1:3])
    assert kept.exists(), "dpkg takes its own file"
    assert foreign.exists()
    kept.unlink()
    machine.did("postrm", "purge")
    assert not kept.parent.exists()


def test_the_files_of_metrics_and_the_runtime_directory_are_those_of_the_units() -> None:
    assert METRICS in (REPO / "rules/nfreaim-textfile.service").read_text()
    assert "RuntimeDirectory=nfreaim\n" in (REPO / "rules/nfreaim.service").read_text()
