"""Which settings a running daemon takes over, which wait for a restart; a wrong file changes nothing."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import fields

import pytest

from nfreaim.config import Config, parse
from nfreaim.core.address import Endpoint, FlowId
from nfreaim.core.firewall.pinhole import Origin
from nfreaim.core.firewall.policy import Forward, LowPort, PinholePolicy
from nfreaim.core.helper import Expectation, Refused
from nfreaim.errors import ConfigError
from nfreaim.host.reload import Reload, for_a_restart, in_force
from nfreaim.host.report.journal import Journal
from tests.unit.fake_firewall import FakeFirewall
from tests.unit.fakes import guarded_table

ALICE = FlowId(Endpoint("10.0.0.5", 40123), Endpoint("203.0.113.9", 5190))
OLD = parse('lan = ["br0"]\nwan = ["eth0"]\n', "F")
BASE = 'lan = ["br0"]\nwan = ["eth0"]\n'


@pytest.fixture(autouse=True)
def level() -> object:
    """The level of the daemon's log, which a reload sets."""
    log = logging.getLogger("nfreaim")
    found = log.level
    yield
    log.setLevel(found)


@pytest.mark.parametrize(
    ("text", "look"),
    [
        ('[log]\nlevel = "debug"\n', lambda config: config.log_level == "debug"),
        ("[pinholes]\nper_host = 3\n", lambda config: config.pinholes.per_host == 3),
        ('[services]\ndeny = ["send-file"]\n', lambda config: not config.pinholes.serves("send-file")),
        ("[oscar]\nicq_per_host = 7\n", lambda config: 7 in dict(config.pinholes.caps.values()).values()),
        ('home_servers = ["10.0.0.9"]\n', lambda config: config.home_servers[0].address == "10.0.0.9"),
        ('home_server_users = ["ann"]\n', lambda config: config.home_server_users == ("ann",)),
        (
            'forward = [{ host = "10.0.0.5", ports = "20000-20009" }]\n',
            lambda config: config.pinholes.forwards == (Forward("10.0.0.5", range(20000, 20010)),),
        ),
    ],
)
def test_what_is_taken_over_at_once(text: str, look: Callable[[Config], bool]) -> None:
    wanted = parse(BASE + text, "F")
    assert look(in_force(OLD, wanted))
    assert for_a_restart(OLD, wanted) == []


@pytest.mark.parametrize(
    ("text", "key"),
    [
        ("queue = 7\n", "queue"),
        ("workers = 2\n", "workers"),
        ('protocols = ["irc"]\n', "protocols or their ports"),
        ("[oscar]\nports = [443]\n", "protocols or their ports"),
        ("hold_ms = 7\n", "hold_ms or server_names"),
        ('outside_address = "198.51.100.7"\n', "outside_address"),
        ("mark_mask = 0x1\n", "mark_mask or connmark_mask"),
        ("isolated_lans = true\n", "isolated_lans"),
        ('status_socket = "/run/x"\n', "status_socket"),
        ('upstream = "auto"\n', "upstream"),
        ("local_clients = [1001]\n", "local_clients"),
        ('native_accept = ["inet filter forward"]\n', "native_accept"),
        ('[log]\nformat = "json"\n', "format in [log]"),
        ('metrics_listen = "127.0.0.1:9919"\n', "metrics_listen"),
        ("history = false\n", "history"),
        ('history_dir = "/var/lib/x"\n', "history_dir"),
    ],
)
def test_what_waits_for_a_restart_is_named_and_stays(text: str, key: str) -> None:
    wanted = parse(BASE + text, "F")
    assert for_a_restart(OLD, wanted) == [key]
    kept = in_force(OLD, wanted)
    assert [
        field.name for field in fields(Config) if getattr(kept, field.name) != getattr(OLD, field.name)
    ] in (
        [],
        ["sections"],
    )


def test_a_wrong_configuration_changes_nothing(caplog: pytest.LogCaptureFixture) -> None:
    seen: list[Config] = []

    def wrong() -> Config:
        raise ConfigError("F: hold_ms = 9999: must be less")

    reload = Reload(OLD, wrong)
    reload.obeyers.append(seen.append)
    reload.work()
    assert seen == []
    assert reload.as_dict()["error"] == "F: hold_ms = 9999: must be less"
    assert "the configuration was not taken over: F: hold_ms" in caplog.text


def test_what_waits_for_a_restart_is_told_until_there_is_one(caplog: pytest.LogCaptureFixture) -> None:
    wanted = parse(BASE + 'queue = 7\n[log]\nlevel = "error"\n', "F")
    seen: list[Config] = []
    reload = Reload(OLD, lambda: wanted)
    reload.obeyers.append(seen.append)
    for _ in range(2):
        reload.work()
        told = reload.as_dict()
        assert (told["error"], told["restart"]) == ("", ["queue"])
        assert told["at"] > 0
    assert [(config.queue, config.log_level) for config in seen] == [(OLD.queue, "error")] * 2
    assert logging.getLogger("nfreaim").level == logging.ERROR


def test_open_pinholes_that_the_new_policy_does_not_allow_are_closed() -> None:
    table = guarded_table(PinholePolicy(), FakeFirewall(), Journal())
    host = ALICE.client.address
    wanted = [
        Expectation(name.encode(), name, Endpoint(host, 5200 + at)) for at, name in enumerate(("a", "b"))
    ]
    for one in wanted:
        table.open(ALICE, one, Origin("oscar", host, "203.0.113.1"), 1.0)
    table.obey(PinholePolicy(deny_services=frozenset({"a"}), per_flow=1))
    assert [pinhole.service for pinhole in table] == ["b"]
    with pytest.raises(Refused, match="per_flow"):
        table.open(
            ALICE, Expectation(b"c", "c", Endpoint(host, 5203)), Origin("oscar", host, "203.0.113.1"), 1.0
        )
    table.obey(PinholePolicy())
    table.open(ALICE, wanted[0], Origin("oscar", host, "203.0.113.1"), 1.0)
    assert len(table) == 2


def test_two_services_at_one_port_end_each_for_itself() -> None:
    table = guarded_table(PinholePolicy(), FakeFirewall(), Journal())
    host = ALICE.client.address
    for name in ("a", "b"):
        table.open(
            ALICE,
            Expectation(name.encode(), name, Endpoint(host, 5200)),
            Origin("oscar", host, "203.0.113.1"),
            1.0,
        )
    assert len(table) == 1
    table.obey(PinholePolicy(deny_services=frozenset({"a"})))
    assert [pinhole.service for pinhole in table] == ["b"]
    table.obey(PinholePolicy(deny_services=frozenset({"b"})))
    assert len(table) == 0


def test_what_stays_reserved_for_a_host_follows_the_new_policy() -> None:
    table = guarded_table(PinholePolicy(), FakeFirewall(), Journal())
    table.obey(PinholePolicy(per_host=1))
    host, other = ALICE.client.address, Endpoint("10.0.0.6", 5200)
    for name, port in ((b"a", 5200), (b"b", 5201)):  # of which one host may reserve the latest alone
        table.offered(ALICE, Expectation(name, "a", Endpoint(host, port)), 1.0)
    bob = FlowId(Endpoint(other.address, 40123), ALICE.server)
    origin = Origin("oscar", other.address, "203.0.113.1")
    assert table.open(bob, Expectation(b"a", "a", other), origin, 1.0).outside.port == 5200


def test_a_port_for_verified_peers_is_closed_by_a_reload_while_nobody_is_verified() -> None:
    low = LowPort(frozenset({ALICE.client.address}), "low_port_hosts")
    policy = PinholePolicy(low_ports={("a", 443): low})
    table = guarded_table(policy, FakeFirewall(), Journal())
    host = ALICE.client.address
    origin = Origin("oscar", host, "203.0.113.1")
    table.open(ALICE, Expectation(b"a", "a", Endpoint(host, 443)), origin, 1.0)
    table.obey(policy)
    assert len(table) == 1
    table.verify(False)
    table.obey(policy)
    assert len(table) == 0


def test_rates_are_those_of_the_new_policy() -> None:
    table = guarded_table(PinholePolicy(), FakeFirewall(), Journal())
    table.obey(PinholePolicy(rate_per_host=1))
    host = ALICE.client.address
    origin = Origin("oscar", host, "203.0.113.1")
    table.open(ALICE, Expectation(b"a", "a", Endpoint(host, 5200)), origin, 1.0)
    with pytest.raises(Refused, match="1 pinholes a minute"):
        table.open(ALICE, Expectation(b"b", "b", Endpoint(host, 5201)), origin, 1.0)
