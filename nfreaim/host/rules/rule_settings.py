"""Settings: what the static rules of either back end are made of, as options of `nfreaim-rules install`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Final

from nfreaim import kernel_helpers
from nfreaim.config import Config
from nfreaim.config_values import LEGACY, NFT
from nfreaim.marks import CONNMARK_MASK, DEFAULT, MARK_MASK, Marks
from nfreaim.old_spellings import DEFAULT_PROTOCOL

_NATIVE: Final = "--native-accept"

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
    firewall  the back end that has the rules; AUTO where the script is to decide
    file      the configuration, beside which the script looks where it has to decide; "" for the usual one
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
    firewall: str = LEGACY
    file: str = field(default="", compare=False)

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
            *(config.firewall, config.file),
        )

    @classmethod
    def of_words(cls, words: Sequence[str]) -> Settings:
        """The settings of options, as ``words`` gives them. Raises ValueError."""
        given: dict[str, list[str]] = {}
        for option, value in zip(words[::2], words[1::2], strict=True):
            given.setdefault(option, []).append(value)
        ports: dict[str, tuple[int, ...]] = {}
        for text in given.get("--protocol", []):
            named, _, numbers = text.partition(":")
            name = named or DEFAULT_PROTOCOL  # of ports that --port named
            ports[name] = (*ports.get(name, ()), *map(int, numbers.split(",")))
        natives = [text.replace(":", " ") for text in given.get(_NATIVE, []) if text != "none"]
        marks = Marks.of(
            int(given.get("--mark-mask", [str(MARK_MASK)])[0], 0),
            int(given.get("--connmark-mask", [str(CONNMARK_MASK)])[0], 0),
        )
        return cls(
            *(tuple(given.get("--lan", [])), tuple(given.get("--wan", [])), ports),
            *(int(given["--queue"][0]), int(given.get("--workers", ["1"])[0])),
            *(tuple(map(_helper, given.get("--kernel-helper", []))), marks),
            *(tuple(map(int, given.get("--local-client", []))), tuple(natives)),
            given.get("--firewall", [LEGACY])[0],
        )

    def completed(self, configured: Settings) -> Settings:
        """These, with what only the configuration has to name, and not the options of the rules' own unit."""
        helpers = configured.helpers or self.helpers
        local, native, file = configured.locals, configured.native, configured.file
        return replace(self, helpers=helpers, locals=local, native=native, file=file)

    def words(self) -> list[str]:
        """The options of `nfreaim-rules install`."""
        pairs = [("--lan", name) for name in self.lan] + [("--wan", name) for name in self.wan]
        pairs += [("--protocol", f"{name}:{_joined(ports)}") for name, ports in self.ports.items()]
        pairs.append(("--queue", str(self.queue)))
        if self.workers > 1:
            pairs.append(("--workers", str(self.workers)))
        pairs += [("--kernel-helper", str(helper)) for helper in self.helpers]
        pairs += [("--local-client", str(user)) for user in self.locals]
        if self.firewall == NFT:  # the usual one is not named
            pairs.append(("--firewall", NFT))
        words = [*(word for pair in pairs for word in pair), *self.native_words()]
        return words if self.marks == DEFAULT else [*words, *self._masks()]

    def install(self) -> list[str]:
        """The arguments by which the script installs the rules; it need not ask for anything."""
        none = [] if self.native else [_NATIVE, "none"]
        legacy = ["--firewall", LEGACY] if self.firewall == LEGACY else []
        return ["install", *none, *self.words(), *legacy, *(self._masks() if self.marks == DEFAULT else [])]

    def all_words(self) -> list[str]:
        """The options, without those that are as always, and without chains of others."""
        return replace(self, native=()).words()

    def native_words(self) -> list[str]:
        """The options of `install` and `show` that name chains of native rulesets."""
        return [word for chain in self.native for word in (_NATIVE, chain.replace(" ", ":"))]

    def _masks(self) -> list[str]:
        return ["--mark-mask", f"{self.marks.packet:#x}", "--connmark-mask", f"{self.marks.connection:#x}"]


def _helper(text: str) -> kernel_helpers.Assignment:
    """The option that ``str`` makes of an assignment. Raises ValueError."""
    name, transport, places = text.split(":")
    ports, _, server = places.partition("@")
    return kernel_helpers.Assignment(name, transport, tuple(map(int, ports.split(","))), server)


def _joined(ports: Sequence[int]) -> str:
    return ",".join(map(str, ports))
