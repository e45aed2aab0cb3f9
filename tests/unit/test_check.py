"""`nfreaim check`: what it concludes from addresses, rulesets and saved rules. No root."""

import json
import re

import pytest

from nfreaim.config import Config
from nfreaim.host.check import doctor, doctor_command, kernel_features, self_test
from nfreaim.host.check.answer import GROUPS, Check, Checks
from nfreaim.host.check.kernel_features import FEATURES
from nfreaim.host.check.packet_filter import behind_jump
from nfreaim.host.netfilter.nftables import Obstacle, Ruleset
from nfreaim.host.rules import script
from tests.unit.nft_rules import ACCEPT, BIT, DNAT, DROP, MARK, OTHER_MARK, SSH, Rule, by, ruleset, state

NOWHERE = Config(lan=("nosuchlan0",), wan=("nosuchwan0",))


def obstacles(rules: Ruleset, wan: tuple[str, ...] = ("eth0",)) -> list[Obstacle]:
    return list(rules.obstacles(wan))


def test_policy_drop_without_our_accept_is_certain() -> None:
    found = obstacles(ruleset([state("established", "related"), ACCEPT], [SSH, ACCEPT]))
    assert found == [Obstacle("inet", "t", "forward", certain=True, mark=BIT)]
    line = "nft insert rule inet t forward ct mark and 0x2000000 == 0x2000000 ct status dnat accept"
    assert found[0].remedy == line


@pytest.mark.parametrize(
    "rule",
    [
        [MARK, DNAT, ACCEPT],
        [MARK, DNAT, {"counter": {"packets": 0, "bytes": 0}}, ACCEPT],
        [DNAT, ACCEPT],
        [state("new", "established"), DNAT, ACCEPT],
        [by("eth0", "ppp0"), DNAT, ACCEPT],
        [{"jump": {"target": "NFREAIM"}}],
        [ACCEPT],
    ],
)
def test_rule_that_lets_pinholes_through_is_enough(rule: Rule) -> None:
    assert obstacles(ruleset([state("invalid"), DROP], rule)) == []


@pytest.mark.parametrize(
    "rule",
    [
        [OTHER_MARK, DNAT, ACCEPT],
        [MARK, DNAT, SSH, ACCEPT],
        [MARK, DNAT],
        [MARK, DNAT, DROP],
        [by("eth1"), DNAT, ACCEPT],
        [state("established"), ACCEPT],
        [MARK, DNAT, {"limit": {"rate": 1, "per": "second"}}, ACCEPT],
        [{"jump": {"target": "mine"}}],
        [{"xt": {"type": "match", "name": "connmark"}}, ACCEPT],
    ],
)
def test_rule_that_lets_only_some_through_is_not(rule: Rule) -> None:
    assert [found.certain for found in obstacles(ruleset(rule))] == [True]


@pytest.mark.parametrize(
    "rule",
    [
        [SSH, DROP],
        [SSH, {"reject": {"type": "tcp reset"}}],
        [{"vmap": {"key": {"ct": {"key": "state"}}, "data": {"set": [["invalid", {"drop": None}]]}}}],
        [{"jump": {"target": "deep"}}],
        [
            {
                "vmap": {
                    "key": {"meta": {"key": "iif"}},
                    "data": {"set": [["lo", {"goto": {"target": "deep"}}]]},
                }
            }
        ],
    ],
)
def test_drop_rule_under_policy_accept_is_only_possible(rule: Rule) -> None:
    rules = ruleset(
        rule, policy="accept", others={"deep": [[{"jump": {"target": "deeper"}}]], "deeper": [[DROP]]}
    )
    assert [found.certain for found in obstacles(rules)] == [False]


def test_chains_that_jump_in_a_circle_end() -> None:
    circle: dict[str, list[Rule]] = {"a": [[{"jump": {"target": "b"}}]], "b": [[{"jump": {"target": "a"}}]]}
    assert obstacles(ruleset([{"jump": {"target": "a"}}], policy="accept", others=circle)) == []


def test_ipv6_and_accepting_chains_stop_nothing() -> None:
    assert obstacles(ruleset(family="ip6")) == []
    assert obstacles(ruleset([SSH, ACCEPT], policy="accept")) == []


@pytest.mark.parametrize("document", [[], {}, {"nftables": None}, "text", None])
def test_answer_that_is_no_ruleset_is_an_error(document: object) -> None:
    with pytest.raises(ValueError, match="nft -j list ruleset"):
        Ruleset(document)


def test_nat_chain_counts_only_with_rules_in_it() -> None:
    chain = {"family": "ip", "table": "nat", "name": "PREROUTING", "type": "nat", "hook": "prerouting"}
    rule = {"family": "ip", "table": "nat", "chain": "PREROUTING", "expr": [ACCEPT]}
    assert list(Ruleset({"nftables": [{"chain": chain}]}).redirectors()) == []
    assert list(Ruleset({"nftables": [{"chain": chain}, {"rule": rule}]}).redirectors()) == [
        "ip nat PREROUTING"
    ]


def test_rules_behind_the_queue_jump_are_named() -> None:
    saved = """*raw
-A PREROUTING -p udp -j ACCEPT
-A PREROUTING -i lan -p tcp -m multiport --dports 5190 -j NFREAIM
-A PREROUTING -p tcp -j CT --helper ftp
-A NFREAIM -j NFQUEUE --queue-num 5190 --queue-bypass
COMMIT
*mangle
-A PREROUTING -j MARK --set-mark 1
-A POSTROUTING -o lan -p tcp -m multiport --sports 5190 -j NFREAIM
-A POSTROUTING -o lan2 -p tcp -m multiport --sports 5190 -j NFREAIM
COMMIT
"""
    behind = [("raw PREROUTING", "-A PREROUTING -p tcp -j CT --helper ftp")]
    assert list(behind_jump(saved)) == behind


def test_every_failure_names_a_remedy(capsys: pytest.CaptureFixture[str]) -> None:
    status = doctor_command.main(NOWHERE)
    lines = capsys.readouterr().out.splitlines()
    assert status == 1
    assert any(line.startswith("FAIL interface nosuchlan0 does not exist -> ") for line in lines)
    for line in lines:
        assert re.fullmatch(r"[a-z]+:|ok   [^>]*|(FAIL|warn|hint) .+ -> .+", line), line


def test_exit_status_counts_failures_and_no_warnings(monkeypatch: pytest.MonkeyPatch) -> None:
    only = [Check("ok", "good", group="machine"), Check("warn", "so so", "improve", "network")]
    monkeypatch.setattr(doctor, "run_checks", lambda *_: only)
    assert doctor_command.main(NOWHERE) == 0
    monkeypatch.setattr(doctor, "run_checks", lambda *_: [*only, Check("FAIL", "bad", "repair", "firewall")])
    assert doctor_command.main(NOWHERE) == 1


def test_older_spellings_are_told(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(doctor, "run_checks", lambda *_: [])
    assert doctor_command.main(Config(notices=("write it so",))) == 0
    assert capsys.readouterr().out.splitlines() == ["protocols:", "warn write it so"]


def test_the_self_test_runs_only_if_asked_for_and_fails_the_check(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(doctor, "run_checks", lambda *_: [])
    monkeypatch.setattr(
        self_test, "self_test", lambda config: iter([Check("FAIL", config.lan[0], "mend it")])
    )
    assert doctor_command.main(NOWHERE) == 0
    assert capsys.readouterr().out.strip() == ""
    assert doctor_command.main(NOWHERE, self_test=True) == 1
    assert capsys.readouterr().out.splitlines() == ["self-test:", "FAIL nosuchlan0 -> mend it"]


def test_findings_stand_in_their_groups_also_as_json(capsys: pytest.CaptureFixture[str]) -> None:
    doctor_command.main(NOWHERE)
    text = capsys.readouterr().out.splitlines()
    headings = [line[:-1] for line in text if line in {f"{group}:" for group in GROUPS}]
    assert headings == [group for group in GROUPS if group in headings]
    assert {"machine", "network"} <= {*headings}
    status = doctor_command.main(NOWHERE, as_json=True)
    document = json.loads(capsys.readouterr().out)
    assert document.keys() == {"failed", "findings"}
    assert (status, document["failed"]) == (1, True)
    assert all(one.keys() == {"group", "status", "text", "remedy"} for one in document["findings"])
    assert {one["group"] for one in document["findings"]} == {*headings}
    missing = "interface nosuchlan0 does not exist"
    (found,) = [one for one in document["findings"] if one["text"] == missing]
    assert (found["group"], found["status"]) == ("network", "FAIL")
    assert found["remedy"]


def test_a_probe_that_breaks_does_not_hide_the_others(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken() -> Checks:
        raise OSError("no such thing")

    monkeypatch.setattr(kernel_features, "forwarding", broken)
    found = doctor.run_checks(NOWHERE)
    assert [result.status for result in found if "forwarding: could not be looked at" in result.text] == [
        "FAIL"
    ]
    assert any("queue 5190" in result.text or "nfnetlink_queue" in result.text for result in found)


def test_every_match_and_target_that_the_rules_use_is_tried() -> None:
    text = script.path().read_text()
    used = set(re.findall(r"-m (?!nfreaim)[a-z]+|-j (?:NFQUEUE|CONNMARK|CT|MARK)\b", text))
    assert {"-m set", "-j NFQUEUE"} < used
    tried = " ".join(FEATURES.values())
    assert [words for words in sorted(used) if not re.search(rf"{words}\b", tried)] == []
