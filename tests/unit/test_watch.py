"""What the watch learns from nfreaim-rules, and when it holds back."""

from __future__ import annotations

import pytest

from nfreaim.host.rules import script
from nfreaim.host.rules.script import Settings

SHOWN = """\
iptables-legacy raw     [0:0] -A PREROUTING -i br0 -p tcp -m multiport --dports 5190,443 -j NFREAIM
iptables-legacy raw     [0:0] -A PREROUTING -i br0 -p tcp -m set --match-set nfreaim_srv dst,dst,src -j NFREAIM
iptables-legacy raw     [0:0] -A PREROUTING -i br0 -p tcp -m multiport --sports 5190,443 -j NFREAIM_SERVER
iptables-legacy raw     [0:0] -A PREROUTING -i br1 -p tcp -m multiport --dports 5190,443 -j NFREAIM
iptables-legacy raw     [0:0] -A PREROUTING -i br1 -p tcp -m set --match-set nfreaim_srv dst,dst,src -j NFREAIM
iptables-legacy raw     [0:0] -A PREROUTING -i br1 -p tcp -m multiport --sports 5190,443 -j NFREAIM_SERVER
iptables-legacy raw     [0:0] -A OUTPUT -p tcp -m mark --mark 0x80000/0x80000 -j NFREAIM_OWN
iptables-legacy raw     [0:0] -A OUTPUT -o ppp0 -p tcp -m multiport --sports 5190,443 -j NFREAIM_SERVER
iptables-legacy raw     [0:0] -A NFREAIM -j NFQUEUE --queue-num 7 --queue-bypass
iptables-legacy mangle  [0:0] -A INPUT -i ppp0 -p tcp -m multiport --dports 5190,443 -j NFREAIM_SERVER
iptables-legacy mangle  [0:0] -A POSTROUTING -o br0 -p tcp -m multiport --sports 5190,443 -j NFREAIM
iptables-legacy mangle  [0:0] -A POSTROUTING -o br0 -p tcp -m multiport --dports 5190,443 -j NFREAIM_SERVER
iptables-legacy mangle  [0:0] -A POSTROUTING -o br1 -p tcp -m multiport --sports 5190,443 -j NFREAIM
iptables-legacy mangle  [0:0] -A POSTROUTING -o br1 -p tcp -m multiport --dports 5190,443 -j NFREAIM_SERVER
iptables-legacy nat     [0:0] -A PREROUTING -i ppp0 -p tcp -j NFREAIM
"""  # noqa: E501


def wanted(queue: int, workers: int = 1) -> Settings:
    """Of a daemon that serves one of the ports."""
    return Settings((), (), {"oscar": (5190,)}, queue, workers)


def test_the_settings_of_an_installation_are_read_from_its_rules() -> None:
    assert script.settings(SHOWN) == Settings(("br0", "br1"), ("ppp0",), {"oscar": (443, 5190)}, 7)


def test_the_queues_of_newcomers_and_of_the_gate_follow_from_that_of_sessions() -> None:
    newcomers = "iptables-legacy raw     [0:0] -A NFREAIM -j NFQUEUE --queue-num 39 --queue-bypass\n"
    gate = "iptables-legacy mangle  [0:0] -A NFREAIM_GATE -j NFQUEUE --queue-num 71 --queue-bypass\n"
    found = script.settings(SHOWN + newcomers + gate)
    assert found is not None
    assert (found.queue, found.workers) == (7, 1)
    assert script.difference(SHOWN + newcomers + gate, wanted(7)) == ""
    assert script.settings(SHOWN + newcomers + gate.replace("71", "70")) is None


def test_rules_for_several_workers_say_how_many() -> None:
    gate = "iptables-legacy mangle  [0:0] -A NFREAIM_GATE -j NFQUEUE --queue-num 71 --queue-bypass\n"
    newcomers = "iptables-legacy raw     [0:0] -A NFREAIM -j NFQUEUE --queue-balance 40:42 --queue-bypass\n"
    spread = SHOWN.replace("--queue-num 7", "--queue-balance 8:10") + newcomers + gate
    assert script.settings(spread) == Settings(("br0", "br1"), ("ppp0",), {"oscar": (443, 5190)}, 7, 3)
    assert script.difference(spread, wanted(7, 3)) == script.difference(SHOWN, wanted(7)) == ""
    assert "workers = 3, not 1" in script.difference(spread, wanted(7))
    assert "workers = 1, not 2" in script.difference(SHOWN, wanted(7, 2))
    assert "queue 7, not 6" in script.difference(spread, wanted(6, 3))
    mixed = spread + gate.replace("--queue-num 71", "--queue-balance 8:11")
    assert script.settings(mixed) is None


@pytest.mark.parametrize("number", [n for n in range(15) if n not in (1, 4, 6, 8)])
def test_rules_of_which_one_is_missing_do_not_pass_for_an_installation_with_fewer_interfaces(
    number: int,
) -> None:
    lines = SHOWN.splitlines(keepends=True)
    assert script.settings("".join(lines[:number] + lines[number + 1 :])) is None


def test_settings_named_in_any_order_are_those_found_in_the_rules_afterwards() -> None:
    """Else the watch would take damage for a new installation."""
    named = Settings(("br1", "br0", "br1"), ("ppp0",), {"oscar": (5190, 443)}, 7)
    assert named == script.settings(SHOWN)


def test_no_rules_name_no_settings() -> None:
    assert script.settings("") is None
