"""What `nfreaim check` concludes from the connections of the moment: which protocols could be switched on."""

from __future__ import annotations

import socket
from dataclasses import replace
from ipaddress import IPv4Network

import pytest

from nfreaim import protocols
from nfreaim.config import Config, parse
from nfreaim.helpers import HELPERS
from nfreaim.host.check.unread_protocols import Hosts, Talk, hosts_by_port, talks, unread
from nfreaim.host.netfilter.netlink import attribute, nest

INSIDE = [IPv4Network("10.0.0.0/24"), IPv4Network("10.7.0.0/16")]
IRC = {("tcp", 6667): {"10.0.0.5"}}


def tuple_of(kind: int, source: str, port: int, number: int) -> bytes:
    ends = attribute(1, socket.inet_aton(source)) + attribute(2, socket.inet_aton("203.0.113.1"))
    ports = attribute(1, bytes([number])) + attribute(2, port.to_bytes(2, "big")) + attribute(3, b"\1\2")
    return nest(kind, nest(1, ends) + nest(2, ports))


def entry(client: str, server: str, port: int, number: int = 6, state: int = 3, status: int = 0xE) -> bytes:
    """The attributes of an entry in connection tracking."""
    body = tuple_of(1, client, 40000, number) + tuple_of(2, server, port, number)
    body += attribute(3, status.to_bytes(4, "big"))
    return body + (nest(4, nest(1, attribute(1, bytes([state])))) if number == 6 else b"")


def lines(config: Config, hosts: Hosts) -> list[str]:
    return [f"{what} -> {remedy}" for what, remedy in unread(config, hosts)]


def test_connections_are_those_that_are_answered() -> None:
    found = talks(
        [
            entry("10.0.0.5", "203.0.113.9", 6667),
            entry("10.0.0.5", "203.0.113.9", 6668, state=1),
            entry("10.0.0.5", "203.0.113.9", 5060, number=17),
            entry("10.0.0.5", "203.0.113.9", 5061, number=17, status=0x8),
            entry("10.0.0.5", "203.0.113.9", 5062, number=132),
            nest(1, nest(1, attribute(3, bytes(16))) + nest(2, attribute(1, b"\6"))),
            b"",
        ]
    )
    assert [*found] == [
        Talk("tcp", "10.0.0.5", "203.0.113.9", 6667),
        Talk("udp", "10.0.0.5", "203.0.113.9", 5060),
    ]


def test_only_what_passes_between_inside_and_outside_counts() -> None:
    found = [
        Talk("tcp", "10.0.0.5", "203.0.113.9", 6667),
        Talk("tcp", "203.0.113.20", "10.7.1.1", 6667),
        Talk("tcp", "10.0.0.5", "10.7.1.1", 6667),
        Talk("tcp", "203.0.113.1", "203.0.113.9", 6667),
    ]
    assert hosts_by_port(found, INSIDE) == {("tcp", 6667): {"10.0.0.5", "10.7.1.1"}}


def test_hosts_are_bounded() -> None:
    many = (Talk("tcp", f"10.7.{n >> 8}.{n & 255}", "203.0.113.9", 6667) for n in range(20000))
    assert len(hosts_by_port(many, INSIDE)["tcp", 6667]) == 4096


def test_a_protocol_that_is_off_is_named_with_what_switches_it_on() -> None:
    what = "10.0.0.5 talks to port 6667, which is usual for irc"
    assert lines(Config(), IRC) == [f'{what} -> protocols = ["oscar", "irc"] reads it']
    assert lines(parse('protocols = ["oscar", "irc"]', "f"), IRC) == []
    assert lines(Config(), {("udp", 6667): {"10.0.0.5"}}) == []
    moved = parse('protocols = ["irc"]\n[irc]\nports = [7000]', "f")
    assert lines(moved, IRC) == [f"{what} -> [irc] ports = [7000, 6667] reads it"]
    own = parse("[irc]\nports = [7000]", "f")
    assert [line.split(",")[0] for line in lines(own, {("tcp", 7000): {"10.0.0.5"}})] == [
        "10.0.0.5 talks to port 7000"
    ]


def test_the_condition_of_a_protocol_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    """A port says nothing of encryption, and what is encrypted cannot be read."""
    condition = "only if the client speaks clear text"
    specs = [replace(spec, condition=condition) for spec in HELPERS]
    monkeypatch.setattr(protocols, "HELPERS", specs)
    assert [line.rpartition(", ")[2] for line in lines(Config(), IRC)] == [condition]
    assert all(not spec.condition or spec.condition.startswith("only if ") for spec in HELPERS)


def test_a_port_of_a_protocol_that_is_read_is_no_hint_for_another_reader() -> None:
    taken = parse("[oscar]\nports = [21]", "f")
    assert lines(taken, {("tcp", 21): {"10.0.0.5"}}) == []


def test_the_kernels_helpers_are_named_where_they_are_not_assigned() -> None:
    sip: Hosts = {("udp", 5060): {"10.0.0.7", "10.0.0.30", "10.0.0.5", "10.0.0.6"}}
    (line,) = lines(Config(), sip)
    assert line.startswith(
        "10.0.0.5, 10.0.0.6, 10.0.0.7 and 1 more talk to udp port 5060, which is usual for sip"
    )
    assert '-> kernel_helpers = { "sip" = [5060] }' in line
    assert lines(parse("kernel_helpers = { sip = [5060] }", "f"), sip) == []
    assert lines(Config(), {("tcp", 5060): {"10.0.0.5"}}) == [], "never over TCP"
