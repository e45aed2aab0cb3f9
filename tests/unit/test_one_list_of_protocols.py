"""A protocol is known by its HelperSpec: whatever is not its helper or its wire format never names it.

What a protocol is called, and what its messages, numbers and ports are, stands in helpers/ and layers/ only.
One file more may name the protocol of the first version, because what that wrote names none.
"""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from nfreaim.helpers import HELPERS

REPO = Path(__file__).resolve().parents[2]
PACKAGE = REPO / "nfreaim"

# In any case, and inside other words: "oscar_ports" is a leak, too.
WORDS = re.compile("flap|oscar|icq|5190|" + "|".join(spec.name for spec in HELPERS), re.IGNORECASE)
CONFIGURATION = REPO / "rules" / "nfreaim.toml"
ALLOWED = {PACKAGE / "old_spellings.py", CONFIGURATION}

# Lines elsewhere that may have one of the words. The number of the queue is that of rules that are installed
# already; old_spellings.py has it for the daemon. The kernel's own helpers have
# the kernel's names, and some of them read what a helper of nfreaim reads, too.
EXCUSED = {
    "rules/nfreaim-rules": [r"QUEUE=5190 .*"],
    "nfreaim/kernel_helpers.py": [r'"[\w.-]+": KernelHelper\(.*\),'],
}


def searched() -> list[Path]:
    """Every file of the program, except helpers/, layers/ and what is allowed to name a protocol."""
    package = [path for path in PACKAGE.rglob("*.py") if path.parent != PACKAGE or path.name != "__init__.py"]
    others = [path for path in (REPO / "rules").rglob("*") if path.is_file()]
    inner = (PACKAGE / "helpers", PACKAGE / "layers")
    return [
        path
        for path in sorted(package + others)
        if path not in ALLOWED and not any(folder in path.parents for folder in inner)
    ]


def leaks(text: str, excused: list[str]) -> list[str]:
    """The lines of *text* that name a protocol."""
    return [
        line.strip()
        for line in text.splitlines()
        if WORDS.search(line) and not any(re.fullmatch(one, line.strip()) for one in excused)
    ]


@pytest.mark.parametrize("path", searched(), ids=lambda path: str(path.relative_to(REPO)))
def test_no_protocol_is_named_outside_its_helper(path: Path) -> None:
    assert leaks(path.read_text(), EXCUSED.get(str(path.relative_to(REPO)), [])) == []


def test_the_configuration_names_protocols_in_their_sections_only() -> None:
    section, general = "", []
    for paragraph in CONFIGURATION.read_text().split("\n\n"):
        header = re.search(r"(?m)^\[(\w+)\]$", paragraph)
        section = header[1] if header else section
        if section not in {spec.name for spec in HELPERS}:
            general.append(paragraph)
    assert any("[pinholes]" in paragraph for paragraph in general)
    assert leaks("\n".join(general), [r"#protocols = .*", r"#queue = .*"]) == []


@pytest.mark.parametrize(
    "line", ["helper = HELPERS['oscar']", "if port == 5190:", "class FlapError(Exception):", "icq_direct = 1"]
)
def test_a_leak_is_seen(line: str) -> None:
    assert leaks(f"a = 1\n{line}\n", []) == [line]
