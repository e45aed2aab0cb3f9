"""What `nfreaim check` says where another router hides the outside address, by what that router speaks."""

from __future__ import annotations

import pytest

from nfreaim.host.check import in_front
from nfreaim.host.upstream import igd
from nfreaim.host.upstream.gateway import NoMapping

BEHIND, FRONT = "192.168.178.2", "192.168.178.1"
PCP, UPNP = "PCP or NAT-PMP", "UPnP"


def said(upstream: str, *protocols: str, kind: str = "private") -> str:
    return str(
        in_front.hidden("outside address", BEHIND, kind, upstream, lambda own: (FRONT, list(protocols)))
    )


@pytest.mark.parametrize("protocols", [[PCP], [UPNP], [PCP, UPNP]])
def test_a_router_that_maps_ports_is_a_reason_to_propose_that(protocols: list[str]) -> None:
    line = said("off", *protocols)
    assert line.startswith(
        "warn outside address is private: peers cannot reach it, so nothing is announced; "
    )
    assert f"the router in front, {FRONT}, speaks {' and '.join(protocols)} -> set upstream = " in line


@pytest.mark.parametrize("kind", ["private", "carrier-grade NAT"])
def test_one_that_does_not_leaves_the_usual_remedies(kind: str) -> None:
    line = said("off", kind=kind)
    assert f"{FRONT}, speaks neither UPnP nor PCP -> " in line
    assert ("have the router in front" in line) is (kind == "private")


@pytest.mark.parametrize(("upstream", "protocol"), [("pcp", UPNP), ("upnp", PCP), ("auto", "")])
def test_a_setting_that_the_router_does_not_answer_is_warned_of(upstream: str, protocol: str) -> None:
    line = said(upstream, *filter(None, [protocol]))
    assert line.startswith("warn ")
    assert "-> switch that on in the router in front; or " in line


@pytest.mark.parametrize(
    ("upstream", "protocol"), [("pcp", PCP), ("auto", PCP), ("upnp", UPNP), ("auto", UPNP)]
)
def test_a_setting_that_it_answers_is_well(
    upstream: str, protocol: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(igd, "library", lambda: None)
    assert said(upstream, protocol).startswith(
        "ok   outside address is private: peers cannot reach it but by"
    )


@pytest.mark.parametrize("upstream", ["upnp", "auto"])
def test_upnp_without_its_library_is_warned_of(upstream: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def absent() -> None:
        raise NoMapping("UPnP needs miniupnpc")

    monkeypatch.setattr(igd, "library", absent)
    assert said(upstream, UPNP).startswith("warn ")
    assert said(upstream, UPNP).endswith("-> UPnP needs miniupnpc")
    if upstream == "auto":
        assert said(upstream, PCP, UPNP).startswith("ok ")


def test_where_no_router_is_in_front_that_is_said() -> None:
    def ask(own: str) -> tuple[str, list[str]]:
        raise NoMapping("no route leads to the Internet")

    line = str(in_front.hidden("outside address", BEHIND, "private", "auto", ask))
    assert line.startswith("warn ")
    assert "no route leads to the Internet -> have the router in front" in line
