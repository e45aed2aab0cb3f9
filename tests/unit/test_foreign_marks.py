"""What rules of others do with marks, from rulesets as programs and how-tos have them."""

from __future__ import annotations

import json
from typing import Any

import pytest

from nfreaim.host.check.marks_of_others import told
from nfreaim.host.netfilter.foreign_marks import ForeignMarks
from nfreaim.host.pinholes.mark_watch import NATIVE, ROUTES, SAVES, foreign_marks
from nfreaim.marks import DEFAULT, Marks

RESTORE, SAVE = (
    f"-j CONNMARK --{what}-mark --nfmask 0xffffffff --ctmask 0xffffffff" for what in ("restore", "save")
)
WHOLE_MARK = '[{"priority":200,"src":"all","fwmark":"0x1","table":"101"}]'
MASKED = '[{"priority":200,"src":"all","fwmark":"0x10000","fwmask":"0xff0000","table":"101"}]'

MWAN3 = """\
*mangle
:PREROUTING ACCEPT [0:0]
:mwan3_hook - [0:0]
:mwan3_ifaces_in - [0:0]
:mwan3_iface_in_wan - [0:0]
-A PREROUTING -j mwan3_hook
-A OUTPUT -j mwan3_hook
-A mwan3_hook -m mark --mark 0x0/0x3f00 -j CONNMARK --restore-mark --nfmask 0x3f00 --ctmask 0x3f00
-A mwan3_hook -m mark --mark 0x0/0x3f00 -j mwan3_ifaces_in
-A mwan3_hook -j CONNMARK --save-mark --nfmask 0x3f00 --ctmask 0x3f00
-A mwan3_ifaces_in -m mark --mark 0x0/0x3f00 -j mwan3_iface_in_wan
-A mwan3_iface_in_wan -i wan -m mark --mark 0x0/0x3f00 -j MARK --set-xmark 0x100/0x3f00
COMMIT
"""
KUBERNETES = """\
*nat
:KUBE-MARK-MASQ - [0:0]
:KUBE-POSTROUTING - [0:0]
-A KUBE-MARK-MASQ -j MARK --set-xmark 0x4000/0x4000
-A KUBE-POSTROUTING -m mark ! --mark 0x4000/0x4000 -j RETURN
-A KUBE-POSTROUTING -j MARK --set-xmark 0x4000/0x0
-A KUBE-POSTROUTING -j MASQUERADE --random-fully
COMMIT
"""
UNGUARDED = f"""\
*mangle
-A PREROUTING {RESTORE}
-A PREROUTING -i wan -j MARK --set-xmark 0x1/0xffffffff
-A PREROUTING {SAVE}
COMMIT
"""


def found(saved: str = "", routes: str = "", native: Any = None, ours: Marks = DEFAULT) -> ForeignMarks:
    answers = {SAVES[0]: saved, ROUTES: routes, NATIVE: json.dumps(native) if native else ""}
    return foreign_marks(ours, answers)


def mangle(*rules: str) -> str:
    return "\n".join(["*mangle", *(f"-A {rule}" for rule in rules), "COMMIT\n"])


@pytest.mark.parametrize(
    "saved",
    [
        MWAN3,
        KUBERNETES,
        mangle("PREROUTING -i wan2 -m conntrack --ctstate NEW -j CONNMARK --set-xmark 0x2/0xffffffff"),
        mangle("PREROUTING -i wan2 -m state --state NEW -j MARKS", f"MARKS {SAVE}").replace(
            "*mangle", "*mangle\n:MARKS - [0:0]"
        ),
        mangle(f"PREROUTING -p udp {SAVE}", f"POSTROUTING -o lo {SAVE}"),
        mangle("FORWARD -m connmark --mark 0x0 -j CONNMARK --set-xmark 0x2/0xffffffff"),
        mangle("POSTROUTING -j CONNMARK --save-mark --nfmask 0xff --ctmask 0xff"),
        mangle(f"PREROUTING {RESTORE}", f"PREROUTING {SAVE}"),
        mangle(f"OUTPUT {SAVE}"),
        mangle("POSTROUTING -j NFREAIM_VERIFIED", "NFREAIM_VERIFIED -j CONNMARK --set-xmark 0x0/0x4000000"),
    ],
)
def test_beside_these_pinholes_work(saved: str) -> None:
    assert found(saved, MASKED).harms == []


@pytest.mark.parametrize(
    ("saved", "rule"),
    [
        (mangle(f"POSTROUTING {SAVE}"), "POSTROUTING"),
        (mangle(f"FORWARD -i wan {SAVE}"), "FORWARD"),
        (mangle(f"PREROUTING {SAVE}"), "PREROUTING"),
        (mangle("PREROUTING -i wan -j CONNMARK --set-xmark 0x1/0xffffffff"), "--set-xmark"),
        (mangle("POSTROUTING -j CONNMARK --set-xmark 0x1000000/0xff000000"), "0xff000000"),
        (mangle("POSTROUTING -m conntrack --ctstate NEW -j CONNMARK --set-xmark 0x1/0xffffffff"), "NEW"),
        (UNGUARDED, "--save-mark"),
    ],
)
def test_beside_these_none_does(saved: str, rule: str) -> None:
    (harm,) = found(saved).harms
    assert rule in harm.use.text
    assert "writes over our connmark bits" in str(harm)
    assert "mask" in harm.remedy


@pytest.mark.parametrize(("routes", "harms"), [(WHOLE_MARK, 1), (MASKED, 0), ("", 0)])
def test_a_packet_that_is_accepted_with_our_bits_matters_where_routes_look_at_them(
    routes: str, harms: int
) -> None:
    saved = mangle(f"PREROUTING {RESTORE}", "PREROUTING -m mark ! --mark 0x0 -j ACCEPT")
    seen = found(saved, routes).harms
    assert len(seen) == harms
    assert all("an ip rule without a mask looks at" in str(harm) for harm in seen)


def nft(*expressions: list[dict[str, Any]], hook: str = "prerouting", priority: int = -150) -> dict[str, Any]:
    chain = {"family": "inet", "table": "t", "name": "c", "hook": hook, "prio": priority}
    rules = [{"rule": {"family": "inet", "table": "t", "chain": "c", "expr": one}} for one in expressions]
    return {"nftables": [{"chain": chain}, *rules]}


META, CT = {"meta": {"key": "mark"}}, {"ct": {"key": "mark"}}
NEW = {"match": {"op": "in", "left": {"ct": {"key": "state"}}, "right": "new"}}


def put(key: object, value: object) -> dict[str, Any]:
    return {"mangle": {"key": key, "value": value}}


@pytest.mark.parametrize(
    ("rule", "hook", "harms"),
    [
        ([put(CT, META)], "postrouting", 1),
        ([put(CT, {"&": [META, 0xFF0000]})], "postrouting", 1),
        ([put(CT, {"|": [{"&": [CT, 0xFF00FFFF]}, 0x10000]})], "postrouting", 0),
        ([put(CT, {"^": [{"&": [CT, 0xF0FFFFFF]}, 0x1000000]})], "forward", 1),
        ([NEW, put(CT, 5)], "prerouting", 0),
        ([NEW, put(CT, 5)], "postrouting", 1),
        ([put(META, {"|": [{"&": [META, 0xFF00FFFF]}, 0x10000]})], "prerouting", 0),
    ],
)
def test_native_rules_are_read_bit_by_bit(rule: list[dict[str, Any]], hook: str, harms: int) -> None:
    assert len(found(native=nft(rule, hook=hook), routes=WHOLE_MARK).harms) == harms


def test_rules_of_our_own_table_are_not_others() -> None:
    document = nft([put(CT, META)], hook="postrouting")
    for item in document["nftables"]:
        (one,) = item.values()
        one |= {"family": "ip"} | ({"name": "nfreaim"} if "hook" in one else {"table": "nfreaim"})
    seen = found(native=document, routes=WHOLE_MARK)
    assert seen.harms == []
    assert {use.where for use in seen.uses} == {"ip rule"}


@pytest.mark.parametrize(("priority", "harms"), [(-150, 0), (-140, 1)])
def test_native_restore_behind_our_own_rule_is_not_undone(priority: int, harms: int) -> None:
    native = nft([put(META, CT)], priority=priority)
    assert len(found(native=native, routes=WHOLE_MARK).harms) == harms
    assert found(native=native, routes=MASKED).harms == []


def test_whoever_uses_our_bits_is_named_with_bits_that_are_free() -> None:
    saved = mangle("FORWARD -m mark --mark 0x10000000/0xf0000000 -j ACCEPT") + KUBERNETES
    native = nft([{"match": {"op": "==", "left": {"&": [CT, 0x4000000]}, "right": 0x4000000}}])
    seen = found(saved, MASKED, native)
    lines = [str(check) for check in told(seen, "nfreaim rules install")]
    assert [line.partition(":")[0] for line in lines] == ["FAIL mark_mask", "FAIL connmark_mask"]
    masks = seen.free()
    assert masks is not None
    assert all(
        f"mark_mask = {masks[0]:#x} and connmark_mask = {masks[1]:#x}, which are free" in line
        for line in lines
    )
    agreed = found(saved, MASKED, native, ours=Marks.of(*masks))
    assert [check.status for check in told(agreed, "")] == ["ok"]


def test_an_operators_rules_that_accept_pinholes_are_no_use_of_our_bits_by_others() -> None:
    saved = mangle("FORWARD -m connmark --mark 0x2000000/0x2000000 -m conntrack --ctstate DNAT -j ACCEPT")
    native = nft(
        [{"match": {"op": "==", "left": {"&": [CT, 0x2000000]}, "right": 0x2000000}}, {"accept": None}]
    )
    assert list(found(saved, native=native).collisions()) == []


def test_where_no_bits_are_free_it_says_so() -> None:
    seen = found(mangle("FORWARD -j MARK --set-xmark 0x0/0xfffffff0"))
    (line,) = [str(check) for check in told(seen, "")]
    assert "no five bits are free" in line


def test_marks_without_a_mask_mean_the_bits_of_their_value() -> None:
    routes = '[{"fwmark":"0xca6c","not":null,"table":"51820"}]'
    seen = found(mangle("OUTPUT -j MARK --set-xmark 0x7fffff37/0xffffffff"), routes)
    assert [use.packet for use in seen.uses] == [0xCA6C, 0x7FFFFF37]
    assert {key for _, key in seen.collisions()} == {"mark_mask"}


@pytest.mark.parametrize("answer", ["", "no JSON", "[1]", "{}", '{"nftables": 3}'])
def test_what_is_no_answer_tells_nothing(answer: str) -> None:
    seen = foreign_marks(DEFAULT, {ROUTES: answer, NATIVE: answer, SAVES[0]: answer})
    assert (seen.uses, seen.harms) == ([], [])
