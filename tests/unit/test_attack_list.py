"""No attack is forgotten: each script of tests/attacks is in the list that `make attacks` plays."""

from __future__ import annotations

import re
from pathlib import Path

from tests.attacks.catalogue import ATTACKS

FOLDER = Path(__file__).parents[1] / "attacks"


def scripts() -> set[str]:
    """Their names."""
    found = {path.stem for path in FOLDER.glob("*.py") if "\ndef main() -> None:" in path.read_text()}
    return found - {"run"}


def test_every_script_is_listed() -> None:
    assert {attack.name for attack in ATTACKS} == scripts()


def test_no_script_imports_another() -> None:
    """Each puts its own tree in front of the modules' path; the second would do it behind the checkout's."""
    imported = {
        f"{path.stem} <- {name}"
        for path in FOLDER.glob("*.py")
        for name in scripts()
        if re.search(rf"^(from|import) tests\.attacks\b.*\b{name}\b", path.read_text(), re.MULTILINE)
    }
    assert imported == set()
