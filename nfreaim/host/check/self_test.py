"""`nfreaim check --self-test`: an offer goes through the running daemon, and a peer follows it.

The client and the server are sockets of this process in two network namespaces (self_test_network.py); what
they say is the protocol's own (core/sample.py). So the packets go the way of every client's: into the queue,
through the daemon, through a pinhole, and past all other rules of this router. It differs from a client's in
one thing: rules that name an interface do not see the test's packets.
"""

from __future__ import annotations

import os
import socket
import subprocess
import time
from collections.abc import Callable
from contextlib import ExitStack, suppress
from typing import Any, Final, TypeVar

from nfreaim.config import Config
from nfreaim.core.address import Direction, Endpoint, is_address
from nfreaim.core.sample import Sample
from nfreaim.errors import BackendError
from nfreaim.host.check.answer import Check, Checks
from nfreaim.host.check.foreign_drops import Drop, ForeignDrops
from nfreaim.host.check.self_test_network import Namespace, Network
from nfreaim.host.netfilter.firewall_kind import KernelSets
from nfreaim.host.netfilter.names import LAN_SET, TEST_CLIENT, TEST_OUTSIDE, TEST_SERVER
from nfreaim.host.report.status import Document, fetch, lines_to_write
from nfreaim.host.slim_imports import stub_scapy_databases
from nfreaim.protocols import known_protocols

T = TypeVar("T")

_PATIENCE_S: Final = 5.0
_CALL_S: Final = 2.0  # for a connection; a SYN that was lost comes again after one second
_MOST: Final = 65536  # bytes that are read of one message
_LOOK_EVERY_S: Final = 0.05


class Failed(Exception):
    """The test has come to its end; *check* says why."""

    def __init__(self, text: str, remedy: str) -> None:
        super().__init__(text)
        self.check = Check("FAIL", text, remedy)


def self_test(config: Config) -> Checks:
    """Run the test; a line for each of its steps. Raises nothing."""
    began = time.monotonic()
    try:
        with ExitStack() as stack:
            yield from _steps(config, stack)
            took = time.monotonic() - began
        yield Check("ok", f"the self-test took {took:.1f} s")
    except Failed as failed:
        yield failed.check
    except (BackendError, OSError, subprocess.SubprocessError) as error:
        yield Check("FAIL", f"the self-test could not be made: {error}", "run nfreaim check as root")


def _steps(config: Config, stack: ExitStack) -> Checks:
    port, sample = _sample(config)
    _document(config)
    network = Network(port, stack)
    _until_inside()
    drops = ForeignDrops()
    stack.callback(drops.close)
    listener = stack.enter_context(_listening(network.server, Endpoint(TEST_SERVER, port)))
    inside = stack.enter_context(_listening(network.client, Endpoint(TEST_CLIENT, 0)))
    client = stack.enter_context(network.client.call(_socket))
    _connect(client, Endpoint(TEST_SERVER, port), lambda: _not_forwarded(drops.found(), config))
    server = stack.enter_context(listener.accept()[0])
    server.settimeout(_PATIENCE_S)
    for direction, message in sample.sign_on():
        sender, reader = (client, server) if direction is Direction.ORIGINAL else (server, client)
        sender.sendall(message)
        if (came := _read(reader, len(message))) != message:
            raise Failed(
                f"{len(came)} of {len(message)} bytes of the sign-on came, or they were changed",
                "see what the log of nfreaim says, and whether its queue is served (nfreaim status)",
            )
    own = Endpoint(TEST_CLIENT, inside.getsockname()[1])
    yield from _offered(config, sample, client, server, own)
    outside = _pinhole(config, own)
    before = time.monotonic()
    with network.server.call(_socket) as peer:
        _connect(peer, outside, lambda: _dropped(drops.found(), outside))
        try:
            reached, address = inside.accept()
        except TimeoutError:
            raise Failed(
                f"a peer's connection to {outside} went elsewhere than to the inside host",
                "find the rule that forwards it (iptables-legacy-save -t nat, nft list ruleset)",
            ) from None
        with reached:
            reached.settimeout(_PATIENCE_S)
            peer.sendall(sample.greeting)
            if _read(reached, len(sample.greeting)) != sample.greeting:
                raise _dropped(drops.found(), outside)
            reached.sendall(sample.greeting)
            if _read(peer, len(sample.greeting)) != sample.greeting:
                raise _dropped(drops.found(), outside)
    took = (time.monotonic() - before) * 1000
    yield Check(
        "ok", f"the peer's connection to {outside} reached the inside host from {address[0]}: {took:.0f} ms"
    )
    client.sendall(sample.withdrawal())
    if not _eventually(lambda: not _pinholes(config, own)):
        raise Failed(
            "the pinhole is still open after the offer was withdrawn", "see what the log of nfreaim says"
        )
    yield Check("ok", "the pinhole was closed when the offer was withdrawn")
    client.shutdown(socket.SHUT_WR)
    _read(server, 1)  # so that the daemon has seen the end, too


def _sample(config: Config) -> tuple[int, Sample]:
    """The port and the session of the first protocol that has one and is read."""
    # scapy would keep pickles in the home directory, and load them at the next start without a check.
    os.environ.update(XDG_CACHE_HOME=os.devnull, XDG_CONFIG_HOME=os.devnull, XDG_DATA_HOME=os.devnull)
    stub_scapy_databases()
    for port, spec in config.helpers().items():
        if spec.load_sample is not None:
            return port, spec.load_sample()
    names = " or ".join(spec.name for spec in known_protocols() if spec.load_sample is not None)
    raise Failed(f"the self-test speaks {names}, which is not read", f"add {names} to `protocols`")


def _document(config: Config) -> Document:
    """What the daemon says. Raises Failed without one, or if the test could take a client's pinhole."""
    document = fetch(config.status_socket)
    if document is None:
        raise Failed(
            f"no daemon answers at {config.status_socket}, so there is nothing to test",
            "systemctl start nfreaim, or nfreaim run",
        )
    if idle := document.get("idle"):
        lines = " and ".join(lines_to_write(idle))
        raise Failed(
            f"the daemon waits for interfaces, so there is nothing to test: {idle['why']}",
            f"if this is a router, write into {idle['file']}: {lines}",
        )
    if len(document["pinholes"]) >= config.pinholes.total:
        raise Failed("all pinholes are taken, and the test would take one from a client", "try again later")
    return document


def _until_inside() -> None:
    """The daemon follows the networks of the inside interfaces."""
    inside = KernelSets().networks(LAN_SET)
    try:
        served = _eventually(lambda: inside.covers(TEST_CLIENT))
    finally:
        inside.close()
    if not served:
        raise Failed(
            "the daemon does not notice a new inside network",
            "systemctl restart nfreaim: an earlier version may run still",
        )


def _offered(
    config: Config, sample: Sample, client: socket.socket, server: socket.socket, own: Endpoint
) -> Checks:
    """The client offers, and its message comes to the server with an outside endpoint."""
    began = time.monotonic()
    message = sample.offer(own)
    client.sendall(message)
    told = own
    came = b""
    with suppress(TimeoutError):
        while len(came) < _MOST and (more := server.recv(_MOST)):
            came += more
            with suppress(ValueError):
                told = sample.announced(came)
                break
    if told == own:
        raise (
            _unread(config)
            if came == message
            else Failed("the offer did not come to the server", "see what the log of nfreaim says")
        )
    took = (time.monotonic() - began) * 1000
    announced = config.pinholes.announce
    if is_address(announced or TEST_OUTSIDE) and told.address != (announced or TEST_OUTSIDE):
        raise Failed(
            f"the offer of {own} names {told} now, which is not this router", "see the log of nfreaim"
        )
    yield Check("ok", f"the offer of {own} names {told} now: {took:.0f} ms")


def _unread(config: Config) -> Failed:
    """Why the offer came as it was, as far as the daemon knows."""
    document = fetch(config.status_socket) or {"events": [], "sessions": []}
    reasons = [
        event.get("reason", "")
        for event in document["events"]
        if event["event"] == "message-left" and event.get("client", "").startswith(f"{TEST_CLIENT}:")
    ]
    if reasons:
        return Failed(f"the offer was left as it was: {reasons[-1]}", "the reason names what to change")
    if any(one["host"] == TEST_CLIENT for one in document["sessions"]):
        return Failed(
            "the offer was left as it was", 'see what the log of nfreaim says at log_level = "debug"'
        )
    return Failed(
        "the daemon did not see the connection: its packets did not come into the queue",
        "look for a rule before nfreaim's in raw PREROUTING or mangle POSTROUTING that accepts or queues"
        " (iptables-legacy-save); nfreaim check --fix installs ours again",
    )


def _pinholes(config: Config, own: Endpoint) -> list[dict[str, Any]]:
    document = fetch(config.status_socket) or {"pinholes": []}
    return [one for one in document["pinholes"] if one["inside"] == str(own)]


def _pinhole(config: Config, own: Endpoint) -> Endpoint:
    """The outside endpoint of the pinhole to *own*."""
    if not _eventually(lambda: bool(_pinholes(config, own))):  # a document is given out again for a while
        raise Failed(
            f"no pinhole leads to {own}, although one was announced", "see what the log of nfreaim says"
        )
    address, _, port = _pinholes(config, own)[0]["outside"].rpartition(":")
    return Endpoint(address, int(port))


def _not_forwarded(found: list[Drop], config: Config) -> Failed:
    """The test's control connection could not be made."""
    # The table of firewalld takes no rules of other programs.
    chains = [drop.chain for drop in found if drop.chain and drop.chain.split()[1] != "firewalld"]
    named = [*config.native_accept, *chains]
    remedy = (
        "let it pass what is forwarded from nfrtest-lan to nfrtest-wan and back, for the time of the test"
    )
    if chains:
        listed = ", ".join(f'"{chain}"' for chain in named)
        remedy = (
            f"in {config.file} native_accept = [{listed}], then nfreaim rules install and a restart: nfreaim"
            " keeps its accept there then, and that of the test; or for the time of the test: nft insert rule"
            f" {chains[0]}"
            ' iifname { "nfrtest-lan", "nfrtest-wan" } oifname { "nfrtest-lan", "nfrtest-wan" } accept'
        )
    what = f", dropped by {_listed(found)}" if found else ""
    return Failed(f"the test's client does not reach its server{what}", remedy)


def _dropped(found: list[Drop], outside: Endpoint) -> Failed:
    if not found:
        return Failed(
            f"a peer's connection to {outside} does not reach the inside host; why is not known",
            "nfreaim rules show tells which of our rules saw it; look at `ip rule` and rp_filter",
        )
    return Failed(
        f"a peer's connection to {outside} was dropped by {_listed(found)}",
        "have that rule spare connections through pinholes, or put it behind nfreaim's accept; nfreaim check"
        " says how for each firewall",
    )


def _listed(found: list[Drop]) -> str:
    """One has dropped; of several it is not known which."""
    return " or by ".join(str(drop) for drop in found[:3])


def _connect(end: socket.socket, to: Endpoint, failed: Callable[[], Failed]) -> None:
    try:
        end.connect(tuple(to))
    except OSError:
        raise failed() from None


def _listening(where: Namespace, at: Endpoint) -> socket.socket:
    def listen() -> socket.socket:
        made = _socket()
        made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        made.bind(tuple(at))
        made.listen(1)
        return made

    return where.call(listen)


def _socket() -> socket.socket:
    made = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    made.settimeout(_CALL_S)
    return made


def _read(end: socket.socket, size: int) -> bytes:
    """The next *size* bytes, or what comes of them in time."""
    came = b""
    with suppress(OSError):
        while len(came) < size and (more := end.recv(size - len(came))):
            came += more
    return came


def _eventually(look: Callable[[], bool]) -> bool:
    deadline = time.monotonic() + _PATIENCE_S
    while not (found := look()) and time.monotonic() < deadline:
        time.sleep(_LOOK_EVERY_S)
    return found
