"""`nfreaim check` about other programs' forwards, and about forwards of ours that lead nowhere. No root."""

from __future__ import annotations

import pytest

from nfreaim.core.firewall.policy import Forward, PinholePolicy
from nfreaim.host.check import taken_ports
from nfreaim.host.check.taken_ports import hosts, taken
from nfreaim.host.pinholes.foreign_forwards import forwarded

FORWARD = Forward("10.0.0.5", range(20000, 20010))


@pytest.mark.parametrize(
    ("rule", "said"),
    [
        ("--dport 7777", []),
        (
            "--dport 1024:65535",
            [
                "FAIL other rules forward every port that pinholes may choose (40000-40999)",
                "FAIL another rule forwards ports 1024-65535: pinholes cannot be there",
            ],
        ),
        (
            "--dport 40000:40999",
            ["FAIL other rules forward every port that pinholes may choose (40000-40999)"],
        ),
        (
            "--dport 40990:41000",
            ["warn other rules forward 10 of the 1000 ports that pinholes may choose, from 40990 on"],
        ),
        ("", ["warn another rule forwards all ports, as far as can be read: then pinholes get nothing"]),
    ],
)
def test_what_a_forward_of_another_program_takes_from_pinholes(rule: str, said: list[str]) -> None:
    found = forwarded(f"-A PREROUTING -i wan -p tcp {rule} -j DNAT --to-destination 10.0.0.9")
    checks = [str(one) for one in taken(PinholePolicy(), found, "F")]
    assert [one.partition(" -> ")[0] for one in checks] == said
    assert all(" -> " in one for one in checks), "each has its remedy"


def test_a_forward_of_ours_that_another_rule_has_first_fails() -> None:
    found = forwarded("-A PREROUTING -i wan -p tcp -m tcp --dport 20003 -j DNAT --to-destination 10.0.0.9")
    (check,) = taken(PinholePolicy(forwards=(FORWARD,)), found, "F")
    assert check.status == "FAIL"
    assert "20000-20009 -> 10.0.0.5: another rule forwards port 20003, and comes first" in check.text


def test_a_forward_to_a_host_that_is_not_inside_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(taken_ports, "existing", list)
    monkeypatch.setattr(taken_ports, "networks_of", lambda name: {"10.0.0.0/24"})
    outside = Forward("8.8.8.8", range(20000, 20001))
    (check,) = hosts((FORWARD, outside), ("lan",), "F")
    assert check.status == "warn"
    assert "8.8.8.8 is in none of the inside networks (10.0.0.0/24)" in check.text
