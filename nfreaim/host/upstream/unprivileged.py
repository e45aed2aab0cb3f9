"""Gives up the privileges of a process that reads what devices of other people say."""

from __future__ import annotations

import ctypes
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from nfreaim import same_program

_NOBODY: Final = 65534
_NO_NEW_PRIVS, _AMBIENT, _CLEAR_ALL = 38, 47, 4  # PR_SET_NO_NEW_PRIVS, PR_CAP_AMBIENT, linux/prctl.h


def become_nobody(module: str, words: Sequence[str]) -> None:
    """Keep neither root's identity nor a capability, and regain none by a program.

    A user other than root may not drop capabilities under the unit's system-call filter. What it has are
    ambient ones, so the process begins anew without: it runs *module* with the arguments *words*. Raises
    OSError.
    """
    if os.geteuid() == 0:  # capabilities go with the identity
        os.setgroups([])
        os.setresgid(_NOBODY, _NOBODY, _NOBODY)
        os.setresuid(_NOBODY, _NOBODY, _NOBODY)
    _control(_NO_NEW_PRIVS, 1)
    if _has_capabilities():
        _control(_AMBIENT, _CLEAR_ALL)
        os.execve(sys.executable, same_program.command(*words, module=module), same_program.environment())


def _has_capabilities() -> bool:
    status = Path("/proc/self/status").read_text().split()
    return int(status[status.index("CapPrm:") + 1], 16) != 0


def _control(option: int, value: int) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(option, value, 0, 0, 0) != 0:
        raise OSError(ctypes.get_errno(), "privileges cannot be given up")
