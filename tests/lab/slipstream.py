"""What the tests of NAT slipstreaming share: the bytes that would open a pinhole, and what must not happen.

One network serves them all, with a session in it that has nothing to do with any attack and must live on.
"""

from __future__ import annotations

import contextlib
import hashlib
import re
import socket
from collections.abc import Iterator
from dataclasses import dataclass

from tests.lab.capture import Capture
from tests.lab.impair import offloads_off
from tests.lab.namespace import socket_in
from tests.lab.net import ADDRESS
from tests.lab.scene import Scene, eventually, scene
from tests.lab.server import FAMILIES
from tests.lab.standin import Client, Server, Transfer
from tests.oscar import rendezvous as rdv
from tests.oscar import snac
from tests.oscar.icbm import ICBM_RDV, RENDEZVOUS, icbm_to_server
from tests.oscar.messages import addressed
from tests.oscar.signon import families, hello
from tests.oscar.snac import snac_frame
from tests.oscar.tlv import tlv
from tests.oscar.values import ip4, u16

PORT = 6000  # what the attacks want to have opened
SIGN_ON = hello(1)
HOST_ONLINE = snac_frame(snac.FAMILY_LIST, families(FAMILIES), number=2, request=0)


def proposal(address: str, port: int = PORT, number: int = 3) -> bytes:
    """SNAC(04,06) that offers a file from *address*:*port*."""
    inner = tlv(rdv.SEQUENCE, u16(1)) + tlv(rdv.HOST_CHECK)
    inner += addressed(rdv.RDV_IP, rdv.REQUESTER_IP, address=ip4(address), port=port)
    cookie = b"slipstr\0"
    block = tlv(ICBM_RDV, rdv.rdv_block(rdv.PROPOSE, cookie, rdv.SEND_FILE, inner))
    body = icbm_to_server(cookie, RENDEZVOUS, "bob", block)
    return snac_frame(snac.TO_HOST, body, number=number, request=7)


ALICE = proposal(ADDRESS["alice"])
# Both ends' parts of a session, each as one piece: a client that sends this and hears that has opened a port.
CLIENT_PART = SIGN_ON + HOST_ONLINE + ALICE
SERVER_PART = SIGN_ON + HOST_ONLINE


@dataclass
class Hostile:
    """A router with nfreaim, a bystander's session through it, and *air*, all that reaches node bob."""

    made: Scene
    server: Server
    bystander: Client
    other: Client
    air: Capture

    def pinholes(self) -> int:
        """How many are open in the kernel of router A."""
        return len(self.made.pinholes())

    def opened(self) -> int:
        """How many were ever opened, but for those of well-behaved clients, which listen on 5190 to 5199."""
        return len(re.findall(r"pinhole opened: \S+ -> \S+:(?!519. )", self.made.daemon.log_text()))

    def lost(self) -> tuple[int, int]:
        """Packets that the kernel dropped at the queue's door: full, and no room in the socket."""
        text = self.made.lab.run("A", "cat", "/proc/net/netfilter/nfnetlink_queue").stdout
        rows = [line.split() for line in text.splitlines()]
        return sum(int(row[5]) for row in rows), sum(int(row[6]) for row in rows)

    def bystander_works(self) -> None:
        """Its session is still read in both directions: an offer opens its pinhole, a cancel closes it."""
        transfer = Transfer(self.bystander, self.other, "file")
        eventually(self.pinholes)
        self.bystander.call("cancel", cookie=transfer.cookie)
        eventually(lambda: not self.pinholes())

    @contextlib.contextmanager
    def attack(self) -> Iterator[None]:
        """Nothing may open during what runs in here or behind it, and the daemon and the others go on."""
        eventually(lambda: not self.pinholes())
        opened, lost = self.opened(), self.lost()
        yield
        assert (self.pinholes(), self.opened()) == (0, opened)
        self.bystander_works()
        assert (self.pinholes(), self.opened()) == (0, opened)
        assert self.lost() == lost
        log = self.made.daemon.log_text()
        assert self.made.daemon.process.poll() is None
        assert "ERROR" not in log
        assert "Traceback" not in log

    def listen(self, **options: int) -> socket.socket:
        """A hostile server's socket on bob; *options* of TCP by name, e.g. ``TCP_MAXSEG=536``."""
        listener = socket_in(self.made.lab, "bob")
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        for name, value in options.items():
            listener.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), value)
        listener.bind((ADDRESS["bob"], 5190))
        listener.listen(8)
        return listener

    def segments_of(self, since: int, port: int = 5190) -> list[bytes]:
        """What each segment towards bob's *port* carried, of those behind number *since* of the air."""
        packets = self.air.packets[since:]
        return [p.payload for p in packets if not p.leaving and p.ports[1] == port and p.payload]


def same(one: bytes, other: bytes) -> bool:
    """Whether both ends' hashes agree."""
    return hashlib.sha256(one).digest() == hashlib.sha256(other).digest()


@contextlib.contextmanager
def hostile() -> Iterator[Hostile]:
    """The network, ready."""
    with scene(settings="[pinholes]\nrate_per_host = 10000\n") as made:  # so many sessions in a minute
        offloads_off(made.lab)
        server = made.server()
        bystander, other = made.clients(server, ("alice", "Alice"), ("bob", "Bobby"))
        other.call("policy", action="ignore")
        with Capture(made.lab, "bob", "eth0") as air:
            yield Hostile(made, server, bystander, other, air)
