"""A LAN host opens nothing for another one, with a server outside that tells it all numbers of the session.

Two things stand in its way, and each is tested alone: the handshake, which a host that is up resets, and the
frames, which come from another machine. Where the victim must stay silent, only the second one helps.
"""

from __future__ import annotations

import contextlib
import itertools
import time
from collections.abc import Iterator
from dataclasses import dataclass

import pytest

from tests.lab import impostor
from tests.lab.capture import Capture
from tests.lab.forged import Sender
from tests.lab.impair import offloads_off
from tests.lab.impostor import AO, MD5, Session
from tests.lab.namespace import socket_in
from tests.lab.net import ADDRESS
from tests.lab.scene import Scene, eventually, scene
from tests.lab.slipstream import HOST_ONLINE, SIGN_ON, proposal
from tests.oscar.values import ip4
from tests.tcp.packets import PSH_ACK, RST, packet

FORGOTTEN_S = 11.0  # conntrack remembers a connection that was reset for ten seconds
QUICK = "[pinholes]\nrate_per_host = 10000\n"
_ports = itertools.count(20001)  # what is asked for
_ends = itertools.count()  # of sessions: each has a port and a server of its own


@dataclass
class Network:
    """A router with nfreaim, and in its LAN amy, who forges, and alice."""

    made: Scene

    def session(self, node: str = "amy", name: str = "alice") -> contextlib.AbstractContextManager[Session]:
        number = next(_ends)
        at = f"203.0.113.{100 + number % 100}"
        return impostor.session(self.made.lab, node, name, 30000 + number, at)

    def conntrack(self, one: Session) -> str:
        """The entry of this session, as `conntrack -L` shows it."""
        where = f"-p tcp --orig-port-src {one.own[1]}"
        return self.made.lab.run("A", "conntrack", "-L", *where.split(), check=False).stdout

    def flush(self) -> None:
        self.made.lab.run("A", "conntrack", "-F")

    def refused(self, *asking: Session) -> None:
        """Ask for both kinds of pinholes in each session: the answer is no, and a reason is told."""
        asked = []
        for one in asking:
            for standing in (False, True):
                asked.append(next(_ports))
                one.ask(asked[-1], standing)
        time.sleep(0.2)
        for port in asked:
            assert f"-> {ADDRESS['alice']}:{port} " not in self.made.daemon.log_text()
        assert not [one for one in self.made.pinholes() if one.inside.startswith(ADDRESS["alice"])]

    @contextlib.contextmanager
    def silent(self, one: Session, node: str = "alice") -> Iterator[None]:
        """The host has a firewall that drops what it did not ask for."""
        rule = f"PREROUTING -p tcp --dport {one.own[1]} -j DROP"
        self.made.lab.run(node, *f"iptables-legacy -t raw -A {rule}".split())
        yield
        self.made.lab.run(node, *f"iptables-legacy -t raw -D {rule}".split())


@contextlib.contextmanager
def network(settings: str) -> Iterator[Network]:
    with scene(settings=settings + QUICK) as made:
        offloads_off(made.lab)
        yield Network(made)
        assert made.daemon.process.poll() is None
        assert "ERROR" not in made.daemon.log_text()
        assert "Traceback" not in made.daemon.log_text()


CHECKED = ["workers = 1", "workers = 2"]
UNCHECKED = "check_senders = false"


@pytest.fixture(scope="module", params=[*CHECKED, UNCHECKED])
def place(request: pytest.FixtureRequest) -> Iterator[Network]:
    """With one worker and two; and where nobody looks at frames, so that the handshake alone decides."""
    with network(f"{request.param}\n") as made:
        yield made


by_frames = pytest.mark.parametrize("place", CHECKED, indirect=True)


def resets(air: Capture, one: Session) -> int:
    """How many alice sent to this session's server."""
    return sum(not p.leaving and bool(p.flags & RST) and p.source == one.own for p in list(air.packets))


@by_frames
def test_the_same_session_of_a_host_of_its_own_opens_both_kinds(place: Network) -> None:
    """What the others ask for is refused because of who asks."""
    with place.session("amy", "amy") as one, place.silent(one, "amy"):
        one.handshake()
        one.sign_on()
        for standing in (False, True):
            port = next(_ports)
            one.ask(port, standing)
            eventually(lambda: place.made.pinhole_of(f"{one.own[0]}:{port}"))  # noqa: B023


def test_host_that_resets_and_conntrack_that_has_forgotten_it(place: Network) -> None:
    with (
        Capture(place.made.lab, "A", "p-alice") as air,
        place.session() as one,
        place.session() as other,
    ):
        for each in (one, other):
            each.handshake()
            each.sign_on()
            eventually(lambda: resets(air, each))  # noqa: B023
        place.refused(one)
        time.sleep(FORGOTTEN_S)
        assert "CLOSE" not in place.conntrack(other)
        place.refused(other)
        other.go_on(MD5)  # picked up, with an answer that alice takes in silence
        assert "ESTABLISHED" in place.conntrack(other)
        place.refused(other)


@pytest.mark.parametrize("options", [MD5, AO], ids=["MD5", "AO"])
def test_answer_to_the_syn_that_hosts_take_in_silence_is_no_beginning(place: Network, options: bytes) -> None:
    with Capture(place.made.lab, "A", "p-alice") as air, place.session() as one:
        one.handshake(options)
        one.sign_on(MD5)
        if options is MD5:  # not every kernel knows the other one
            assert not resets(air, one), "the session was to be silent"
        place.refused(one)
        place.flush()
        one.go_on(MD5)
        place.refused(one)


def test_flushed_conntrack_holds_a_half_of_the_session_for_established(place: Network) -> None:
    with place.session() as one:
        one.handshake()
        one.sign_on(MD5)
        place.flush()
        one.go_on(MD5)
        assert "ESTABLISHED" in place.conntrack(one)
        assert "ASSURED" in place.conntrack(one)
        place.refused(one)


def test_reset_that_conntrack_ignores_is_believed(place: Network) -> None:
    """The server has acknowledged more by then: for connection tracking the host's reset is out of place."""
    lab = place.made.lab
    with place.session() as one, place.silent(one), Sender(lab, "alice") as alice:
        one.handshake()
        reset = packet(one.own, one.server.own, one.seq, 0, RST)  # it is slow
        one.sign_on()
        with Capture(lab, "A", "p-alice") as air:
            alice(reset)
            eventually(lambda: resets(air, one))
        one.go_on()
        assert "ESTABLISHED" in place.conntrack(one)
        place.refused(one)


@by_frames
def test_silent_host(place: Network) -> None:
    with place.session() as one, place.silent(one):
        one.handshake()
        one.sign_on()
        assert "ESTABLISHED" in place.conntrack(one)
        place.refused(one)
        place.flush()
        one.go_on()
        place.refused(one)
        place.made.daemon.wait_log("name only the other interfaces in check_senders")


@by_frames
def test_connection_of_the_hosts_own_in_which_another_one_speaks(place: Network) -> None:
    """A page can have a browser connect to any server. The handshake is alice's, the bytes are amy's."""
    lab = place.made.lab
    with place.session() as one, socket_in(lab, "alice") as browser:
        browser.setblocking(False)
        browser.bind(one.own)
        browser.connect_ex(one.server.own)
        one.server.accept()
        eventually(lambda: "ASSURED" in place.conntrack(one))
        one.seq = one.server.ack
        one.sign_on()
        place.refused(one)


@by_frames
def test_message_whose_last_bytes_alone_are_the_hosts_own(place: Network) -> None:
    """amy says all up to an address, and a page has alice's browser say the same and the rest."""
    lab, port = place.made.lab, next(_ports)
    said = SIGN_ON + HOST_ONLINE + proposal(ADDRESS["alice"], port)
    with place.session() as one, socket_in(lab, "alice") as browser:
        browser.setblocking(False)
        browser.bind(one.own)
        browser.connect_ex(one.server.own)
        one.server.accept()
        eventually(lambda: "ASSURED" in place.conntrack(one))
        one.seq = one.server.ack
        one.hear(SIGN_ON)
        one.say(PSH_ACK, SIGN_ON)
        one.hear(HOST_ONLINE)
        one.say(PSH_ACK, said[len(SIGN_ON) : said.index(ip4(ADDRESS["alice"])) - 4])
        time.sleep(0.1)  # no packet is held for longer
        browser.send(said)
        one.server.await_packet(lambda _, data: data == said)
        assert f"-> {ADDRESS['alice']}:{port} " not in place.made.daemon.log_text()
        assert not place.made.pinhole_of(f"{ADDRESS['alice']}:{port}")


@pytest.mark.parametrize("workers", [1, 2])
def test_sessions_that_outlive_the_daemon(workers: int) -> None:
    with network(f"workers = {workers}\n") as made, contextlib.ExitStack() as stack:
        one, silent = (stack.enter_context(made.session()) for _ in range(2))
        with made.silent(silent):
            for each in (one, silent):
                each.handshake()
                each.sign_on()
                each.go_on()
            time.sleep(0.5)  # positions are written
            made.made.daemon.kill()
            made.made.restart(settings=f"workers = {workers}\n{QUICK}")
            made.refused(one, silent)
            made.flush()
            made.made.daemon.kill()
            made.made.restart(settings=f"workers = {workers}\n{QUICK}")
            made.refused(one, silent)
