"""What real clients do with their ports and addresses: each peer gets through at the first attempt.

Some clients have one port for all that they offer, others one for each; some announce the router's address,
or one that nobody reaches; some offers are left alone, and their peers come all the same.
"""

from __future__ import annotations

import contextlib
import itertools
import socket
import time
from collections.abc import Iterator

import pytest

from tests.lab.namespace import socket_in
from tests.lab.scene import Scene, announced, eventually, scene
from tests.lab.standin import Client
from tests.oscar import peer_headers as peer
from tests.oscar import rendezvous as rdv
from tests.oscar.profiles import PROFILES, Offer

OUTSIDE = "203.0.113.1"
CUT = {
    "name": "cut",
    "cuts": [80],
    "pause": 1.5,
}  # within the addresses, and for longer than a packet is held
_numbers = itertools.count(1)
_ports = itertools.count(6000)


class Home:
    """Alice and amy behind the router, bob and carol outside; nobody answers by itself."""

    def __init__(self, made: Scene, clients: list[Client]) -> None:
        self.made = made
        self.alice, self.amy, self.bob, self.carol = clients
        self.listeners: dict[int, socket.socket] = {}

    def offer(
        self,
        port: int,
        capability: bytes = rdv.SEND_FILE,
        address: str = "10.0.0.5",
        to: Client | None = None,
        write: dict[str, object] | None = None,
    ) -> bytes:
        """Alice listens on *port*, and offers that to bob; the offer's cookie."""
        if port not in self.listeners:
            listener = self.listeners[port] = socket_in(self.made.lab, "alice")
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listener.bind(("0.0.0.0", port))
            listener.listen(64)
            listener.settimeout(5.0)
        cookie = b"%07d\0" % next(_numbers)
        body = PROFILES["libpurple"].proposal((to or self.bob).name, Offer(cookie, capability, address, port))
        self.alice.call("send_snac", family=4, subtype=6, body=body.hex(), write=write)
        return cookie

    def told(self, cookie: bytes, to: Client | None = None) -> tuple[str, int]:
        """The endpoint that the receiver was told."""
        block = announced(to or self.bob, cookie.hex())
        address = block.address(rdv.RDV_IP)
        assert address is not None
        return address, block.number(rdv.PORT)

    @contextlib.contextmanager
    def call(self, target: tuple[str, int], port: int, first: bytes, node: str = "bob") -> Iterator[None]:
        """Somebody on *node* connects to *target* and says *first*, which alice hears on *port*."""
        with socket_in(self.made.lab, node) as caller:
            caller.settimeout(5.0)
            caller.connect(target)
            host, _ = self.listeners[port].accept()
            with host:
                host.settimeout(5.0)
                caller.sendall(first)
                heard = b""
                while len(heard) < len(first):
                    more = host.recv(4096)
                    assert more, "the connection ended"
                    heard += more
                assert heard == first
                host.sendall(b"done")
                assert caller.recv(4) == b"done"
                yield

    def accept(self, cookie: bytes) -> None:
        """Bob's client says that it has connected."""
        body = PROFILES["libpurple"].accept("Alice", cookie, rdv.SEND_FILE)
        self.bob.call("send_snac", family=4, subtype=6, body=body.hex())

    def cancel(self, *cookies: bytes) -> None:
        """Alice takes back what she has offered."""
        for cookie in cookies:
            body = PROFILES["libpurple"].cancel("Bobby", cookie, rdv.SEND_FILE)
            self.alice.call("send_snac", family=4, subtype=6, body=body.hex())


@pytest.fixture(scope="module")
def home() -> Iterator[Home]:
    with scene(settings="[pinholes]\nclaim_grace = 2\n") as made:
        who = ("alice", "Alice"), ("amy", "Amy"), ("bob", "Bobby"), ("carol", "Carol")
        clients = made.clients(made.server(), *who)
        for client in clients:
            client.call("policy", action="ignore")
        yield Home(made, clients)
        assert "failed" not in made.daemon.log_text()


def is_refused(stranger: socket.socket, port: int) -> bool:
    """Whether a web client is reset, or not let in any more."""
    try:
        stranger.connect((OUTSIDE, port))
        stranger.sendall(b"GET / HTTP/1.1\r\n\r\n")
        return not stranger.recv(1)
    except OSError:
        return True


def oft(cookie: bytes) -> bytes:
    """What the receiver of a file says first."""
    return peer.oft_header(peer.ACK, cookie, 1, 1, "x")


def odc(cookie: bytes) -> bytes:
    """What the peer of a direct IM says first."""
    return peer.odc_frame(cookie, "Bobby", flags=peer.CONFIRM)


# --- agreements that are over do not count ------------------------------------------------------------------


@pytest.mark.parametrize("pause", [0.0, 0.3])
@pytest.mark.parametrize("each", [False, True], ids=["one port", "a port each"])
def test_twenty_files_one_after_another(home: Home, each: bool, pause: float) -> None:
    port = next(_ports)
    cookies = []
    for _ in range(20):
        cookie = home.offer(port)
        cookies.append(cookie)
        assert home.told(cookie) == (OUTSIDE, port)
        with home.call((OUTSIDE, port), port, oft(cookie)):
            home.accept(cookie)
        time.sleep(pause)
        port = next(_ports) if each else port
    home.cancel(*cookies)


@pytest.mark.parametrize("each", [False, True], ids=["one port", "a port each"])
def test_eight_files_at_once_and_eight_more(home: Home, each: bool) -> None:
    first = next(_ports)
    cookies: list[bytes] = []
    for _ in range(2):
        ports = [next(_ports) if each else first for _ in range(8)]
        offered = {home.offer(port): port for port in ports}
        with contextlib.ExitStack() as stack:
            for cookie, port in offered.items():
                assert home.told(cookie) == (OUTSIDE, port)
                stack.enter_context(home.call((OUTSIDE, port), port, oft(cookie)))
        cookies += offered
    home.cancel(*cookies)


# --- the client's own outside address -----------------------------------------------------------------------


@pytest.mark.parametrize("capability", [rdv.SEND_FILE, rdv.DIRECT_IM], ids=["file", "direct im"])
@pytest.mark.parametrize("taken", [False, True], ids=["port free", "port taken"])
def test_client_that_announces_the_routers_address(home: Home, capability: bytes, taken: bool) -> None:
    port = next(_ports)
    if taken:  # by amy's pinhole
        amy = b"%07d\0" % next(_numbers)
        body = PROFILES["libpurple"].proposal("Carol", Offer(amy, rdv.SEND_FILE, "10.0.0.6", port))
        home.amy.call("send_snac", family=4, subtype=6, body=body.hex())
        eventually(lambda: home.made.pinhole_of(f"10.0.0.6:{port}"))
    cookie = home.offer(port, capability, OUTSIDE)
    target = home.told(cookie)
    assert target[0] == OUTSIDE
    assert (target[1] == port) is not taken
    with home.call(target, port, oft(cookie) if capability == rdv.SEND_FILE else odc(cookie)):
        pass
    home.cancel(cookie)


@pytest.mark.parametrize("address", ["127.0.1.1", "192.168.56.1"])
def test_address_that_nobody_reaches_is_left_and_said(home: Home, address: str) -> None:
    port = next(_ports)
    cookie = home.offer(port, address=address)
    assert home.told(cookie) == (address, port)
    assert home.made.pinhole_of(f"10.0.0.5:{port}") is None
    home.made.daemon.wait_log(
        f"naming {address}:{port}: not the sender's own address: it announces {address}"
    )


# --- a port that is on its way ------------------------------------------------------------------------------


@pytest.mark.parametrize("address", ["10.0.0.5", OUTSIDE], ids=["own address", "router's address"])
def test_port_that_was_announced_is_not_given_to_a_neighbour_while_peers_may_still_use_it(
    home: Home, address: str
) -> None:
    port = next(_ports)
    cookie = home.offer(port, address=address)
    assert home.told(cookie) == (OUTSIDE, port)
    home.cancel(cookie)
    eventually(lambda: home.made.pinhole_of(f"10.0.0.5:{port}") is None)
    amys = b"%07d\0" % next(_numbers)
    body = PROFILES["libpurple"].proposal("Bobby", Offer(amys, rdv.SEND_FILE, "10.0.0.6", port))
    home.amy.call("send_snac", family=4, subtype=6, body=body.hex())
    assert home.told(amys)[1] != port
    again = home.offer(port, address=address)
    assert home.told(again) == (OUTSIDE, port), "it is its own host's"
    home.cancel(again)


# --- nobody is told his own ---------------------------------------------------------------------------------


def test_outside_endpoint_is_mapped_back_for_the_neighbour_and_not_for_its_own_host(home: Home) -> None:
    port = next(_ports)
    cookie = home.offer(port)
    home.told(cookie)
    for receiver, expected in ((home.alice, OUTSIDE), (home.amy, "10.0.0.5")):
        back = b"%07d\0" % next(_numbers)
        body = PROFILES["libpurple"].proposal(receiver.name, Offer(back, rdv.SEND_FILE, OUTSIDE, port))
        home.bob.call("send_snac", family=4, subtype=6, body=body.hex())
        assert home.told(back, receiver) == (expected, port)
    home.cancel(cookie)


# --- several services on one port ---------------------------------------------------------------------------


@pytest.mark.parametrize("left", ["cut", "unreachable address"])
@pytest.mark.parametrize("order", ["file, im", "im, file"])
def test_peer_of_an_offer_that_was_left_alone_is_let_in(home: Home, order: str, left: str) -> None:
    port = next(_ports)
    kinds = {"file": (rdv.SEND_FILE, oft), "im": (rdv.DIRECT_IM, odc)}
    (first, first_bytes), (second, second_bytes) = (kinds[kind] for kind in order.split(", "))
    whole = home.offer(port, first, to=home.carol)
    home.told(whole, home.carol)
    if left == "cut":
        cookie = home.offer(port, second, write=CUT)
    else:
        cookie = home.offer(port, second, address="127.0.1.1")
    home.told(cookie)
    with home.call((OUTSIDE, port), port, second_bytes(cookie)):
        pass
    time.sleep(2.5)  # the grace: the pinhole must not be the other one's alone
    with home.call((OUTSIDE, port), port, first_bytes(whole), node="carol"):
        pass
    with socket_in(home.made.lab, "server") as stranger:
        stranger.settimeout(5.0)
        assert is_refused(stranger, port)
    home.cancel(whole, cookie)


@pytest.mark.parametrize("order", ["file, talk", "talk, file"])
def test_service_whose_first_bytes_are_not_known_has_a_pinhole_beside_the_verified_one(
    home: Home, order: str
) -> None:
    port = next(_ports)
    kinds = {"file": rdv.SEND_FILE, "talk": rdv.TALK}
    offered = {kind: home.offer(port, kinds[kind]) for kind in order.split(", ")}
    told = {kind: home.told(cookie) for kind, cookie in offered.items()}
    assert told["file"] != told["talk"]
    with home.call(told["talk"], port, b"whatever"), home.call(told["file"], port, oft(offered["file"])):
        pass
    with socket_in(home.made.lab, "server") as stranger:
        stranger.settimeout(5.0)
        assert is_refused(stranger, told["file"][1])
    home.cancel(*offered.values())


def test_peer_of_an_earlier_offer_is_let_in_after_a_restart() -> None:
    """Of several offers of one port the kernel's entry names one."""
    with scene() as made:
        home = Home(
            made,
            made.clients(
                made.server(), ("alice", "Alice"), ("amy", "Amy"), ("bob", "Bobby"), ("carol", "Carol")
            ),
        )
        for client in (home.bob, home.carol):
            client.call("policy", action="ignore")
        im, file = home.offer(6000, rdv.DIRECT_IM), home.offer(6000, to=home.carol)
        home.told(file, home.carol)
        made.daemon.kill()
        made.restart()
        with home.call((OUTSIDE, 6000), 6000, odc(im)):
            pass


# --- strangers ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("stays", [False, True], ids=["leaves", "stays"])
def test_stranger_that_comes_first_does_not_shut_out_the_peer(home: Home, stays: bool) -> None:
    port = next(_ports)
    cookie = home.offer(port, rdv.TALK)
    assert home.told(cookie) == (OUTSIDE, port)
    with contextlib.ExitStack() as stack:
        stack.enter_context(home.call((OUTSIDE, port), port, b"hello?", node="carol"))
        if not stays:
            stack.pop_all().close()
        time.sleep(3.0)  # for longer than the grace of a claim
        with home.call((OUTSIDE, port), port, b"it is me"):
            pass
    home.cancel(cookie)
    eventually(lambda: home.made.pinhole_of(f"10.0.0.5:{port}") is None)
