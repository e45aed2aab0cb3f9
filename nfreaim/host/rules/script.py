"""The static rules: finds and runs `nfreaim-rules`, the only place where they are defined.

This module may not know a single rule, nor start any other program.
"""

import logging
import re
import subprocess
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from nfreaim.config import reading_queues
from nfreaim.errors import BackendError
from nfreaim.host.rules.background import BackgroundProgram

NAME = "nfreaim-rules"
CHAIN = "NFREAIM"
ABSENT = 3
"""Exit status of `nfreaim-rules show` when the rules are absent or incomplete."""

TIMEOUT = 120.0
"""Seconds; the script itself waits at most 30 for the lock of iptables at each of its steps."""

# Where interfaces and ports stand in what `show` says: every rule of a kind names the same.
_PLACES = {
    "to server": r" raw .*-A PREROUTING -i (\S+) .*--dports (\S+) -j NFREAIM$",
    "from server": r" raw .*-A PREROUTING -i (\S+) .*--sports (\S+) -j NFREAIM_SERVER$",
    "to client": r" mangle .*-A POSTROUTING -o (\S+) .*--sports (\S+) -j NFREAIM$",
    "to home": r" mangle .*-A POSTROUTING -o (\S+) .*--dports (\S+) -j NFREAIM_SERVER$",
    "from router": r" raw .*-A OUTPUT -o (\S+) .*--sports (\S+) -j NFREAIM_SERVER$",
    "to router": r" mangle .*-A INPUT -i (\S+) .*--dports (\S+) -j NFREAIM_SERVER$",
}
_OF_PORTS = re.compile(
    r" (raw|mangle) .*-A (\w+) -[io] (\S+) -p tcp"
    r'(?: -m comment --comment "nfreaim (\S+)")? -m multiport --([sd]ports) (\S+) -j NFREAIM'
)
_FROM_WAN = r" nat .*-A PREROUTING -i (\S+) .*-j NFREAIM"

_log = logging.getLogger(__name__)
_PACKAGE = Path(__file__).resolve().parents[2]


class Settings(NamedTuple):
    """What the rules are installed with: interfaces, TCP ports, queue number, processes that read."""

    lan: tuple[str, ...]
    wan: tuple[str, ...]
    ports: tuple[int, ...]
    queue: int
    workers: int = 1


def named(
    lan: Iterable[str], wan: Iterable[str], ports: Iterable[int], queue: int, workers: int = 1
) -> Settings:
    """These settings, as ``settings`` finds them in the rules that are installed with them."""
    return Settings(tuple(sorted({*lan})), tuple(sorted({*wan})), tuple(sorted({*ports})), queue, workers)


def path() -> Path:
    """Where the script is: inside the installed package, else beside the package in a checkout.

    Raises BackendError if it is in neither place.
    """
    for directory in (_PACKAGE / "rules", _PACKAGE.parent / "rules"):
        if (directory / NAME).is_file():
            return directory / NAME
    raise BackendError(f"the script {NAME} is missing from this installation; remedy: install nfreaim again")


def arguments(
    lan: Iterable[str], wan: Iterable[str], ports: Iterable[int], queue: int, workers: int = 1
) -> list[str]:
    """The options of `nfreaim-rules install`: interfaces, TCP ports, queue number, processes that read."""
    pairs = [("--lan", name) for name in lan] + [("--wan", name) for name in wan]
    pairs += [("--port", str(port)) for port in ports] + [("--queue", str(queue))]
    if workers > 1:
        pairs.append(("--workers", str(workers)))
    return [word for pair in pairs for word in pair]


def install(
    lan: Iterable[str], wan: Iterable[str], ports: Iterable[int], queue: int, workers: int = 1
) -> None:
    """Install the rules in this network namespace, or replace those there; pinholes stay.

    An interface that does not exist is only logged: it may appear later. Raises BackendError.
    """
    _checked(["install", *arguments(lan, wan, ports, queue, workers)])


def remove(force: bool = False) -> None:
    """Remove every chain, jump and set of ours. Raises BackendError if something remains.

    It refuses while connections depend on the daemon, because they would deliver wrong bytes; *force* removes
    all the same.
    """
    _checked(["remove", *(["--force"] if force else [])])


def shown() -> tuple[str, bool]:
    """What there is of our rules, as the script shows it, and whether that is all of it, the accept in every
    firewall in use included. Raises BackendError.
    """
    result = run(["show"])
    if result.returncode not in (0, ABSENT):
        raise BackendError(message(result.stderr))
    return result.stdout, result.returncode == 0


def difference(shown: str, ports: Iterable[int], queue: int, workers: int = 1) -> str:
    """What the installed rules, as *shown* by the script, do otherwise than these settings say, with the
    remedy; "" if nothing.

    A daemon that serves another queue than the rules fill would do nothing, and say nothing.
    """
    queues = {int(number) for number in re.findall(r"--queue-num (\d+)", shown)}
    read = {int(port) for text in re.findall(r"--dports ([\d,]+)", shown) for port in text.split(",")}
    spread = _spread(shown)
    if queues != {queue}:
        found = f"queue {', '.join(map(str, sorted(queues)))}, not {queue}"
    elif spread != {_balance(queue, workers)}:
        found = f"workers = {', '.join(str(_workers(each)) for each in sorted(spread))}, not {workers}"
    elif not set(ports) <= read:
        found = (
            f"ports {', '.join(map(str, sorted(read)))}, not {', '.join(map(str, sorted(set(ports) - read)))}"
        )
    else:
        return ""
    return f"the installed rules are for {found}; install them again with the same settings, or remove them"


def settings(shown: str) -> Settings | None:
    """What the rules that are *shown* by the script were installed with; None if they contradict each other,
    because some are missing."""
    places = {
        name: {tuple(re.findall(pattern, line)[0]) for line in shown.splitlines() if re.search(pattern, line)}
        for name, pattern in _PLACES.items()
    }
    lans = {frozenset(places[name]) for name in ("to server", "from server", "to client", "to home")}
    wans = {frozenset(interface for interface, *_ in places[name]) for name in ("from router", "to router")}
    wans.add(frozenset(re.findall(_FROM_WAN, shown)))
    queues = {int(number) for number in re.findall(r"--queue-num (\d+)", shown)}
    spread = _spread(shown)
    ports = {text for found in places.values() for _, text in found}
    if not (len(lans) == len(wans) == len(queues) == len(ports) == 1 and all(lans) and all(wans)):
        return None
    queue, workers = queues.pop(), 1
    if spread != {""}:
        workers = _workers(min(spread))
        if spread != {_balance(queue, workers)}:
            return None
    lan = (interface for interface, _ in lans.pop())
    numbers = map(int, ports.pop().split(","))
    return named(lan, wans.pop(), numbers, queue, workers)


def served(shown: str) -> dict[str, tuple[int, ...]] | None:
    """The ports of each protocol in the rules that are *shown* by the script; None if some are missing.

    Under "" are those that nobody named a protocol for: they belong to the default one.
    """
    places: dict[tuple[str, str, str], set[tuple[str, str, str]]] = {}
    for table, chain, interface, protocol, side, ports in _OF_PORTS.findall(shown):
        places.setdefault((table, chain, side), set()).add((interface, protocol, ports))
    agreed = {frozenset((protocol, ports) for _, protocol, ports in rules) for rules in places.values()}
    if len(places) != len(_PLACES) or len(agreed) != 1:
        return None
    named = agreed.pop()
    found = {protocol: tuple(sorted(map(int, ports.split(",")))) for protocol, ports in named}
    interfaces = [{interface for interface, *_ in rules} for rules in places.values()]
    whole = all(
        len(rules) == len(names) * len(found)
        for rules, names in zip(places.values(), interfaces, strict=True)
    )
    return found if whole and len(found) == len(named) else None


def unserved(
    found: Mapping[str, Iterable[int]], wanted: Mapping[str, Iterable[int]], default: str
) -> dict[str, tuple[int, ...]]:
    """By protocol, the *wanted* ports that rules with the *found* ones do not queue for it.

    default  the protocol that ports without a name belong to
    """
    queued = {(protocol or default, port) for protocol, ports in found.items() for port in ports}
    lacking = {
        protocol: tuple(sorted(port for port in ports if (protocol, port) not in queued))
        for protocol, ports in wanted.items()
    }
    return {protocol: ports for protocol, ports in lacking.items() if ports}


def _balance(queue: int, workers: int) -> str:
    """The queues that control connections are spread over, as the rules say it; "": only one."""
    queues = reading_queues(queue, workers)
    return f"{queues[0]}:{queues[-1]}" if workers > 1 else ""


def _workers(spread: str) -> int:
    """How many of them are spread over these queues."""
    first, _, last = spread.partition(":")
    return int(last) - int(first) + 1 if last else 1


def _spread(shown: str) -> set[str]:
    """What the rules for control connections say of that; several answers if they contradict each other."""
    return set(re.findall(r"--queue-balance (\S+)", shown)) or {""}


def run(words: Sequence[str]) -> subprocess.CompletedProcess[str]:
    """Run the script; return its status and output. Raises BackendError if it cannot run."""
    try:
        return subprocess.run(
            ["/bin/sh", str(path()), *words],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=TIMEOUT,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise BackendError(f"{NAME} {words[0]} did not run: {error}") from error


def start(words: Sequence[str]) -> BackgroundProgram:
    """The same beside the daemon: begin it, and ask for the result later. Raises BackendError."""
    return BackgroundProgram(["/bin/sh", str(path()), *words], TIMEOUT)


def _checked(words: Sequence[str]) -> None:
    result = run(words)
    if result.returncode != 0:
        raise BackendError(message(result.stderr))
    for line in result.stderr.splitlines():
        _log.warning("%s", message(line).removeprefix("warning: "))


def message(text: str) -> str:
    """What the script wrote to stderr, without its name."""
    return text.strip().removeprefix(f"{NAME}: ") or f"{NAME} failed without a word"
