"""What systemd does with rules/nfreaim.service, without systemd: the unit's own settings, read and applied.

``confined`` gives the command line that runs a program as the unit says: its user, groups and capabilities, a
read-only file system, /proc without others' processes, the system-call filter, address families, memory
protection and umask. What needs cgroups or devices (MemoryMax, PrivateDevices) is left out. As a program,
``python -m tests.lab.confine UNIT PROGRAM ...``, this is the last step: the filters, then PROGRAM.
"""

from __future__ import annotations

import ctypes
import errno
import os
import socket
import subprocess
import sys
from pathlib import Path

from nfreaim.host.netfilter.names import OWN_GROUP
from tests.reachable import REPO, doors

UNIT = REPO / "rules" / "nfreaim.service"
USER = 5190  # stands for the unit's user and group, whom a lab's machine does not know
GROUP_ROOT = 0

_ALLOW, _ERRNO = 0x7FFF0000, 0x00050000
_EQUAL, _MASKED = 4, 7
_WRITE, _EXECUTE = 0x2, 0x4
_SHM_EXEC = 0o100000
_NAMESPACES = (0x20000, 0x2000000, 0x4000000, 0x8000000, 0x10000000, 0x20000000, 0x40000000)  # CLONE_NEW*
_FAMILIES = range(64)


def settings(unit: Path = UNIT) -> dict[str, list[str]]:
    """Every value of each key of the unit, in order."""
    found: dict[str, list[str]] = {}
    for line in unit.read_text().splitlines():
        if "=" in line and not line.startswith("#"):
            key, _, value = line.partition("=")
            found.setdefault(key, []).append(value)
    return found


def passable(folder: Path) -> None:
    """Let the unit's user get into *folder*: those above it may be their owner's alone."""
    for each in (folder, *folder.parents):
        mode = each.stat().st_mode
        if mode & 0o055 != 0o055:
            each.chmod(mode | 0o055)


def confined(*words: str, capabilities: tuple[str, ...] | None = None) -> list[str]:
    """The command line that runs *words* as the unit says, on a router; or with these *capabilities*."""
    unit = settings()
    assert (unit["User"], unit["Group"], unit["SupplementaryGroups"]) == (
        ["nfreaim"],
        ["nfreaim"],
        ["root nfreaim-own"],
    )
    held = unit["AmbientCapabilities"][0].split() if capabilities is None else capabilities
    assert unit["CapabilityBoundingSet"] == unit["AmbientCapabilities"]
    mask = ",".join(["-all", *(f"+{name.removeprefix('CAP_').lower()}" for name in held)])
    prepare = (unit["ExecStartPre"][0].removeprefix("+/bin/sh -c '").removesuffix("'"),)
    mounts = (
        f"mkdir -p /run/{unit['RuntimeDirectory'][0]}",
        f"chown {USER}:{USER} /run/{unit['RuntimeDirectory'][0]}",
        "mount --bind /run/nfreaim /run/nfreaim",
        "mount -o remount,bind,ro /run",
        "mount -o remount,bind,ro /",
        "mount -t tmpfs -o mode=1777 private /var/tmp",  # /tmp holds the lab's files
        f"mount -t proc -o hidepid={unit['ProtectProc'][0]} proc /proc",
        f"umask {unit['UMask'][0]}",
        'exec "$@"',
    )
    return [
        "sh",
        "-ec",
        "\n".join((*doors(), *prepare, *mounts)),
        "sh",
        "setpriv",
        f"--reuid={USER}",
        f"--regid={USER}",
        f"--groups={GROUP_ROOT},{OWN_GROUP}",
        f"--inh-caps={mask}",
        f"--ambient-caps={mask}",
        f"--bounding-set={mask}",
        "--no-new-privs",
        sys.executable,
        "-m",
        "tests.lab.confine",
        str(UNIT),
        *words,
    ]


class _Compare(ctypes.Structure):
    """struct scmp_arg_cmp of libseccomp: argument number, comparison, mask or value, value."""

    _fields_ = [
        ("arg", ctypes.c_uint),
        ("op", ctypes.c_int),
        ("a", ctypes.c_uint64),
        ("b", ctypes.c_uint64),
    ]


class _Filter:
    """A system-call filter; *default* is what happens to calls that no rule names."""

    def __init__(self, default: int) -> None:
        self._library = ctypes.CDLL("libseccomp.so.2", use_errno=True)
        self._library.seccomp_init.restype = ctypes.c_void_p
        self._context = ctypes.c_void_p(self._library.seccomp_init(default))

    def rule(self, action: int, name: str, *compare: tuple[int, int, int, int]) -> None:
        number = self._library.seccomp_syscall_resolve_name(name.encode())
        if number == -1:  # a call that this libseccomp has not heard of
            return
        array = (_Compare * len(compare))(*(_Compare(*fields) for fields in compare))
        code = self._library.seccomp_rule_add_array(self._context, action, number, len(compare), array)
        assert code == 0, (name, code)

    def load(self) -> None:
        code = self._library.seccomp_load(self._context)
        assert code == 0, os.strerror(-code)


def allowed_calls(lines: list[str]) -> set[str]:
    """The system calls that remain of the unit's SystemCallFilter lines, the first of which allows."""
    allowed = _calls(["@default"])
    for line in lines:
        names = _calls(line.lstrip("~").split())
        allowed = allowed - names if line.startswith("~") else allowed | names
    return allowed


def _calls(names: list[str]) -> set[str]:
    calls: set[str] = set()
    for name in names:
        if not name.startswith("@"):
            calls.add(name)
            continue
        listed = subprocess.run(
            ["systemd-analyze", "syscall-filter", name], capture_output=True, text=True, check=True
        ).stdout
        members = [line.strip() for line in listed.splitlines()[1:] if not line.strip().startswith("#")]
        calls |= _calls([member for member in members if member])
    return calls


def apply(unit: dict[str, list[str]]) -> None:
    """Load the filters of the unit into this process. They cannot be undone."""
    assert unit["SystemCallErrorNumber"] == ["EPERM"]
    assert unit["MemoryDenyWriteExecute"] == unit["RestrictNamespaces"] == ["yes"]
    refuse = _ERRNO | errno.EPERM
    calls = _Filter(refuse)
    for name in allowed_calls(unit["SystemCallFilter"]):
        calls.rule(_ALLOW, name)
    calls.rule(_ALLOW, "seccomp")  # for the next one; systemd loads them in its own process, in the same way
    calls.rule(_ALLOW, "prctl")

    others = _Filter(_ALLOW)
    both = _WRITE | _EXECUTE
    others.rule(refuse, "mmap", (2, _MASKED, both, both))
    for name in ("mprotect", "pkey_mprotect"):
        others.rule(refuse, name, (2, _MASKED, _EXECUTE, _EXECUTE))
    others.rule(refuse, "shmat", (2, _MASKED, _SHM_EXEC, _SHM_EXEC))
    for name in ("unshare", "setns"):
        others.rule(refuse, name)
    for flag in _NAMESPACES:
        others.rule(refuse, "clone", (0, _MASKED, flag, flag))
    others.rule(_ERRNO | errno.ENOSYS, "clone3")
    families = {getattr(socket, name) for name in unit["RestrictAddressFamilies"][0].split()}
    for family in set(_FAMILIES) - families:
        others.rule(_ERRNO | errno.EAFNOSUPPORT, "socket", (0, _EQUAL, family, 0))
    others.load()
    calls.load()


if __name__ == "__main__":
    apply(settings(Path(sys.argv[1])))
    os.execvp(sys.argv[2], sys.argv[2:])
