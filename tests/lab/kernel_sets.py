"""The sets of a router's rules, as text and whichever packet filter has them: ipset's form for both.

``FIREWALL`` is the one that the lab runs on: NFREAIM_FIREWALL=nft in the environment makes it nftables.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Sequence
from ipaddress import IPv4Address, summarize_address_range
from typing import Any, Final, Protocol

import pytest

FIREWALL: Final = os.environ.get("NFREAIM_FIREWALL") or "legacy"
NFT: Final = FIREWALL == "nft"
MARKS: Final = {"legacy": "NFREAIM", "nft": "table ip nfreaim"}[FIREWALL]
"""What stands in the rules of a router where ours are."""

_MAPS: Final = ("nfreaim_pin", "nfreaim_any", "nfreaim_forward")


class Result(Protocol):
    """What a command printed."""

    @property
    def stdout(self) -> str: ...


class Place(Protocol):
    """A network whose routers run commands, such as tests.lab.net.Lab."""

    def run(self, node: str, *args: str, check: bool = True) -> Result: ...


def legacy_only(reason: str) -> pytest.MarkDecorator:
    """Of a test that is about what legacy rules alone have: it is left out where the lab runs on nftables."""
    return pytest.mark.legacy_only(reason)


def saved(place: Place, node: str, name: str) -> str:
    """A set's entries as `ipset save` prints them, lines "add SET ENTRY timeout SECONDS"; or ""."""
    if not NFT:
        lines = place.run(node, "ipset", "save", name, check=False).stdout.splitlines()
        return "".join(f"{line}\n" for line in lines if line.startswith("add "))
    return "".join(
        f"add {name} {entry}{f' timeout {seconds}' * bool(seconds)}{f' comment {comment}' * bool(comment)}\n"
        for entry, seconds, comment, _ in _elements(place, node, name)
    )


def entries(place: Place, node: str, name: str) -> list[str]:
    """The entries of a set, such as "10.0.0.5,tcp:1234,203.0.113.9"."""
    return [line.split()[2] for line in saved(place, node, name).splitlines()]


def leads(place: Place, node: str) -> list[tuple[str, str, str]]:
    """Outside endpoint, inside endpoint and peer, or "", of each pinhole that nftables has."""
    found = []
    for name in ("nfreaim_pin", "nfreaim_any"):
        for entry, _, _, inside in _elements(place, node, name):
            outside, port, *peer = entry.replace("tcp:", "").split(",")
            found.append((f"{outside}:{port}", inside, peer[0] if peer else ""))
    return found


def change(action: str, name: str, entry: str = "", seconds: int = 0, comment: str = "") -> str:
    """The shell line that does to a set what `ipset *action* *name* *entry*` does: add, del or flush.

    seconds  the time-out of the entry; 0: as the set has it
    """
    if not NFT:
        options = f" timeout {seconds}" * bool(seconds) + f' comment "{comment}"' * bool(comment)
        return f"ipset {action} {name} {entry}{options}".rstrip()
    if action == "flush":
        return f"nft flush {'map' if name in _MAPS else 'set'} ip nfreaim {name}"
    element = entry.replace("tcp:", "").replace(",", " . ")
    options = f" timeout {seconds}s" * bool(seconds) + f' comment "{comment}"' * bool(comment)
    word = {"add": "add", "del": "delete"}[action]
    return f"nft '{word} element ip nfreaim {name} {{ {element}{options} }}'"


def _elements(place: Place, node: str, name: str) -> Iterator[tuple[str, int, str, str]]:
    """Entry, seconds left, comment in quotation marks and, of a map, where it leads."""
    kind = "map" if name in _MAPS else "set"
    text = place.run(node, "nft", "-j", "list", kind, "ip", "nfreaim", name, check=False).stdout
    listed: list[dict[str, Any]] = json.loads(text)["nftables"] if text else []
    for one in listed:
        for element in one.get(kind, {}).get("elem", []):
            key, value = element if kind == "map" else (element, None)
            about = key["elem"] if isinstance(key, dict) and "elem" in key else {"val": key}
            inside = _joined(value, ":") if value is not None else ""
            for entry in _keys(about["val"]):
                comment = f'"{about["comment"]}"' if "comment" in about else ""
                yield entry, int(about.get("expires", 0)), comment, inside


def _keys(value: Any) -> Iterator[str]:
    if isinstance(value, dict) and "range" in value:
        first, last = map(IPv4Address, value["range"])
        yield from map(str, summarize_address_range(first, last))
    else:
        yield _joined(value, ",tcp:")


def _joined(value: Any, colon: str) -> str:
    """A key as ipset writes it, or an endpoint with ":" for *colon*."""
    if not isinstance(value, dict):
        return str(value)
    if "prefix" in value:
        return f"{value['prefix']['addr']}/{value['prefix']['len']}"
    parts: Sequence[Any] = value["concat"]
    return ",".join([f"{parts[0]}{colon}{parts[1]}", *map(str, parts[2:])])
