"""Each short attack of tests/attacks is played against this tree, and fails."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.attacks.catalogue import ATTACKS, Attack
from tests.attacks.run import play

REPO = Path(__file__).resolve().parents[2]


@pytest.mark.parametrize("attack", [one for one in ATTACKS if one.kind == "short"], ids=str)
def test_attack_gains_nothing(attack: Attack) -> None:
    status, last = play(attack, REPO)
    assert last.startswith("HOLDS: ")
    assert status == 0
