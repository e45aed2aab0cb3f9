"""`nfreaim check --self-test` on a router: what it finds in order, whom it names, and that nothing stays."""

from __future__ import annotations

import json
import os
import signal
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.lab import kernel_sets
from tests.lab.firewall import without_elements
from tests.lab.scene import INSTALL, Scene, eventually, scene

TEST = """import json
from nfreaim.config import Config
from nfreaim.host.check.self_test import self_test
for check in self_test(Config(lan=('lan',), wan=('wan',))): print(json.dumps(check.document()))"""
LEFT = (
    "iptables-legacy-save; iptables-nft-save; nft -t list ruleset; ip link; ip rule;"
    "ip route show table 19202 | sed s/^/nfrtest:/"
)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Scene]:
    with scene(settings=f'history_dir = "{tmp_path_factory.mktemp("history")}"\n') as built:
        yield built


def check(made: Scene, *words: str) -> dict[str, Any]:
    command = (sys.executable, "-m", "nfreaim", "check", "--json", *words, "--lan", "lan", "--wan", "wan")
    result = made.lab.run("A", *command, check=False, seconds=60)
    assert result.stderr == ""
    document: dict[str, Any] = json.loads(result.stdout)
    assert result.returncode == any(one["status"] == "FAIL" for one in document["findings"])
    return document


def self_test(made: Scene) -> list[dict[str, str]]:
    return [json.loads(line) for line in made.lab.run("A", sys.executable, "-c", TEST).stdout.splitlines()]


def left(made: Scene) -> list[str]:
    lines = made.lab.run("A", "sh", "-c", LEFT, check=False).stdout.splitlines()
    return [line for line in lines if "nfrt" in line.lower()]


def firewall(made: Scene) -> list[str]:
    """All rules, without what the daemon keeps in its own chains and sets."""
    lines = without_elements(made.lab.firewall_rules("A")).splitlines()
    return [line for line in lines if "NFREAIM_D" not in line and not line.startswith("add ")]


def test_offer_comes_through_a_healthy_router_and_leaves_nothing(made: Scene) -> None:
    before, said = firewall(made), made.daemon.log_text()
    found = self_test(made)
    assert [one["status"] for one in found] == ["ok"] * 4, found
    for one, text in zip(
        found, ("names 192.0.2.5:", "reached the inside host", "was closed", "took"), strict=True
    ):
        assert text in one["text"]
    assert left(made) == []
    assert firewall(made) == before
    assert made.daemon.log_text() == said
    assert made.pinholes() == set()
    (config,) = made.lab.dir.glob("settings-A*.toml")
    directory = Path(config.read_text().split('"')[1])
    assert not list(directory.glob("*.jsonl"))


@pytest.mark.parametrize(
    ("rule", "undo", "named"),
    [
        (
            "iptables-legacy -t mangle -A FORWARD -p tcp --dport 1024: -d 192.0.2.2 -j DROP",
            "iptables-legacy -t mangle -D FORWARD -p tcp --dport 1024: -d 192.0.2.2 -j DROP",
            "iptables-legacy mangle: -A FORWARD -d 192.0.2.2/32 -p tcp -m tcp --dport 1024:65535 -j DROP",
        ),
        (
            "nft add table inet other; nft 'add chain inet other f { type filter hook forward priority 5; }';"
            "nft add rule inet other f ct status dnat drop",
            "nft delete table inet other",
            "nftables inet other f: ct status dnat drop",
        ),
    ],
)
def test_foreign_rule_that_drops_a_peer_is_named(made: Scene, rule: str, undo: str, named: str) -> None:
    made.lab.run("A", "sh", "-c", rule)
    try:
        (*_, last) = self_test(made)
    finally:
        made.lab.run("A", "sh", "-c", undo)
    assert last["status"] == "FAIL"
    assert named in last["text"], last
    assert last["remedy"]
    assert left(made) == []


def test_what_a_killed_self_test_leaves_is_removed_by_the_next_one_and_by_a_daemon(made: Scene) -> None:
    process = made.lab.spawn("A", sys.executable, "-c", TEST)
    eventually(lambda: "lookup 19202" in made.lab.run("A", "ip", "rule").stdout)
    os.kill(process.pid, signal.SIGKILL)
    process.wait(10)
    there = "\n".join(left(made))
    assert all(text in there for text in ("-j NFRTEST", "lookup 19202", "table ip nfrtest"))
    assert [one["status"] for one in self_test(made)] == ["ok"] * 4
    assert left(made) == []
    made.lab.run("A", "rules/nfreaim-rules", "self-test", "add", "5190")
    made.daemon.kill()
    (config,) = made.lab.dir.glob("settings-A*.toml")
    made.restart(settings=config.read_text())
    assert left(made) == []


def test_broken_rules_are_named_and_repaired_by_fix_alone(made: Scene) -> None:
    made.daemon.stop()  # it would repair them itself
    made.lab.run("A", *INSTALL)  # they may have gone with it
    broken = "iptables-legacy -t mangle -F POSTROUTING"
    made.lab.run("A", *("nft flush chain ip nfreaim postrouting" if kernel_sets.NFT else broken).split())
    (found,) = [one for one in check(made)["findings"] if "incomplete" in one["text"]]
    assert (found["group"], found["status"]) == ("firewall", "FAIL")
    assert found["remedy"].startswith("nfreaim rules install --lan lan --wan wan")
    repaired = check(made, "--fix")["findings"]
    done = [one["text"] for one in repaired if one["status"] == "done"]
    assert done == [f"installed the rules: {found['remedy']}"]
    assert not [one for one in repaired if "incomplete" in one["text"]]
