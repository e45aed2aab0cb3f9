"""What `make` hands to the rules and the daemon. Nothing is run: make prints it."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest

REPO = Path(__file__).resolve().parents[2]


def make(*words: str) -> subprocess.CompletedProcess[str]:
    command = ["make", "--no-print-directory", "-n", *words, "LAN=br0,br1", "WAN=eth0"]
    return subprocess.run(command, cwd=REPO, capture_output=True, text=True, timeout=30)


@pytest.mark.parametrize(
    ("named", "options"),
    [
        ((), ""),
        (("PROTOCOLS=oscar",), "--protocol oscar"),
        (("PROTOCOLS=oscar,irc",), "--protocol oscar --protocol irc"),
        (("PROTOCOLS=oscar irc:6667,6697",), "--protocol oscar --protocol irc:6667,6697"),
        (("PROTOCOLS=oscar:5190,443,irc:6667, 6697",), "--protocol oscar:5190,443 --protocol irc:6667,6697"),
        (("PORTS=5190,443",), "--port 5190 --port 443"),
        (("PORTS=5190 443", "PROTOCOLS=irc"), "--protocol irc --port 5190 --port 443"),
        (("PROTOCOLS=irc", "WORKERS=3"), "--protocol irc --workers 3"),
    ],
)
def test_protocols_reach_rules_daemon_and_the_file_for_the_next_boot(
    named: tuple[str, ...], options: str
) -> None:
    words = f"--lan br0 --lan br1 --wan eth0 {options}".split()
    assert make("install-rules", *named).stdout.split() == ["rules/nfreaim-rules", "install", *words]
    assert make("run", *named).stdout.splitlines()[-1].split() == [".venv/bin/nfreaim", "run", *words]
    (given,) = re.findall(r"\bARGS='([^']*)'", make("install", *named).stdout)
    assert given.split() == words


def test_a_port_without_a_protocol_is_refused() -> None:
    done = make("install-rules", "PROTOCOLS=6667,irc")
    assert done.returncode != 0
    assert "write NAME or NAME:PORT" in done.stderr


@pytest.mark.parametrize(
    ("named", "options"),
    [
        ((), ""),
        (("MESSENGERS=all",), "--messenger all"),
        (("MESSENGERS=a,b c",), "--messenger a --messenger b --messenger c"),
    ],
)
def test_messengers_reach_the_demo(named: tuple[str, ...], options: str) -> None:
    last = make("demo", *named).stdout.splitlines()[-1]
    assert last.split() == [".venv/bin/python", "-m", "demo", *options.split()]


@pytest.mark.parametrize(("named", "extras"), [((), ""), (("EXTRAS=top,metrics",), "top,metrics")])
def test_optional_libraries_are_installed_where_they_are_asked_for(
    named: tuple[str, ...], extras: str
) -> None:
    assert f" EXTRAS='{extras}' " in make("install", *named).stdout
