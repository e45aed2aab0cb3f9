"""Clients on the router itself: who is served, and what is opened for them."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from dataclasses import replace

import pytest

from nfreaim.core.address import Endpoint, FlowId
from nfreaim.core.backend import LocalClients
from nfreaim.core.engine import Engine
from nfreaim.errors import BackendError
from nfreaim.host.home import local_sockets
from nfreaim.host.home.local_clients import LinuxLocalClients
from tests.script_helper import offer, script
from tests.unit.fakes import OUTSIDE, SERVER, Router, Wire

US = os.getuid()
HERE = "127.0.0.1"
SOMEBODY = US + 1

# --- what the kernel says ---


@pytest.fixture
def flow() -> Iterator[FlowId]:
    """A connection of ours."""
    with socket.create_server((HERE, 0)) as server, socket.create_connection(server.getsockname()) as client:
        yield FlowId(Endpoint(*client.getsockname()), Endpoint(*server.getsockname()))


@pytest.fixture
def listener() -> Iterator[Endpoint]:
    with socket.create_server((HERE, 0)) as made:
        yield Endpoint(*made.getsockname())


def test_only_addresses_of_this_machine_are_served_and_only_if_users_are_listed() -> None:
    assert LinuxLocalClients([US]).serves(HERE)
    assert not LinuxLocalClients([US]).serves("203.0.113.7")
    assert not LinuxLocalClients([]).serves(HERE)


def test_listed_user_may_have_opened_what_it_listens_at(flow: FlowId, listener: Endpoint) -> None:
    clients = LinuxLocalClients([US])
    assert clients.why_not(flow, listener) is None
    assert LinuxLocalClients([SOMEBODY]).why_not(flow, listener) == (
        f"user {US}, who has this connection, is none of local_clients"
    )
    unknown = flow._replace(client=Endpoint(HERE, 1))
    assert clients.why_not(unknown, listener) == "nobody on this router has this connection"
    ours = flow.server  # a port of a socket that listens
    assert clients.why_not(flow, ours) is None
    nobody = Endpoint(HERE, flow.client.port)
    assert (clients.why_not(flow, nobody) or "").startswith(f"nobody listens at {nobody} yet")


@pytest.mark.parametrize("others", [{SOMEBODY}, {SOMEBODY, US}])
def test_port_of_another_user_is_refused_whoever_else_listens_there(
    others: set[int], flow: FlowId, listener: Endpoint, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(local_sockets, "listeners", lambda *_: others)
    both = LinuxLocalClients([US, SOMEBODY])
    assert both.why_not(flow, listener) == (
        f"user {SOMEBODY} listens at {listener}, and not user {US}, whose client announces it"
    )


def test_kernel_that_cannot_be_asked_says_so(
    flow: FlowId, listener: Endpoint, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(*_: object) -> None:
        raise OSError("sockets cannot be listed")

    monkeypatch.setattr(local_sockets, "listeners", fails)
    with pytest.raises(BackendError, match=r"cannot be told: sockets cannot be listed"):
        LinuxLocalClients([US]).why_not(flow, listener)


# --- what the engine makes of it ---


class Clients(LocalClients):
    """Those at OUTSIDE are served, unless there is a reason against it."""

    def __init__(self, why: str | None = None) -> None:
        self.why = why
        self.asked: list[Endpoint] = []

    def serves(self, address: str) -> bool:
        return address == OUTSIDE

    def why_not(self, flow: FlowId, inside: Endpoint) -> str | None:
        self.asked.append(inside)
        return self.why


def on_router(clients: LocalClients | None) -> Wire:
    """A connection that nobody translates: its client has the outside address."""
    router = Router()
    backend = router.kernel.backend
    if clients is not None:
        backend = replace(backend, locals=clients)
    router.engine = Engine({SERVER.port: script()}, router.pinholes, backend, router.watcher)
    return Wire(router, Endpoint(OUTSIDE, 40123)).sign_on()


PLACE = Endpoint(OUTSIDE, 5190)
PROPOSAL = offer(at=PLACE)


def test_pinhole_ends_at_the_announced_endpoint_although_it_is_taken_by_its_listener() -> None:
    clients = Clients()
    wire = on_router(clients)
    wire.router.firewall.taken.add(PLACE)
    assert wire.client(PROPOSAL) == PROPOSAL, "nothing has to be said otherwise"
    (pinhole,) = wire.router.firewall.pinholes
    assert pinhole.inside == pinhole.outside == PLACE
    assert clients.asked == [PLACE]


def test_port_that_other_rules_forward_is_announced_otherwise() -> None:
    wire = on_router(Clients())
    wire.router.firewall.foreign.add(PLACE)
    wire.router.firewall.taken.add(PLACE)
    told = Endpoint(OUTSIDE, 40000)
    assert wire.client(PROPOSAL) == offer(at=told)
    (pinhole,) = wire.router.firewall.pinholes
    assert (pinhole.inside, pinhole.outside) == (PLACE, told)


@pytest.mark.parametrize("clients", [None, Clients("somebody else listens there")])
def test_nothing_is_opened_for_anybody_else(clients: LocalClients | None) -> None:
    wire = on_router(clients)
    assert wire.client(PROPOSAL) == PROPOSAL
    assert wire.router.firewall.pinholes == []


def test_other_host_is_not_named_by_a_client_on_the_router() -> None:
    wire = on_router(Clients())
    other = offer(at=Endpoint("10.0.0.6", 5190))
    assert wire.client(other) == other
    assert wire.router.firewall.pinholes == []
