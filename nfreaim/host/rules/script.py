"""The rules script: finds and runs `nfreaim-rules`, and compares what it prints with the settings.

The script alone defines the static rules. This module learns the installed rules from `nfreaim-rules show`,
and starts no other program.
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

# The rules of `show` that name interface, protocol and ports; one line per kind. A rule without a comment was
# installed with --port. In each table every protocol has one rule of each kind and interface.
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
    """The settings of the rules. Two are equal if the script makes the same rules of them.

    lan, wan  names of interfaces
    queue     the NFQUEUE number
    workers   number of processes that read packets
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
        """The settings that the configuration asks for."""
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
    """The path of the script: inside the installed package, else beside the package in a checkout.

    Raises BackendError if it is in neither directory.
    """
    for directory in (_PACKAGE / "rules", _PACKAGE.parent / "rules"):
        if (directory / NAME).is_file():
            return directory / NAME
    raise BackendError(f"the script {NAME} is missing from this installation; remedy: install nfreaim again")


def install(settings: Settings) -> None:
    """Install the rules in this network namespace, in place of earlier ones; pinholes stay.

    An interface that does not exist is only logged, because it may appear later. Raises BackendError.
    """
    _checked(["install", *settings.words()])


def remove(force: bool = False) -> None:
    """Remove our chains, jumps and sets. Raises BackendError if one of them remains.

    Without *force* the script refuses while skewed flows exist: untranslated they would deliver wrong bytes.
    """
    _checked(["remove", *(["--force"] if force else [])])


def shown(asked: BackgroundProgram) -> tuple[str, bool]:
    """The output of `show`, and whether the rules are complete, with the accept in every firewall in use.

    asked  the script, started with `show`

    Raises BackendError.
    """
    result = asked.wait()
    if result.returncode not in (0, ABSENT):
        raise BackendError(message(result.stderr))
    return result.stdout, result.returncode == 0


def difference(shown: str, wanted: Settings) -> str:
    """In words, the difference of the installed rules (*shown* by the script) from *wanted*, and the remedy;
    "" if there is none.

    Without this comparison a daemon could serve another queue than the rules fill, and silently read nothing.
    Interfaces are not compared.
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
    """The settings that the rules *shown* by the script were installed with.

    None if the rules contradict each other, because some are missing.
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
    """Interface, protocol ("" if not named) and ports of each rule that matches *pattern*."""
    found = []
    for line in shown.splitlines():
        if rule := re.search(pattern, line):
            protocol = _PROTOCOL.search(line)
            found.append((rule[1], protocol[1] if protocol else "", rule[2]))
    return found


def _by_protocol(rules: frozenset[tuple[str, str]]) -> dict[str, tuple[int, ...]]:
    """The ports of each protocol, from *rules* given as pairs of protocol and port list."""
    ports: dict[str, tuple[int, ...]] = {}
    for name, text in rules:
        protocol = name or DEFAULT_PROTOCOL
        ports[protocol] = ports.get(protocol, ()) + tuple(map(int, text.split(",")))
    return ports


def _ports_read(shown: str) -> dict[str, tuple[int, ...]]:
    """The server ports that the rules queue, by protocol."""
    rules = [rule for _, pattern in _KINDS if "--dports" in pattern for rule in _rules(shown, pattern)]
    return _by_protocol(frozenset((protocol, text) for _, protocol, text in rules))


def _ports_differ(read: Ports, wanted: Ports) -> str:
    """In words, the first protocol of *wanted* with a port that the rules do not queue for it; else ""."""
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
    """The queues that control connections are spread over, as the rules write them; "" if only one."""
    queues = reading_queues(queue, workers)
    return f"{queues[0]}:{queues[-1]}" if workers > 1 else ""


def _workers(spread: str) -> int:
    """The number of workers that share the queues *spread*."""
    first, _, last = spread.partition(":")
    return int(last) - int(first) + 1 if last else 1


def _spread(shown: str) -> set[str]:
    """The queues that control connections are spread over; several texts if the rules disagree."""
    return set(re.findall(r"--queue-balance (\S+)", shown)) or {""}


def run(words: Sequence[str]) -> subprocess.CompletedProcess[str]:
    """Run the script. Returns its status and output. Raises BackendError if it cannot run."""
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
    """Start the script beside the daemon, which asks for the result later. Raises BackendError."""
    return BackgroundProgram(["/bin/sh", str(path()), *words], TIMEOUT_S)


def _checked(words: Sequence[str]) -> None:
    result = run(words)
    if result.returncode != 0:
        raise BackendError(message(result.stderr))
    for line in result.stderr.splitlines():
        log.warning("%s", message(line).removeprefix("warning: "))


def message(text: str) -> str:
    """The script's message in *text*, its output to stderr, without its name."""
    return text.strip().removeprefix(f"{NAME}: ") or f"{NAME} failed without a message"
