"""The rules script: finds and runs `nfreaim-rules`, and compares what it prints with the settings.

The script alone defines the static rules. This module learns the installed rules from `nfreaim-rules show`,
and starts no other program.
"""

from __future__ import annotations

import logging
import re
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

from nfreaim import kernel_helpers
from nfreaim.config import GATE_QUEUE, NEWCOMERS, Config, reading_queues
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
from nfreaim.marks import DEFAULT, Marks
from nfreaim.old_spellings import DEFAULT_PROTOCOL

NAME: Final = "nfreaim-rules"
ABSENT: Final = Exit.ABSENT
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

# The rules of `show` that name bits of marks: that of a packet; the connmark bit of pinholes alone and with
# that of forwards; and with each of the two others.
_MARKS: Final = (
    rf" mangle .*-A POSTROUTING .*-m mark --mark (\S+)/\S+ .*-j {VERIFIED_CHAIN}$",
    rf" mangle .*-A PREROUTING .*-m connmark --mark (\S+)/(\S+) -j {ENTRY_CHAIN}$",
    rf" nat .*-A {CHAIN} -j CONNMARK --set-xmark (\S+)/",
    rf" mangle .*-A FORWARD .*-m connmark --mark (\S+)/\S+ -j {GATE_CHAIN}$",
)

_NATIVE: Final = "--native-accept"
_NATIVE_SHOWN: Final = re.compile(r"^nft +native +accept in (\S+ \S+ \S+)$", re.MULTILINE)
_FLOWTABLE_SHOWN: Final = re.compile(r"^flowtable +(prevented$|possible: (.*)$)", re.MULTILINE)

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
    helpers   the kernel's own helpers that are assigned
    marks     the bits of packet mark and connmark
    locals    numbers of the users whose clients on this router are served
    native    the chains of native nftables rulesets that have our accept: family, table, chain
    """

    lan: tuple[str, ...]
    wan: tuple[str, ...]
    ports: Ports
    queue: int
    workers: int = 1
    helpers: kernel_helpers.Assignments = ()
    marks: Marks = DEFAULT
    locals: tuple[int, ...] = ()
    native: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        ports = {name: tuple(sorted(set(self.ports[name]))) for name in sorted(self.ports)}
        object.__setattr__(self, "lan", tuple(sorted(set(self.lan))))
        object.__setattr__(self, "wan", tuple(sorted(set(self.wan))))
        object.__setattr__(self, "ports", ports)
        object.__setattr__(self, "native", tuple(sorted(set(self.native))))
        object.__setattr__(self, "helpers", tuple(sorted(set(self.helpers))))
        object.__setattr__(self, "locals", tuple(sorted(set(self.locals))))

    @classmethod
    def of(cls, config: Config) -> Settings:
        """The settings that the configuration asks for."""
        return cls(
            *(config.lan, config.wan, config.ports, config.queue, config.workers),
            *(config.kernel_helpers, config.marks, config.local_clients, config.native_accept),
        )

    def completed(self, configured: Settings) -> Settings:
        """These, with what only the configuration has to name, and not the options of the rules' own unit."""
        helpers = configured.helpers or self.helpers
        return replace(self, helpers=helpers, locals=configured.locals, native=configured.native)

    def words(self) -> list[str]:
        """The options of `nfreaim-rules install`."""
        pairs = [("--lan", name) for name in self.lan] + [("--wan", name) for name in self.wan]
        pairs += [("--protocol", f"{name}:{_joined(ports)}") for name, ports in self.ports.items()]
        pairs.append(("--queue", str(self.queue)))
        if self.workers > 1:
            pairs.append(("--workers", str(self.workers)))
        pairs += [("--kernel-helper", str(helper)) for helper in self.helpers]
        pairs += [("--local-client", str(user)) for user in self.locals]
        words = [*(word for pair in pairs for word in pair), *self.native_words()]
        return words if self.marks == DEFAULT else [*words, *self._masks()]

    def install(self) -> list[str]:
        """The arguments by which the script installs the rules; it need not ask for anything."""
        none = [] if self.native else [_NATIVE, "none"]
        return ["install", *none, *self.words(), *(self._masks() if self.marks == DEFAULT else [])]

    def native_words(self) -> list[str]:
        """The options of `install` and `show` that name chains of native rulesets."""
        return [word for chain in self.native for word in (_NATIVE, chain.replace(" ", ":"))]

    def _masks(self) -> list[str]:
        return ["--mark-mask", f"{self.marks.packet:#x}", "--connmark-mask", f"{self.marks.connection:#x}"]


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
    return _checked(settings.install())


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
    queues, spread = _queues(shown), _spread(shown)
    if queues != {wanted.queue}:
        found = f"queue {', '.join(map(str, sorted(queues)))}, not {wanted.queue}"
    elif spread != _balance(wanted.queue, wanted.workers):
        workers = ", ".join(map(str, sorted({_workers(each) for each in spread})))
        found = f"workers = {workers}, not {wanted.workers}"
    elif (marks := _marks(shown)) is not None and marks != wanted.marks:
        found = f"{marks}, not {wanted.marks}"
    else:
        found = _ports_differ(_ports_read(shown), wanted.ports)
    if not found:
        return ""
    return f"the installed rules are for {found}; install them again with the same settings, or remove them"


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


def _marks(shown: str) -> Marks | None:
    """The bits of marks that the rules use; None if rules with them are missing, or contradict each other."""
    found = [set(re.findall(pattern, shown, re.MULTILINE)) for pattern in _MARKS]
    if any(len(one) != 1 for one in found):
        return None
    verified, (pinhole, with_forwarded), with_incomplete, with_unverified = (one.pop() for one in found)
    numbers = (int(text, 16) for text in (pinhole, with_forwarded, with_incomplete, with_unverified))
    pinhole, forwarded, incomplete, unverified = numbers
    return Marks(int(verified, 16), incomplete ^ pinhole, pinhole, unverified ^ pinhole, forwarded ^ pinhole)


def helpers_differ(shown: str, wanted: Settings) -> str:
    """In words, which of the kernel's helpers the rules *shown* lack or have too many of; "" if none."""
    there = set(kernel_helpers.installed(shown, HELPER_CHAIN))
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


def _joined(ports: Sequence[int]) -> str:
    return ",".join(map(str, ports))


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


def _checked(words: Sequence[str]) -> str:
    result = run(words)
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
