"""The commands that the documents mark as run on a router: they work, and print what the page says.

Three failing transfers are staged. From each, the page leads to its cause and remedy, after which the
transfer succeeds.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import pytest

from tests.documents import REPO, Block, printed_as_told, to_run
from tests.lab.front import BETWEEN, put_in_front
from tests.lab.net import WAN, Lab
from tests.lab.scene import Scene, eventually
from tests.lab.standin import Client, Server, Transfer

RULESET = """
table inet filter {
  chain forward {
    type filter hook forward priority 0; policy drop;
    ct state established,related accept
    iifname "lan" accept
  }
}
"""
NAMES = {"br-lan": "lan", "eth0": "wan"}
"""The interfaces of the documents, and those of the lab."""
PROGRAMS = {
    # The configuration is not in /etc here, where another test would find it.
    "nfreaim": """case "$1" in
        status|history|report|check|record) command=$1; shift; set -- "$command" --config {config} "$@";;
        esac
        PYTHONPATH={repo} exec {python} -m nfreaim "$@" """,
    # Without time and level a line of the log is what the journal has.
    "journalctl": "sed -E 's/^[^ ]+ [^ ]+ [A-Z]+ //' {log}",
}


class Staged(NamedTuple):
    """A router on which a transfer has failed. *place* is where commands run and find the recording."""

    made: Scene
    server: Server
    alice: Client
    carol: Client
    place: Path

    def follow(self, blocks: list[Block]) -> None:
        """Run the blocks in order."""
        for block in blocks:
            for command, expected in block.commands():
                done = self.run(command)
                said = f"{block}\n{done.stdout}{done.stderr}"
                # `nfreaim check` ends with 1 where it has found something, which is what these are about.
                assert done.returncode in ((0, 1) if block.language == "console" else (0,)), said
                assert not done.stderr, said
                assert printed_as_told([_in_the_lab(line) for line in expected], done.stdout), said

    def run(self, command: str) -> subprocess.CompletedProcess[str]:
        log = self.made.daemon.log
        config = self.place / "nfreaim.toml"
        programs = self.place / "bin"
        programs.mkdir(exist_ok=True)
        for name, text in PROGRAMS.items():
            told = text.format(config=config, repo=REPO, python=sys.executable, log=log)
            (programs / name).write_text(f"#!/bin/sh\n{told}\n")
            (programs / name).chmod(0o755)
        there = f"cd {self.place} && PATH={programs}:$PATH COLUMNS=110 && export PATH COLUMNS\n"
        return self.made.lab.run("A", "sh", "-ec", there + _in_the_lab(command), check=False, seconds=60)

    def arrives(self, alice: Client) -> bool:
        return Transfer(alice, self.carol, "file", size=20_000, seed=3).outcome().ok


def _in_the_lab(text: str) -> str:
    for documented, here in NAMES.items():
        text = text.replace(documented, here)
    return text


@contextmanager
def staged(
    place: Path, prepare: Callable[[Lab], object] | None, signed_on_before: bool = False
) -> Iterator[Staged]:
    """A transfer from alice to carol that fails, recorded on router A."""
    settings = f'history_dir = "{place}/state"\n'
    (place / "nfreaim.toml").write_text(settings)
    with Lab() as lab:
        made = Scene(lab)
        if prepare is not None:
            prepare(lab)
        if not signed_on_before:
            made.restart(settings=settings)
        server = made.server()
        alice, carol = made.clients(server, ("alice", "alice", 5200), ("carol", "carol"))
        if signed_on_before:
            made.restart(settings=settings)
        log = lab.log_file("record")
        words = ("record", str(place / "transfer.pcapng"), "--lan", "lan", "--wan", "wan")
        recorder = lab.spawn("A", sys.executable, "-m", "nfreaim", *words, log=log)
        eventually(lambda: "end it with Ctrl-C" in log.read_text())
        found = Staged(made, server, alice, carol, place)
        assert not found.arrives(alice)
        recorder.terminate()
        assert recorder.wait(15) == 0, log.read_text()
        yield found


def test_firewall_that_drops_the_peer(tmp_path: Path) -> None:
    with staged(tmp_path, lambda lab: lab.run("A", "nft", "-f", "-", stdin=RULESET)) as found:
        found.follow(to_run("firewall-drops"))
        assert found.arrives(found.alice)
        found.follow(to_run("root"))


def test_double_nat(tmp_path: Path) -> None:
    with staged(tmp_path, lambda lab: put_in_front(lab, forward=False)) as found:
        found.follow(to_run("double-nat"))
        rule = f"PREROUTING -i wan -d {WAN['A']} -j DNAT --to-destination {BETWEEN}"
        found.made.lab.run("front", *f"iptables-legacy -t nat -A {rule}".split())
        found.made.daemon.stop()
        found.made.restart(settings=f'outside_address = "{WAN["A"]}"\n')
        found.alice.call("sign_off")
        (again,) = found.made.clients(found.server, ("alice", "again", 5300))
        assert found.arrives(again)


def test_connection_that_is_older_than_the_daemon(tmp_path: Path) -> None:
    with staged(tmp_path, None, signed_on_before=True) as found:
        found.follow(to_run("unread"))
        (again,) = found.made.clients(found.server, ("alice", "again", 5300))
        assert found.arrives(again)


@pytest.mark.parametrize("scene", ["firewall-drops", "double-nat", "unread", "root"])
def test_each_stage_has_commands(scene: str) -> None:
    assert to_run(scene)
