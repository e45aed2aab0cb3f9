"""What `nfreaim check` says of the addresses and ports that peers are told."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from nfreaim.core.firewall.policy import Forward, PinholePolicy
from nfreaim.host.check import reachable

PUBLIC, PRIVATE = "198.51.100.7", "192.168.178.2"


@pytest.fixture(autouse=True)
def machine(monkeypatch: pytest.MonkeyPatch) -> None:
    """It has one outside interface with a private address, and translates to another one, too."""
    monkeypatch.setattr(reachable, "existing", lambda names: [name for name in names if name == "wan"])
    monkeypatch.setattr(reachable, "_addresses", lambda *_: [PRIVATE])
    monkeypatch.setattr(reachable, "_translated_to", lambda: iter([PUBLIC, PRIVATE]))


def said(ask: object = None, **policy: object) -> list[str]:
    answers = ask if callable(ask) else (lambda _: [PUBLIC])
    return [str(one) for one in reachable.outside(["wan", "absent"], PinholePolicy(**policy), answers)]  # type: ignore[arg-type]


def test_without_outside_address_what_peers_cannot_reach_has_its_remedy() -> None:
    first, second = said()
    assert first.startswith(f"warn outside address {PRIVATE} on wan is private: peers cannot reach it")
    assert "-> have the router in front forward every port here, and set outside_address" in first
    assert second == f"ok   outside address {PUBLIC}, which connections leave with and no interface has"


def test_with_outside_address_it_is_what_peers_are_told() -> None:
    assert (
        said(announce=PUBLIC)[0]
        == f"ok   outside address {PRIVATE} on wan: peers are told outside_address {PUBLIC}"
    )
    assert said(announce="10.0.0.1")[0].startswith("warn outside_address 10.0.0.1 is private")


def test_a_name_is_resolved() -> None:
    def gone(_: str) -> Sequence[str]:
        raise OSError("Name or service not known")

    assert said(announce="home.example")[0] == f"ok   outside_address home.example stands for {PUBLIC}"
    assert said(gone, announce="home.example")[0].startswith(
        "warn outside_address home.example cannot be resolved: Name or service not known"
    )
    assert "10.0.0.1 (private)" in said(lambda _: ["10.0.0.1"], announce="home.example")[0]


def test_forwards_that_no_port_of_a_strict_list_leads_to() -> None:
    forward = Forward("10.0.0.5", range(4999, 5001))
    lines = said(ports=range(4096, 5000), strict=True, forwards=(forward,))
    assert lines[-2] == "ok   no outside port is used but 904 (ports and strict in [pinholes])"
    assert lines[-1].startswith(
        "warn forward 4999-5000 -> 10.0.0.5: port 5000 is none of ports in [pinholes]"
    )
    assert len(said(ports=range(4096, 5000), forwards=(forward,))) == 2


@pytest.mark.parametrize(
    ("rule", "address"),
    [
        ("-A POSTROUTING -s 10.0.0.5/32 -o wan -j SNAT --to-source 198.51.100.66", ["198.51.100.66"]),
        ("-A POSTROUTING -o wan -j SNAT --to-source 198.51.100.64-198.51.100.79", ["198.51.100.64"]),
        ('oifname "wan" snat to 198.51.100.66', ["198.51.100.66"]),
        ('oifname "wan" snat ip to 198.51.100.66', ["198.51.100.66"]),
        ("-A POSTROUTING -o wan -j MASQUERADE", []),
        ("-A PREROUTING -j DNAT --to-destination 10.0.0.5", []),
    ],
)
def test_the_addresses_of_source_nat_rules_are_read(rule: str, address: list[str]) -> None:
    assert reachable.translated([rule]) == address
