"""OpenWrt's configuration: reads /etc/config/nfreaim (UCI's text format) and prints them as TOML.

    python3 -m nfreaim.uci [FILE]      status 0: TOML on stdout; 2: the file is wrong, and stderr says where

UCI has sections, which consist of options and lists, and all values are strings:

    config nfreaim 'main'
            option workers '1'
            list home_servers '10.0.0.9'
    config pinholes
            option strict '1'

A section of type `nfreaim` has the keys of the top level of nfreaim.toml, one of another type those of the
section of that name; `config forward` may be repeated. A value takes the type that nfreaim's own loader
accepts: '1' is true for `strict` and a number for `workers`. A value ends on the line where it begins.

OpenWrt's packet filter is nftables, so `firewall = "nft"` is written whatever else the system has, and
another value is refused: the package does not bring what rules of iptables-legacy need.

Source of the format: https://openwrt.org/docs/guide-user/base-system/uci.
"""

from __future__ import annotations

import json
import re
import shlex
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from nfreaim.config import accepts, parse
from nfreaim.config_values import NFT
from nfreaim.errors import ConfigError
from nfreaim.exit_status import Exit

DEFAULT_PATH: Final = Path("/etc/config/nfreaim")
OF_SERVICE: Final = frozenset({"enabled", "lan", "wan", "lan_device", "wan_device"})
"""Options of the section `nfreaim` that the init script reads: they become arguments of the daemon."""

_TOP: Final = "nfreaim"
_FORWARD: Final = "forward"
_HELPERS: Final = "kernel_helpers"
_FIREWALL: Final = "firewall"
_SWITCHES: Final = {
    **dict.fromkeys(("1", "on", "yes", "true", "enabled"), True),
    **dict.fromkeys(("0", "off", "no", "false", "disabled"), False),
}


@dataclass
class Section:
    """One section: its type, and for each name a text (`option`) or several (`list`)."""

    kind: str
    values: dict[str, str | list[str]] = field(default_factory=dict)


def sections(text: str, name: str) -> list[Section]:
    """The sections of the UCI *text* of the file called *name*. Raises ConfigError."""
    found: list[Section] = []
    for number, words in _lines(text, name):
        match words:
            case ["package", _]:
                pass
            case ["config", kind] | ["config", kind, _]:
                found.append(Section(kind))
            case ["option", key, value] if found:
                found[-1].values[key] = value
            case ["list", key, value] if found:
                earlier = found[-1].values.get(key, [])
                found[-1].values[key] = [*([earlier] if isinstance(earlier, str) else earlier), value]
            case _:
                raise ConfigError(
                    f"{name}: line {number} is none of: config TYPE ['NAME'], and below it option KEY 'VALUE'"
                    " and list KEY 'VALUE'"
                )
    return found


def _lines(text: str, name: str) -> Iterator[tuple[int, list[str]]]:
    """The words of each line that has any, with the line's number."""
    for number, line in enumerate(text.splitlines(), start=1):
        reader = shlex.shlex(line, posix=True, punctuation_chars=False)
        reader.whitespace_split = True
        try:
            words = list(reader)
        except ValueError as error:
            raise ConfigError(f"{name}: line {number}: {error}; close the quotes on the same line") from error
        if words:
            yield number, words


def toml(text: str, name: str) -> str:
    """The TOML of the UCI *text* of the file called *name*. Raises ConfigError if nfreaim refuses it."""
    tables: dict[str, dict[str, Any]] = {"": {}}
    forwards: list[dict[str, Any]] = []
    for section in sections(text, name):
        if section.kind == _FORWARD:
            forwards.append(dict(section.values))
        elif section.kind == _HELPERS:
            tables[""].setdefault(_HELPERS, {}).update(
                {key: [_number(one) for one in _words(value)] for key, value in section.values.items()}
            )
        else:
            table = "" if section.kind == _TOP else section.kind
            for key, value in section.values.items():
                if table or key not in OF_SERVICE:
                    tables.setdefault(table, {})[key] = _typed(table, key, value)
    if tables[""].setdefault(_FIREWALL, NFT) != NFT:
        raise ConfigError(
            f"{name}: {_FIREWALL} = {tables[''][_FIREWALL]!r}: on OpenWrt it is always {NFT!r}; leave it out"
        )
    if forwards:
        tables[""][_FORWARD] = forwards
    written = "\n".join(_written(table, values) for table, values in tables.items() if values or not table)
    parse(written, name)
    return written


def _typed(table: str, key: str, value: str | list[str]) -> Any:
    """*value* in the type that the loader accepts for this key; if none, as it is, for the loader's error."""
    candidates = list(_candidates(value))
    return next((one for one in candidates if accepts(table, key, one)), candidates[0])


def _candidates(value: str | list[str]) -> Iterator[Any]:
    if isinstance(value, str):
        yield value
        yield _number(value)
        if re.fullmatch(r"\d+\.\d+", value):
            yield float(value)
        if value in _SWITCHES:
            yield _SWITCHES[value]
    words = _words(value)
    yield words
    yield [_number(word) for word in words]


def _words(value: str | list[str]) -> list[str]:
    """The items of a list; one that was written as an option has blanks between them."""
    return value.split() if isinstance(value, str) else value


def _number(text: str) -> int | str:
    return int(text, 0) if re.fullmatch(r"0|[1-9]\d*|0x[0-9A-Fa-f]+", text) else text


def _written(table: str, values: dict[str, Any]) -> str:
    lines = [f"[{_key(table)}]"] if table else []
    return "\n".join([*lines, *(f"{_key(key)} = {_value(value)}" for key, value in values.items()), ""])


def _key(text: str) -> str:
    return text if re.fullmatch(r"[A-Za-z0-9_-]+", text) else json.dumps(text)


def _value(value: Any) -> str:
    """*value* in TOML. A string is written as in JSON, except DEL, which TOML wants escaped."""
    if isinstance(value, list):
        return "[" + ", ".join(map(_value, value)) + "]"
    if isinstance(value, dict):
        return "{ " + ", ".join(f"{_key(key)} = {_value(one)}" for key, one in value.items()) + " }"
    return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")


def main(arguments: Sequence[str]) -> int:
    """Print the TOML of the file that *arguments* name; returns the exit status."""
    path = Path(arguments[0]) if arguments else DEFAULT_PATH
    try:
        sys.stdout.write(toml(path.read_text(encoding="utf-8"), str(path)))
    except (OSError, UnicodeDecodeError) as error:
        print(f"nfreaim: {path}: cannot be read: {error}", file=sys.stderr)
        return Exit.MISUSED
    except ConfigError as error:
        print(f"nfreaim: {error}", file=sys.stderr)
        return Exit.MISUSED
    return Exit.FINE


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
