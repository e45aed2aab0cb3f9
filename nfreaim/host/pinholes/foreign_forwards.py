"""Foreign forwards: the ports that other rules forward, read from the output of the firewall's programs.

No peer would reach a pinhole on such a port, because the operator's forwards come first.
"""

from __future__ import annotations

import re
import shutil
import subprocess
from typing import Final

from nfreaim.host.netfilter.names import COMMENT

_PROGRAMS: Final = (("iptables-legacy-save", "-t", "nat"), ("nft", "list", "ruleset"))
_TIMEOUT_S: Final = 5.0
_TRANSLATES: Final = re.compile(r"\b(DNAT|REDIRECT|dnat|redirect)\b")
# --dport 80, --dport 80:90, --dports 80,443,8000:8100; nft says dport 80, dport 80-90, dport { 80, 443 }
_RANGE: Final = r"([0-9]+)(?:[:-]([0-9]+))?"
_PORTS: Final = re.compile(rf"\bdports? (?:\{{ )?({_RANGE}(?:, ?{_RANGE})*)")
_OWN: Final = f"{COMMENT} "


def foreign_forwards() -> list[range]:
    """The ports that other rules forward; takes some milliseconds. An unreadable ruleset counts as empty."""
    return [ports for program in _PROGRAMS for ports in forwarded(_output(program))]


def forwarded(rules: str) -> list[range]:
    """The destination ports of the translating rules in *rules*, one rule per line, without our own rules."""
    ranges = []
    for line in rules.splitlines():
        ports = _PORTS.search(line)
        if ports is None or _OWN in line or not _TRANSLATES.search(line):
            continue
        for low, high in re.findall(_RANGE, ports[1]):
            ranges.append(range(int(low), int(high or low) + 1))
    return ranges


def _output(command: tuple[str, ...]) -> str:
    if shutil.which(command[0]) is None:
        return ""
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=_TIMEOUT_S, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout
