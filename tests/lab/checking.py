"""`nfreaim check` on a router, and the remedies that it names."""

from __future__ import annotations

import subprocess
import sys

from tests.lab.router import REPO, Router

PROGRAM = """import sys
from nfreaim.config import Config
from nfreaim.host.check import doctor_command
sys.exit(doctor_command.main(Config(lan=('lan',), wan=('wan',))))"""


def check(router: Router, program: str = PROGRAM) -> tuple[int, list[str]]:
    result = subprocess.run(
        ["ip", "netns", "exec", router.ns("router"), sys.executable, "-c", program],
        capture_output=True,
        text=True,
        timeout=60,
        cwd=REPO,
    )
    assert result.stderr == ""
    return result.returncode, result.stdout.splitlines()


def remedies(lines: list[str], word: str) -> list[str]:
    return [line.partition(" -> ")[2] for line in lines if not line.startswith("ok") and word in line]
