"""The completion for bash, in a bash: what is offered behind which words."""

from __future__ import annotations

import argparse
import shlex
import shutil
import socket
import subprocess
from pathlib import Path

import pytest

from nfreaim.cli import command_line
from nfreaim.exit_status import Exit
from scripts.bash_completion import completion
from scripts.manual_pages import subcommands

pytestmark = pytest.mark.skipif(shutil.which("bash") is None, reason="bash is absent; apt install bash")
HIDDEN = {"worker", "conntrack-helper", "nft-table", "interfaces"}


def offered(line: str, folder: Path | None = None) -> list[str]:
    """What Tab offers at the end of *line*."""
    words = [*line.split(), ""] if line.endswith(" ") else line.split()
    script = (
        f"set -u\n{completion()}\n"
        f"COMP_WORDS=({shlex.join(words)}) COMP_CWORD={len(words) - 1}\n"
        "_nfreaim nfreaim; printf '%s\\n' \"${COMPREPLY[@]}\""
    )
    command = ["bash", "--norc", "-c", script]
    done = subprocess.run(command, capture_output=True, text=True, cwd=folder, timeout=30)
    assert (done.returncode, done.stderr) == (Exit.FINE, "")
    return done.stdout.split()


def test_commands_are_offered_but_for_those_that_are_for_nobody() -> None:
    (every,) = [one for one in command_line()._actions if isinstance(one, argparse._SubParsersAction)]
    assert set(every.choices) - HIDDEN == {word for word in offered("nfreaim ") if not word.startswith("-")}
    assert offered("nfreaim re") == ["reload", "report", "replay", "record"]
    assert [word for word in offered("nfreaim rules ") if not word.startswith("-")] == [
        "install",
        "remove",
        "show",
    ]


@pytest.mark.parametrize("name", [name for name, _, _ in subcommands(command_line())])
def test_every_option_is_offered(name: str) -> None:
    parser = next(one for other, _, one in subcommands(command_line()) if other == name)
    options = {text for one in parser._actions for text in one.option_strings if text.startswith("--")}
    assert {word for word in offered(f"nfreaim {name} --") if word} == options


def test_values_are_offered_where_they_are_known() -> None:
    assert offered("nfreaim run --log-level ") == ["debug", "info", "warning", "error"]
    assert offered("nfreaim check --json --protocol i") == ["irc"]
    assert set(offered("nfreaim check --lan ")) == {name for _, name in socket.if_nameindex()}
    assert offered("nfreaim run --queue ") == []


def test_files_are_offered_where_one_is_named(tmp_path: Path) -> None:
    (tmp_path / "a b.pcap").write_text("")
    (tmp_path / "settings.toml").write_text("")
    assert offered("nfreaim run --config se", tmp_path) == ["settings.toml"]
    assert "settings.toml" in offered("nfreaim explain ", tmp_path)
    assert offered("nfreaim rules s", tmp_path) == ["show"]
