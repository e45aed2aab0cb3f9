"""Who may speak for which hosts: decisions, and how often the kernel is asked for them."""

from __future__ import annotations

import logging

import pytest

from nfreaim.config import Config
from nfreaim.core.address import Endpoint, FlowId
from nfreaim.core.settings import HomeServer
from nfreaim.errors import BackendError
from nfreaim.host.home import clients, home_servers, local_sockets
from nfreaim.host.home.clients import Clients
from nfreaim.host.home.home_servers import LinuxHomeServers
from nfreaim.host.home.own_connections import OwnConnection
from nfreaim.host.home.trust import trusted_users

REACHED, SERVER = Endpoint("203.0.113.1", 5190), Endpoint("10.0.0.9", 5190)
FLOW = FlowId(Endpoint("203.0.113.20", 40000), SERVER)
OWN = FlowId(FLOW.client, REACHED)


# --- clients ---


class Connections:
    def __init__(self) -> None:
        self.found: list[OwnConnection] = []
        self.asked = 0

    def to(self, server: Endpoint) -> list[OwnConnection]:
        self.asked += 1
        return self.found

    def close(self) -> None:
        pass


class Asked:
    """Clients of a kernel without connections, and a clock that is set."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now, self.kernel = 100.0, Connections()
        monkeypatch.setattr(clients, "OwnConnections", lambda: self.kernel)
        self.clients = Clients(lambda: self.now)

    def has(self, host: str = "10.0.0.5", whole: bool = False, server: Endpoint = SERVER) -> bool:
        return self.clients.has(host, server, whole)


def test_a_connection_counts_for_its_host_and_for_seconds(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = Asked(monkeypatch)
    assert not asked.has()
    asked.kernel.found = [OwnConnection("10.0.0.5", whole=False)]
    assert asked.has()
    assert not asked.has("10.0.0.6")
    assert not asked.has(whole=True)
    asked.kernel.found = []
    asked.now += 20
    assert not asked.has()


def test_nobody_makes_the_kernel_look_through_its_table_all_the_time(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = Asked(monkeypatch)
    for number in range(100):
        assert not asked.has(f"10.0.0.{number}")
    assert asked.kernel.asked == 4
    asked.kernel.found = [OwnConnection("10.0.0.5", whole=True)]
    assert not asked.has()
    other = Endpoint("10.0.0.6", 5190)
    assert asked.has(server=other), "another server's clients have looks of their own"
    for number in range(100):
        asked.has("10.0.0.99", server=Endpoint(f"10.0.1.{number}", 5190))
    assert asked.kernel.asked == 16
    asked.now += 11
    assert asked.has(whole=True)


# --- decisions ---


class World:
    """What LinuxHomeServers sees. It stands for the rules, the clients and the view of them, too."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now, self.looks, self.questions = 100.0, 0, 0
        self.request: int | None = None
        self.accepted: int | None = 113
        self.listening = {113}
        self.forwarded = self.seen = False
        self.imitated = True
        self.connected: dict[str, bool] = {}
        monkeypatch.setattr(home_servers, "is_own", lambda address: address == REACHED.address)
        monkeypatch.setattr(local_sockets, "serves_on_request", self._serves)
        monkeypatch.setattr(local_sockets, "accepted_by", lambda flow: self.accepted)
        monkeypatch.setattr(local_sockets, "listeners", lambda port, address: self.listening)
        monkeypatch.setattr(home_servers, "ForwardReader", lambda clock: self)
        monkeypatch.setattr(home_servers, "Clients", lambda clock: self)
        monkeypatch.setattr(home_servers, "Sight", lambda: self)
        self.home = self.configured(Config(file="/etc/x.toml"))

    def configured(self, config: Config) -> LinuxHomeServers:
        self.home = LinuxHomeServers(config, lambda: self.now)
        return self.home

    def why(self, flow: FlowId = FLOW, host: str = "10.0.0.5") -> str:
        """Asked after every cache has expired."""
        self.now += 10
        return self.home.why_not(flow, REACHED, host) or ""

    def _serves(self) -> int | None:
        if self.request == -1:
            raise OSError("no /proc")
        return self.request

    # --- what it stands for ---

    def look(self) -> None:
        self.looks += 1

    def leads(self, reached: Endpoint, server: Endpoint) -> bool:
        self.questions += 1
        return self.forwarded

    def has(self, host: str, server: Endpoint, whole: bool) -> bool:
        return host in self.connected and self.connected[host] >= whole

    def passes(self, one: str, other: str) -> bool:
        return self.seen

    def cannot_imitate(self, host: str, forger: str) -> bool:
        return not self.imitated

    def close(self) -> None:
        pass


@pytest.fixture
def world(monkeypatch: pytest.MonkeyPatch) -> World:
    return World(monkeypatch)


def test_nobody_is_a_server_by_being_reached(world: World) -> None:
    assert world.why() == (
        "10.0.0.9:5190 may not speak for 10.0.0.5: no rule forwards exactly 203.0.113.1:5190 to it; "
        'remedy: write home_servers = ["10.0.0.9"] in /etc/x.toml'
    )
    assert world.why(host="10.0.0.9"), "nor for itself"


def test_the_configuration_names_servers(world: World) -> None:
    world.request = 1900
    for named, allowed in [
        (HomeServer("10.0.0.9"), True),
        (HomeServer("10.0.0.9", 5190), True),
        (HomeServer("10.0.0.9", 5191), False),
        (HomeServer("10.0.0.6"), False),
    ]:
        world.configured(Config(home_servers=(named,)))
        assert (world.why() == "") == allowed, named
    world.configured(Config(home_servers=(HomeServer("203.0.113.1"),)))
    world.accepted = 1001
    assert not world.why(OWN), "the router itself, whoever runs it"


def test_an_operators_forward_where_clients_cannot_be_seen(world: World) -> None:
    world.forwarded = True
    assert not world.why()


def test_a_client_that_would_be_seen_has_to_be_one(world: World) -> None:
    world.forwarded = world.seen = True
    assert "have no connection to it" in world.why()
    assert not world.why(host="10.0.0.9"), "the server's own host is not seen"
    world.connected = {"10.0.0.5": False}
    assert not world.why()
    assert world.why(host="10.0.0.6")


@pytest.mark.parametrize(("port", "name"), [(1900, "UPnP"), (5351, "PCP or NAT-PMP")])
def test_a_forward_that_may_be_any_programs_proves_nothing(world: World, port: int, name: str) -> None:
    world.forwarded, world.request = True, port
    assert f"this router serves {name} (UDP port {port})" in world.why()
    world.request = None
    assert world.why(), "rules that were made on request do not end with who made them"


def test_a_pause_of_upnp_is_noticed_between_questions(world: World) -> None:
    world.forwarded, world.request = True, 1900
    world.home.look()
    world.request = None
    assert world.why()


def test_what_cannot_be_told_is_refused(world: World) -> None:
    world.forwarded, world.request = True, -1
    world.home.look()
    with pytest.raises(BackendError, match="cannot be told: no /proc"):
        world.why()


def test_a_whole_connection_that_nobody_else_can_have_made(world: World) -> None:
    world.request, world.imitated = 1900, False
    assert world.why()
    world.connected = {"10.0.0.5": True}
    assert not world.why()
    assert world.why(host="10.0.0.6")
    world.connected = {"10.0.0.5": False}
    assert world.why(), "it was picked up"
    world.connected, world.imitated = {"10.0.0.5": True}, True
    assert world.why()


def test_who_runs_a_server_on_this_router(world: World) -> None:
    world.forwarded = True
    assert not world.why(OWN)
    for accepted, listening in [(1001, {113}), (113, {113, 1001}), (65534, {65534}), (1001, set())]:
        world.accepted, world.listening = accepted, listening
        assert "who is no system user; remedy: run it as a system user" in world.why(OWN)
    world.accepted = None
    assert "nobody on this router has this connection" in world.why(OWN)
    world.accepted, world.listening = 1001, {1001, 0}
    world.configured(Config(home_server_users=("1001",)))
    assert not world.why(OWN)


def test_users_are_named_or_numbered(caplog: pytest.LogCaptureFixture) -> None:
    assert trusted_users(["root", "1001", "no-such-user"]) == {0, 1001}
    assert "this machine has no user no-such-user" in caplog.text


def test_the_operator_is_told_once_of_each_server(world: World, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        for number in range(1000):
            world.why(host=f"10.0.0.{number % 250}")
        assert len(caplog.records) == 1
        for number in range(1000):
            world.why(FlowId(FLOW.client, Endpoint(f"10.0.{number % 250}.9", number)))
    assert len(caplog.records) == 256
    assert caplog.messages[0] == (
        "10.0.0.9:5190 may not speak for others: no rule forwards exactly 203.0.113.1:5190 to it; "
        'if it is a server of yours, write home_servers = ["10.0.0.9"] in /etc/x.toml'
    )


def test_an_answer_is_kept_for_a_second(world: World) -> None:
    def ask(host: str = "10.0.0.5", port: int = 40000) -> str | None:
        return world.home.why_not(FlowId(Endpoint("203.0.113.20", port), SERVER), REACHED, host)

    assert ask() is not None
    world.forwarded = True
    assert ask() is not None
    world.now += 1.1
    assert ask() is None
    asked = world.questions
    for number in range(3000):
        ask(f"10.0.{number // 250}.{number % 250}", number)
    assert world.questions <= asked + 3, "the rules are the same for every host and flow"
    assert len(world.home._answers) <= 1024


def test_rules_are_read_ahead_for_servers_that_need_them(world: World) -> None:
    world.home.met(OWN)
    assert world.looks == 0
    world.home.met(FLOW)
    assert world.looks == 1
    world.configured(Config(home_servers=(HomeServer("10.0.0.9"),)))
    world.home.met(FLOW)
    assert world.looks == 1
    world.home.close()
