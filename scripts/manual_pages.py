"""The manual pages nfreaim(8) and nfreaim.toml(5), as Markdown for Sphinx.

The first is made of the parser of the command line, as `--help` is. The second is made of the keys that the
configuration may have, with the comments and defaults of rules/nfreaim.toml. docs/conf.py calls ``write``.
"""

from __future__ import annotations

import argparse
import re
from collections.abc import Iterator
from dataclasses import fields
from pathlib import Path
from typing import Final, NamedTuple

from nfreaim.cli import command_line
from nfreaim.config import Config, allowed_values, parse
from nfreaim.old_spellings import Key

ROOT: Final = Path(__file__).resolve().parents[1]
CONFIGURATION: Final = ROOT / "rules" / "nfreaim.toml"
COMMANDS_PAGE: Final = "nfreaim.8.md"
KEYS_PAGE: Final = "nfreaim.toml.5.md"

_SETTINGS: Final = {one.name for one in fields(Config)}
_SECTION: Final = re.compile(r"\[(\w+)\]$")
_KEY: Final = re.compile(r"#(\w+) = (.+)$")


class Group(NamedTuple):
    """Keys of one section that share a comment. *values* has for each key its value as it is written."""

    section: str
    comment: str
    values: dict[str, str]


def write(folder: Path) -> None:
    """Write both pages into *folder*, but for one that has not changed: Sphinx would read it again."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, text in ((COMMANDS_PAGE, commands_page()), (KEYS_PAGE, keys_page())):
        page = folder / name
        if not page.exists() or page.read_text(encoding="utf-8") != text:
            page.write_text(text, encoding="utf-8")


def subcommands(parser: argparse.ArgumentParser) -> Iterator[tuple[str, str, argparse.ArgumentParser]]:
    """Each sub-command that --help lists: its name, what it does, its parser. Its own ones follow it."""
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for listed in action._choices_actions:
                inner = action.choices[listed.dest]
                yield listed.dest, listed.help or "", inner
                yield from ((f"{listed.dest} {name}", what, one) for name, what, one in subcommands(inner))


def options(parser: argparse.ArgumentParser) -> Iterator[tuple[str, str]]:
    """Each option and argument of a parser as --help shows it, and its meaning."""
    shown = parser._get_formatter()
    for action in parser._actions:
        if action.help is argparse.SUPPRESS or isinstance(
            action, argparse._SubParsersAction | argparse._HelpAction
        ):
            continue
        meaning = shown._expand_help(action) if action.help else ""
        if action.required and action.option_strings:
            meaning += "; required"
        elif action.dest in _SETTINGS and "default" not in meaning:
            meaning += f"; default: {action.dest} of the configuration"
        yield shown._format_action_invocation(action), meaning


def commands_page() -> str:
    """The page of section 8, in Markdown."""
    parser = command_line()
    lines = ["# nfreaim(8)", "", "## Synopsis", "", "`nfreaim [--version] [-h] COMMAND [OPTION...]`", ""]
    lines += ["## Description", "", _plain(parser.description or ""), ""]
    lines += ["`nfreaim COMMAND -h` prints the options of one command. Settings come from the configuration,"]
    lines += ["nfreaim.toml(5); options on the command line override it.", ""]
    lines += ["## Options", "", *_definitions(options(parser)), "## Commands", ""]
    for name, what, one in subcommands(parser):
        lines += [f"### nfreaim {name}", "", _plain(_sentence(what)), "", *_definitions(options(one))]
    if parser.epilog:
        lines += ["## Exit status", "", "```text", parser.epilog.strip(), "```", ""]
    lines += ["## Files", ""]
    lines += _definitions(
        [
            ("/etc/nfreaim/nfreaim.toml", "the configuration, see nfreaim.toml(5)"),
            (
                "/etc/nfreaim/rules.env",
                "the interfaces and protocols (`NFREAIM_ARGS`) and packet filter (`NFREAIM_FIREWALL`: auto, "
                "legacy or nft) that `make install` was given; units have them in their environment",
            ),
            ("/var/lib/nfreaim-rules/firewall", "the packet filter of the last installation of the rules"),
            (str(Config().status_socket), "where `nfreaim status` asks the daemon"),
            (str(Config().state_dir), "the connections that the next daemon goes on reading"),
            ("/var/lib/nfreaim", "the history, under systemd"),
        ]
    )
    others = "nfreaim.toml(5), nft(8), iptables(8), ipset(8), conntrack(8)"
    return "\n".join([*lines, "## See also", "", others, ""])


def groups() -> list[Group]:
    """The keys of rules/nfreaim.toml with their comments. A group without keys is about its section."""
    found: list[Group] = []
    section = ""
    comment: list[str] = []
    values: dict[str, str] = {}

    def end() -> None:
        if comment or values:
            found.append(Group(section, " ".join(comment), dict(values)))
        comment.clear()
        values.clear()

    for line in CONFIGURATION.read_text(encoding="utf-8").splitlines():
        if begun := _SECTION.match(line):
            about = " ".join(comment)
            comment.clear()
            section = begun[1]
            found.append(Group(section, about, {}))
        elif key := _KEY.match(line):
            values[key[1]] = key[2]
        elif not line:
            end()
        else:
            if values:
                end()
            comment.append(line.removeprefix("#").strip())
    end()
    return found


def keys_page() -> str:
    """The page of section 5, in Markdown."""
    allowed = allowed_values()
    about, *others = groups()
    lines = ["# nfreaim.toml(5)", "", "## Synopsis", "", "`/etc/nfreaim/nfreaim.toml`", ""]
    lines += ["## Description", "", _plain(about.comment), ""]
    lines += ["## Top level", ""]
    section = ""
    for group in others:
        if group.section != section:
            section = group.section
            lines += [f"## Section [{section}]".replace("[", "\\["), ""]
        if not group.values:
            lines += [_plain(group.comment), ""] if group.comment else []
            continue
        lines += [", ".join(f"`{name}`" for name in group.values)]
        lines += [f": {_plain(group.comment)}", ""]
        for name, value in group.values.items():
            of = f" of `{name}`" if len(group.values) > 1 else ""
            lines += [
                f"  Allowed{of}: {_plain(allowed[Key(section, name)])}. {_default(section, name, value)}",
                "",
            ]
    return "\n".join([*lines, "## See also", "", "nfreaim(8)", ""])


def _default(section: str, name: str, value: str) -> str:
    line = f"{name} = {value}"
    is_default = parse(f"[{section}]\n{line}" if section else line, CONFIGURATION.name) == Config()
    return f"Default: `{value}`." if is_default else f"No default; for example `{value}`."


def _definitions(pairs: Iterator[tuple[str, str]] | list[tuple[str, str]]) -> list[str]:
    return [line for term, meaning in pairs for line in (f"`{term}`", f": {_plain(_sentence(meaning))}", "")]


def _sentence(text: str) -> str:
    return text[:1].upper() + text[1:].rstrip(".") + "."


def _plain(text: str) -> str:
    """*text* with what Markdown would take for mark-up escaped, but for code in backquotes."""
    parts = re.split(r"(`[^`]*`)", text)
    return "".join(
        part if part.startswith("`") else re.sub(r"([*_<\[\]\\])", r"\\\1", part) for part in parts
    )
