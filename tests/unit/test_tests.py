"""What the tests may import: their own codecs nothing of nfreaim, and no test another test."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

TESTS = Path(__file__).parents[1]
REPO = TESTS.parent
MODULES = {
    ".".join(path.relative_to(REPO).with_suffix("").parts): path
    for folder in (TESTS, REPO / "pcaps")
    for path in folder.rglob("*.py")
}
CODECS = ("tests.oscar.", "tests.msn.", "tests.yahoo.")


def imported(path: Path) -> set[str]:
    """All modules that are named in imports, at any depth; "from package import module" names both."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert not node.level, f"{path}: relative imports are not followed here"
            found |= {node.module or "", *(f"{node.module}.{alias.name}" for alias in node.names)}
    return found


def reached(module: str) -> set[str]:
    """Everything that importing *module* imports, as far as this repository's tests go."""
    seen: set[str] = set()
    ahead = [module]
    while ahead:
        for name in imported(MODULES[ahead.pop()]) - seen:
            seen.add(name)
            name = name if name in MODULES else f"{name}.__init__"
            if name in MODULES:
                ahead.append(name)
    return seen


@pytest.mark.parametrize("module", sorted(name for name in MODULES if name.startswith(CODECS)))
def test_the_codec_shares_nothing_with_what_it_judges(module: str) -> None:
    assert not [name for name in reached(module) if name.split(".")[0] in ("nfreaim", "scapy")]


def test_an_import_by_a_detour_is_found() -> None:
    assert any(name.startswith("nfreaim.") for name in reached("tests.unit.restarts"))
    assert "tests.golden" in reached("tests.oscar.signon")


def test_no_test_imports_another() -> None:
    tests = {name for name in MODULES if name.split(".")[-1].startswith("test_")}
    assert tests
    assert {name: shared for name, path in MODULES.items() if (shared := imported(path) & tests)} == {}


CORE = (
    *("engine", "engine_flows", "fastpath", "hostile_flows", "seams", "sessions", "server_flows", "bounds"),
    *("flow", "half_open", "holding", "offsets", "packet", "pinhole", "pinhole_adopted", "pinhole_claims"),
    *("pinhole_sessions", "sets", "skew", "stream"),
)


@pytest.mark.parametrize("module", [*(f"tests.unit.test_{name}" for name in CORE), "tests.property.world"])
def test_core_s_tests_speak_the_scripted_protocol_and_no_other(module: str) -> None:
    apart = ("nfreaim.helpers", "nfreaim.layers", "tests.oscar", "tests.golden")
    assert not [name for name in reached(module) if name.startswith(apart)]
