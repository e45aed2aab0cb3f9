"""`make install` and rules.env: what it says there, and what stays that others have written."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.unit.source_install import NAMED, WORDS, WRITTEN, Machine, machine_at


@pytest.fixture
def machine(tmp_path: Path) -> Iterator[Machine]:
    with machine_at(tmp_path) as made:
        yield made


def test_settings_of_before_are_kept_and_looked_at_too(machine: Machine) -> None:
    machine.install(*NAMED)
    machine.install()
    assert (machine.conf / "rules.env").read_text() == WRITTEN
    (machine.conf / "nfreaim.toml").write_text("hold_ms = 9999\n")
    before = machine.state()
    done = machine.make("install")
    assert done.returncode == 2
    assert f"{machine.conf}/nfreaim.toml: hold_ms = 9999" in done.stderr
    assert machine.state() == before


def test_a_packet_filter_that_was_named_stays_until_another_is(machine: Machine) -> None:
    written = machine.conf / "rules.env"
    for words, filter_line in (
        (NAMED, ""),
        (("FIREWALL=nft",), "NFREAIM_FIREWALL=nft\n"),
        ((), "NFREAIM_FIREWALL=nft\n"),
        (("FIREWALL=legacy",), "NFREAIM_FIREWALL=legacy\n"),
        (("FIREWALL=auto",), ""),
        ((), ""),
    ):
        machine.install(*words)
        assert written.read_text() == WRITTEN + filter_line, words
    before = machine.state()
    refused = machine.make("install", "FIREWALL=iptables")
    assert "FIREWALL is auto, legacy or nft, not 'iptables'; nothing was changed" in refused.stderr
    assert machine.state() == before


@pytest.mark.parametrize(
    ("spelling", "quote"),
    [
        (f"NFREAIM_ARGS={WORDS}", ""),
        (f"NFREAIM_ARGS='{WORDS}'", "'"),
        (f'NFREAIM_ARGS="{WORDS}"', '"'),
        (f'  NFREAIM_ARGS = "{WORDS}"  ', ""),
        (f'export NFREAIM_ARGS="{WORDS}"', ""),
        (f'NFREAIM_ARGS="--lan other --wan eth9"\nNFREAIM_ARGS="{WORDS}"', ""),
        (f"#NFREAIM_ARGS=--lan other --wan eth9\nNFREAIM_ARGS={WORDS}", ""),
    ],
)
def test_each_spelling_is_read_and_other_lines_stay(machine: Machine, spelling: str, quote: str) -> None:
    machine.conf.mkdir(parents=True)
    written = machine.conf / "rules.env"
    comment = spelling.partition("\n")[0] + "\n" if spelling.startswith("#") else ""
    others = "# two of mine\nTZ='Europe/Vienna'\n"
    written.write_text(f'{others}{spelling}\nMORE="a b"\nNFREAIM_FIREWALL={quote}nft{quote}')
    written.chmod(0o640)
    machine.install()
    assert written.read_text() == f'{others}{comment}{WRITTEN}MORE="a b"\nNFREAIM_FIREWALL=nft\n'
    assert written.stat().st_mode & 0o777 == 0o640


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ('NFREAIM_ARGS="--lan br-lan" --wan eth0', "NFREAIM_ARGS cannot be read"),
        ('NFREAIM_ARGS="--lan br-lan --wan eth0" # mine', "NFREAIM_ARGS cannot be read"),
        ("NFREAIM_ARGS=--lan br-lan \\\n--wan eth0", "NFREAIM_ARGS cannot be read"),
        ('NFREAIM_ARGS="--lan $LAN --wan eth0"', "NFREAIM_ARGS cannot be read"),
        ('NFREAIM_ARGS="', "NFREAIM_ARGS cannot be read"),
        ("NFREAIM_FIREWALL=iptables", "NFREAIM_FIREWALL must be auto, legacy or nft"),
        ('NFREAIM_FIREWALL="nft" # mine', "NFREAIM_FIREWALL must be auto, legacy or nft"),
    ],
)
def test_what_cannot_be_read_is_refused_and_can_be_named_anew(machine: Machine, line: str, said: str) -> None:
    machine.conf.mkdir(parents=True)
    (machine.conf / "rules.env").write_text(f"{line}\n")
    before = machine.state()
    done = machine.make("install")
    assert done.returncode == 2
    assert f"{machine.conf}/rules.env: {said}" in done.stderr
    assert "nothing was changed" in done.stderr
    assert machine.state() == before
    machine.install(*NAMED, "FIREWALL=legacy")
    lines = (machine.conf / "rules.env").read_text().splitlines()
    assert sorted(lines) == [WRITTEN.strip(), "NFREAIM_FIREWALL=legacy"]
