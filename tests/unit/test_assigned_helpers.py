"""The kernel's own helpers: what `nfreaim check` concludes from saved rules, and what rules assign."""

from __future__ import annotations

import pytest

from nfreaim.host.check.assigned_helpers import accepts_related, taken_by
from nfreaim.host.netfilter.names import HELPER_CHAIN
from nfreaim.host.netfilter.nftables import Ruleset
from nfreaim.host.rules import script
from nfreaim.host.rules.script import Settings
from nfreaim.kernel_helpers import KERNEL_HELPERS, Assignment, installed

SIP = Assignment("sip", "udp", (5060, 5070))
OURS = (
    '-A PREROUTING -i lan -p udp -m comment --comment "nfreaim helper=sip" -m multiport --dports 5060,5070 '
    f"-j {HELPER_CHAIN}"
)


def filter_table(policy: str, *rules: str) -> str:
    return "\n".join(
        [f"*nat\n:FORWARD DROP [0:0]\nCOMMIT\n*filter\n:FORWARD {policy} [0:0]", *rules, "COMMIT"]
    )


@pytest.mark.parametrize(
    ("saved", "accepted"),
    [
        (filter_table("ACCEPT"), True),
        (filter_table("DROP"), False),
        (filter_table("ACCEPT", "-A FORWARD -m conntrack --ctstate INVALID -j DROP"), True),
        (filter_table("ACCEPT", "-A FORWARD -i wan -j REJECT --reject-with icmp-port-unreachable"), False),
        (filter_table("DROP", "-A FORWARD -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT"), True),
        (filter_table("DROP", "-A FORWARD -m state --state RELATED -j ACCEPT"), True),
        (filter_table("DROP", "-A FORWARD -m conntrack --ctstate ESTABLISHED -j ACCEPT"), False),
        (filter_table("DROP", "-A FORWARD -m conntrack ! --ctstate RELATED -j ACCEPT"), False),
        (filter_table("DROP", "-A FORWARD -m conntrack --ctstate RELATED -j DROP"), False),
        (filter_table("DROP", "-A INPUT -m conntrack --ctstate RELATED -j ACCEPT"), False),
        (filter_table("DROP", "-A FORWARD -j own", "-A own -m state --state RELATED -j ACCEPT"), True),
        (filter_table("DROP", "-A own -m state --state RELATED -j ACCEPT"), False),
        (filter_table("DROP", "-A FORWARD -j a", "-A a -j b", "-A b -g a"), False),
        (filter_table("DROP", "-A FORWARD -m state --state RELATED -m helper --helper sip -j ACCEPT"), True),
        (
            filter_table("DROP", '-A FORWARD -m state --state RELATED -m helper --helper "ftp" -j ACCEPT'),
            False,
        ),
        (filter_table("DROP", "-A FORWARD -j ACCEPT"), True),
        ("", True),
    ],
)
def test_what_the_helpers_expect_comes_in_or_not(saved: str, accepted: bool) -> None:
    assert accepts_related(saved, "sip") is accepted


@pytest.mark.parametrize(
    ("rule", "takes"),
    [
        ("-A PREROUTING -j CT --notrack", True),
        ("-A PREROUTING -p udp -j NOTRACK", True),
        ("-A PREROUTING -i lan -p udp -m udp --dport 5060 -j CT --helper ftp", True),
        ("-A PREROUTING -i lan -p udp -m udp --dport 5060 -j CT --helper sip", False),
        ("-A PREROUTING -i lan -p udp -m udp --dport 5000:5065 -j CT --zone 1", True),
        ("-A PREROUTING -i lan -p udp -m multiport --dports 53,5070 -j CT --notrack", True),
        ("-A PREROUTING -i lan -p udp -m multiport --dports 53,5000:5059 -j CT --notrack", False),
        ("-A PREROUTING -i lan -p tcp -m tcp --dport 5060 -j CT --notrack", False),
        ("-A PREROUTING -i lan ! -p udp -j CT --notrack", False),
        ("-A PREROUTING -i wan -p udp -j CT --notrack", False),
        ("-A PREROUTING ! -i wan -p udp -j CT --notrack", True),
        ("-A PREROUTING -p udp -m udp ! --dport 53 -j CT --notrack", True),
        ("-A OUTPUT -j CT --notrack", False),
        ("-A somebody -p udp -j CT --helper snmp", True),
        ("-A NFREAIM_OWN -j CT --notrack", False),
        ("-A PREROUTING -p udp -j ACCEPT", False),
    ],
)
def test_a_rule_that_decides_first_is_found(rule: str, takes: bool) -> None:
    before = f"*raw\n{rule}\n{OURS}\nCOMMIT\n"
    assert list(taken_by(before, SIP, ["lan"])) == ([rule] if takes else [])
    behind = f"*raw\n{OURS}\n{rule}\nCOMMIT\n"
    assert list(taken_by(behind, SIP, ["lan"])) == ([rule] if takes and "PREROUTING" not in rule else [])
    assert list(taken_by(f"*mangle\n{rule}\nCOMMIT\n", SIP, ["lan"])) == []


def test_the_rules_say_what_they_assign() -> None:
    of_one = OURS.replace("-A PREROUTING", "-A PREROUTING -d 203.0.113.9/32")
    shown = f"iptables-legacy raw     [7:90] {OURS}\niptables-legacy raw     [0:0] {of_one}\n"
    assert installed(shown, HELPER_CHAIN) == (SIP, SIP._replace(server="203.0.113.9"))
    assert [str(one) for one in installed(shown, HELPER_CHAIN)] == [
        *("sip:udp:5060,5070", "sip:udp:5060,5070@203.0.113.9")
    ]
    wanted = Settings((), (), {}, 7, 1, (SIP, Assignment("ftp", "tcp", (21,))))
    assert script.helpers_differ(shown, wanted) == (
        "lack ftp (tcp 21), have sip (udp 5060, 5070 of 203.0.113.9) as well"
    )
    assert script.helpers_differ("", Settings((), (), {}, 7)) == ""


def test_sip_is_assigned_over_udp_alone() -> None:
    """Over TCP it grows full segments that the router cannot forward: connections stand still."""
    assert KERNEL_HELPERS["sip"].transport == "udp"
    assert not [name for name, about in KERNEL_HELPERS.items() if about.transport not in ("tcp", "udp")]


def forward(*rules: list[object], others: dict[str, list[list[object]]] | None = None) -> Ruleset:
    place = {"family": "inet", "table": "t"}
    base = {**place, "name": "forward", "type": "filter", "hook": "forward", "prio": 0, "policy": "drop"}
    objects: list[object] = [{"chain": base}]
    objects += [{"rule": {**place, "chain": "forward", "expr": rule}} for rule in rules]
    for name, content in (others or {}).items():
        objects += [{"rule": {**place, "chain": name, "expr": rule}} for rule in content]
    return Ruleset({"nftables": objects})


def state(*names: str, op: str = "in") -> dict[str, object]:
    return {"match": {"op": op, "left": {"ct": {"key": "state"}}, "right": list(names)}}


ACCEPT: dict[str, object] = {"accept": None}
BY_STATE = {
    "key": {"ct": {"key": "state"}},
    "data": {"set": [["invalid", {"drop": None}], ["related", ACCEPT]]},
}
JUMP: dict[str, object] = {"jump": {"target": "deep"}}


@pytest.mark.parametrize(
    ("rules", "accepted"),
    [
        (forward([state("established", "related"), ACCEPT]), True),
        (forward([state("established"), ACCEPT]), False),
        (forward([state("related", op="!="), ACCEPT]), False),
        (forward([state("related"), {"drop": None}]), False),
        (forward([{"vmap": BY_STATE}]), True),
        (forward([ACCEPT]), True),
        (
            forward([{"match": {"op": "==", "left": {"meta": {"key": "iifname"}}, "right": "lan"}}, ACCEPT]),
            False,
        ),
        (forward([JUMP], others={"deep": [[state("related"), ACCEPT]]}), True),
        (forward([JUMP], others={"deep": [[JUMP]]}), False),
        (forward(), False),
    ],
)
def test_a_native_ruleset_accepts_related_connections_or_not(rules: Ruleset, accepted: bool) -> None:
    assert list(rules.unrelated()) == ([] if accepted else [("inet", "t", "forward")])


def test_a_native_chain_that_takes_packets_out_of_tracking_is_named() -> None:
    assert list(forward([{"notrack": None}], [{"notrack": None}]).untracking()) == [("inet", "t", "forward")]
    assert list(forward([ACCEPT]).untracking()) == []
