"""NftTable: puts our nftables table into the kernel, takes it out, and tells what is there.

The table is changed in one transaction, so packets see the earlier rules or the new ones. The elements that
the daemon has put into sets and maps stay when rules are installed again.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Iterator
from contextlib import suppress
from ipaddress import IPv4Network
from pathlib import Path
from typing import Final

from nfreaim.errors import BackendError
from nfreaim.host.netfilter import compat_queue
from nfreaim.host.netfilter.libnftables import Nftables
from nfreaim.host.netfilter.names import LAN_SET, NFT_TABLE
from nfreaim.host.netfilter.nft_sets import network_texts
from nfreaim.host.rules import nft_text
from nfreaim.host.rules.rule_settings import Settings
from nfreaim.kernel_helpers import Assignment

FILE: Final = "nfreaim.nft"
_PACKAGE: Final = Path(__file__).resolve().parents[2]
_TABLE: Final = f"table ip {NFT_TABLE}"
_TRIED: Final = f"{NFT_TABLE}_tried"
_SET: Final = re.compile(r"\s*(?:set|map) (\w+) \{")
_OURS: Final = ("lan", "wan", "servers", "users")  # sets that the rules alone fill


def source() -> str:
    """The text of rules/nfreaim.nft: inside the installed package, else beside it in a checkout.

    Raises BackendError if it is in neither directory.
    """
    for directory in (_PACKAGE / "rules", _PACKAGE.parent / "rules"):
        if (directory / FILE).is_file():
            return (directory / FILE).read_text()
    raise BackendError(f"the file {FILE} is missing from this installation; remedy: install nfreaim again")


class NftTable:
    """The table in this network namespace. Raises BackendError if the library is missing."""

    def __init__(self) -> None:
        self._nft = Nftables()

    def exists(self) -> bool:
        """Whether there is a table of ours."""
        return bool(self._nft.listed(_TABLE))

    def load(
        self, settings: Settings, networks: Iterable[str] | None = None, guarded: bool = False
    ) -> list[Assignment]:
        """Install the rules, in place of earlier ones.

        networks  those inside; None: the set of them stays as it is
        guarded   see ``nft_text.text``

        Returns the helpers of *settings* that the kernel does not have. Raises BackendError; then everything
        is as before.
        """
        lacking = [helper for helper in settings.helpers if not self._takes_helper(helper)]
        taken = tuple(helper for helper in settings.helpers if helper not in lacking)
        native = self.has_native_queue()
        text = nft_text.text(source(), settings, taken, guarded, native)
        lines = [f"add {_TABLE}", *self._cleared(text), text]
        if networks is not None:
            lines.append(f"flush set ip {NFT_TABLE} {LAN_SET}")
            if inside := ", ".join(network_texts(map(IPv4Network, networks))):
                lines.append(f"add element ip {NFT_TABLE} {LAN_SET} {{ {inside} }}")
        self._nft.run("\n".join(lines) + "\n")
        if not native:
            compat_queue.replace(nft_text.queue_rules(settings))
        return lacking

    def has_native_queue(self) -> bool:
        """Whether the kernel has nft's queue expression."""
        return self._takes(f"table ip {_TRIED} {{ chain tried {{ queue num 1; }}\n}}")

    def takes_helper(self, name: str) -> bool:
        """Whether the kernel has a helper of connection tracking of this *name*, for TCP."""
        return self._takes_helper(Assignment(name, "tcp", ()))

    def settings(self) -> Settings | None:
        """The settings that the rules were installed with; None if they are not there, or do not tell."""
        return nft_text.settings_in(self._nft.text(_TABLE))

    def shown(self) -> tuple[list[str], list[str]]:
        """Lines that tell the rules and the elements of the sets, and what is missing or in excess."""
        text = self._nft.text(_TABLE)
        if not text:
            return [], [NFT_TABLE]
        settings = nft_text.settings_in(text)
        lines = [_line("settings", " ".join(settings.all_words()) if settings else "")]
        lines += [
            _line(chain, re.sub(" +", " ", rule))
            for chain, rule in nft_text.rules_in(text)
            if rule and chain != nft_text.SETTINGS_CHAIN
        ]
        lines += [f"{name} {element}" for name, element in _elements(text)]
        return lines, self._missing(text, settings)

    def guarded(self) -> bool:
        """Whether the rules keep connections that have to be read out of flowtables."""
        return "ct helper set" in self._nft.text(f"chain ip {NFT_TABLE} {nft_text.FLOWTABLE_CHAIN}")

    def _takes_helper(self, helper: Assignment) -> bool:
        return self._takes(nft_text.helper_object(helper, _TRIED))

    def _takes(self, text: str) -> bool:
        """Whether the kernel takes a table _TRIED of this *text*; it is deleted in the same transaction."""
        with suppress(BackendError):
            self._nft.run(f"{text}\ndelete table ip {_TRIED}\n")
            return True
        return False

    def _cleared(self, text: str) -> Iterator[str]:
        """Lines that take out what earlier rules have and *text* has not, or has with other elements."""
        there = self._nft.listed(_TABLE)
        if not there:
            return
        wanted, sets = nft_text.rules_of(text), set(_SET.findall(text))
        yield f"flush {_TABLE}"
        for kind, name in _names(there):
            if kind == "chain" and name not in wanted:
                yield f"delete chain ip {NFT_TABLE} {name}"
            elif kind == "set" and name in _OURS:
                yield f"flush set ip {NFT_TABLE} {name}"
            if kind in ("set", "map") and name not in sets:
                yield f"delete {kind} ip {NFT_TABLE} {name}"
            elif kind == "ct helper":
                yield f"delete ct helper ip {NFT_TABLE} {name}"

    def _missing(self, text: str, settings: Settings | None) -> list[str]:
        if settings is None:
            return ["settings"]
        there = nft_text.rules_of(text)
        taken = tuple(helper for helper in settings.helpers if nft_text.object_name(helper) in text)
        wanted = nft_text.text(
            source(), settings, taken, bool(there.get(nft_text.FLOWTABLE_CHAIN)), native_queue=True
        )
        chains = nft_text.rules_of(wanted)
        found = [f"chain {name}" for name, count in chains.items() if there.get(name) != count]
        present = set(_SET.findall(text))
        return found + [f"set {name}" for name in _SET.findall(wanted) if name not in present]


def _names(listed: Collection[dict[str, dict[str, str]]]) -> Iterator[tuple[str, str]]:
    for one in listed:
        for kind, what in one.items():
            if "name" in what:
                yield kind, what["name"]


def _line(what: str, text: str) -> str:
    return f"{'nft':<15} {what:<7} {text}"


def _elements(text: str) -> Iterator[tuple[str, str]]:
    """Set and element of each element in *text*, as nft lists it; those of the rules' own sets left out."""
    name, elements = "", ""
    for line in text.splitlines():
        if found := _SET.match(line):
            name = found[1]
        elif name and (elements or line.strip().startswith("elements = {")):
            elements += line.strip().removeprefix("elements = {")
            if elements.endswith("}"):
                if name not in _OURS:
                    for element in re.findall(r'(?:[^,"]|"[^"]*")+', elements[:-1]):
                        yield name, " ".join(element.split())
                name = elements = ""
        elif line.strip() == "}":
            name = ""
