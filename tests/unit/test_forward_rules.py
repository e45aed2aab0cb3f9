"""Which rules make a server of the host that they lead to: iptables-save's, and nft's JSON."""

from __future__ import annotations

import subprocess
from typing import Any, ClassVar

import pytest

from nfreaim.core.address import Endpoint
from nfreaim.errors import BackendError
from nfreaim.host.home import forward_reader
from nfreaim.host.home.forward_reader import ForwardReader
from nfreaim.host.home.forward_rules import OperatorForward, ruleset_forwards, saved_forwards
from nfreaim.host.rules import background

HOME = Endpoint("10.0.0.9", 5190)
EXACT = OperatorForward("203.0.113.1", 5190, HOME)
ANYWHERE = OperatorForward("", 5190, HOME)
TO = "-j DNAT --to-destination 10.0.0.9"


@pytest.mark.parametrize(
    ("rule", "found"),
    [
        (f"-d 203.0.113.1/32 -i wan -p tcp -m tcp --dport 5190 {TO}:5190", [EXACT]),
        (f"-d 203.0.113.1/32 -i wan -p tcp -m tcp --dport 5190 {TO}", [EXACT]),
        (f"-i ppp0 -p tcp -m tcp --dport 5190 {TO}", [ANYWHERE]),
        (f"-p tcp -m tcp --dport 443 {TO}:5190", [OperatorForward("", 443, HOME)]),
        (
            f"-p tcp -m multiport --dports 5190,443,6000:6010 {TO}",
            [ANYWHERE, OperatorForward("", 443, Endpoint("10.0.0.9", 443))],
        ),
        (f'-p tcp -m tcp --dport 5190 -m comment --comment "a b" {TO}', [ANYWHERE]),
        (f"-p tcp -m tcp --dport 5190:5199 {TO}", []),
        (f"-d 203.0.113.0/24 -p tcp -m tcp --dport 5190 {TO}", []),
        (f"! -d 203.0.113.1/32 -p tcp -m tcp --dport 5190 {TO}", []),
        (f"-p tcp -m tcp ! --dport 5190 {TO}", []),
        (f"-i wan {TO}", [OperatorForward("", 0, Endpoint("10.0.0.9", 0))]),
        (f"-i wan -p udp {TO}", []),
        ("-p tcp -m tcp --dport 5190 -j DNAT --to-destination 10.0.0.9-10.0.0.12", []),
        ("-p tcp -m tcp --dport 5190 -j DNAT --to-destination 10.0.0.9:5190-5199", []),
        ("-p tcp -m tcp --dport 5190 -j REDIRECT --to-ports 5190", []),
        (f'-p tcp -m tcp --dport 5190 -m comment --comment "UPnP: chat" {TO}', []),
        (f'-p tcp -m tcp --dport 1 -m comment --comment "-d 203.0.113.1 --dport 5190" {TO}:1', "port 1"),
        ('-p tcp -m tcp --dport 5190 -m comment --comment "', []),
    ],
)
def test_saved_rules(rule: str, found: Any) -> None:
    forwards = list(saved_forwards(f"*nat\n:PREROUTING ACCEPT [0:0]\n-A PREROUTING {rule}\nCOMMIT\n"))
    if found == "port 1":  # what a comment says is no option
        assert [forward.port for forward in forwards] == [1]
    else:
        assert forwards == found


@pytest.mark.parametrize("chain", ["MINIUPNPD", "upnp-dnat", "PCP_FORWARDS", "NAT-PMP"])
def test_rules_that_a_program_makes_on_request_have_no_author(chain: str) -> None:
    assert list(saved_forwards(f"-A {chain} -p tcp -m tcp --dport 5190 {TO}")) == []
    assert list(ruleset_forwards(document(MATCH, {"dnat": {"addr": "10.0.0.9"}}, chain=chain))) == []


def compare(field: str, right: object, op: str = "==", protocol: str = "tcp") -> dict[str, Any]:
    left = {"payload": {"protocol": protocol, "field": field}}
    return {"match": {"op": op, "left": left, "right": right}}


MATCH = compare("dport", 5190)
KEY = {"payload": {"protocol": "tcp", "field": "dport"}}


def test_rules_of_our_own_table_are_not_the_operators() -> None:
    made = document(MATCH, {"dnat": {"addr": "10.0.0.9"}})
    assert list(ruleset_forwards(made)) != []
    made["nftables"][-1]["rule"] |= {"family": "ip", "table": "nfreaim"}
    assert list(ruleset_forwards(made)) == []


def document(*expressions: dict[str, Any], chain: str = "pre", comment: str = "") -> dict[str, Any]:
    rule = {"family": "inet", "table": "router", "chain": chain, "comment": comment, "expr": [*expressions]}
    named = {"family": "inet", "table": "router", "name": "fw", "elem": [[5190, "10.0.0.9"]]}
    mine = {"family": "inet", "table": "router", "name": "wan", "elem": ["203.0.113.1"]}
    foreign = {"family": "ip", "table": "other", "name": "wan", "elem": ["198.51.100.1"]}
    return {"nftables": [{"metainfo": {}}, {"map": named}, {"set": mine}, {"set": foreign}, {"rule": rule}]}


@pytest.mark.parametrize(
    ("expressions", "found"),
    [
        (
            [
                compare("daddr", "203.0.113.1", protocol="ip"),
                MATCH,
                {"dnat": {"addr": "10.0.0.9", "port": 5190}},
            ],
            [EXACT],
        ),
        ([compare("daddr", "@wan", protocol="ip"), MATCH, {"dnat": {"addr": "10.0.0.9"}}], [EXACT]),
        ([MATCH, {"counter": {}}, {"dnat": {"addr": "10.0.0.9"}}], [ANYWHERE]),
        (
            [compare("dport", {"set": [5190, {"range": [6000, 6010]}]}), {"dnat": {"addr": "10.0.0.9"}}],
            [ANYWHERE],
        ),
        ([{"dnat": {"addr": {"map": {"key": KEY, "data": "@fw"}}}}], [ANYWHERE]),
        (
            [
                {
                    "dnat": {
                        "addr": {
                            "map": {"key": KEY, "data": {"set": [[443, {"concat": ["10.0.0.9", 5190]}]]}}
                        }
                    }
                }
            ],
            [OperatorForward("", 443, HOME)],
        ),
        ([compare("dport", {"range": [5190, 5199]}), {"dnat": {"addr": "10.0.0.9"}}], []),
        ([compare("dport", 5190, "!="), {"dnat": {"addr": "10.0.0.9"}}], []),
        (
            [
                compare("daddr", {"prefix": {"addr": "203.0.113.0", "len": 24}}, protocol="ip"),
                MATCH,
                {"dnat": {"addr": "10.0.0.9"}},
            ],
            [],
        ),
        ([{"dnat": {"addr": "10.0.0.6"}}], [OperatorForward("", 0, Endpoint("10.0.0.6", 0))]),
        ([MATCH, {"dnat": {"addr": {"range": ["10.0.0.1", "10.0.0.9"]}}}], []),
        ([MATCH, {"dnat": {"addr": "10.0.0.9", "port": {"range": [1, 9]}}}], []),
        ([MATCH, {"accept": None}], []),
        ([MATCH, {"xt": {"type": "target", "name": "DNAT"}}], []),
    ],
)
def test_rules_of_nft(expressions: list[dict[str, Any]], found: list[OperatorForward]) -> None:
    assert list(ruleset_forwards(document(*expressions))) == found


def test_a_forward_leads_from_its_own_endpoint_to_its_own_host() -> None:
    reached, other = Endpoint("203.0.113.1", 5190), Endpoint("203.0.113.2", 5190)
    assert EXACT.leads(reached, HOME)
    assert not EXACT.leads(other, HOME)
    assert ANYWHERE.leads(other, HOME)
    assert not EXACT.leads(Endpoint("203.0.113.1", 5191), HOME)
    for server in (Endpoint("10.0.0.6", 5190), Endpoint("10.0.0.9", 5191)):
        assert not EXACT.leads(reached, server)
    for port in (0, 5190):
        assert not OperatorForward("", 0, Endpoint("10.0.0.9", 0)).leads(reached, Endpoint("10.0.0.9", port))


# --- the reader ---


class Program:
    """A BackgroundProgram that ends when it is told to."""

    started: ClassVar[list[tuple[str, ...]]] = []
    output = ""
    status = 0
    ready = True

    def __init__(self, words: tuple[str, ...], timeout_s: float) -> None:
        self.words = words
        self.started.append(words)

    def result(self) -> subprocess.CompletedProcess[str] | None:
        return self.wait() if self.ready else None

    def wait(self) -> subprocess.CompletedProcess[str]:
        if self.output == "late":
            raise BackendError("took too long")
        return subprocess.CompletedProcess(self.words, self.status, self.output, "")

    def end(self) -> None:
        self.started.append(("ended",))


class Rules:
    """A reader of one legacy table; *digest* stands for other programs' rules there, whose size is the same.

    So a forward that was deleted and one that was added in its place are seen.
    """

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now, self.digest = 100.0, b"1"
        Program.started, Program.output, Program.ready, Program.status = [], "", True, 0
        monkeypatch.setattr(background, "BackgroundProgram", Program)
        monkeypatch.setattr(forward_reader, "generation", lambda: None)
        monkeypatch.setattr("shutil.which", lambda name: name)
        self.reader = ForwardReader(lambda: self.now)
        monkeypatch.setattr(self.reader._tables, "sizes", lambda: {"nat": b"12 rules"})
        monkeypatch.setattr(self.reader._tables, "others", lambda table: self.digest)

    def leads(self) -> bool:
        return self.reader.leads(Endpoint("203.0.113.1", 5190), HOME)


RULE = f"-A PREROUTING -p tcp -m tcp --dport 5190 {TO}\n"


def test_rules_are_read_when_they_have_changed_and_not_for_each_question(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    rules = Rules(monkeypatch)
    assert not rules.leads()
    Program.output = RULE
    rules.now += 60
    assert not rules.leads()
    assert len(Program.started) == 1, "nothing has changed"
    rules.digest = b"2"
    assert rules.leads()
    assert len(Program.started) == 2
    Program.output, rules.digest = "", b"3"
    assert rules.leads(), "too soon after the last time"
    rules.now += 2.1
    assert not rules.leads()
    rules.reader.close()


def test_the_first_question_waits_and_later_ones_do_not(monkeypatch: pytest.MonkeyPatch) -> None:
    rules = Rules(monkeypatch)
    Program.output, Program.ready = RULE, False
    assert rules.leads()
    Program.output, rules.digest = "", b"2"
    rules.now += 3
    assert rules.leads(), "the old rules count until the new ones are read"
    Program.ready = True
    assert not rules.leads()
    Program.ready, rules.digest = False, b"3"
    rules.now += 3
    rules.reader.look()
    rules.reader.close()
    assert Program.started[-1] == ("ended",)


def test_a_program_that_fails_is_an_error_and_asked_again(monkeypatch: pytest.MonkeyPatch) -> None:
    rules = Rules(monkeypatch)
    Program.output = "late"
    for _ in range(2):
        with pytest.raises(BackendError, match="too long"):
            rules.leads()
    Program.output, Program.status = RULE, 1
    assert not rules.leads(), "a table that is not there"
    Program.status = 0
    rules.digest = b"2"
    rules.now += 3
    assert rules.leads()
    rules.reader.close()


def test_programs_of_both_kinds_of_rules(monkeypatch: pytest.MonkeyPatch) -> None:
    rules = Rules(monkeypatch)
    monkeypatch.setattr(forward_reader, "generation", lambda: 7)
    rules.leads()
    assert [words[0] for words in Program.started] == ["iptables-legacy-save", "iptables-nft-save", "nft"]
    rules.now += 3
    monkeypatch.setattr(forward_reader, "generation", lambda: 8)
    Program.output = '{"nftables": [{"rule": {}}]}'
    for _ in range(2):
        with pytest.raises(BackendError, match="unknown form"):
            rules.leads()
        rules.now += 3
    rules.reader.close()
