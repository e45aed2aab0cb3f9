"""Yahoo! Messenger's files at the sender's own web server, between stand-ins across two NAT routers.

No client and no server of that time can be had: the stand-ins do what the protocol's descriptions say.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from tests.lab.capture import Capture
from tests.lab.namespace import socket_in
from tests.lab.net import ADDRESS, WAN, Lab
from tests.lab.scene import Scene, eventually, nfreaim, scene
from tests.lab.yahoo import SETTINGS, Outcome, YahooClient, online, transfer
from tests.yahoo.ymsg import ACCEPT15, INFO15, MESSAGE, PEERTOPEER, offer, packets_of, url, ymsg

PAIRS = (("alice", "bob"), ("alice", "carol"), ("carol", "alice"), ("alice", "amy"), ("bob", "alice"))
# Who listens is the first of each: on plain NAT nobody outside reaches it.
PLAIN_WORKS = {("alice", "amy"), ("bob", "alice")}
KINDS = {"port of its own": 5555, "port 80": None}
HOSTS = ("alice", "amy", "bob", "carol")
# One connection makes all the offers of these tests.
MANY = SETTINGS + "[pinholes]\nper_flow = 100\n"
Rows = dict[tuple[str, str, str], Outcome]
Online = dict[str, YahooClient]


def outcomes(clients: Online) -> Rows:
    """Every pair and kind, side by side."""
    running = {
        (*pair, kind): transfer(clients[pair[0]], clients[pair[1]], port, head=kind != "port 80")
        for pair in PAIRS
        for kind, port in KINDS.items()
    }
    return {row: outcome() for row, outcome in running.items()}


each = pytest.mark.parametrize(
    ("sender", "receiver", "kind"),
    [pytest.param(*pair, kind, id=f"{'-'.join(pair)}-{kind}") for pair in PAIRS for kind in KINDS],
)


@pytest.fixture(scope="module")
def plain() -> Iterator[Rows]:
    with Lab("legacy", "nft") as lab:
        yield outcomes(online(lab, *HOSTS))


@contextmanager
def running() -> Iterator[tuple[Scene, Online]]:
    with scene("A", "B", settings=MANY, variants=("legacy", "nft")) as made:
        yield made, online(made.lab, *HOSTS)


@pytest.fixture(scope="module")
def both() -> Iterator[tuple[Scene, Online]]:
    """nfreaim on both routers; the tests share it."""
    with running() as made:
        yield made
        for daemon in made[0].daemons.values():
            assert daemon.stop() == 0
            assert "failed_flows" not in daemon.log_text()
            assert not re.search(r"Messenger|file\d+|Traceback", daemon.log_text())


@pytest.fixture(scope="module")
def served(both: tuple[Scene, Online]) -> Rows:
    return outcomes(both[1])


@each
def test_plain_nat(sender: str, receiver: str, kind: str, plain: Rows) -> None:
    outcome = plain[sender, receiver, kind]
    assert outcome.ok is ((sender, receiver) in PLAIN_WORKS), outcome


@each
def test_with_nfreaim_on_both_routers(sender: str, receiver: str, kind: str, served: Rows) -> None:
    outcome = served[sender, receiver, kind]
    assert outcome.ok, outcome
    address, _, port = outcome.reached.partition(":")
    if (sender, receiver) == ("alice", "amy"):  # on their own LAN, at the sender's own port
        assert (address, outcome.peer) == (ADDRESS["alice"], ADDRESS["amy"])
        assert port == str(KINDS[kind] or 80)
    elif kind == "port 80" and sender != "bob":
        assert int(port) in range(40000, 41000)


def test_url_and_length_outside_and_beside(both: tuple[Scene, Online]) -> None:
    made, clients = both
    with (
        Capture(made.lab, "A", "p-amy") as beside,
        Capture(made.lab, "server", "eth0") as outside,
    ):
        assert transfer(clients["alice"], clients["amy"], 5600)().ok

        def offers(capture: Capture) -> list[bytes]:
            stream = [packet.payload for packet in capture.packets]
            return [one for data in stream for one in packets_of(data) if b"http://" in one]

        eventually(lambda: offers(outside) and offers(beside))
        assert all(b"http://203.0.113.1:5600/" in packet for packet in offers(outside))
        assert all(b"http://10.0.0.5:5600/" in packet for packet in offers(beside))


def test_offer_that_is_cut_anywhere_is_served(both: tuple[Scene, Online]) -> None:
    _, clients = both
    for cuts in ((9,), (11, 60), (100,), (110, 112)):
        assert transfer(clients["alice"], clients["carol"], 5601, cuts=cuts)().ok, cuts


def test_port_80_of_a_host_that_is_not_listed_stays_shut_and_the_log_says_what_helps(
    both: tuple[Scene, Online],
) -> None:
    made, clients = both
    outcome = transfer(clients["amy"], clients["bob"], None)()
    assert not outcome.ok
    assert outcome.reached == f"{ADDRESS['amy']}:80"
    assert "[yahoo] web_hosts lists 10.0.0.6" in made.daemon.log_text()
    assert not made.pinhole_of(f"{ADDRESS['amy']}:80")


def test_other_ports_and_hosts_stay_shut(both: tuple[Scene, Online]) -> None:
    made, clients = both
    before = made.daemon.log_text().count("pinhole opened")
    wanted = [url("10.0.0.5", 22), url("10.0.0.5", 3389), url("10.0.0.5", 443), url("10.0.0.6", 6000)]
    wanted += [url("10.0.0.1", 6000), url("127.0.0.1", 6000), url("203.0.113.9", 6000)]
    for where in wanted:
        clients["alice"].call("raw", data=offer(where, to=b"bob").hex())
    assert transfer(clients["alice"], clients["bob"], 5602)().ok
    assert made.daemon.log_text().count("pinhole opened") == before + 1


def test_only_a_request_for_the_offered_file_gets_through(both: tuple[Scene, Online]) -> None:
    """Port 80 of alice: her web server sees nothing of what is asked otherwise."""
    made, clients = both
    transfer(clients["alice"], clients["bob"], None)()
    clients["alice"].call("offer", to="bob", file="secret.bin", port=None)
    pinhole = eventually(lambda: made.pinhole_of(f"{ADDRESS['alice']}:80"))
    assert pinhole is not None
    port = int(pinhole.outside.partition(":")[2])
    assert port >= 1024

    def asked(data: bytes) -> bytes:
        with socket_in(made.lab, "bob") as caller:
            caller.connect((WAN["A"], port))
            caller.sendall(data)
            try:
                return caller.recv(4096)
            except ConnectionResetError:
                return b"reset"

    for path in (
        b"/",
        b"/Messenger.alice.other",
        b"/Messenger.alice.secret.binx",
        b"/Messenger.alice.secret",
    ):
        assert asked(b"GET %s HTTP/1.0\r\n\r\n" % path) == b"reset", path
    assert asked(b"POST /Messenger.alice.secret.bin HTTP/1.0\r\n\r\n") == b"reset"
    assert asked(b"\x16\x03\x01\x00\xf8\x01") == b"reset"
    assert asked(b"GET /Messenger.alice.secret.bin HTTP/1.0\r\n\r\n").startswith(b"HTTP/1.0 200")


RULES = ("ipset save", "iptables-legacy-save", "nft list ruleset")


def test_no_name_of_a_file_is_kept_or_told(both: tuple[Scene, Online]) -> None:
    made, clients = both
    clients["alice"].call("offer", to="bob", file="marked.bin", port=5606)
    eventually(lambda: made.pinhole_of(f"{ADDRESS['alice']}:5606"))
    flows = made.lab.dir / "run-A" / "nfreaim" / "flows"
    told = [made.daemon.log_text(), nfreaim(made.lab, "A", "status", "--json")]
    told += [made.lab.run("A", "sh", "-c", f"{program} || true").stdout for program in RULES]
    told += [path.read_bytes().decode("latin-1") for path in flows.iterdir() if path.is_file()]
    assert "5606" in told[1]
    assert not [text for text in told if "marked" in text or "Messenger" in text]


def test_what_no_server_relays_is_relayed_as_it_is(both: tuple[Scene, Online]) -> None:
    made, clients = both
    said = [
        ymsg(PEERTOPEER, [(1, b"alice"), (4, b"alice"), (12, b"ODM4ODYwOTA="), (5, b"bob"), (13, b"0")]),
        ymsg(INFO15, [(1, b"alice"), (5, b"bob"), (265, b"x$$"), (249, b"1"), (250, url("10.0.0.5", 6001))]),
        ymsg(ACCEPT15, [(1, b"alice"), (5, b"bob"), (265, b"x$$"), (249, b"3"), (250, b"198.51.100.7")]),
        ymsg(MESSAGE, [(1, b"alice"), (5, b"bob"), (14, b"that is all")]),
    ]
    with Capture(made.lab, "server", "eth0") as outside:
        for packet in said:
            clients["alice"].call("raw", data=packet.hex())

        def heard() -> bytes:
            return b"".join(packet.payload for packet in outside.packets if packet.ports[1] == 5050)

        eventually(lambda: b"that is all" in heard())
        assert b"".join(said) in heard()
    assert not made.pinhole_of(f"{ADDRESS['alice']}:6001")


def test_sign_off_closes_what_nobody_used(both: tuple[Scene, Online]) -> None:
    made, clients = both
    clients["carol"].call("offer", to="bob", file="unused.bin", port=5603)
    eventually(lambda: any(it.inside.endswith(":5603") for it in made.pinholes("B")))
    clients["carol"].call("sign_off")
    eventually(lambda: not any(it.inside.endswith(":5603") for it in made.pinholes("B")))


def test_session_that_is_older_than_the_daemon_is_served_again(both: tuple[Scene, Online]) -> None:
    """Its lengths were changed before the crash; the next offer is served, too."""
    made, clients = both
    assert transfer(clients["alice"], clients["bob"], 5604)().ok
    made.wait_for_positions()
    made.daemon.kill()
    made.restart(settings=MANY)
    assert transfer(clients["alice"], clients["bob"], 5605)().ok
