"""A port scanner as outsiders use it: one SYN to each of the 65,535 ports, and never a whole connection.

The kernel of the scanning host answers each SYN-ACK with a reset, because no socket of it asked for one.
"""

from __future__ import annotations

import socket
import struct
import time
from contextlib import suppress

from tests.lab.namespace import socket_in
from tests.lab.net import WAN, Lab

ALL = range(1, 65536)
_BURST = 200  # packets; longer ones overrun the queues between the namespaces
_SYN, _SYN_ACK = 0x02, 0x12


def scan(lab: Lab, node: str, source: str, ports: range = ALL, router: str = "A") -> set[int]:
    """The ports of the router's outside address that answer a SYN of *source*, an address of *node*.

    Repeated until the router has seen every SYN: what was lost on the way is no closed port.
    """
    rule = f"PREROUTING -i wan -s {source} -d {WAN[router]} -p tcp --syn -j ACCEPT"
    lab.run(router, *f"iptables-legacy -w 5 -t raw -I {rule}".split())
    try:
        found: set[int] = set()
        for attempt in range(5):
            before = _seen(lab, router)
            found |= _once(lab, node, source, WAN[router], ports, 50000 + attempt)
            if _seen(lab, router) - before >= len(ports):
                return found
        raise AssertionError("the router never saw a whole scan")
    finally:
        lab.run(router, *f"iptables-legacy -w 5 -t raw -D {rule}".split())


def _seen(lab: Lab, router: str) -> int:
    """How many SYNs have matched the rule that ``scan`` put first."""
    listed = lab.run(router, *"iptables-legacy -w 5 -t raw -L PREROUTING 1 -v -x -n".split()).stdout
    return int(listed.split()[0])


def _once(lab: Lab, node: str, source: str, target: str, ports: range, port: int) -> set[int]:
    """Send a SYN to each of *ports* from *port*, collect the answers."""
    kinds = (socket.AF_INET, socket.SOCK_RAW)
    with (
        socket_in(lab, node, *kinds, socket.IPPROTO_TCP) as answers,
        socket_in(lab, node, *kinds, socket.IPPROTO_TCP) as sender,
    ):
        answers.setsockopt(socket.SOL_SOCKET, 33, 1 << 22)  # SO_RCVBUFFORCE
        answers.setblocking(False)
        sender.bind((source, 0))
        # The sum of all but the destination port; the pseudo-header is that of RFC 9293, section 3.1.
        fixed = socket.inet_aton(source) + socket.inet_aton(target) + struct.pack("!HH", 6, 20)
        fixed += struct.pack("!HIIHH", port, 1, 0, 0x5000 | _SYN, 64240)
        base = sum(struct.unpack(f"!{len(fixed) // 2}H", fixed))
        found: set[int] = set()
        for at, number in enumerate(ports):
            total = base + number
            total = (total & 0xFFFF) + (total >> 16)
            total = (total & 0xFFFF) + (total >> 16)
            syn = struct.pack("!HHIIHHHH", port, number, 1, 0, 0x5000 | _SYN, 64240, ~total & 0xFFFF, 0)
            sender.sendto(syn, (target, 0))
            if at % _BURST == 0:
                found |= _answered(answers, target, port)
                time.sleep(0.001)
        time.sleep(0.3)
        return found | _answered(answers, target, port)


def _answered(answers: socket.socket, target: str, port: int) -> set[int]:
    found: set[int] = set()
    with suppress(BlockingIOError):
        while True:
            packet = answers.recv(2048)
            start = (packet[0] & 15) * 4
            theirs, ours = struct.unpack_from("!HH", packet, start)
            if (packet[12:16], ours) == (socket.inet_aton(target), port) and packet[start + 13] == _SYN_ACK:
                found.add(theirs)
    return found
