"""Floods and a queue that runs over, beside a chat and a transfer; ``make load`` does it at full size."""

from __future__ import annotations

from stress.load import QUEUE, SILENT, beside, flood, overflow, watch
from tests.lab.net import SERVER, WAN


def test_sessions_go_on_beside_floods_and_drops_are_shown() -> None:
    with watch() as seen:
        lab, before = seen.made.lab, seen.memory()
        beside(
            seen,
            "floods",
            flood(lab, "amy", "10.0.0.128/25", f"{SILENT}:5190", 8_000),
            flood(lab, "carol", "192.168.7.128/25", f"{WAN['A']}:5190", 4_000),
            flood(lab, "amy", "10.0.0.32/28", f"{SERVER}:5190", 4_000),
        )
        overflow(seen, QUEUE + 2_000)
        assert seen.memory() < before + 40.0
