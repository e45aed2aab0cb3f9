"""Lets other users run a checkout that only its owner may enter, such as one below /root."""

from __future__ import annotations

import shlex
from pathlib import Path

REPO = Path(__file__).resolve().parents[1]


def doors() -> list[str]:
    """Shell lines for a mount namespace of one's own: behind them the way to the checkout is open to all.

    What else lies on the way is hidden, not opened.
    """
    closed = [folder for folder in reversed(REPO.parents) if not folder.stat().st_mode & 0o001]
    if not closed:
        return []
    checkout, top = shlex.quote(str(REPO)), shlex.quote(str(closed[0]))
    return [
        "umask 022",
        "aside=$(mktemp -d)",
        f'mount --bind {checkout} "$aside"',
        f"mount -t tmpfs -o mode=755 cover {top}",
        f"mkdir -p {checkout}",
        f'mount --bind "$aside" {checkout}',
        'umount "$aside"',
        'rmdir "$aside"',
        f"cd {checkout}",
    ]


def by_anybody(*words: str) -> list[str]:
    """The command line that runs *words* behind them; as root."""
    if not (lines := doors()):
        return [*words]
    return ["unshare", "--mount", "sh", "-ec", "\n".join((*lines, 'exec "$@"')), "sh", *words]
