"""A program that claims to be a server behind router A, with ordinary sockets, and its accomplice outside."""

from __future__ import annotations

import socket
import subprocess
import sys
from typing import Self

from tests.lab.namespace import socket_in
from tests.lab.net import ADDRESS, WAN, Lab
from tests.lab.slipstream import HOST_ONLINE, SIGN_ON
from tests.oscar import rendezvous as rdv
from tests.oscar.flap import numbered
from tests.oscar.messages import FIRST, addressed, relayed
from tests.oscar.values import ip4

PORT = 8123  # where the named hosts are said to listen

# Listens as a plain or a system user, and says what it is told, line by line: to all connections, or "close".
PROGRAM = """
import os, socket, sys
user, address, port = int(sys.argv[1]), sys.argv[2], int(sys.argv[3])
os.setgroups([])
os.setgid(user)
os.setuid(user)
listener = socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET)
if ":" in address:
    listener.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
for option in (socket.SO_REUSEADDR, socket.SO_REUSEPORT):
    listener.setsockopt(socket.SOL_SOCKET, option, 1)
listener.bind((address, port))
listener.listen()
print("listening", flush=True)
end = None
for line in sys.stdin:
    if line == "accept\\n":
        end, _ = listener.accept()
    elif line == "close\\n":
        listener.close()
    else:
        end.sendall(bytes.fromhex(line))
    print("done", flush=True)
"""


def named(address: str, number: int, port: int = PORT) -> bytes:
    """An offer of a file that a server relays and vouches for, as the FLAP frame with this number."""
    tags = rdv.RDV_IP, rdv.REQUESTER_IP, rdv.VERIFIED_IP
    inner = FIRST + addressed(*tags, address=ip4(address), port=port)
    return numbered(relayed(inner, cookie=b"%07d\0" % number), number)


class Claimant:
    """A server on *node*, with the flow to its accomplice *bob* past sign-on."""

    def __init__(self, lab: Lab, node: str, outside: str = WAN["A"]) -> None:
        self._lab = lab
        self._number = 3
        self._accepted: list[socket.socket] = []
        self._make(lab, node)
        self.accomplice = socket_in(lab, "bob")
        self.accomplice.connect((outside, 5190))
        self._accept()
        self._say(SIGN_ON)
        self._heard(SIGN_ON)
        self.accomplice.sendall(SIGN_ON)
        self._say(HOST_ONLINE)
        self._heard(HOST_ONLINE)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.accomplice.close()
        for end in (self.end, *self._accepted):
            end.close()
        self.listener.close()

    def names(self, address: str, port: int = PORT) -> bool:
        """Whether the accomplice is told another address than *address* after it was relayed as that of a
        host that listens on *port*: then a pinhole was opened."""
        frame = named(address, self._number, port)
        self._number += 1
        self._say(frame)
        return self._read(len(frame)) != frame

    def client(self, node: str, to: str) -> socket.socket:
        """A connection of an inside host to this server, at the address *to*, which stays open."""
        made = socket_in(self._lab, node)
        made.connect((to, 5190))
        made.sendall(b"x")
        accepted, _ = self.listener.accept()
        self._accepted.append(accepted)
        accepted.recv(1)
        accepted.sendall(b"y")
        made.recv(1)
        return made

    def _make(self, lab: Lab, node: str) -> None:
        self.listener = socket_in(lab, node)
        self.listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self.listener.bind(("0.0.0.0", 5190))
        self.listener.listen()

    def _accept(self) -> None:
        self.end, _ = self.listener.accept()

    def _say(self, data: bytes) -> None:
        self.end.sendall(data)

    def _heard(self, data: bytes) -> None:
        assert self._read(len(data)) == data

    def _read(self, size: int) -> bytes:
        read = b""
        while len(read) < size:
            more = self.accomplice.recv(size - len(read))
            assert more, "closed"
            read += more
        return read


class RouterClaimant(Claimant):
    """The same on router A, as the user *user*."""

    def __init__(self, lab: Lab, user: int, address: str = "0.0.0.0") -> None:
        self._user, self._address = user, address
        super().__init__(lab, "A")

    def __exit__(self, *_: object) -> None:
        self.accomplice.close()
        self.program.kill()
        self.program.wait(10)

    def stop_listening(self) -> None:
        """Close the listening socket, and keep the connection."""
        self._tell("close")

    def _make(self, lab: Lab, node: str) -> None:
        self.program = listen_as(lab, self._user, self._address)

    def _accept(self) -> None:
        self._tell("accept")

    def _say(self, data: bytes) -> None:
        self._tell(data.hex())

    def _tell(self, line: str) -> None:
        assert self.program.stdin is not None
        assert self.program.stdout is not None
        self.program.stdin.write(f"{line}\n".encode())
        self.program.stdin.flush()
        assert self.program.stdout.readline() == b"done\n"


def listen_as(lab: Lab, user: int, address: str = "0.0.0.0") -> subprocess.Popen[bytes]:
    """A program of *user* on router A that listens on port 5190."""
    program = lab.spawn("A", sys.executable, "-c", PROGRAM, str(user), address, "5190", pipes=True)
    assert program.stdout is not None
    assert program.stdout.readline() == b"listening\n"
    return program


def serve_udp(lab: Lab, port: int) -> socket.socket:
    """Listen on UDP *port* of router A, as a program does that forwards ports on request."""
    made = socket_in(lab, "A", socket.AF_INET, socket.SOCK_DGRAM)
    made.bind(("0.0.0.0", port))
    return made


def second_network(lab: Lab, node: str) -> None:
    """Put *node* of LAN A into a network of its own, 10.0.1.0/24 at the interface lan2 of router A."""
    lab.run("A", "ip", "link", "set", f"p-{node}", "nomaster")
    lab.run("A", "ip", "link", "set", f"p-{node}", "name", "lan2")
    lab.run("A", "ip", "address", "add", "10.0.1.1/24", "dev", "lan2")
    lab.run("A", "ip", "link", "set", "lan2", "up")
    lab.run(node, "ip", "address", "flush", "dev", "eth0")
    lab.run(node, "ip", "address", "add", f"{SECOND[node]}/24", "dev", "eth0")
    lab.run(node, "ip", "route", "add", "default", "via", "10.0.1.1")


SECOND = {name: address.replace("10.0.0.", "10.0.1.") for name, address in ADDRESS.items()}
"""Addresses in the second network."""
