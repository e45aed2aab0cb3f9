"""What the first version's files said: it still counts, and what it is called today is said."""

from __future__ import annotations

import re
from typing import Any

import pytest

from nfreaim.config import parse
from nfreaim.errors import ConfigError
from nfreaim.old_spellings import DEFAULT_PROTOCOL, migrate_record

OLD = """
ports = [443, 5190]
icq_direct = ["10.0.0.5"]
[pinholes]
icq_per_host = 2
total = 9
"""
TODAY = """
[oscar]
ports = [443, 5190]
icq_direct = ["10.0.0.5"]
icq_per_host = 2
[pinholes]
total = 9
"""


def test_old_keys_do_what_those_of_today_do_and_say_their_names() -> None:
    old, today = parse(OLD, "f"), parse(TODAY, "f")
    assert old == today
    assert old.sections == today.sections
    assert today.notices == ()
    assert old.notices == (
        "f: ports is an older spelling; write ports in the section [oscar]",
        "f: icq_direct is an older spelling; write icq_direct in the section [oscar]",
        "f: pinholes.icq_per_host is an older spelling; write icq_per_host in the section [oscar]",
    )


def test_old_and_new_keys_may_stand_together_for_different_things() -> None:
    assert parse('ports = [443]\n[oscar]\nicq_direct = "off"', "f") == parse(
        '[oscar]\nports = [443]\nicq_direct = "off"', "f"
    )


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (
            "ports = [443]\n[oscar]\nports = [443]",
            "ports is the older spelling of oscar.ports, and both are given; remove ports",
        ),
        (
            "icq_direct = 'on'\n[oscar]\nicq_direct = 'on'",
            "icq_direct is the older spelling of oscar.icq_direct, and both",
        ),
        (
            "[pinholes]\nicq_per_host = 1\n[oscar]\nicq_per_host = 1",
            "pinholes.icq_per_host is the older spelling of oscar.icq_per_host",
        ),
    ],
)
def test_both_spellings_of_one_thing_are_refused_by_both_names(text: str, said: str) -> None:
    with pytest.raises(ConfigError, match=re.escape(f"f: {said}")):
        parse(text, "f")


def test_value_that_cannot_be_used_is_refused_by_the_name_it_was_given() -> None:
    with pytest.raises(ConfigError, match=r"f: pinholes\.icq_per_host = 0: must be a whole number"):
        parse("[pinholes]\nicq_per_host = 0", "f")


@pytest.mark.parametrize(
    ("record", "protocol"), [({"moved": 1}, DEFAULT_PROTOCOL), ({"protocol": "irc"}, "irc")]
)
def test_record_without_a_protocol_is_of_the_only_one_there_was(
    record: dict[str, Any], protocol: str
) -> None:
    assert migrate_record(record) == {**record, "protocol": protocol}
