"""ForeignDrops: which rule dropped a packet of the self-test, by iptables' counters and nftables' traces."""

from __future__ import annotations

import re
import subprocess
import threading
from collections.abc import Iterable, Mapping
from typing import Final, NamedTuple

from nfreaim.host.check.commands import run, which
from nfreaim.host.netfilter.interfaces import overlap
from nfreaim.host.netfilter.names import TEST_LAN, TEST_WAN

_COUNTED: Final = re.compile(r"\[(\d+):\d+\] (-A .* -j (?:DROP|REJECT)\b.*)")
_POLICY: Final = re.compile(r":(\S+) DROP \[(\d+):\d+\]")
_INTERFACE: Final = re.compile(r"(?<!! )-[io] (\S+)")
_TRACED: Final = re.compile(
    r"trace id \S+ (\S+ \S+ \S+) (?:rule (?P<rule>.*?) \(verdict drop\)|(?:.* )?policy drop)"
)


class Drop(NamedTuple):
    """A rule, or the policy of a chain, that dropped something.

    place  the program and its table ("iptables-legacy filter"), or "nftables"
    chain  of nftables: family, table, chain; else ""
    rule   as the program prints it
    """

    place: str
    chain: str
    rule: str

    def __str__(self) -> str:
        return f"{self.place} {self.chain}: {self.rule}" if self.chain else f"{self.place}: {self.rule}"


class ForeignDrops:
    """Watches from when it is made until it is closed."""

    def __init__(self) -> None:
        self._before = _counts()
        self._lines: list[str] = []
        self._monitor: subprocess.Popen[str] | None = None
        if (nft := which("nft")) is not None:
            self._monitor = subprocess.Popen(
                [nft, "monitor", "trace"],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                text=True,
            )
            threading.Thread(target=self._read, args=(self._monitor,), daemon=True).start()

    def close(self) -> None:
        """End the program."""
        if self._monitor is not None:
            self._monitor.kill()
            self._monitor.wait()

    def found(self) -> list[Drop]:
        """What has dropped since it was made. Of legacy rules it can be another packet that they dropped."""
        return [*traced(self._lines), *grown(self._before, _counts())]

    def _read(self, monitor: subprocess.Popen[str]) -> None:
        assert monitor.stdout is not None
        with monitor.stdout as lines:
            for line in lines:
                self._lines.append(line)


def traced(lines: Iterable[str]) -> list[Drop]:
    """The drops among *lines* of `nft monitor trace`, each once."""
    found = (_TRACED.match(line) for line in lines)
    return list(
        dict.fromkeys(
            Drop("nftables", one[1], one["rule"] or "policy drop") for one in found if one is not None
        )
    )


def counted(saved: str) -> dict[tuple[str, str], int]:
    """Packets by table and rule that drops, in the output of iptables-save -c. A policy counts as a rule."""
    counts: dict[tuple[str, str], int] = {}
    table = ""
    for line in saved.splitlines():
        if line.startswith("*"):
            table = line[1:]
        elif (policy := _POLICY.match(line)) is not None:
            counts[table, f"-P {policy[1]} DROP"] = int(policy[2])
        elif (rule := _COUNTED.match(line)) is not None and _may_match(rule[2]):
            counts[table, rule[2]] = counts.get((table, rule[2]), 0) + int(rule[1])
    return counts


def grown(before: Mapping[tuple[str, str], int], now: Mapping[tuple[str, str], int]) -> list[Drop]:
    """The rules that have dropped something in the meantime."""
    return [
        Drop(f"iptables-legacy {table}", "", rule)
        for (table, rule), count in now.items()
        if count > before.get((table, rule), 0)
    ]


def _may_match(rule: str) -> bool:
    return all(overlap(name, TEST_LAN) or overlap(name, TEST_WAN) for name in _INTERFACE.findall(rule))


def _counts() -> dict[tuple[str, str], int]:
    legacy = "iptables-legacy-save"
    return counted(run([legacy, "-c"]).stdout) if which(legacy) is not None else {}
