"""Other people's forwards, read from the output of iptables-legacy-save and nft."""

from __future__ import annotations

import pytest

pytest.importorskip("iptc")

from nfreaim.host.pinholes import foreign_forwards
from nfreaim.host.pinholes.foreign_forwards import forwarded
from nfreaim.host.pinholes.ipset_firewall import IpsetFirewall


@pytest.mark.parametrize(
    ("rule", "ports"),
    [
        ("-A PREROUTING -i wan -p tcp -m tcp --dport 80 -j DNAT --to-destination 10.0.0.9", [range(80, 81)]),
        ("-A PREROUTING -p tcp -m tcp --dport 6000:6010 -j DNAT --to 10.0.0.9", [range(6000, 6011)]),
        (
            "-A PREROUTING -p tcp -m multiport --dports 80,443,8000:8100 -j REDIRECT --to-ports 1",
            [range(80, 81), range(443, 444), range(8000, 8101)],
        ),
        ('iifname "wan" tcp dport 80 dnat to 10.0.0.9:8080', [range(80, 81)]),
        ("tcp dport 80-90 counter packets 0 bytes 0 dnat ip to 10.0.0.9", [range(80, 91)]),
        (
            "tcp dport { 80, 443, 8000-8100 } redirect to :3128",
            [range(80, 81), range(443, 444), range(8000, 8101)],
        ),
        ("-A PREROUTING -i wan -j DNAT --to-destination 10.0.0.9", []),  # no port: nothing can be avoided
        ("-A FORWARD -p tcp -m tcp --dport 80 -j ACCEPT", []),
        ("-A OUTPUT -p tcp -m tcp --sport 80 -j DNAT --to-destination 10.0.0.9", []),
        (
            '-A NFREAIM -p tcp -m tcp --dport 5190 -m comment --comment "nfreaim out=x" -j DNAT --to 10.0.0',
            [],
        ),
    ],
)
def test_ports_of_translating_rules_and_no_others(rule: str, ports: list[range]) -> None:
    assert forwarded(f"*nat\n{rule}\nCOMMIT\n") == ports


def test_program_that_is_missing_fails_or_hangs_counts_as_no_forward(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(foreign_forwards, "_PROGRAMS", (("no-such-program",), ("false",), ("sleep", "60")))
    monkeypatch.setattr(foreign_forwards, "_TIMEOUT_S", 0.1)
    assert foreign_forwards.foreign_forwards() == []


def test_refresh_forgets_what_is_gone(monkeypatch: pytest.MonkeyPatch) -> None:
    firewall = object.__new__(IpsetFirewall)
    rule = "-A PREROUTING -p tcp -m tcp --dport 80:82 -j DNAT --to-destination 10.0.0.9"
    monkeypatch.setattr(foreign_forwards, "_PROGRAMS", (("echo", rule),))
    firewall.refresh_foreign_forwards()
    assert [port for port in range(79, 84) if firewall.forwarded_by_others(port)] == [80, 81, 82]
    monkeypatch.setattr(foreign_forwards, "_PROGRAMS", (("true",),))
    firewall.refresh_foreign_forwards()
    assert not firewall.forwarded_by_others(80)
