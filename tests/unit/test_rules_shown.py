"""What the installed rules say of themselves, protocol by protocol."""

from __future__ import annotations

import pytest

from nfreaim.host.rules import script
from nfreaim.host.rules.script import Settings
from nfreaim.old_spellings import DEFAULT_PROTOCOL

QUEUE = "iptables-legacy raw     [0:0] -A NFREAIM -j NFQUEUE --queue-num 7 --queue-bypass\n"
NAMED = '-m comment --comment "nfreaim {}" -m multiport'


def shown(*protocols: tuple[str, str], lan: tuple[str, ...] = ("br0", "br1")) -> str:
    """What the script shows of rules for these, each a name ("": none) and its ports."""
    lines = []
    for place, side, target, interfaces in (
        ("raw     [7:90] -A PREROUTING -i", "dports", "NFREAIM", lan),
        ("raw     [0:0] -A PREROUTING -i", "sports", "NFREAIM_SERVER", lan),
        ("raw     [0:0] -A OUTPUT -o", "sports", "NFREAIM_SERVER", ("ppp0",)),
        ("mangle  [0:0] -A INPUT -i", "dports", "NFREAIM_SERVER", ("ppp0",)),
        ("mangle  [0:0] -A POSTROUTING -o", "sports", "NFREAIM", lan),
        ("mangle  [0:0] -A POSTROUTING -o", "dports", "NFREAIM_SERVER", lan),
    ):
        for interface in interfaces:
            for name, ports in protocols:
                match = NAMED.format(name) if name else "-m multiport"
                lines.append(
                    f"iptables-legacy {place} {interface} -p tcp {match} --{side} {ports} -j {target}\n"
                )
    wan = "iptables-legacy nat     [0:0] -A PREROUTING -i ppp0 -p tcp -j NFREAIM\n"
    return "".join(lines) + wan + QUEUE


def ports(text: str) -> dict[str, tuple[int, ...]] | None:
    found = script.settings(text)
    return None if found is None else dict(found.ports)


def lacks(text: str, wanted: dict[str, tuple[int, ...]]) -> str:
    return script.difference(text, Settings((), (), wanted, 7)).partition(";")[0]


def test_each_protocol_has_its_ports_and_what_has_no_name_belongs_to_the_default_one() -> None:
    assert ports(shown(("one", "5190,443"), ("two", "6667"))) == {"one": (443, 5190), "two": (6667,)}
    assert ports(shown(("", "5190"))) == {DEFAULT_PROTOCOL: (5190,)}
    assert ports("") is None


@pytest.mark.parametrize("number", range(20))
def test_rules_of_which_one_is_missing_say_nothing(number: int) -> None:
    lines = shown(("one", "5190"), ("", "6667")).splitlines(keepends=True)
    assert len(lines) == 22
    assert ports("".join(lines[:number] + lines[number + 1 :])) is None


def test_rules_that_contradict_each_other_say_nothing() -> None:
    text = shown(("one", "5190"))
    assert ports(text.replace("--dports 5190", "--dports 5191")) is None
    assert ports(text + shown(("one", "443"))) is None


def test_what_the_rules_lack_is_said_by_protocol() -> None:
    wanted: dict[str, tuple[int, ...]] = {"one": (443, 5190), "two": (6667, 6697)}
    assert lacks(shown(("one", "443,5190"), ("two", "6667,6697,7000")), wanted) == ""
    found = lacks(shown(("one", "443,5190"), ("two", "6697")), wanted)
    assert found == "the installed rules are for ports 6697, not 6667 (two)"
    assert lacks(shown(("two", "443,6667,6697")), wanted) == "the installed rules are for two, not one"
    assert lacks(shown(("", "443")), {DEFAULT_PROTOCOL: (443,)}) == ""
    found = lacks(shown(("", "443")), {"two": (443,)})
    assert found == f"the installed rules are for {DEFAULT_PROTOCOL}, not two"


def test_users_whose_clients_on_the_router_are_served_are_read_back() -> None:
    def of(*users: int) -> str:
        rule = "iptables-legacy raw     [0:0] -A NFREAIM_LOCAL -p tcp {} -m owner --uid-owner {} -j SET"
        ports = NAMED.format("one") + " --dports 5190"
        lines = [rule.format(match, user) for user in users for match in (ports, "-m set")]
        return shown(("one", "5190")) + "".join(
            f"{line} --add-set nfreaim_local src,src,dst --exist\n" for line in lines
        )

    found = script.settings(of(1001, 0))
    assert found is not None
    assert found.locals == (0, 1001)
    assert found == Settings(("br0", "br1"), ("ppp0",), {"one": (5190,)}, 7, locals=(0, 1001))
    wanted = Settings((), (), {"one": (5190,)}, 7, locals=(1001, 1002))
    assert script.locals_differ(of(1001, 1002), wanted) == ""
    assert script.locals_differ(of(1001, 0), wanted) == "lack user 1002, have user 0 as well"
    assert script.difference(of(0), wanted) == "", "the daemon installs the rules again"
