"""The rules of a self-test, which the script `nfreaim-rules` makes and removes."""

from __future__ import annotations

import re
from typing import Final

from nfreaim.errors import BackendError
from nfreaim.host.rules import script

_LEFT: Final = re.compile(r"^self-test  ", re.MULTILINE)


def add(port: int) -> None:
    """Let a self-test through, whose server has this port; what another one has left is removed before.

    Raises BackendError.
    """
    _run("add", str(port))


def remove() -> None:
    """Remove what a self-test has in the kernel, its interfaces, too. Raises BackendError."""
    _run("remove")


def are_in(shown: str) -> bool:
    """Whether the output of `nfreaim-rules show` tells of a self-test, which may have been killed."""
    return _LEFT.search(shown) is not None


def _run(*words: str) -> None:
    done = script.run(["self-test", *words])
    if done.returncode:
        raise BackendError(script.message(done.stderr))
