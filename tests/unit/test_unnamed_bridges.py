"""Which bridges of containers `nfreaim check` names, and with which remedy."""

from __future__ import annotations

from ipaddress import IPv4Network
from typing import Any

import pytest

from nfreaim.config import Config
from nfreaim.core.address import Endpoint
from nfreaim.host.check.unnamed_bridges import Bridge, about, unnamed
from nfreaim.host.check.unread_protocols import Hosts

CONFIG = Config(lan=("lan",), wan=("wan",), file="F")
DOCKER = Bridge("docker0", (IPv4Network("172.17.0.0/16"),))
BY_NAME = (
    "nfreaim rules install --lan docker0 --lan lan --wan wan --protocol oscar:5190 --queue 5190,"
    " and `lan` in F, if set, the same"
)


def interface(name: str, kind: str, address: str = "172.17.0.1", **more: Any) -> dict[str, Any]:
    info = {"local": address, "prefixlen": 16, "scope": "global"}
    return {"ifname": name, "linkinfo": {"info_kind": kind}, "addr_info": [info], **more}


def lines(
    bridge: Bridge = DOCKER,
    hosts: Hosts | None = None,
    servers: tuple[tuple[int, Endpoint], ...] = (),
    neighbours: bool = True,
    config: Config = CONFIG,
) -> list[str]:
    return [str(one) for one in about(bridge, config, hosts or {}, servers, neighbours)]


def test_interfaces_with_guests_are_found() -> None:
    found = unnamed(
        [
            interface("lan", "bridge"),
            interface("docker0", "bridge"),
            interface("ve-web", "veth"),
            interface("veth1", "veth", master="docker0"),
            interface("wg0", "wireguard"),
            interface("brpub", "bridge", "203.0.113.1"),
            interface("brpublic", "bridge") | {"addr_info": []},
            {"ifname": "eth0", "addr_info": interface("", "")["addr_info"]},
        ],
        ("lan", "wan"),
    )
    assert [*found] == [DOCKER, Bridge("ve-web", DOCKER.networks)]
    assert [*unnamed([interface("br-0123456789ab", "bridge")], ("br-+",))] == []


def test_bridge_is_named_once_with_what_concerns_it_most() -> None:
    client: Hosts = {("tcp", 5190): {"172.17.0.3", "10.0.0.5"}, ("tcp", 80): {"172.17.0.2"}}
    server = ((9898, Endpoint("172.17.0.4", 5190)),)
    (line,) = lines(hosts=client, servers=server)
    assert line == (
        "warn 172.17.0.3 on docker0 has a connection to a server on port 5190, which is not read: no --lan"
        f" names docker0 -> {BY_NAME}"
    )
    (line,) = lines(servers=server, neighbours=False)
    assert line == (
        "warn a rule forwards a port to 172.17.0.4:5190 on docker0, and its connections are not read: no"
        f" --lan names docker0 -> {BY_NAME}"
    )
    (line,) = lines(hosts={("tcp", 80): {"172.17.0.2"}}, servers=((80, Endpoint("172.17.0.2", 80)),))
    assert line == (
        "hint hosts on docker0 (172.17.0.0/16) are not served: no --lan names it -> if a client or a server"
        f" is among them, {BY_NAME}"
    )
    assert lines(neighbours=False) == []


@pytest.mark.parametrize(
    ("name", "wan", "named"),
    [
        ("br-0123456789ab", "wan", "--lan br-+ "),
        ("br-0123456789ab", "br-wan", "--lan br-0123456789ab "),
        ("br-guests", "wan", "--lan br-guests "),
    ],
)
def test_names_that_change_are_named_by_their_beginning(name: str, wan: str, named: str) -> None:
    (line,) = lines(Bridge(name, DOCKER.networks), config=Config(lan=("lan",), wan=(wan,), file="F"))
    assert named in line
