"""The live screen: everything on it, nothing beyond its height, and words where no daemon is."""

from __future__ import annotations

import io
from typing import Any

import pytest

pytest.importorskip("rich")

from rich.console import Console

from nfreaim.show.top import _rooms, screen
from tests.unit.shown import document, idle


def rendered(height: int = 45, width: int = 140, **changes: Any) -> list[str]:
    text = io.StringIO()
    Console(file=text, width=width, height=height).print(screen(document(**changes), height))
    return text.getvalue().splitlines()


def test_the_screen_has_sessions_pinholes_events_counters_and_losses() -> None:
    said = "\n".join(rendered())
    for part in (
        "running for 2 h 3 min   dropped by the kernel: 0",
        "sessions (1)",
        "pinholes (2)",
        "3.0 MB",
    ):
        assert part in said
    assert "pinhole claimed" in said
    assert "messages that announced an address" in said
    assert "q quits" in said


@pytest.mark.parametrize("height", [24, 30, 60])
def test_many_rows_never_push_the_last_line_off_the_screen(height: int) -> None:
    many = {name: document()[name] * 300 for name in ("sessions", "pinholes", "events")}
    said = rendered(height, **many)
    assert len(said) <= height
    assert "q quits" in said[-1]
    assert any("more by nfreaim status" in line for line in said)


def test_room_that_one_table_leaves_goes_to_the_others() -> None:
    assert _rooms([1, 2, 0, 0], 20) == [1, 2, 0, 0]
    assert sum(_rooms([100, 100, 100, 100], 40)) <= 41
    assert _rooms([100, 0, 0, 0], 20) == [20, 0, 0, 0]


def test_text_of_others_is_shown_and_not_taken_for_markup() -> None:
    one = document()["pinholes"][0] | {"service": "[bold]x[/nothing]"}
    assert "[bold]x[/nothing]" in "\n".join(rendered(pinholes=[one]))


def test_a_daemon_that_waits_says_why_and_what_to_write() -> None:
    lines = [line.strip() for line in rendered(**idle())]
    for text in ("nobody is served: IPv4 forwarding is off", 'lan = ["br-lan"]', 'wan = ["eth0"]'):
        assert text in lines
    assert not any("sessions" in line for line in lines)


def test_a_changed_set_up_has_a_line_which_pushes_none_off_the_screen() -> None:
    changed = {"lan": ["a"], "wan": ["b"], "changed": "this router's set-up shows c"}
    lines = rendered(height=24, interfaces=changed)
    assert "this router's set-up shows c" in [line.strip() for line in lines]
    assert "q quits" in lines[-1]
    assert len(lines) <= 24


def test_without_a_daemon_the_screen_says_so() -> None:
    text = io.StringIO()
    Console(file=text, width=80).print(screen("no daemon answers at /run/x; waiting for one", 24))
    assert "no daemon answers at /run/x" in text.getvalue()
