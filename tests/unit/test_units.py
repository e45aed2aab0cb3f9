"""The systemd units: what systemd itself says of them, and what must not be lost from them by an edit."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest

RULES = Path(__file__).resolve().parents[2] / "rules"
UNITS = ("nfreaim.service", "nfreaim-rules.service")

needs_systemd = pytest.mark.skipif(
    shutil.which("systemd-analyze") is None, reason="systemd-analyze is absent; apt install systemd"
)


def analyze(unit: Path, *words: str) -> str:
    command = ["systemd-analyze", *words, str(unit)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    return done.stdout + done.stderr


@pytest.fixture
def installed(tmp_path: Path) -> Path:
    """A directory with the units as `make install` writes them; the program is a stand-in."""
    for name in UNITS:
        text = (
            (RULES / name).read_text().replace("@SYSCONFDIR@", "/etc").replace("@PREFIX@/sbin", str(tmp_path))
        )
        assert "@" not in re.sub(r"modprobe@ip_tables|@system-service|@privileged|@resources", "", text)
        (tmp_path / name).write_text(text)
    for program in ("nfreaim", "nfreaim-rules"):
        (tmp_path / program).write_text("#!/bin/sh\n")
        (tmp_path / program).chmod(0o755)
    return tmp_path


@needs_systemd
@pytest.mark.parametrize("name", UNITS)
def test_exposure_is_two_or_less(installed: Path, name: str) -> None:
    said = analyze(installed / name, "security", "--offline=yes", "--no-pager")
    found = re.search(r"Overall exposure level for \S+: ([0-9.]+)", said)
    assert found is not None, said
    assert float(found[1]) <= 2.0, said


@needs_systemd
@pytest.mark.parametrize("name", UNITS)
def test_systemd_understands_every_line(installed: Path, name: str) -> None:
    said = analyze(installed / name, "verify", "--man=no")
    about_us = [line for line in said.splitlines() if "nfreaim" in line]
    assert not about_us, said


def test_both_units_are_bounded_alike_and_hold_two_capabilities() -> None:
    """The daemon runs the rules' script, so what the one may the other needs."""
    daemon, rules = ((RULES / name).read_text().splitlines() for name in UNITS)
    own = {"Type", "ExecStart", "EnvironmentFile", "Restart", "RestartSec", "RuntimeDirectory", "MemoryMax"}
    own |= {"RuntimeDirectoryPreserve", "ExecReload", "ExecStop", "RemainAfterExit"}

    def service(lines: list[str]) -> set[str]:
        part = lines[lines.index("[Service]") : lines.index("[Install]")]
        return {line for line in part if "=" in line and line[0] != "#" and line.split("=")[0] not in own}

    assert service(daemon) == service(rules)
    for needed in (
        "CapabilityBoundingSet=CAP_NET_ADMIN CAP_NET_RAW",
        "AmbientCapabilities=CAP_NET_ADMIN CAP_NET_RAW",
        "NoNewPrivileges=yes",
        "User=nfreaim",
        "UMask=0077",
        "LimitCORE=0",
    ):
        assert needed in daemon
