"""The rules script: finds and runs `nfreaim-rules`, the only place where the static rules are written down.

This module knows no rule but by what `nfreaim-rules show` prints, and starts no other program.
"""

from __future__ import annotations

import logging
import re
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from nfreaim.config import Config, reading_queues
from nfreaim.errors import BackendError
from nfreaim.host.netfilter.names import CHAIN, COMMENT, SERVER_CHAIN
from nfreaim.host.rules.background import BackgroundProgram
from nfreaim.old_spellings import DEFAULT_PROTOCOL

NAME: Final = "nfreaim-rules"
ABSENT: Final = 3
"""Exit status of `nfreaim-rules show` when the rules are absent or incomplete."""

TIMEOUT_S: Final = 120.0
"""The script itself waits at most 30 s for the lock of iptables at each of its steps."""

# How `show` prints the rules that name interface, protocol and ports, one kind a line. A rule without a
# comment is of a protocol that was given as --port. In each table every protocol has one rule of each kind
# and interface.
_KINDS: Final = (
    ("lan", rf" raw .*-A PREROUTING -i (\S+) .*--dports (\S+) -j {CHAIN}$"),
    ("lan", rf" raw .*-A PREROUTING -i (\S+) .*--sports (\S+) -j {SERVER_CHAIN}$"),
    ("lan", rf" mangle .*-A POSTROUTING -o (\S+) .*--sports (\S+) -j {CHAIN}$"),
    ("lan", rf" mangle .*-A POSTROUTING -o (\S+) .*--dports (\S+) -j {SERVER_CHAIN}$"),
    ("wan", rf" raw .*-A OUTPUT -o (\S+) .*--sports (\S+) -j {SERVER_CHAIN}$"),
    ("wan", rf" mangle .*-A INPUT -i (\S+) .*--dports (\S+) -j {SERVER_CHAIN}$"),
)
_PROTOCOL: Final = re.compile(rf'--comment "{COMMENT} (\S+)"')
_FROM_WAN: Final = rf" nat .*-A PREROUTING -i (\S+) .*-j {CHAIN}"

log = logging.getLogger(__name__)
_PACKAGE: Final = Path(__file__).resolve().parents[2]

Ports = Mapping[str, tuple[int, ...]]
"""TCP ports of servers, by the name of the protocol."""


@dataclass(frozen=True)
class Settings:
    """What the rules are installed with. Two are equal if the same rules come of them.

    lan, wan  names of interfaces
    queue     the NFQUEUE number
    workers   processes that read
    """

    lan: tuple[str, ...]
    wan: tuple[str, ...]
    ports: Ports
    queue: int
    workers: int = 1

    def __post_init__(self) -> None:
        ports = {name: tuple(sorted(set(self.ports[name]))) for name in sorted(self.ports)}
        object.__setattr__(self, "lan", tuple(sorted(set(self.lan))))
        object.__setattr__(self, "wan", tuple(sorted(set(self.wan))))
        object.__setattr__(self, "ports", ports)

    @classmethod
    def of(cls, config: Config) -> Settings:
        """Those that the configuration asks for."""
        return cls(config.lan, config.wan, config.ports, config.queue, config.workers)

    def words(self) -> list[str]:
        """The options of `nfreaim-rules install`."""
        pairs = [("--lan", name) for name in self.lan] + [("--wan", name) for name in self.wan]
        pairs += [("--protocol", f"{name}:{_joined(ports)}") for name, ports in self.ports.items()]
        pairs.append(("--queue", str(self.queue)))
        if self.workers > 1:
            pairs.append(("--workers", str(self.workers)))
        return [word for pair in pairs for word in pair]


def path() -> Path:
    """Where the script is: inside the installed package, else beside the package in a checkout.

    Raises BackendError if it is in neither place.
    """
    for directory in (_PACKAGE / "rules", _PACKAGE.parent / "rules"):
        if (directory / NAME).is_file():
            return directory / NAME
    raise BackendError(f"the script {NAME} is missing from this installation; remedy: install nfreaim again")


def install(settings: Settings) -> None:
    """Install the rules in this network namespace, or replace those there; pinholes stay.

    An interface that does not exist is only logged: it may appear later. Raises BackendError.
    """
    _checked(["install", *settings.words()])


def remove(force: bool = False) -> None:
    """Remove every chain, jump and set of ours. Raises BackendError if something remains.

    It refuses while connections depend on the daemon, because they would deliver wrong bytes; *force* removes
    all the same.
    """
    _checked(["remove", *(["--force"] if force else [])])


def shown() -> tuple[str, bool]:
    """What `show` prints, and whether the rules are complete, the accept in every firewall in use included.

    Raises BackendError.
    """
    result = run(["show"])
    if result.returncode not in (0, ABSENT):
        raise BackendError(message(result.stderr))
    return result.stdout, result.returncode == 0


def difference(shown: str, wanted: Settings) -> str:
    """In words, how the installed rules that are *shown* differ from *wanted*, and the remedy; else "".

    Interfaces are not compared. A daemon that serves another queue than the rules fill would do nothing, and
    say nothing.
    """
    queues = {int(number) for number in re.findall(r"--queue-num (\d+)", shown)}
    spread = _spread(shown)
    if queues != {wanted.queue}:
        found = f"queue {', '.join(map(str, sorted(queues)))}, not {wanted.queue}"
    elif spread != {_balance(wanted.queue, wanted.workers)}:
        workers = ", ".join(str(_workers(each)) for each in sorted(spread))
        found = f"workers = {workers}, not {wanted.workers}"
    else:
        found = _ports_differ(_ports_read(shown), wanted.ports)
    if not found:
        return ""
    return f"the installed rules are for {found}; install them again with the same settings, or remove them"


def settings(shown: str) -> Settings | None:
    """What the rules that are *shown* by the script were installed with.

    None if they contradict each other, because some are missing.
    """
    interfaces: dict[str, set[frozenset[str]]] = {"lan": set(), "wan": set()}
    ports: set[frozenset[tuple[str, str]]] = set()
    for side, pattern in _KINDS:
        found = _rules(shown, pattern)
        interfaces[side].add(frozenset(interface for interface, _, _ in found))
        for name in {interface for interface, _, _ in found}:
            ports.add(frozenset((protocol, text) for interface, protocol, text in found if interface == name))
    interfaces["wan"].add(frozenset(re.findall(_FROM_WAN, shown)))
    queues = {int(number) for number in re.findall(r"--queue-num (\d+)", shown)}
    (lan, *other_lans), (wan, *other_wans) = interfaces["lan"], interfaces["wan"]
    if other_lans or other_wans or not (lan and wan) or len(ports) != 1 or len(queues) != 1:
        return None
    rules = ports.pop()
    if len({protocol for protocol, _ in rules}) < len(rules):
        return None
    queue, spread = queues.pop(), _spread(shown)
    workers = _workers(min(spread))
    if spread != {_balance(queue, workers)}:
        return None
    return Settings(tuple(lan), tuple(wan), _by_protocol(rules), queue, workers)


def _rules(shown: str, pattern: str) -> list[tuple[str, str, str]]:
    """Interface, protocol ("": not named) and ports of each rule of one kind."""
    found = []
    for line in shown.splitlines():
        if rule := re.search(pattern, line):
            protocol = _PROTOCOL.search(line)
            found.append((rule[1], protocol[1] if protocol else "", rule[2]))
    return found


def _by_protocol(rules: frozenset[tuple[str, str]]) -> dict[str, tuple[int, ...]]:
    """The ports of rules that are given as protocol and list of ports."""
    ports: dict[str, tuple[int, ...]] = {}
    for name, text in rules:
        protocol = name or DEFAULT_PROTOCOL
        ports[protocol] = ports.get(protocol, ()) + tuple(map(int, text.split(",")))
    return ports


def _ports_read(shown: str) -> dict[str, tuple[int, ...]]:
    """The servers' ports of connections that the rules queue, by protocol."""
    rules = [rule for _, pattern in _KINDS if "--dports" in pattern for rule in _rules(shown, pattern)]
    return _by_protocol(frozenset((protocol, text) for _, protocol, text in rules))


def _ports_differ(read: Ports, wanted: Ports) -> str:
    """The first protocol of *wanted* whose ports the rules do not all queue for it, in words; else ""."""
    for name, ports in wanted.items():
        if lacking := set(ports) - set(read.get(name, ())):
            if name not in read:
                return f"{', '.join(sorted(read)) or 'no protocol'}, not {name}"
            return f"ports {_listed(read[name])}, not {_listed(lacking)} ({name})"
    return ""


def _listed(ports: Sequence[int] | set[int]) -> str:
    return ", ".join(map(str, sorted(ports)))


def _joined(ports: Sequence[int]) -> str:
    return ",".join(map(str, ports))


def _balance(queue: int, workers: int) -> str:
    """The queues that control connections are spread over, as the rules say it; "": only one."""
    queues = reading_queues(queue, workers)
    return f"{queues[0]}:{queues[-1]}" if workers > 1 else ""


def _workers(spread: str) -> int:
    """How many workers share these queues."""
    first, _, last = spread.partition(":")
    return int(last) - int(first) + 1 if last else 1


def _spread(shown: str) -> set[str]:
    """The queues that control connections are spread over; several if the rules contradict each other."""
    return set(re.findall(r"--queue-balance (\S+)", shown)) or {""}


def run(words: Sequence[str]) -> subprocess.CompletedProcess[str]:
    """Run the script; return its status and output. Raises BackendError if it cannot run."""
    try:
        return subprocess.run(
            ["/bin/sh", str(path()), *words],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=TIMEOUT_S,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise BackendError(f"{NAME} {words[0]} did not run: {error}") from error


def start(words: Sequence[str]) -> BackgroundProgram:
    """Start the script beside the daemon; ask for the result later. Raises BackendError."""
    return BackgroundProgram(["/bin/sh", str(path()), *words], TIMEOUT_S)


def _checked(words: Sequence[str]) -> None:
    result = run(words)
    if result.returncode != 0:
        raise BackendError(message(result.stderr))
    for line in result.stderr.splitlines():
        log.warning("%s", message(line).removeprefix("warning: "))


def message(text: str) -> str:
    """What the script wrote to stderr, without its name."""
    return text.strip().removeprefix(f"{NAME}: ") or f"{NAME} failed without a message"
