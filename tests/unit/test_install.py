"""`make install` and its end, with a Python that builds at once. Nothing of the machine is touched.

As root it runs in a network and a mount namespace of its own, with a /run in which each test puts what says
that a service manager runs; its programs are stand-ins.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

REPO = Path(__file__).resolve().parents[2]
ROOT = os.geteuid() == 0
needs_root = pytest.mark.skipif(not ROOT, reason="a service manager is asked by root only")
UNITS = (
    "nfreaim.service nfreaim-rules.service nfreaim-close.service nfreaim-sets.service"
    " nfreaim-metrics.service nfreaim-textfile.service nfreaim-textfile.timer"
)

# What `python -m venv DIR` makes: its own Python, which "installs" a program that runs this checkout.
VENV = """#!/bin/sh
[ "$2" = venv ] || exec {real} "$@"
mkdir -p "$3/bin" && touch "$3/pyvenv.cfg" && cp {python} "$3/bin/python"
"""
PYTHON = """#!/bin/sh
case "$*" in
    *pip*) [ ! -e {broken} ] || {{ echo "no such package" >&2; exit 1; }}
        echo "$*" >"${{0%/*}}/pip"
        printf '#!/bin/sh\\nPYTHONPATH={repo} exec {real} -m nfreaim "$@"\\n' >"${{0%/*}}/nfreaim"
        chmod 755 "${{0%/*}}/nfreaim" ;;
    serve) sleep 60 ;;
    *) exec {real} "$@" ;;
esac
"""
LOGGED = '#!/bin/sh\necho "$(basename "$0") $*" >>{log}\n{more}\n'


class Machine:
    """A place for an installation."""

    def __init__(self, place: Path) -> None:
        self.place = place
        self.lib, self.conf = place / "usr/lib/nfreaim", place / "etc/nfreaim"
        self.sbin, self.units = place / "usr/sbin", place / "etc/systemd/system"
        self.log, self.broken = place / "log", place / "broken"
        self.run_directory = ""  # made in /run
        self.processes: list[subprocess.Popen[bytes]] = []
        self.bin = place / "bin"
        self.bin.mkdir()
        self.program("venv-python", VENV.format(python=self.bin / "inner-python", real=sys.executable))
        self.program("inner-python", PYTHON.format(broken=self.broken, repo=REPO, real=sys.executable))

    def program(self, name: str, text: str) -> None:
        (self.bin / name).write_text(text)
        (self.bin / name).chmod(0o755)

    def make(self, *words: str) -> subprocess.CompletedProcess[str]:
        apart = "mount -t tmpfs run /run; mount -t tmpfs state /var/lib"
        inside = f'{apart}; mkdir -p "/run/{self.run_directory}"; exec "$@"'
        own = ("unshare", "--net", "--mount", "sh", "-c", inside, "sh") if ROOT else ()
        places = (f"PREFIX={self.place}/usr", f"SYSCONFDIR={self.place}/etc")
        command = [*own, "make", "--no-print-directory", *words, *places, f"PYTHON={self.bin}/venv-python"]
        environment = {**os.environ, "PATH": f"{self.bin}:{os.environ['PATH']}"}
        environment.pop("MAKEFLAGS", None)
        return subprocess.run(
            command, cwd=REPO, capture_output=True, text=True, timeout=60, env=environment, umask=0o077
        )

    def install(self, *words: str) -> subprocess.CompletedProcess[str]:
        done = self.make("install", *words)
        assert done.returncode == 0, done.stderr
        return done

    def serve(self) -> subprocess.Popen[bytes]:
        """A process that runs from the installation of now, as a daemon does."""
        program = (self.lib / "current").resolve() / "bin/python"
        self.processes.append(subprocess.Popen(["/bin/sh", program, "serve"], start_new_session=True))
        return self.processes[-1]

    def state(self) -> dict[str, str]:
        """Every file and link, with its text."""
        found = (path for path in self.place.rglob("*") if not path.is_dir() or path.is_symlink())
        return {
            str(path): os.readlink(path) if path.is_symlink() else path.read_text()
            for path in found
            if self.bin not in path.parents
        }

    def builds(self) -> list[str]:
        return sorted(path.name for path in self.lib.iterdir() if not path.is_symlink())

    def logged(self) -> list[str]:
        return self.log.read_text().splitlines() if self.log.exists() else []


def end(process: subprocess.Popen[bytes]) -> None:
    """With what it has started."""
    os.killpg(process.pid, 9)
    process.wait(10)


@pytest.fixture
def machine(tmp_path: Path) -> Iterator[Machine]:
    made = Machine(tmp_path)
    try:
        yield made
    finally:
        for process in made.processes:
            if process.poll() is None:
                end(process)


NAMED = ("LAN=br-lan,br+", "WAN=eth0", "ABSENT=yes")
WORDS = "--lan br-lan --lan br+ --wan eth0"
WRITTEN = f'NFREAIM_ARGS="{WORDS}"\n' + "NFREAIM_FIREWALL=legacy\n" * ROOT


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


def test_the_packet_filter_is_written_down_and_stays_until_another_is_named(machine: Machine) -> None:
    written = machine.conf / "rules.env"
    machine.install(*NAMED, "FIREWALL=nft")
    assert written.read_text() == f'NFREAIM_ARGS="{WORDS}"\nNFREAIM_FIREWALL=nft\n'
    machine.install()
    assert written.read_text() == f'NFREAIM_ARGS="{WORDS}"\nNFREAIM_FIREWALL=nft\n'
    before = machine.state()
    refused = machine.make("install", "FIREWALL=iptables")
    assert "FIREWALL is auto, legacy or nft, not 'iptables'; nothing was changed" in refused.stderr
    assert machine.state() == before
    machine.install("FIREWALL=legacy")
    assert written.read_text() == f'NFREAIM_ARGS="{WORDS}"\nNFREAIM_FIREWALL=legacy\n'


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


def test_settings_of_before_are_kept_and_looked_at_too(machine: Machine) -> None:
    machine.install(*NAMED)
    machine.install()
    assert (machine.conf / "rules.env").read_text() == WRITTEN
    (machine.conf / "nfreaim.toml").write_text("hold_ms = 9999\n")
    before = machine.state()
    done = machine.make("install")
    assert done.returncode == 2
    assert f"{machine.conf}/nfreaim.toml: hold_ms = 9999" in done.stderr
    assert machine.state() == before


def test_without_interfaces_it_says_what_to_do_next(machine: Machine) -> None:
    assert "Name the interfaces next: make install LAN=br-lan WAN=eth0" in machine.install().stdout
    written = machine.conf / "rules.env"
    assert (written.read_text() if ROOT else "") == WRITTEN.partition("\n")[2]


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
def test_who_may_not_write_is_told_in_one_line(machine: Machine) -> None:
    machine.place.chmod(0o755)
    for folder in ("usr", "etc"):
        (machine.place / folder).mkdir()
    command = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", "/bin/sh", "scripts/install"]
    for word in ("install", "uninstall"):
        environment = {**os.environ, "PREFIX": f"{machine.place}/usr", "SYSCONFDIR": f"{machine.place}/etc"}
        done = subprocess.run(
            [*command, word], cwd=REPO, capture_output=True, text=True, timeout=60, env=environment
        )
        assert (done.returncode, done.stdout, done.stderr.count("\n")) == (1, "", 1), done.stderr
        assert f"install: {machine.place}/usr cannot be written to by nobody: run it as root" in done.stderr


@needs_root
def test_systemd_restarts_what_runs_if_it_is_asked_to(machine: Machine) -> None:
    machine.run_directory = "systemd/system"
    pid = machine.place / "pid"
    kill = f'case "$*" in "restart nfreaim") kill -9 -$(cat {pid}) ;; esac'
    machine.program("systemctl", LOGGED.format(log=machine.log, more=kill))
    for name in ("id", "getent", "userdel", "groupdel"):
        more = {"getent": "echo nfreaim-own:x:28262:", "id": "echo 0"}.get(name, "")
        machine.program(name, LOGGED.format(log="/dev/null", more=more))
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


@needs_root
def test_openrc_gets_a_service_script(machine: Machine) -> None:
    machine.run_directory = "openrc/softlevel"
    for name in ("rc-service", "rc-update"):
        machine.program(name, LOGGED.format(log=machine.log, more=""))
    said = machine.install(*NAMED).stdout
    assert "rc-update add nfreaim default && rc-service nfreaim start" in said
    service = machine.place / "etc/init.d/nfreaim"
    assert service.stat().st_mode & 0o777 == 0o755
    assert machine.make("uninstall").returncode == 0
    assert machine.logged() == ["rc-service nfreaim stop", "rc-update del nfreaim"]
    assert not service.exists()


def test_the_service_script_starts_what_was_installed(machine: Machine) -> None:
    """OpenRC reads the script as shell; its functions are stand-ins."""
    machine.conf.mkdir(parents=True)
    machine.sbin.mkdir(parents=True)
    (machine.conf / "rules.env").write_text(f'NFREAIM_ARGS="{WORDS}"\n')
    text = (REPO / "rules/nfreaim.initd").read_text()
    text = text.replace("@PREFIX@", f"{machine.place}/usr").replace("@SYSCONFDIR@", f"{machine.place}/etc")
    for name in ("nfreaim", "nfreaim-rules"):
        (machine.sbin / name).write_text(LOGGED.format(log=machine.log, more=""))
        (machine.sbin / name).chmod(0o755)
    drive = (
        f"checkpath() {{ :; }}\n{text}\nstart_pre && $command $command_args && reload"
        "\nRC_CMD=restart stop_post; stop_post\n"
    )
    done = subprocess.run(["/bin/sh", "-eu", "-c", drive], capture_output=True, text=True, timeout=30)
    assert (done.returncode, done.stderr) == (0, "")
    settings = f"--config {machine.conf}/nfreaim.toml"
    assert machine.logged() == [
        f"nfreaim validate --absent {settings} {WORDS}",
        f"nfreaim rules install {settings} {WORDS}",
        f"nfreaim run {settings} {WORDS}",
        f"nfreaim reload {settings}",
        "nfreaim-rules remove",
    ]


def test_units_alone_are_written_for_packages(machine: Machine) -> None:
    words = ("install-units", f"DESTDIR={machine.place}/package", "UNITDIR=/usr/lib/systemd/system")
    assert machine.make(*words).returncode == 0
    written = machine.place / "package/usr/lib/systemd/system"
    assert {path.name for path in written.iterdir()} == {*UNITS.split()}
    assert f"{machine.place}/usr/sbin/nfreaim run" in (written / "nfreaim.service").read_text()
    assert not machine.lib.exists()
