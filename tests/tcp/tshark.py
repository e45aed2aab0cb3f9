"""An independent judge of captures: tshark's AIM dissector, checksum tests and TCP analysis."""

import os
import shutil
import subprocess
from collections.abc import Iterable
from dataclasses import dataclass

import pytest


@dataclass(frozen=True, slots=True)
class Problems:
    """Numbers of the frames that tshark complains about."""

    malformed: list[int]  # the AIM dissector gave up
    checksums: list[int]  # wrong in IP or TCP
    analysis: list[int]  # tcp.analysis.flags: retransmitted, out of order, lost, acknowledged but unseen ...


def tshark_fields(path: str | os.PathLike[str], *fields: str, options: Iterable[str] = ()) -> list[list[str]]:
    """One list of field values per frame; a field that occurs more than once has its values joined by commas.

    Skips the test where tshark is not installed.
    """
    if shutil.which("tshark") is None:
        pytest.skip("tshark is not installed")
    command = ["tshark", "-n", "-r", os.fspath(path), *options, "-T", "fields"]
    for field in fields:
        command += ["-e", field]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    return [line.split("\t") for line in done.stdout.splitlines()]


def tshark_problems(path: str | os.PathLike[str], ports: Iterable[int] = (5190,)) -> Problems:
    """Let tshark judge the capture, reading the TCP `ports` as AIM."""
    options = ["-o", "tcp.check_checksum:TRUE", "-o", "ip.check_checksum:TRUE"]
    for port in ports:
        options += ["-d", f"tcp.port=={port},aim"]
    problems = Problems([], [], [])
    names = ("frame.number", "frame.protocols", "_ws.malformed", "ip.checksum.status", "tcp.checksum.status")
    for number, protocols, malformed, ip, tcp, flags in tshark_fields(
        path, *names, "tcp.analysis.flags", options=options
    ):
        if malformed and "aim" in protocols.split(":"):
            problems.malformed.append(int(number))
        if "0" in ip.split(",") or "0" in tcp.split(","):
            problems.checksums.append(int(number))
        if flags:
            problems.analysis.append(int(number))
    return problems
