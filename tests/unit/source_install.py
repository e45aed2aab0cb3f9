"""A place for an installation from source, with a Python that builds at once. The machine stays as it is.

As root it is in a network and a mount namespace of its own, with a /run in which each test puts what says
that a service manager runs; its programs are stand-ins.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

REPO = Path(__file__).resolve().parents[2]
ROOT = os.geteuid() == 0
needs_root = pytest.mark.skipif(not ROOT, reason="a service manager is asked by root only")
UNITS = (
    "nfreaim.service nfreaim-rules.service nfreaim-close.service nfreaim-sets.service"
    " nfreaim-metrics.service nfreaim-textfile.service nfreaim-textfile.timer"
)
NAMED = ("LAN=br-lan,br+", "WAN=eth0", "ABSENT=yes")
WORDS = "--lan br-lan --lan br+ --wan eth0"
WRITTEN = f'NFREAIM_ARGS="{WORDS}"\n'

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
        self.before, self.after = "true", "true"  # what else is run in the namespaces, as root
        self.processes: list[subprocess.Popen[bytes]] = []
        self.bin = place / "bin"
        self.bin.mkdir()
        self.program("venv-python", VENV.format(python=self.bin / "inner-python", real=sys.executable))
        self.program("inner-python", PYTHON.format(broken=self.broken, repo=REPO, real=sys.executable))

    def program(self, name: str, text: str) -> None:
        (self.bin / name).write_text(text)
        (self.bin / name).chmod(0o755)

    def make(self, *words: str, **places: str) -> subprocess.CompletedProcess[str]:
        """*places*: others than those below this place"""
        own_folders = {"run": "/run", "state": "/var/lib", "modules": "/etc/modules-load.d"}
        apart = " && ".join(f"mount -t tmpfs {name} {place}" for name, place in own_folders.items())
        inside = f'{apart} && mkdir -p "/run/{self.run_directory}" && {self.before} || exit 99; "$@"; done=$?'
        inside += f"; {self.after}; exit $done"
        own = ("unshare", "--net", "--mount", "sh", "-c", inside, "sh") if ROOT else ()
        named = {"PREFIX": f"{self.place}/usr", "SYSCONFDIR": f"{self.place}/etc", **places}
        given = [f"{name}={place}" for name, place in named.items()]
        command = [*own, "make", "--no-print-directory", *words, *given, f"PYTHON={self.bin}/venv-python"]
        environment = {**os.environ, "PATH": f"{self.bin}:{os.environ['PATH']}"}
        environment.pop("MAKEFLAGS", None)
        return subprocess.run(
            command, cwd=REPO, capture_output=True, text=True, timeout=60, env=environment, umask=0o077
        )

    def install(self, *words: str) -> subprocess.CompletedProcess[str]:
        done = self.make("install", *words)
        assert done.returncode == 0, done.stderr
        return done

    def systemd(self, more: str = "") -> None:
        """It runs; *more* is what systemctl does, in shell."""
        self.run_directory = "systemd/system"
        self.program("systemctl", LOGGED.format(log=self.log, more=more))
        for name in ("id", "getent", "userdel", "groupdel"):
            says = {"getent": "echo nfreaim-own:x:28262:", "id": "echo 0"}.get(name, "")
            self.program(
                name, LOGGED.format(log=self.log if name.endswith("del") else "/dev/null", more=says)
            )

    def openrc(self, more: str = "") -> None:
        """It runs; *more* is what rc-service does, in shell."""
        self.run_directory = "openrc/softlevel"
        self.program("rc-service", LOGGED.format(log=self.log, more=more))
        self.program("rc-update", LOGGED.format(log=self.log, more=""))

    def package(self) -> None:
        """Debian's is installed, too."""
        owned = f"/usr/sbin/nfreaim | {self.conf}/nfreaim.toml"
        self.program("dpkg", f'#!/bin/sh\ncase "$2" in {owned}) ;; *) exit 1 ;; esac\n')

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


@contextmanager
def machine_at(place: Path) -> Iterator[Machine]:
    made = Machine(place)
    try:
        yield made
    finally:
        for process in made.processes:
            if process.poll() is None:
                end(process)
