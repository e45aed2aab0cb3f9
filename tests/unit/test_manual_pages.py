"""The manual pages have each command, option and key, with meaning and default; Sphinx has no warning."""

from __future__ import annotations

import argparse
import re
import subprocess
import sys
from pathlib import Path

import pytest

from nfreaim.cli import command_line
from nfreaim.config import allowed_values
from nfreaim.old_spellings import MOVED, Key
from scripts import manual_pages
from tests.documents import REPO

COMMANDS = {name: (what, parser) for name, what, parser in manual_pages.subcommands(command_line())}
HIDDEN = {"worker", "conntrack-helper", "nft-table", "interfaces"}
"""What only the daemon and the rules script start."""


def entries(page: str) -> dict[str, dict[str, str]]:
    """For each heading of a page its terms and what is said of each, on one line."""
    found: dict[str, dict[str, str]] = {}
    for part in re.split(r"^#{2,3} ", page, flags=re.MULTILINE)[1:]:
        heading, _, text = part.partition("\n")
        terms = re.findall(r"^(`.+`)\n: ((?:.*\n)(?:\n  .+\n)*)", text, re.MULTILINE)
        found[heading.replace("\\", "")] = {term: " ".join(meaning.split()) for term, meaning in terms}
    return found


def valued(parser: argparse.ArgumentParser) -> list[str]:
    """The options that take a value, as they are written."""
    return [
        action.option_strings[-1] for action in parser._actions if action.option_strings and action.nargs != 0
    ]


@pytest.mark.parametrize("name", COMMANDS)
def test_each_command_is_in_its_page_with_what_its_options_mean_and_their_defaults(name: str) -> None:
    what, parser = COMMANDS[name]
    assert what
    told = entries(manual_pages.commands_page())[f"nfreaim {name}"]
    shown = dict(manual_pages.options(parser))
    assert set(told) == {f"`{term}`" for term in shown}
    for term, meaning in told.items():
        assert len(meaning) > 5, f"{name} {term} says nothing: give it a help"
        if any(re.search(rf"{option}\b", term) for option in valued(parser)):
            assert re.search("default|required", meaning, re.IGNORECASE), f"{name} {term}: {meaning}"


def test_only_what_is_for_nobody_is_left_out() -> None:
    (every,) = [one for one in command_line()._actions if isinstance(one, argparse._SubParsersAction)]
    assert set(every.choices) - HIDDEN == {name for name in COMMANDS if " " not in name}


def test_each_key_is_in_its_page_with_its_meaning_what_is_allowed_and_its_default() -> None:
    told: set[Key] = set()
    for heading, terms in entries(manual_pages.keys_page()).items():
        section = match[1] if (match := re.fullmatch(r"Section \[(\w+)\]", heading)) else ""
        for term, text in terms.items():
            names = re.findall(r"`(\w+)`", term)
            assert len(text.split("Allowed")[0]) > 25, f"{term} says nothing"
            assert len(re.findall(r"Allowed(?: of `\w+`)?: ", text)) == len(names), text
            assert len(re.findall(r"Default: `|No default; for example `", text)) == len(names), text
            told |= {Key(section, name) for name in names}
    assert told == set(allowed_values()) - set(MOVED)


def test_the_page_of_commands_tells_where_the_packet_filter_is_named_and_decided() -> None:
    page = manual_pages.commands_page()
    told = entries(page)["Files"]
    assert "NFREAIM_FIREWALL" in told["`/etc/nfreaim/rules.env`"]
    assert "`/var/lib/nfreaim-rules/firewall`" in told
    assert "nft(8)" in page.rpartition("## See also")[2]


def test_sphinx_builds_pages_and_manual_without_a_warning(tmp_path: Path) -> None:
    for builder in ("dummy", "man"):
        command = [sys.executable, "-m", "sphinx", "-q", "-W", "--keep-going", "-c", "docs", "-b", builder]
        done = subprocess.run(
            [*command, "-d", str(tmp_path / "doctrees"), ".", str(tmp_path / builder)],
            cwd=REPO,
            capture_output=True,
            text=True,
            timeout=110,
        )
        assert done.returncode == 0, done.stderr
    assert {page.name for page in (tmp_path / "man").iterdir()} >= {"nfreaim.8", "nfreaim.toml.5"}
    assert "isolated_lans" in (tmp_path / "man" / "nfreaim.toml.5").read_text()
