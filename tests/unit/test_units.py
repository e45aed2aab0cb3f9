"""The systemd units: what systemd itself says of them, and what must not be lost from them by an edit."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest

from nfreaim.exit_status import Exit

RULES = Path(__file__).resolve().parents[2] / "rules"
UNITS = ("nfreaim.service", "nfreaim-rules.service", "nfreaim-close.service", "nfreaim-sets.service")
SHOWING = ("nfreaim-metrics.service", "nfreaim-textfile.service")
TIMERS = ("nfreaim-textfile.timer",)

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
    for name in (*UNITS, *SHOWING, *TIMERS):
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
@pytest.mark.parametrize("name", [*UNITS, *SHOWING])
def test_exposure_is_two_or_less(installed: Path, name: str) -> None:
    said = analyze(installed / name, "security", "--offline=yes", "--no-pager")
    found = re.search(r"Overall exposure level for \S+: ([0-9.]+)", said)
    assert found is not None, said
    assert float(found[1]) <= 2.0, said


@needs_systemd
@pytest.mark.parametrize("name", [*UNITS, *SHOWING, *TIMERS])
def test_systemd_understands_every_line(installed: Path, name: str) -> None:
    said = analyze(installed / name, "verify", "--man=no")
    about_us = [line for line in said.splitlines() if "nfreaim" in line]
    assert not about_us, said


def test_all_units_are_bounded_alike_and_hold_two_capabilities() -> None:
    """The daemon runs the rules' script, so what the one may the other needs."""
    daemon, rules, close, sets = ((RULES / name).read_text().splitlines() for name in UNITS)
    own = {
        "Type",
        "ExecStart",
        "Environment",
        "EnvironmentFile",
        "Restart",
        "RestartSec",
        "RuntimeDirectory",
        "MemoryMax",
    }
    own |= {
        "RuntimeDirectoryPreserve",
        "StateDirectory",
        "StateDirectoryMode",
        "ExecReload",
        "ExecStop",
        "ExecStartPost",
        "RemainAfterExit",
        "ExecCondition",
    }
    own |= {"WatchdogSec", "RestartPreventExitStatus"}
    lock = "ExecStartPre=+/bin/sh -c 'umask 077 && : >>/run/xtables.lock && chmod g+r /run/xtables.lock'"

    def service(lines: list[str]) -> set[str]:
        part = [*lines, "[Install]"][lines.index("[Service]") : [*lines, "[Install]"].index("[Install]")]
        return {line for line in part if "=" in line and line[0] != "#" and line.split("=")[0] not in own}

    assert service(daemon) == service(rules) == service(close) | {lock}, "closing touches no table"
    assert service(sets) == service(rules), "it asks the same of the kernel, and earlier"
    for needed in (
        "CapabilityBoundingSet=CAP_NET_ADMIN CAP_NET_RAW",
        "AmbientCapabilities=CAP_NET_ADMIN CAP_NET_RAW",
        "NoNewPrivileges=yes",
        "User=nfreaim",
        "UMask=0077",
        "LimitCORE=0",
    ):
        assert needed in daemon


def test_pinholes_are_closed_when_systemd_gives_up_and_not_before_a_restart() -> None:
    """Since systemd 254 OnFailure= acts at each failure, the unit's own start limit counts each of these."""
    daemon, close = ((RULES / name).read_text().splitlines() for name in (UNITS[0], UNITS[2]))
    assert "OnFailure=nfreaim-close.service" in daemon
    assert "Restart=on-failure" in daemon
    assert not [line for line in daemon if line.startswith("ExecStopPost")]
    limits = dict(line.split("=") for line in daemon if line.startswith("StartLimit"))
    assert int(limits["StartLimitBurst"]) < int(limits["StartLimitIntervalSec"]), "RestartSec=1: never else"
    assert "ExecCondition=+systemctl is-failed --quiet nfreaim.service" in close
    assert "StartLimitIntervalSec=0" in close
    assert "ExecStart=@PREFIX@/sbin/nfreaim-rules close" in close
    assert "Restart" not in "".join(close[close.index("[Service]") :]).replace("Restrict", "")


def test_ready_means_ready_and_what_is_wrong_is_not_tried_again() -> None:
    daemon, rules = ((RULES / name).read_text().splitlines() for name in UNITS[:2])
    assert "Type=notify" in daemon
    assert [line for line in daemon if line.startswith("WatchdogSec=")]
    assert f"RestartPreventExitStatus={Exit.MISUSED:d}" in daemon
    for line in ("Requires=nfreaim-rules.service", "PartOf=nfreaim-rules.service"):
        assert line in daemon, "no daemon without rules"
    file = "--config @SYSCONFDIR@/nfreaim/nfreaim.toml"
    assert f"ExecReload=@PREFIX@/sbin/nfreaim reload {file}" in daemon
    for part in ("ExecStart", "ExecReload"):
        wanted = f"{part}=@PREFIX@/sbin/nfreaim rules install --auto {file} $NFREAIM_ARGS"
        assert wanted in rules, "the settings are read as the daemon reads them"
    assert f"ExecStart=@PREFIX@/sbin/nfreaim run --auto {file} $NFREAIM_ARGS" in daemon
    assert "EnvironmentFile=-@SYSCONFDIR@/nfreaim/rules.env" in daemon
    assert "EnvironmentFile=-@SYSCONFDIR@/nfreaim/rules.env" in rules


def test_sets_exist_before_saved_rules_are_loaded() -> None:
    """Debian's netfilter-persistent begins before network-pre.target, without default dependencies."""
    rules, sets = ((RULES / name).read_text().splitlines() for name in (UNITS[1], UNITS[3]))
    assert "DefaultDependencies=no" in sets
    (before,) = [line.removeprefix("Before=").split() for line in sets if line.startswith("Before=")]
    loaders = {"network-pre.target", "netfilter-persistent.service", "iptables.service"}
    assert loaders < set(before)
    (after,) = [line.split() for line in rules if line.startswith("After=network-online")]
    assert "nfreaim-sets.service" in after
    assert "ExecStart=@PREFIX@/sbin/nfreaim-rules sets --if-saved" in sets


def test_early_in_a_boot_the_packet_filter_is_decided_as_later() -> None:
    """A unit that finds no legacy tables, because their module is not loaded, makes no sets."""
    rules, sets = ((RULES / name).read_text().splitlines() for name in (UNITS[1], UNITS[3]))
    for lines in (rules, sets):
        assert "Wants=modprobe@ip_tables.service" in lines
        assert "modprobe@ip_tables.service" in after(lines)
        assert "EnvironmentFile=-@SYSCONFDIR@/nfreaim/rules.env" in lines
        assert "Environment=NFREAIM_SETTINGS=@SYSCONFDIR@/nfreaim/nfreaim.toml" in lines
    assert "local-fs.target" in after(sets), "the files of saved rules, and the folder of the decision"
    late = {"network-online.target", "network.target", "sysinit.target", "basic.target", "remote-fs.target"}
    assert not late & after(sets), "what loads rules comes before these"


def after(lines: list[str]) -> set[str]:
    return {name for line in lines if line.startswith("After=") for name in line[6:].split()}


def test_root_writes_the_decision_down_once_rules_are_installed_and_it_fails_nothing() -> None:
    rules = (RULES / UNITS[1]).read_text().splitlines()
    record = "-+@PREFIX@/sbin/nfreaim-rules record"
    assert f"ExecStartPost={record}" in rules
    reloads = [line for line in rules if line.startswith("ExecReload=")]
    assert (len(reloads), reloads[-1]) == (2, f"ExecReload={record}"), "after the rules"


def test_make_installs_and_removes_every_unit() -> None:
    makefile = (RULES.parent / "Makefile").read_text()
    named = re.search(r"^UNITS +:= ((?:.*\\\n)*.*)$", makefile, re.MULTILINE)
    assert named is not None
    there = {path.name for kind in ("*.service", "*.timer") for path in RULES.glob(kind)}
    assert set(named[1].replace("\\", "").split()) == {*UNITS, *SHOWING, *TIMERS} == there


def test_what_shows_metrics_has_none_of_the_daemons_power() -> None:
    """It is asked by others, or runs as root because of its directory."""
    serving, writing = ((RULES / name).read_text().splitlines() for name in SHOWING)
    assert "CapabilityBoundingSet=" in serving
    assert "User=nfreaim" in serving
    assert "CapabilityBoundingSet=CAP_DAC_OVERRIDE" in writing
    assert "PrivateNetwork=yes" in writing
    for lines in (serving, writing):
        assert "NoNewPrivileges=yes" in lines
        assert not [line for line in lines if line.startswith("AmbientCapabilities")]


def test_openrc_lets_the_rules_script_read_the_settings_of_its_service(tmp_path: Path) -> None:
    """The same is in the units' environment: a service of `make install SYSCONFDIR=` has another file."""
    text = (RULES / "nfreaim.initd").read_text().replace("@SYSCONFDIR@", str(tmp_path))
    told = "sh -c 'echo \"$NFREAIM_SETTINGS $NFREAIM_FIREWALL\"'"
    (tmp_path / "nfreaim").mkdir()
    (tmp_path / "nfreaim/rules.env").write_text("NFREAIM_FIREWALL='nft'\n")
    done = subprocess.run(["/bin/sh", "-c", f"{text}\n{told}"], capture_output=True, text=True, timeout=30)
    assert done.stdout == f"{tmp_path}/nfreaim/nfreaim.toml nft\n"
    for name in ("nfreaim.service", "nfreaim-rules.service", "nfreaim-sets.service"):
        given = "Environment=NFREAIM_SETTINGS=@SYSCONFDIR@/nfreaim/nfreaim.toml"
        assert given in (RULES / name).read_text().splitlines()
