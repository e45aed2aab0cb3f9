"""Native nftables rules that drop pinholes' connections: when that is certain, and each owner's remedy."""

from __future__ import annotations

import json
import logging
from typing import Any

import pytest

from nfreaim.core.address import Endpoint
from nfreaim.core.firewall.pinhole import Pinhole
from nfreaim.host.check.native_remedies import remedy
from nfreaim.host.netfilter.nftables import Obstacle, Ruleset
from nfreaim.host.report import journal as journals
from nfreaim.host.report.journal import Journal
from nfreaim.host.rules import native_drops
from nfreaim.host.rules.native_drops import NativeDrops, dropping
from tests.unit.fakes import OUTSIDE
from tests.unit.nft_rules import ACCEPT, DNAT, DROP, MARK, SSH, Rule, by, ruleset, state
from tests.unit.pinhole_table import ALICE, A

UDP: dict[str, Any] = {
    "match": {"op": "==", "left": {"payload": {"protocol": "udp", "field": "dport"}}, "right": 53}
}
ICMP: dict[str, Any] = {"match": {"op": "==", "left": {"meta": {"key": "l4proto"}}, "right": "icmp"}}
TO_LAN: dict[str, Any] = {
    "match": {"op": "==", "left": {"payload": {"protocol": "ip", "field": "daddr"}}, "right": "10.0.0.0/24"}
}
INTO = {"jump": {"target": "into"}}


def by_state(**verdicts: str) -> dict[str, Any]:
    elements = [[name, {verdict: None}] for name, verdict in verdicts.items()]
    return {"vmap": {"key": {"ct": {"key": "state"}}, "data": {"set": elements}}}


def hopeless(rules: Ruleset, hook: str = "forward") -> bool:
    return bool(list(rules.hopeless(["eth0"], hook)))


@pytest.mark.parametrize(
    "rules",
    [
        [],
        [[state("established", "related"), ACCEPT], [by("lan"), ACCEPT], [by("lan", "lan2"), ACCEPT]],
        [[by_state(established="accept", related="accept", invalid="drop")]],
        [[UDP, ACCEPT], [ICMP, ACCEPT]],
        [[by("lan"), INTO]],
        [[MARK, DROP]],
    ],
)
def test_what_accepts_other_packets_only_drops_every_pinhole(rules: list[Rule]) -> None:
    assert hopeless(ruleset(*rules, others={"into": [[ACCEPT]]}))


@pytest.mark.parametrize(
    "rule",
    [
        [MARK, DNAT, ACCEPT],
        [DNAT, ACCEPT],
        [TO_LAN, ACCEPT],
        [SSH, ACCEPT],
        [by("eth0"), INTO],
        [by("eth*"), ACCEPT],
        [by_state(new="accept")],
        [{"vmap": {"key": {"meta": {"key": "iifname"}}, "data": "@named"}}],
        [{"jump": {"target": "NFREAIM"}}],
    ],
)
def test_where_one_may_get_through_nothing_is_certain(rule: Rule) -> None:
    assert not hopeless(ruleset(rule, others={"into": [[DNAT, ACCEPT]]}))
    assert not hopeless(ruleset(policy="accept"))


def told(table: str = "t", family: str = "inet", hook: str = "forward", **more: Any) -> str:
    rules = ruleset(family=family, table=table, hook=hook, **more)
    (obstacle,) = rules.obstacles(["eth0"], hook)
    return remedy(obstacle, rules, ["br0", "br1"], ["eth0"])


def test_the_line_for_a_ruleset_of_ones_own_names_its_file() -> None:
    command, _, where = told().partition(" # to last: ")
    assert (
        command == "nft insert rule inet t forward ct mark and 0x2000000 == 0x2000000 ct status dnat accept"
    )
    assert where.startswith("the same rule, first in chain forward of table inet t in /etc/nftables.conf")


def test_openwrt_has_a_folder_for_rules_at_the_head_of_a_chain() -> None:
    line = told("fw4")
    assert "ct status dnat accept' > /usr/share/nftables.d/chain-pre/forward/10-nfreaim.nft" in line
    assert line.endswith(" && fw4 reload")


def test_ufw_has_a_file_of_its_own() -> None:
    line = told("filter", "ip", others={"ufw-before-forward": []})
    assert (
        "in /etc/ufw/before.rules, before COMMIT: -A ufw-before-forward -m connmark --mark 0x2000000" in line
    )


@pytest.mark.parametrize("flags", ["firewalld", ["owner", "persist"], None])
def test_firewalld_refuses_lines_and_has_policies(flags: object) -> None:
    line = told("firewalld", flags=flags)
    assert "nft insert" not in line
    for part in (
        "firewall-cmd --permanent --new-policy nfreaim && ",
        "--add-ingress-zone $(firewall-cmd --get-zone-of-interface eth0)",
        "--add-egress-zone $(firewall-cmd --get-zone-of-interface br1)",
        " && firewall-cmd --reload",
    ):
        assert part in line


@pytest.mark.parametrize("flags", ["owner", ["owner"], "mine"])
def test_another_programs_own_table_is_left_to_that(flags: object) -> None:
    line = told("mine", flags=flags)
    assert "nft insert" not in line
    assert "belongs to a running program (flags owner)" in line
    assert "nft insert" in told("mine", flags=["dormant"])


class Nft:
    """A ruleset that changes, and the program that lists it."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now, self.generation, self.text, self.listed = 100.0, 1, "", 0
        monkeypatch.setattr(native_drops, "generation", lambda: self.generation)
        monkeypatch.setattr(native_drops, "BackgroundProgram", self._program)
        monkeypatch.setattr("shutil.which", lambda _: "/usr/sbin/nft")
        self.told: list[str] = []
        self.drops = NativeDrops(["eth0"], lambda: self.now, self.told.append)

    def _program(self, *_: object) -> Nft:
        self.listed += 1
        return self

    returncode = 0

    @property
    def stdout(self) -> str:
        return self.text

    def result(self) -> Nft:
        return self

    def end(self) -> None:
        """Nothing runs."""

    def becomes(self, *rules: Rule) -> list[str]:
        chain = {
            "family": "inet",
            "table": "r",
            "name": "f",
            "type": "filter",
            "hook": "forward",
            "policy": "drop",
        }
        place = {"family": "inet", "table": "r", "chain": "f"}
        objects = [{"chain": chain}, *({"rule": {**place, "expr": rule}} for rule in rules)]
        self.text = json.dumps({"nftables": objects})
        self.generation += 1
        self.now += 10.0
        for _ in range(3):
            self.drops.look()
        return self.told


def test_a_ruleset_that_is_loaded_without_the_accept_is_told_once_and_its_end_too(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    nft = Nft(monkeypatch)
    assert nft.becomes([MARK, DNAT, ACCEPT]) == []
    assert nft.becomes() == nft.becomes([by("lan"), ACCEPT]) == ["nftables chain inet r f"]
    assert nft.becomes([DNAT, ACCEPT]) == ["nftables chain inet r f", ""]
    assert [record.levelname for record in caplog.records] == ["WARNING", "INFO"]
    assert nft.listed == 4, "a ruleset that did not change is not listed again"
    nft.text = "no JSON"
    nft.generation += 1
    nft.now += 10
    for _ in range(3):
        nft.drops.look()
    assert nft.told[2:] == []


def test_a_pinhole_that_nobody_gets_through_is_not_called_open(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    journal = Journal()
    pinhole = Pinhole(Endpoint("10.0.0.5", 5190), Endpoint(OUTSIDE, 5190), ALICE, A, "send-file", 9.0)
    journal.opened(pinhole)
    journal.barred = dropping(json.dumps({"nftables": []}), ["eth0"]) or "nftables chain inet r f"
    journal.opened(pinhole)
    first, second = caplog.messages
    assert "pinhole opened: " in first
    assert "pinhole opened" not in second
    assert "pinhole of no use, because nftables chain inet r f drops what comes: 203.0.113.1:5190" in second


def test_a_pinhole_to_the_router_is_judged_by_what_stands_at_input(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    assert hopeless(ruleset([by("lan"), ACCEPT], hook="input"), "input")
    assert not hopeless(ruleset([MARK, ACCEPT], hook="input"), "input")
    assert not hopeless(ruleset(hook="input"))
    monkeypatch.setattr(journals, "is_own", lambda address: address == OUTSIDE)
    caplog.set_level(logging.INFO)
    journal = Journal()
    journal.barred_here = "nftables chain inet r input"
    for inside in ("10.0.0.5", OUTSIDE):
        journal.opened(Pinhole(Endpoint(inside, 5190), Endpoint(OUTSIDE, 5190), ALICE, A, "send-file", 9.0))
    assert ["pinhole opened: " in message for message in caplog.messages] == [True, False]
    assert "because nftables chain inet r input drops what comes" in caplog.messages[1]


def test_clients_on_the_router_need_a_line_at_input_that_asks_for_no_translation() -> None:
    line = told(hook="input").partition(" # to last: ")[0]
    assert line == "nft insert rule inet t input ct mark and 0x2000000 == 0x2000000 accept"
    assert "> /usr/share/nftables.d/chain-pre/input/10-nfreaim.nft" in told("fw4", hook="input")
    line = told("filter", "ip", "input", others={"ufw-before-input": []})
    assert line.endswith("-A ufw-before-input -m connmark --mark 0x2000000/0x2000000 -j ACCEPT")
    line = told("firewalld", hook="input")
    zone = "firewall-cmd --permanent --zone=$(firewall-cmd --get-zone-of-interface eth0)"
    assert line.startswith(f"{zone} --add-port=20000-20009/tcp && firewall-cmd --reload # with the ports ")
    assert "policy" not in line


def test_what_accepts_translated_connections_alone_is_not_enough_at_input() -> None:
    def obstacles(*rules: Rule) -> list[Obstacle]:
        return list(ruleset(*rules, hook="input").obstacles(["eth0"], "input"))

    assert obstacles([MARK, ACCEPT]) == []
    assert len(obstacles([MARK, DNAT, ACCEPT])) == 1
    assert list(ruleset(hook="input").obstacles(["eth0"])) == []
