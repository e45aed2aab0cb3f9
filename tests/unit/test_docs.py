"""The documents: links and anchors lead somewhere, the files they name exist, and the story stays short."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from nfreaim.core.counters import meanings
from nfreaim.helpers import HELPERS
from nfreaim.host.events import KINDS
from tests.documents import PAGES, REPO

STORY = REPO / "docs" / "design.md"
LONGEST_STORY = 12_500  # bytes

_FENCED = re.compile(r"^```.*?^```$", re.MULTILINE | re.DOTALL)
_LINK = re.compile(r"\]\(([^)\s]+)\)")
_HEADING = re.compile(r"^#{1,6} (.+)$", re.MULTILINE)
# A file in backquotes, as seen from the repository or from one of these folders.
_FILE = re.compile(r"`([a-z_]+(?:/[a-z_0-9*-]+)+\.(?:py|md|toml|play))`")
_SEEN_FROM = (REPO, REPO / "nfreaim", REPO / "tests")

each_page = pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(REPO)))


def prose(page: Path) -> str:
    return _FENCED.sub("", page.read_text(encoding="utf-8"))


def anchors(page: Path) -> set[str]:
    """The anchors of a page's headings, as GitHub makes them."""
    found: set[str] = set()
    for heading in _HEADING.findall(prose(page)):
        text = re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")
        count = sum(1 for other in found if re.fullmatch(rf"{re.escape(text)}(-\d+)?", other))
        found.add(f"{text}-{count}" if count else text)
    return found


def broken(page: Path) -> list[str]:
    """The links of *page* that lead nowhere. Those to other hosts are not followed."""
    found = []
    for link in _LINK.findall(prose(page)):
        if re.match(r"[a-z]+:", link):
            continue
        name, _, anchor = link.partition("#")
        target = (page.parent / name).resolve() if name else page
        if not target.exists() or (anchor and anchor not in anchors(target)):
            found.append(link)
    return found


@each_page
def test_links_and_anchors_lead_somewhere(page: Path) -> None:
    assert broken(page) == []


@each_page
def test_the_files_that_it_names_exist(page: Path) -> None:
    named = set(_FILE.findall(prose(page)))
    assert sorted(name for name in named if not any(any(seen.glob(name)) for seen in _SEEN_FROM)) == []


def test_a_link_to_nowhere_is_found(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text("# One (two)\n\n[a](#one-two) [b](#three) [c](other.md) [d](https://example.test/#x)\n")
    assert broken(page) == ["#three", "other.md"]


def test_every_page_is_linked_from_another() -> None:
    linked = {
        (page.parent / link.partition("#")[0]).resolve()
        for page in PAGES
        for link in _LINK.findall(prose(page))
    }
    assert [page.name for page in PAGES if page.parent.name == "docs" and page not in linked] == []


def test_the_story_stays_short() -> None:
    assert len(STORY.read_bytes()) <= LONGEST_STORY


def test_the_tables_of_counters_and_events_are_those_of_the_program() -> None:
    status = (REPO / "docs" / "status.md").read_text()
    part = status[status.index("## Counters") : status.index("## JSON")]
    assert dict(re.findall(r"^\| `(\w+)` \| (.+) \|$", part, re.MULTILINE)) == meanings(HELPERS)
    events = re.findall(
        r"^\| `([\w-]+)` \| `([0-9a-f]{32})` \| (.+?) \|",
        (REPO / "docs" / "history.md").read_text(),
        re.MULTILINE,
    )
    assert events == [tuple(kind) for kind in KINDS]


def test_every_metric_but_the_counters_is_in_its_page() -> None:
    source = (REPO / "nfreaim" / "show" / "exposition.py").read_text()
    named = set(re.findall(r'Family\(\s*"(nfreaim_\w+)"', source))
    named |= {f"nfreaim_{name}" for name in re.findall(r'_gauge\(\s*"(\w+)"', source)}
    assert len(named) > 12
    page = (REPO / "docs" / "metrics.md").read_text()
    assert sorted(name for name in named if f"`{name}`" not in page and f"`{name}_total`" not in page) == []
