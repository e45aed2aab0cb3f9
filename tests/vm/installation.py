"""`make install` on a stock kernel under a real systemd: units, restart, upgrade, failed upgrade, uninstall.

These change the machine, and stand in the order in which they run (tests/vm/rows.py). What the pages tell an
operator to do is done as they say it.
"""

from __future__ import annotations

import contextlib
import os
import re
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.documents import printed_as_told, to_run
from tests.lab.net import Lab
from tests.reachable import REPO
from tests.vm.router import set_up

SLOW = 900.0  # seconds, for a build on an emulated machine
LIB, CONF = Path("/usr/local/lib/nfreaim"), Path("/etc/nfreaim/nfreaim.toml")
QUEUES = Path("/proc/net/netfilter/nfnetlink_queue")
BLOCKED = Path("/etc/modprobe.d/nfreaim-test.conf")
LEGACY = ("ip_tables", "iptable_raw", "iptable_mangle", "iptable_nat", "iptable_filter")
UNITS = ("nfreaim-sets", "nfreaim-rules", "nfreaim")


def run(*words: str, status: int | None = 0) -> str:
    """Run a program; its output, both streams together. The row's log has both."""
    done = subprocess.run(
        words, cwd=REPO, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=SLOW
    )
    if "journalctl" not in words and "show" not in words:  # which are asked again and again
        print(f"$ {' '.join(words)}\n{done.stdout}")
    assert status is None or done.returncode == status, f"{words}: {done.returncode}\n{done.stdout}"
    return done.stdout


def nfreaim(*words: str, status: int | None = 0) -> str:
    return run("/usr/local/sbin/nfreaim", *words, status=status)


def show(name: str, unit: str = "nfreaim") -> str:
    """A property of a unit."""
    return run("systemctl", "show", "--value", f"--property={name}", unit).strip()


def process() -> int:
    return int(show("MainPID"))


def journal() -> str:
    return run("journalctl", "--no-pager", "-u", "nfreaim", "-u", "nfreaim-rules")


def eventually(look: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 180
    while not look():
        assert time.monotonic() < deadline, journal()
        time.sleep(0.5)


def without_legacy(blocked: bool) -> None:
    """Have the kernel load no module of the legacy tables, or load them again."""
    run("modprobe", "-r", *reversed(LEGACY), status=None)
    BLOCKED.write_text("".join(f"install {name} /bin/false\n" for name in LEGACY if blocked))


def follow(scene: str) -> str:
    """Do what the pages say of it, in order; what their commands print."""
    printed = ""
    blocks = to_run(scene, "vm")
    assert blocks, f"no page says how to {scene}"
    for block in blocks:
        for command, expected in block.commands():
            said = run("sh", "-ec", command)
            assert printed_as_told(expected, said), f"{block}\n{said}"
            printed += said
    return printed


@pytest.fixture(scope="module", autouse=True)
def router() -> Iterator[None]:
    set_up()
    yield
    BLOCKED.unlink(missing_ok=True)


def test_the_queues_module_is_loaded_by_whoever_asks_for_it() -> None:
    """On a fresh boot nothing has bound a queue yet."""
    run("modprobe", "-r", "nfnetlink_queue", status=None)
    assert not QUEUES.exists()
    run(".venv/bin/python", "-m", "nfreaim", "check", "--lan", "br-lan", "--wan", "eth0", status=None)
    assert QUEUES.exists()


def test_a_kernel_without_legacy_tables_is_one_line(tmp_path: Path) -> None:
    """Where they are what the configuration wants."""
    settings = tmp_path / "nfreaim.toml"
    settings.write_text('firewall = "legacy"\n')
    words = ("check", "--config", str(settings), "--lan", "br-lan", "--wan", "eth0")
    without_legacy(True)
    try:
        said = run(".venv/bin/python", "-m", "nfreaim", *words, status=1)
    finally:
        without_legacy(False)
    assert len(re.findall("^FAIL the kernel has no ", said, re.MULTILINE)) == 1, said
    assert "FAIL the kernel has no legacy iptables tables: " in said
    assert "legacy tables readable" not in said


def test_the_lab_can_be_made_beside_an_interface_of_its_names() -> None:
    assert Path("/sys/class/net/eth0").exists()
    with Lab() as lab:
        assert "10.0.0.5" in lab.run("alice", "ip", "address", "show", "eth0").stdout


def test_installed_and_started_it_is_ready() -> None:
    assert "systemctl enable --now nfreaim-sets nfreaim-rules nfreaim" in follow("install")
    # The start is over only now, so nothing has to be waited for.
    assert {line.split()[0] for line in QUEUES.read_text().splitlines()} == {"5190", "5222", "5254"}
    nfreaim("rules", "show")
    checked = nfreaim("check", "--lan", "br-lan", "--wan", "eth0")
    assert "FAIL" not in checked
    assert show("WatchdogUSec") == "30s"
    for unit in UNITS:
        found = re.search(r"exposure level for \S+: ([0-9.]+)", run("systemd-analyze", "security", unit))
        assert found is not None
        assert float(found[1]) <= 2.0


def test_settings_that_do_not_exist_are_not_written() -> None:
    before = Path("/etc/nfreaim/rules.env").read_text()
    said = run("make", "install", "LAN=br-lan", "WAN=nosuch9", status=None)
    assert re.search("--wan nosuch9: there is no such interface; there are .*eth0", said), said
    assert Path("/etc/nfreaim/rules.env").read_text() == before
    assert len([path for path in LIB.iterdir() if not path.is_symlink()]) == 1


def test_a_reload_and_a_hangup_do_not_stop_it() -> None:
    before = process()
    CONF.write_text(CONF.read_text().replace('#level = "info"', 'level = "debug"'))
    run("systemctl", "reload", "nfreaim")
    os.kill(before, signal.SIGHUP)
    eventually(lambda: journal().count("the configuration was read again") >= 2)
    assert process() == before


def test_a_broken_configuration_fails_and_does_not_loop() -> None:
    good, before = CONF.read_text(), process()
    CONF.write_text("hold_ms = 9999\n")
    wrong = f"{CONF}: hold_ms = 9999: must be a whole number from 0 to 1000"
    try:
        run("systemctl", "reload", "nfreaim", status=1)
        assert wrong in journal()
        assert process() == before, "the daemon goes on"
        run("systemctl", "restart", "nfreaim", status=1)
        assert wrong in run("systemctl", "status", "--no-pager", "nfreaim", status=None)
        time.sleep(5)  # RestartSec= is one
        assert (show("ActiveState"), show("NRestarts"), show("ExecMainStatus")) == ("failed", "0", "2")
    finally:
        CONF.write_text(good)
    run("systemctl", "restart", "nfreaim")
    assert show("ActiveState") == "active"


def test_rules_that_cannot_be_installed_keep_the_daemon_from_running() -> None:
    drop_in = Path("/run/systemd/system/nfreaim-rules.service.d/fail.conf")
    drop_in.parent.mkdir(parents=True)
    drop_in.write_text("[Service]\nExecStart=\nExecStart=/bin/false\n")
    run("systemctl", "daemon-reload")
    try:
        run("systemctl", "restart", "nfreaim-rules", status=1)
        eventually(lambda: show("ActiveState") == "inactive")
        run("systemctl", "start", "nfreaim", status=1)
        assert show("ActiveState") == "inactive"
    finally:
        drop_in.unlink()
        run("systemctl", "daemon-reload")
    run("systemctl", "start", "nfreaim")


def test_rules_are_not_removed_under_the_daemon() -> None:
    said = run("/usr/local/sbin/nfreaim-rules", "remove", status=1)
    assert "the daemon runs, and would put the rules back" in said


def test_a_second_daemon_says_who_serves_the_queue() -> None:
    said = nfreaim("run", "--lan", "br-lan", "--wan", "eth0", status=1)
    assert f"nfreaim serves it (process {process()})" in said


def test_a_daemon_that_hangs_is_restarted() -> None:
    before = process()
    os.kill(before, signal.SIGSTOP)
    eventually(lambda: process() not in (0, before))
    eventually(lambda: show("ActiveState") == "active")
    assert "watchdog" in journal().lower()


def test_an_upgrade_that_fails_changes_nothing_and_the_daemon_can_be_restarted() -> None:
    before = os.readlink(LIB / "current"), sorted(os.listdir(LIB))
    with contextlib.ExitStack() as stack:
        stack.enter_context(pytest.MonkeyPatch.context()).setenv("PIP_FIND_LINKS", "/nonexistent")
        assert "the build failed; what was installed before is as it was" in run(
            "make", "install", status=None
        )
    assert (os.readlink(LIB / "current"), sorted(os.listdir(LIB))) == before
    run("systemctl", "restart", "nfreaim")
    assert show("ActiveState") == "active"


def test_an_upgrade_restarts_the_daemon_if_it_is_asked_to() -> None:
    before, earlier = process(), os.readlink(LIB / "current")
    said = follow("upgrade")
    assert "The daemon runs from it." in said
    assert process() != before
    assert os.listdir(LIB).count(earlier) == 0


def test_uninstall_leaves_nothing() -> None:
    follow("remove")
    assert not [path for path in (LIB, CONF.parent / "rules.env", Path("/run/nfreaim")) if path.exists()]
    assert "NFREAIM" not in run("iptables-legacy-save") + run("iptables-nft-save")
    assert "nfreaim" not in run("ipset", "list", "-n") + run("nft", "list", "tables")
    assert "nfreaim" not in run(
        "systemctl", "list-units", "--all", "--no-pager", "nfreaim*", "--plain", "--no-legend"
    )
    run("id", "nfreaim", status=1)
