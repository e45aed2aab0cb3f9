"""Programs inside that are reached on a server's port.

One runs on the router without any rights; one on a LAN host, and forges clients of its own.
"""

from __future__ import annotations

import contextlib
import socket
import subprocess
import sys
import time
from collections.abc import Iterator

from tests.attacks import network, wire
from tests.attacks.forged_session import MD5, PAUSE
from tests.lab.namespace import socket_in
from tests.lab.net import ADDRESS, Lab
from tests.lab.sockets import exactly
from tests.tcp.packets import ACK, PSH_ACK, SYN, mss, packet

ALICE, AMY = (ADDRESS["alice"], 40777), (ADDRESS["amy"], 5190)


def forge_client(lab: Lab) -> None:
    """Play both sides of alice's connection to amy:5190, in frames to the router, which sends each back."""
    link = lab.run("A", *"ip -br link show lan".split()).stdout.split()[2]
    router = "eth0", 0x0800, 0, 0, bytes.fromhex(link.replace(":", ""))
    drop = f"-t raw -A PREROUTING -s {ALICE[0]} -p tcp --dport {AMY[1]} -j DROP"
    lab.run("amy", "iptables-legacy", *drop.split())  # amy's kernel has no part in it
    one, two = 0x1000, 0x2000
    options = mss(1460) + MD5
    with socket_in(lab, "amy", socket.AF_PACKET, socket.SOCK_DGRAM, 0) as cable:
        for raw in (
            packet(ALICE, AMY, one, 0, SYN, tcp_options=mss(1460)),
            packet(AMY, ALICE, two, one + 1, SYN | ACK, tcp_options=options),
            packet(ALICE, AMY, one + 1, two + 1, ACK),
            packet(AMY, ALICE, two + 1, one + 1, PSH_ACK, wire.SIGN_ON, tcp_options=MD5),
            packet(ALICE, AMY, one + 1, two + 11, PSH_ACK, wire.SIGN_ON),
            packet(AMY, ALICE, two + 11, one + 11, PSH_ACK, wire.HOST_ONLINE, tcp_options=MD5),
            packet(ALICE, AMY, one + 11, two + 11 + len(wire.HOST_ONLINE), ACK),
        ):
            cable.sendto(raw, router)
            time.sleep(PAUSE)


USER = """
import os, socket, sys
os.setgroups([])
os.setgid(65534)
os.setuid(65534)
assert not int(next(line for line in open("/proc/self/status") if line.startswith("CapEff")).split()[1], 16)
listener = socket.socket()
listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
listener.bind(("0.0.0.0", 5190))
listener.listen(8)
print("ready", flush=True)
end, _ = listener.accept()
for line in sys.stdin:
    end.sendall(bytes.fromhex(line))
"""
"""Sends whatever its standard input says, in hexadecimal digits, to the first who connects."""


class RouterUser:
    """That program on router A, and bob, an accomplice, who signed on to it as to a server."""

    def __init__(self, program: subprocess.Popen[bytes], accomplice: socket.socket) -> None:
        self._program, self.accomplice = program, accomplice

    def tell(self, data: bytes) -> None:
        """Have it send that; wait until all of it has come."""
        assert self._program.stdin is not None
        self._program.stdin.write(data.hex().encode() + b"\n")
        self._program.stdin.flush()
        exactly(self.accomplice, len(data))


@contextlib.contextmanager
def router_user(lab: Lab) -> Iterator[RouterUser]:
    """Signed on."""
    program = lab.spawn("A", sys.executable, "-c", USER, pipes=True)
    assert program.stdout is not None
    assert program.stdout.readline() == b"ready\n"
    with socket_in(lab, "bob") as accomplice:
        accomplice.connect((network.ROUTER, 5190))
        one = RouterUser(program, accomplice)
        one.tell(wire.SIGN_ON)
        accomplice.sendall(wire.SIGN_ON)
        time.sleep(0.1)
        one.tell(wire.HOST_ONLINE)
        try:
            yield one
        finally:
            network.ended(program)
