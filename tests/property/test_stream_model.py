"""The stream editor against a model of TCP: 24,000 conversations on a bad network, with restarts in between.

Each is decided by a list of numbers; one that fails is made smaller and told as a dialogue.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import pytest

from tests.property.choices import Choices, shrunk
from tests.property.world import World, play

CASES = 3000
TOLD = 60  # lines; a stall goes on and on


def failure(script: Sequence[int]) -> Exception | None:
    try:
        play(Choices(script=script))
    except Exception as error:
        return error
    return None


def told(script: Sequence[int]) -> str:
    """The smallest case found that fails like *script*, as a dialogue."""
    small = shrunk(script, lambda smaller: failure(smaller) is not None)
    story: list[str] = []
    try:
        play(Choices(script=small), story)
    except Exception as error:
        story[TOLD:] = ["..."] * (len(story) > TOLD) + [repr(error)]
    return "\n".join([f"play(Choices(script={small}))", *story])


@pytest.mark.parametrize("part", range(8))
def test_both_ends_receive_the_edited_bytes_whatever_the_network_does(part: int) -> None:
    seen: Counter[str] = Counter()
    for seed in range(part * CASES, (part + 1) * CASES):
        choices = Choices(seed)
        try:
            count(play(choices), seen)
        except Exception:
            pytest.fail(told(choices.taken), pytrace=False)
    # The cases are worth something only as long as all of this happens in them.
    least = {
        "edits": 3000,
        "late": 300,
        "held": 1000,
        "custodies": 500,
        "told": 100,
        "gaps": 1000,
        "restarted": 200,
        "lost": 20,
        "refused": 300,
    }
    assert {name: seen[name] for name, number in least.items() if seen[name] < number} == {}


def count(world: World, seen: Counter[str]) -> None:
    counters = world.engine.counters
    seen["edits"] += sum(map(len, world.script.made))
    seen["late"] += world.script.late
    seen["held"] += counters.held_packets
    seen["custodies"] += counters.custodies
    seen["told"] += sum(kept > 0 for kept in world.kept)
    seen["gaps"] += counters.gap_drops
    seen["refused"] += counters.refused_edits
    seen["restarted"] += world.restarted
    seen["lost"] += world.lost


def test_a_case_that_fails_becomes_small_and_readable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("nfreaim.core.tcp.offsets.OffsetMap.back", lambda self, y: y)
    choices = next(one for one in map(Choices, range(200)) if fails(one))
    story = told(choices.taken)
    assert "AssertionError" in story.splitlines()[-1]
    assert "client 0:" in story or "server 0:" in story
    assert len(story.splitlines()) < 70


def fails(choices: Choices) -> bool:
    try:
        play(choices)
    except AssertionError:
        return True
    return False
