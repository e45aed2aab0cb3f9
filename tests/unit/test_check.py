"""`nfreaim check`: what it concludes from addresses, rulesets and saved rules. No root."""

import re
from typing import Any

import pytest

from nfreaim.host.check import doctor, kernel_features
from nfreaim.host.check.answer import Check, Checks
from nfreaim.host.check.kernel_features import FEATURES
from nfreaim.host.check.networks import unreachable
from nfreaim.host.check.packet_filter import behind_jump
from nfreaim.host.netfilter.names import PINHOLE_MARK
from nfreaim.host.netfilter.nftables import Obstacle, Ruleset
from nfreaim.host.rules import script
from nfreaim.host.rules.script import Settings

NOWHERE = Settings(("nosuchlan0",), ("nosuchwan0",), {"oscar": (5190,)}, 5190)

Rule = list[dict[str, Any]]

# Statements as nft 1.0.6 prints them with -j.
MARK: dict[str, Any] = {
    "match": {"op": "==", "left": {"&": [{"ct": {"key": "mark"}}, PINHOLE_MARK]}, "right": PINHOLE_MARK}
}
OTHER_MARK: dict[str, Any] = {
    "match": {"op": "==", "left": {"&": [{"ct": {"key": "mark"}}, 0x300000]}, "right": PINHOLE_MARK}
}
DNAT: dict[str, Any] = {"match": {"op": "in", "left": {"ct": {"key": "status"}}, "right": "dnat"}}
SSH: dict[str, Any] = {
    "match": {"op": "==", "left": {"payload": {"protocol": "tcp", "field": "dport"}}, "right": 22}
}
ACCEPT: dict[str, Any] = {"accept": None}
DROP: dict[str, Any] = {"drop": None}


def state(*names: str) -> dict[str, Any]:
    return {"match": {"op": "in", "left": {"ct": {"key": "state"}}, "right": list(names)}}


def by(*names: str) -> dict[str, Any]:
    return {"match": {"op": "==", "left": {"meta": {"key": "iifname"}}, "right": {"set": list(names)}}}


def ruleset(
    *rules: Rule, policy: str = "drop", family: str = "inet", others: dict[str, list[Rule]] | None = None
) -> Ruleset:
    """One table with a base chain `forward` and plain chains `others`."""
    place = {"family": family, "table": "t"}
    base = {**place, "name": "forward", "type": "filter", "hook": "forward", "prio": 0, "policy": policy}
    objects: list[dict[str, Any]] = [{"metainfo": {}}, {"chain": base}]
    objects += [{"rule": {**place, "chain": "forward", "expr": rule}} for rule in rules]
    for name, content in (others or {}).items():
        objects.append({"chain": {**place, "name": name}})
        objects += [{"rule": {**place, "chain": name, "expr": rule}} for rule in content]
    return Ruleset({"nftables": objects})


def obstacles(rules: Ruleset, wan: tuple[str, ...] = ("eth0",)) -> list[Obstacle]:
    return list(rules.obstacles(wan))


@pytest.mark.parametrize(
    ("address", "kind"),
    [
        ("10.1.2.3", "private"),
        ("172.31.255.255", "private"),
        ("172.32.0.0", None),
        ("192.168.0.1", "private"),
        ("100.64.0.1", "carrier-grade NAT"),
        ("100.128.0.1", None),
        ("169.254.9.9", "link-local"),
        ("203.0.113.1", None),
        ("8.8.8.8", None),
    ],
)
def test_double_nat_is_seen_in_the_outside_address(address: str, kind: str | None) -> None:
    assert unreachable(address) == kind


def test_policy_drop_without_our_accept_is_certain() -> None:
    found = obstacles(ruleset([state("established", "related"), ACCEPT], [SSH, ACCEPT]))
    assert found == [Obstacle("inet", "t", "forward", certain=True)]
    line = "nft insert rule inet t forward ct mark and 0x200000 == 0x200000 ct status dnat accept"
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
    status = doctor.main(NOWHERE)
    lines = capsys.readouterr().out.splitlines()
    assert status == 1
    assert any(line.startswith("FAIL interface nosuchlan0 does not exist -> ") for line in lines)
    for line in lines:
        assert re.fullmatch(r"ok   [^>]*|(FAIL|warn) .+ -> .+", line), line


def test_exit_status_counts_failures_and_no_warnings(monkeypatch: pytest.MonkeyPatch) -> None:
    only = [Check("ok", "good"), Check("warn", "so so", "improve")]
    monkeypatch.setattr(doctor, "run_checks", lambda *_: only)
    assert doctor.main(NOWHERE) == 0
    monkeypatch.setattr(doctor, "run_checks", lambda *_: [*only, Check("FAIL", "bad", "repair")])
    assert doctor.main(NOWHERE) == 1


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
    used = set(re.findall(r"-m [a-z]+|-j (?:NFQUEUE|CONNMARK|CT|MARK)\b", text))
    assert {"-m set", "-j NFQUEUE"} < used
    tried = " ".join(FEATURES.values())
    assert [words for words in sorted(used) if not re.search(rf"{words}\b", tried)] == []
