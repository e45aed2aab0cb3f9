"""What is tried in the virtual machines, in order; each row is a run of pytest inside of one."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, Literal, NamedTuple


class Row(NamedTuple):
    """One line of the table. *tests* are node ids below tests/vm.

    *on* names the kernels that have this row: every one, or the newest.
    *before* is a command of the shell, and *boots* says that the machine is booted again after it. *alone* is
    a row that needs no installation before it. *seconds* are what an emulated machine needs at most.
    """

    name: str
    tests: tuple[str, ...]
    seconds: float = 300.0
    on: Literal["every", "newest"] = "every"
    alone: bool = False
    before: str = ""
    boots: bool = False


def _of(module: str, *names: str) -> tuple[str, ...]:
    return tuple(f"{module}.py::test_{name}" for name in names)


BLOCKED: Final = "/etc/modprobe.d/no-legacy.conf"
NO_LEGACY: Final = (
    "printf 'install %s /bin/false\\n' ip_tables iptable_raw iptable_mangle iptable_nat iptable_filter"
    f" >{BLOCKED}"
)
# What earlier rows have made of the machine; this one has a network of its own.
NO_ROUTER: Final = "cd /etc/systemd/network && rm -f br-lan.* lan0.* eth0.*; rm -f /etc/sysctl.d/router.conf"
ROWS: Final = (
    Row("the Debian package: install, upgrade, purge", ("package.py",), seconds=900.0, alone=True),
    Row(
        "a fresh boot: `check`, and the lab beside an `eth0`",
        _of(
            "installation",
            "the_queues_module_is_loaded_by_whoever_asks_for_it",
            "a_kernel_without_legacy_tables_is_one_line",
            "the_lab_can_be_made_beside_an_interface_of_its_names",
        ),
        alone=True,
        boots=True,
    ),
    Row(
        "install, as README says it",
        _of("installation", "installed_and_started_it_is_ready"),
        seconds=600.0,
        alone=True,
    ),
    Row("a transfer", ("transfer.py",)),
    Row("reboot, and a transfer", ("transfer.py",), boots=True),
    Row(
        "restart, reload, broken configuration, hang",
        _of(
            "installation",
            "settings_that_do_not_exist_are_not_written",
            "a_reload_and_a_hangup_do_not_stop_it",
            "a_broken_configuration_fails_and_does_not_loop",
            "rules_that_cannot_be_installed_keep_the_daemon_from_running",
            "rules_are_not_removed_under_the_daemon",
            "a_second_daemon_says_who_serves_the_queue",
            "a_daemon_that_hangs_is_restarted",
        ),
        on="newest",
    ),
    Row("nftables' own firewall, loaded again", ("native.py",), on="newest"),
    Row(
        "an upgrade that fails",
        _of("installation", "an_upgrade_that_fails_changes_nothing_and_the_daemon_can_be_restarted"),
        on="newest",
    ),
    Row(
        "upgrade, as the page says it",
        _of("installation", "an_upgrade_restarts_the_daemon_if_it_is_asked_to"),
        seconds=600.0,
        on="newest",
    ),
    Row("a VLAN, and PPP that comes and goes", ("interfaces.py",), on="newest"),
    Row(
        "legacy tables go: reboot, and a transfer",
        _of("no_legacy", "rules_that_were_legacy_ones_are_made_for_nftables"),
        on="newest",
        before=NO_LEGACY,
        boots=True,
    ),
    Row("uninstall, as the page says it", _of("installation", "uninstall_leaves_nothing"), on="newest"),
    Row(
        "flowtables",
        ("flowtables.py",),
        seconds=600.0,
        on="newest",
        alone=True,
        before=f"rm -f {BLOCKED}",
        boots=True,
    ),
    Row(
        "without legacy tables: the Debian package",
        ("package.py",),
        seconds=900.0,
        on="newest",
        alone=True,
        before=f"{NO_LEGACY}; {NO_ROUTER}",
        boots=True,
    ),
    Row(
        "without legacy tables: install, and a transfer",
        _of("no_legacy", "it_is_served_through_nftables"),
        seconds=600.0,
        on="newest",
        alone=True,
        before=NO_LEGACY,
        boots=True,
    ),
)
PACKAGE: Final = ROWS[0]
INSTALL: Final = next(row for row in ROWS if row.name.startswith("install"))


def chosen(words: Sequence[str], newest: bool) -> list[Row]:
    """The rows of a kernel: all, or those whose names have one of *words*, and before them what they need."""
    rows = [row for row in ROWS if newest or row.on == "every"]
    if not words:
        return rows
    wanted = {row for row in rows if any(word in row.name for word in words)}
    if any(not row.alone for row in wanted):
        wanted.add(INSTALL)
    return [row for row in rows if row in wanted]
