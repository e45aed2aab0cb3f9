"""The fenced blocks of the documents: commands are marked, and run or not; settings are valid."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from nfreaim.config import parse
from tests.documents import COMMANDS, MARKS, PAGES, REPO, Block, blocks, printed_as_told, to_run

SCENES = {
    "run": {"", "root", "firewall-drops", "double-nat", "unread"},
    "vm": {"build", "install", "package", "remove", "upgrade"},
    "shown": {""},
}
"""Where a block of each mark may run: "" here, others in tests/lab/test_documents.py, of "vm" in tests/vm."""
EVERY = [block for page in PAGES for block in blocks(page)]
SETTINGS = [block for block in EVERY if block.language == "toml"]


def faults(block: Block) -> list[str]:
    found = []
    if not block.language:
        found.append("has no language: write sh, console, toml or text behind the fence")
    elif block.language in COMMANDS and block.mark not in MARKS:
        found.append(f"is not marked: write one of {', '.join(MARKS)} behind {block.language}")
    elif block.language in COMMANDS and block.scene not in SCENES[block.mark]:
        known = ", ".join(sorted(SCENES[block.mark] - {""}))
        found.append(f"is marked {block.mark} in {block.scene or 'no scene'}, which is none of {known}")
    return found


def run(command: str, place: Path) -> subprocess.CompletedProcess[str]:
    """Run it in *place*, which gets the captures, with this tree's nfreaim as `nfreaim`."""
    (place / "pcaps").symlink_to(REPO / "pcaps")
    (place / "bin").mkdir()
    program = place / "bin" / "nfreaim"
    program.write_text(f'#!/bin/sh\nPYTHONPATH={REPO} exec {sys.executable} -m nfreaim "$@"\n')
    program.chmod(0o755)
    path = f"{program.parent}:{os.environ['PATH']}"
    return subprocess.run(
        ["sh", "-ec", command],
        cwd=place,
        env={**os.environ, "PATH": path},
        capture_output=True,
        text=True,
        timeout=60,
    )


@pytest.mark.parametrize("block", EVERY, ids=str)
def test_each_block_says_what_it_is(block: Block) -> None:
    assert faults(block) == []


@pytest.mark.parametrize("block", to_run(""), ids=str)
def test_commands_that_are_marked_run_print_what_the_page_says(block: Block, tmp_path: Path) -> None:
    for number, (command, expected) in enumerate(block.commands()):
        place = tmp_path / str(number)
        place.mkdir()
        done = run(command, place)
        assert done.returncode == 0, done.stdout + done.stderr
        assert printed_as_told(expected, done.stdout), done.stdout


@pytest.mark.parametrize("block", SETTINGS, ids=str)
def test_settings_that_a_page_shows_are_valid(block: Block) -> None:
    parse(block.text, str(block))


def test_an_unmarked_block_is_a_fault(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    fence = "```"
    page.write_text(
        "\n".join(
            (
                fence,
                "a",
                fence,
                fence + "sh",
                "b",
                fence,
                fence + "sh run moon",
                "c",
                fence,
                fence + "sh vm",
                "d",
                fence,
                "",
            )
        )
    )
    assert [len(faults(block)) for block in blocks(page)] == [1, 1, 1, 1]
    assert [block.line for block in blocks(page)] == [1, 4, 7, 10]


def test_lines_that_are_missing_left_out_or_in_another_order_are_found() -> None:
    printed = "at 10:00:01 from 10.0.0.5:41234\ntwo\nthree\n"
    first = "at 23:59:59  from 10.0.0.5:50000"
    assert printed_as_told([first, "...", "three"], printed)
    assert printed_as_told(["...", first, "two", "three", "..."], printed)
    assert printed_as_told([], printed)
    for wrong in (
        ["...", "three", "two"],
        [first, "three"],
        ["two", "..."],
        ["at 10:00:01 from 10.0.0.6:41234", "..."],
    ):
        assert not printed_as_told(wrong, printed)
