"""What the installed rules say of themselves, protocol by protocol."""

from __future__ import annotations

import pytest

from nfreaim.host.rules import script

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
    return "".join(lines)


def test_each_protocol_has_its_ports_and_what_has_no_name_belongs_to_the_default_one() -> None:
    assert script.served(shown(("one", "5190,443"), ("two", "6667"))) == {"one": (443, 5190), "two": (6667,)}
    assert script.served(shown(("", "5190"))) == {"": (5190,)}
    assert script.served("") is None


@pytest.mark.parametrize("number", range(20))
def test_rules_of_which_one_is_missing_say_nothing(number: int) -> None:
    lines = shown(("one", "5190"), ("", "6667")).splitlines(keepends=True)
    assert len(lines) == 20
    assert script.served("".join(lines[:number] + lines[number + 1 :])) is None


def test_rules_that_contradict_each_other_say_nothing() -> None:
    text = shown(("one", "5190"))
    assert script.served(text.replace("--dports 5190", "--dports 5191")) is None
    assert script.served(text + shown(("one", "443"))) is None


def test_what_the_rules_lack_is_said_by_protocol() -> None:
    wanted = {"one": (443, 5190), "two": (6667, 6697)}
    assert script.unserved({"one": (443, 5190), "two": (6667, 6697, 7000)}, wanted, "one") == {}
    assert script.unserved({"": (443, 5190), "two": (6697,)}, wanted, "one") == {"two": (6667,)}
    assert script.unserved({"": (443, 6667, 6697)}, wanted, "one") == {"one": (5190,), "two": (6667, 6697)}
