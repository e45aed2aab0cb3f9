"""XMPP's files between real clients (libpurple), by a real server (prosody), outside and at home."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from functools import partial
from pathlib import Path

import pytest

from tests.lab import home
from tests.lab.capture import Capture
from tests.lab.net import ADDRESS, SERVER, WAN, Lab
from tests.lab.scene import Scene, eventually
from tests.lab.xmpp_server import DOMAIN, PASSWORD, PORT, XmppServer

SETTINGS = 'protocols = ["oscar", "xmpp"]\n'
PAIRS = (("alice", "bob"), ("alice", "carol"), ("carol", "alice"), ("alice", "amy"), ("bob", "alice"))


class Purple:
    """libpurple on a node of the lab, with that node's name for an account."""

    def __init__(self, lab: Lab, node: str, server: str) -> None:
        self.folder = Path(lab.dir, f"purple-{node}")
        self.folder.mkdir()
        self.log = lab.log_file(f"libpurple-{node}")
        words = [node, DOMAIN, server, PASSWORD, str(self.folder)]
        self.process: subprocess.Popen[bytes] = lab.spawn(
            node, sys.executable, "-m", "tests.lab.libpurple", *words, pipes=True, log=self.log
        )

        stuck = threading.Timer(60.0, self.process.kill)  # or a client that says nothing is awaited for ever
        stuck.daemon = True
        stuck.start()

    def hears(self, *texts: str) -> None:
        """Wait for lines, in any order."""
        assert self.process.stdout is not None
        missing = {*texts}
        while missing and (line := self.process.stdout.readline().decode()):
            missing.discard(line.strip())
        assert not missing, f"it has ended: {self.log.read_text()}"

    def tell(self, text: str) -> None:
        """Offer a file: to whom, and its path."""
        assert self.process.stdin is not None
        self.process.stdin.write(text.encode() + b"\n")
        self.process.stdin.flush()


@pytest.mark.parametrize("at_home", [False, True], ids=["server-outside", "server-at-home"])
def test_files_go_directly_between_real_clients(at_home: bool) -> None:
    with Lab("legacy", "nft", home_server=True) as lab:
        if at_home:
            home.forward(lab, port=PORT)
        # A second interface, as hosts have for their own virtual machines: libpurple offers its address, too.
        for words in ("link add vm type bridge", "address add 192.168.122.1/24 dev vm", "link set vm up"):
            lab.run("alice", "ip", *words.split())
        made = Scene(lab)
        for router in ("A", "B"):
            made.restart(router, SETTINGS)
        server = (
            XmppServer(lab, "hsrv", home.HOME, friends=True) if at_home else XmppServer(lab, friends=True)
        )
        server.wait_ready()
        outside = WAN["A"] if at_home else SERVER
        clients = {
            host: Purple(lab, host, home.HOME if at_home and host in ("alice", "amy") else outside)
            for host in ("alice", "amy", "bob", "carol")
        }
        for host, client in clients.items():
            client.hears("signed on", *(f"sees {other}" for other in clients if other != host))
        with Capture(lab, "hsrv" if at_home else "server", "eth0") as air:
            for one, other in PAIRS:
                name = f"{one}-{other}.bin"
                content = os.urandom(50_000)
                (lab.dir / name).write_bytes(content)
                clients[one].tell(f"{other} {lab.dir / name}")
                clients[other].hears("file-recv-complete")
                # It is written out a moment later.
                eventually(partial(_holds, clients[other].folder / name, content))
        said = b"".join(packet.payload for packet in air.packets)
        assert said.count(b"<streamhost-used") >= len(PAIRS)
        assert b"192.168.122.1" in said
        assert b"http://jabber.org/protocol/ibb' sid" not in said, "nothing goes in band"
        log = made.daemon.log_text()
        opened = log.count(f"-> {ADDRESS['alice']}:")
        assert opened >= 2, log
        assert [daemon.stop() for daemon in made.daemons.values()] == [0, 0]


def _holds(path: Path, content: bytes) -> bool:
    return path.read_bytes() == content
