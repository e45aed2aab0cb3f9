"""Names of interfaces that end in "+": whom the rules, the check and nft take them for."""

from __future__ import annotations

import socket

import pytest

from nfreaim.config import Config, parse
from nfreaim.core.address import Endpoint
from nfreaim.errors import ConfigError
from nfreaim.host.check import networks
from nfreaim.host.netfilter.interfaces import existing, is_named, matches
from nfreaim.host.netfilter.nftables import _covers
from nfreaim.host.pinholes.foreign_forwards import forwarded
from tests.unit.fakes import OUTSIDE


@pytest.mark.parametrize(
    ("written", "name", "meant"),
    [
        ("ppp+", "ppp0", True),
        ("ppp+", "ppp", True),
        ("ppp+", "pp0", False),
        ("ppp0", "ppp0", True),
        ("ppp0", "ppp01", False),
        ("br-+", "br-lan", True),
    ],
)
def test_who_is_meant(written: str, name: str, meant: bool) -> None:
    assert matches(written, name) is meant
    assert is_named(name, ("eth0", written)) is meant


def test_those_that_exist_each_once() -> None:
    names = {name for _, name in socket.if_nameindex()}
    assert existing(["lo", "l+", "nosuch0", "nosuch+"]) == sorted(
        {name for name in names if name.startswith("l")}, key=lambda name: (name != "lo", name)
    )


def test_the_configuration_takes_them() -> None:
    config = parse('lan = ["br-+", "eth1"]\nwan = ["ppp+"]\nisolated_lans = ["br-+"]', "F")
    assert (config.lan, config.wan, config.isolated_lans) == (("br-+", "eth1"), ("ppp+",), ("br-+",))
    for bad in ("+", "pp+p", "ppp++", "a" * 15 + "+", "a" * 16):
        with pytest.raises(ConfigError, match="list of interface names"):
            parse(f'lan = ["{bad}"]', "F")


def test_check_says_that_none_is_there_yet() -> None:
    lines = [str(it) for it in networks.interfaces(["l+"], ["nosuch+"])]
    assert "warn no interface nosuch+ exists (yet) -> see ip link; is the name right?" in lines
    assert not any("l+" in line for line in lines), "it stands for those that exist"
    assert [str(it) for it in networks.isolation(Config(lan=("br-+",), isolated_lans=False))] == []


def test_nft_writes_a_star() -> None:
    def accept(name: str) -> list[dict[str, object]]:
        left = {"meta": {"key": "iifname"}}
        return [{"match": {"op": "==", "left": left, "right": name}}, {"accept": None}]

    assert _covers(accept("ppp*"), ["ppp+"], 1)
    assert not _covers(accept("ppp0"), ["ppp+"], 1)


def test_a_forward_for_the_lan_is_none_for_the_outside() -> None:
    rule = "-A PREROUTING -i br-lan -p tcp -m tcp --dport 5190 -j DNAT --to-destination 10.0.0.6"
    (found,) = forwarded(rule)
    assert not found.takes(Endpoint(OUTSIDE, 5190), ["br-+"])
    assert found.takes(Endpoint(OUTSIDE, 5190), ["eth+"])
