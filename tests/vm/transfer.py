"""What an installation is for: a file from the LAN to the Internet, by the daemon that systemd started."""

from __future__ import annotations

import subprocess

import pytest

from tests.lab.scene import eventually
from tests.vm.router import SLOW, Router, conversation, offers

pytestmark = pytest.mark.timeout(4 * SLOW)


def log() -> str:
    """What the daemon has logged since the machine was booted."""
    words = ("journalctl", "--no-pager", "-b", "-u", "nfreaim", "-o", "cat")
    return subprocess.run(words, stdout=subprocess.PIPE, text=True, timeout=SLOW, check=True).stdout


def test_a_file_arrives_through_the_installed_daemon() -> None:
    """Right after a boot, too: nothing but systemd has started anything."""
    eventually(lambda: subprocess.run(["systemctl", "-q", "is-active", "nfreaim"]).returncode == 0, SLOW)
    before = log().count("claimed")
    with Router() as router, conversation(router) as (alice, bob):
        offers(alice, bob)
        eventually(lambda: log().count("claimed") > before, SLOW)
