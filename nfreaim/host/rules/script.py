"""The rules script: finds and runs `nfreaim-rules`, and compares what it prints with the settings.

The script alone defines the static rules. This module learns the installed rules from `nfreaim-rules show`,
and starts no other program.
"""

from __future__ import annotations

import logging
import re
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Final

from nfreaim import kernel_helpers, same_program
from nfreaim.config import GATE_QUEUE, NEWCOMERS, reading_queues
from nfreaim.config_values import AUTO, LEGACY, NFT
from nfreaim.errors import BackendError, ConfigError
from nfreaim.exit_status import Exit
from nfreaim.host.netfilter.names import (
    CHAIN,
    COMMENT,
    ENTRY_CHAIN,
    GATE_CHAIN,
    HELPER_CHAIN,
    LOCAL_CHAIN,
    SERVER_CHAIN,
    VERIFIED_CHAIN,
)
from nfreaim.host.rules.background import BackgroundProgram
from nfreaim.host.rules.rule_settings import Ports
from nfreaim.host.rules.rule_settings import Settings as Settings
from nfreaim.marks import DEFAULT, Marks
from nfreaim.old_spellings import DEFAULT_PROTOCOL

NAME: Final = "nfreaim-rules"
ABSENT: Final = Exit.ABSENT
"""Exit status of `nfreaim-rules show` when the rules are absent or incomplete."""

SETTINGS: Final = "NFREAIM_SETTINGS"
"""The environment variable by which the script knows the configuration."""

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

# The rules of `show` that name bits of marks: that of a packet; the connmark bit of pinholes alone and with
# that of forwards; and with each of the two others.
_MARKS: Final = (
    rf" mangle .*-A POSTROUTING .*-m mark --mark (\S+)/\S+ .*-j {VERIFIED_CHAIN}$",
    rf" mangle .*-A PREROUTING .*-m connmark --mark (\S+)/(\S+) -j {ENTRY_CHAIN}$",
    rf" nat .*-A {CHAIN} -j CONNMARK --set-xmark (\S+)/",
    rf" mangle .*-A FORWARD .*-m connmark --mark (\S+)/\S+ -j {GATE_CHAIN}$",
)

# Our table of nftables says itself what it was made of.
_TABLE_SHOWN: Final = re.compile(r"^nft +settings *(.*)$", re.MULTILINE)
_NATIVE_SHOWN: Final = re.compile(r"^nft +native +accept in (\S+ \S+ \S+)$", re.MULTILINE)
_FLOWTABLE_SHOWN: Final = re.compile(r"^flowtable +(prevented$|possible: (.*)$)", re.MULTILINE)

log = logging.getLogger(__name__)
_PACKAGE: Final = Path(__file__).resolve().parents[2]


def path() -> Path:
    """The path of the script: inside the installed package, else beside the package in a checkout.

    Raises BackendError if it is in neither directory.
    """
    for directory in (_PACKAGE / "rules", _PACKAGE.parent / "rules"):
        if (directory / NAME).is_file():
            return directory / NAME
    raise BackendError(f"the script {NAME} is missing from this installation; remedy: install nfreaim again")


def install(settings: Settings) -> str:
    """Install the rules in this network namespace, in place of earlier ones; pinholes stay.

    An interface that does not exist is only logged, because it may appear later. Returns what the script
    prints, for ``unguarded``. Raises BackendError.
    """
    return _checked(settings.install(), settings.file)


def chosen(settings: Settings) -> str:
    """The packet filter that an installation of these *settings* takes: LEGACY or NFT. Raises as install."""
    return _checked(["firewall", "--firewall", settings.firewall], settings.file).strip()


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
    table = _of_table(shown)
    queues = {table.queue} if table else _queues(shown)
    spread = _balance(table.queue, table.workers) if table else _spread(shown)
    if wanted.firewall not in (AUTO, firewall(shown)):
        found = f"firewall = {firewall(shown)}, not {wanted.firewall}"
    elif queues != {wanted.queue}:
        found = f"queue {', '.join(map(str, sorted(queues)))}, not {wanted.queue}"
    elif spread != _balance(wanted.queue, wanted.workers):
        workers = ", ".join(map(str, sorted({_workers(each) for each in spread})))
        found = f"workers = {workers}, not {wanted.workers}"
    elif (marks := _marks(shown)) is not None and marks != wanted.marks:
        found = f"{marks}, not {wanted.marks}"
    else:
        found = _ports_differ(table.ports if table else _ports_read(shown), wanted.ports)
    if not found:
        return ""
    return f"the installed rules are for {found}; install them again with the same settings, or remove them"


def firewall(shown: str) -> str:
    """The back end of the installed rules, LEGACY or NFT, in the output of `show`; "" if there are none."""
    if _TABLE_SHOWN.search(shown):
        return NFT
    return LEGACY if CHAIN in shown else ""


def unguarded(shown: str) -> str:
    """Why connections that have to be read may get into a flowtable; "" if none can.

    shown  the output of `show` or `install`
    """
    found = _FLOWTABLE_SHOWN.search(shown)
    return found[2] or "" if found else ""


def guarded(shown: str) -> bool:
    """Whether the rules keep connections out of the flowtables that there are, in the same output."""
    found = _FLOWTABLE_SHOWN.search(shown)
    return found is not None and found[2] is None


def settings(shown: str) -> Settings | None:
    """The settings that the rules *shown* by the script were installed with.

    None if the rules contradict each other, because some are missing.
    """
    if (table := _of_table(shown)) is not None:
        return replace(table, native=tuple(_NATIVE_SHOWN.findall(shown)))
    interfaces: dict[str, set[frozenset[str]]] = {"lan": set(), "wan": set()}
    ports: set[frozenset[tuple[str, str]]] = set()
    for side, pattern in _KINDS:
        found = _rules(shown, pattern)
        interfaces[side].add(frozenset(interface for interface, _, _ in found))
        for name in {interface for interface, _, _ in found}:
            ports.add(frozenset((protocol, text) for interface, protocol, text in found if interface == name))
    interfaces["wan"].add(frozenset(re.findall(_FROM_WAN, shown)))
    queues = _queues(shown)
    (lan, *other_lans), (wan, *other_wans) = interfaces["lan"], interfaces["wan"]
    if other_lans or other_wans or not (lan and wan) or len(ports) != 1 or len(queues) != 1:
        return None
    rules = ports.pop()
    if len({protocol for protocol, _ in rules}) < len(rules):
        return None
    queue, spread = queues.pop(), _spread(shown)
    workers = _workers(min(spread))
    if spread != _balance(queue, workers):
        return None
    helpers = kernel_helpers.installed(shown, HELPER_CHAIN)
    marks = _marks(shown) or DEFAULT
    read = (_by_protocol(rules), queue, workers, helpers, marks, tuple(_locals(shown)))
    return Settings(tuple(lan), tuple(wan), *read, tuple(_NATIVE_SHOWN.findall(shown)))


def _of_table(shown: str) -> Settings | None:
    """The settings of our table of nftables; None if that is not there, or does not tell."""
    found = _TABLE_SHOWN.search(shown)
    try:
        return Settings.of_words(found[1].split()) if found and found[1] else None
    except (ValueError, KeyError):
        return None


def _marks(shown: str) -> Marks | None:
    """The bits of marks that the rules use; None if rules with them are missing, or contradict each other."""
    if (table := _of_table(shown)) is not None:
        return table.marks
    found = [set(re.findall(pattern, shown, re.MULTILINE)) for pattern in _MARKS]
    if any(len(one) != 1 for one in found):
        return None
    verified, (pinhole, with_forwarded), with_incomplete, with_unverified = (one.pop() for one in found)
    numbers = (int(text, 16) for text in (pinhole, with_forwarded, with_incomplete, with_unverified))
    pinhole, forwarded, incomplete, unverified = numbers
    return Marks(int(verified, 16), incomplete ^ pinhole, pinhole, unverified ^ pinhole, forwarded ^ pinhole)


def helpers_differ(shown: str, wanted: Settings) -> str:
    """In words, which of the kernel's helpers the rules *shown* lack or have too many of; "" if none."""
    table = _of_table(shown)
    there = set(table.helpers if table else kernel_helpers.installed(shown, HELPER_CHAIN))
    lacking, unwanted = sorted({*wanted.helpers} - there), sorted(there - {*wanted.helpers})
    found = [f"lack {one.shown}" for one in lacking] + [f"have {one.shown} as well" for one in unwanted]
    return ", ".join(found)


def locals_differ(shown: str, wanted: Settings) -> str:
    """In words, the users of clients on this router that the rules *shown* lack or have in excess; or ""."""
    there = _locals(shown)
    lacking, unwanted = sorted({*wanted.locals} - there), sorted(there - {*wanted.locals})
    found = [f"lack user {one}" for one in lacking] + [f"have user {one} as well" for one in unwanted]
    return ", ".join(found)


def _locals(shown: str) -> set[int]:
    if (table := _of_table(shown)) is not None:
        return set(table.locals)
    return {int(user) for user in re.findall(rf" -A {LOCAL_CHAIN} .*--uid-owner (\d+) ", shown)}


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


def _queues(shown: str) -> set[int]:
    """The numbers of queues that the rules follow from: several if the rules disagree."""
    gate = {int(number) - GATE_QUEUE for number in re.findall(rf"-A {GATE_CHAIN} .*--queue-num (\d+)", shown)}
    single = {int(number) for number in re.findall(rf"-A (?!{GATE_CHAIN} )\S+ .*--queue-num (\d+)", shown)}
    return gate | {number for number in single if number - NEWCOMERS not in gate}


def _balance(queue: int, workers: int) -> set[str]:
    """The queues that control connections are spread over, as the rules write them; {""} if only one."""
    queues = reading_queues(queue, workers)
    if workers == 1:
        return {""}
    return {f"{queues[0] + distance}:{queues[-1] + distance}" for distance in (0, NEWCOMERS)}


def _workers(spread: str) -> int:
    """The number of workers that share the queues *spread*."""
    first, _, last = spread.partition(":")
    return int(last) - int(first) + 1 if last else 1


def _spread(shown: str) -> set[str]:
    """The queues that control connections are spread over; several texts if the rules disagree."""
    return set(re.findall(r"--queue-balance (\S+)", shown)) or {""}


def run(words: Sequence[str], file: str = "") -> subprocess.CompletedProcess[str]:
    """Run the script, which is to know that *file* is the configuration. Returns its status and output.

    Raises BackendError if it cannot run.
    """
    try:
        return subprocess.run(
            _command(words, file),
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
    return BackgroundProgram(_command(words), TIMEOUT_S)


def _command(words: Sequence[str], file: str = "") -> list[str]:
    """The script and its arguments. It starts this program for what needs a library."""
    program = [f"NFREAIM_PYTHON={sys.executable}", f"{same_program.PYTHON_PATH}={same_program.python_path()}"]
    known = [f"{SETTINGS}={file}"] if file else []
    return ["env", *program, *known, "/bin/sh", str(path()), *words]


def _checked(words: Sequence[str], file: str = "") -> str:
    result = run(words, file)
    if result.returncode == Exit.MISUSED:
        raise ConfigError(message(result.stderr))
    if result.returncode != 0:
        raise BackendError(message(result.stderr))
    for line in warnings(result.stderr):
        log.warning("%s", line)
    return result.stdout


def warnings(text: str) -> list[str]:
    """The script's warnings in *text*, its output to stderr."""
    return [message(line).removeprefix("warning: ") for line in text.splitlines()]


def message(text: str) -> str:
    """The script's message in *text*, its output to stderr, without its name."""
    return text.strip().removeprefix(f"{NAME}: ") or f"{NAME} failed without a message"
