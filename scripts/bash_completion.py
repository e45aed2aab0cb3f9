"""The completion of `nfreaim` for bash, made of the parser of the command line, as its manual page is.

python3 -m scripts.bash_completion >FILE
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from nfreaim.cli import command_line
from nfreaim.helpers import HELPERS
from scripts.manual_pages import subcommands

_VALUES: Final = {
    "--lan": "$(cd /sys/class/net && echo *)",
    "--wan": "$(cd /sys/class/net && echo *)",
    "--protocol": " ".join(spec.name for spec in HELPERS),
}
"""What may follow an option whose values the parser does not list."""

_FRAME: Final = """\
# bash completion of nfreaim(8), made by scripts/bash_completion.py
_nfreaim() {{
    local current=${{COMP_WORDS[COMP_CWORD]}} previous=${{COMP_WORDS[COMP_CWORD - 1]}}
    local command='' words='' files='' word
    for word in "${{COMP_WORDS[@]:1:COMP_CWORD-1}}"; do
        case "$command $word" in
            {commands}) command="${{command:+$command }}$word" ;;
        esac
    done
    case "$command $previous" in
{values}
    *)
        case $command in
{words}
        esac ;;
    esac
    COMPREPLY=()
    if [ -n "$words" ]; then mapfile -t COMPREPLY < <(compgen -W "$words" -- "$current"); fi
    if [ -n "$files" ]; then mapfile -t -O "${{#COMPREPLY[@]}}" COMPREPLY < <(compgen -f -- "$current"); fi
}}
complete -o filenames -F _nfreaim nfreaim
"""


def completion() -> str:
    """The script."""
    parsers = {"": command_line(), **{name: one for name, _, one in subcommands(command_line())}}
    commands = [_pattern(name) for name in parsers if name]
    return _FRAME.format(
        commands=" | ".join(commands),
        values="\n".join(line for name, one in parsers.items() for line in _values(name, one)),
        words="\n".join(_words(name, one) for name, one in parsers.items()),
    )


def _pattern(name: str) -> str:
    """A command as the script's loop meets it: "rules install" word by word."""
    before, _, last = name.rpartition(" ")
    return f"'{before} {last}'"


def _values(command: str, parser: argparse.ArgumentParser) -> Iterator[str]:
    """For each option with a value what may follow it."""
    for action in parser._actions:
        if not action.option_strings or action.nargs == 0:
            continue
        options = " | ".join(f"'{command} {option}'" for option in action.option_strings)
        words = _choices(action) or _VALUES.get(action.option_strings[-1], "")
        files = "yes" if action.type is Path else ""
        yield f'    {options}) words="{words}" files={files or chr(39) * 2} ;;'


def _words(command: str, parser: argparse.ArgumentParser) -> str:
    """What may follow a command: its own commands or values, and its options."""
    words, files = [], "''"
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            words += [listed.dest for listed in action._choices_actions]
        elif action.option_strings:
            words += [option for option in action.option_strings if option.startswith("--")]
        elif action.choices:
            words += _choices(action).split()
        else:
            files = "yes"
    return f"        '{command}') words='{' '.join(words)}' files={files} ;;"


def _choices(action: argparse.Action) -> str:
    return " ".join(map(str, action.choices or ()))


if __name__ == "__main__":
    print(completion(), end="")
