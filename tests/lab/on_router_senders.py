"""What the host modules tell of senders and handshakes, on a router of the lab; run by test_kernel.py."""

from __future__ import annotations

import socket
import subprocess
import sys
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path

from nfreaim.core.address import Endpoint, FlowId
from nfreaim.core.backend import Sender
from nfreaim.host.linux_backend import LinuxBackend
from nfreaim.host.netfilter.neighbours import Neighbours, as_text
from nfreaim.host.state.state_files import StateDirectory

ELSEWHERE = bytes((2, 0, 0, 0, 0, 9))


def shell(command: str) -> str:
    return subprocess.run(command, shell=True, check=True, capture_output=True, text=True, timeout=30).stdout


def resolve(address: str) -> None:
    """Have the kernel look for this neighbour."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        probe.sendto(b"", (address, 9))
    deadline = time.monotonic() + 5
    while "lladdr" not in shell(f"ip neigh show {address}") and time.monotonic() < deadline:
        time.sleep(0.02)


def neighbours_are_told_apart() -> None:
    """On the link, behind another router, on a link without addresses, this machine's own, and nobody."""
    resolve("10.0.0.5")
    alice = bytes.fromhex(shell("ip neigh show 10.0.0.5").split("lladdr ")[1].split()[0].replace(":", ""))
    shell("ip tuntap add tun9 mode tun; ip link set tun9 up; ip route add 10.9.0.0/24 dev tun9")
    shell("ip route add 10.8.0.0/24 via 10.0.0.5")
    known = Neighbours(time.monotonic)
    for address, hardware, machine in (
        ("10.0.0.5", alice, as_text(alice)),
        ("10.8.0.7", alice, None),
        ("10.9.0.7", None, None),
        ("10.0.0.1", None, None),
        ("10.0.0.99", None, None),
    ):
        assert known.hardware_address(address) == hardware, address
        assert known.machine(address) == machine, address
    host, stranger, unknown, unchecked = Sender.HOST, Sender.STRANGER, Sender.UNKNOWN, Sender.UNCHECKED
    for address, frm, found in (
        ("10.0.0.5", alice, host),
        ("10.0.0.5", ELSEWHERE, stranger),
        ("10.0.0.5", None, stranger),
        ("10.8.0.7", alice, host),
        ("10.8.0.7", ELSEWHERE, stranger),
        ("10.9.0.7", None, unchecked),
        ("10.0.0.1", None, host),
        ("10.0.0.1", alice, stranger),
        ("10.0.0.99", alice, unknown),
    ):
        assert known.sent(address, frm) is found, (address, frm)
    for check, found in (((), unchecked), (("wan",), unchecked), (("lan",), stranger), (False, unchecked)):
        some = Neighbours(time.monotonic, check)
        assert some.sent("10.0.0.5", ELSEWHERE) is found, check
        assert some.machine("10.0.0.5") == as_text(alice), check
        some.close()
    # The host has another card now.
    shell(f"ip neigh replace 10.0.0.5 lladdr {as_text(ELSEWHERE)} dev lan")
    time.sleep(0.06)
    assert known.sent("10.0.0.5", ELSEWHERE) is host
    known.close()


def handshakes_are_told_from_connections_met_midstream() -> None:
    flow = FlowId(Endpoint("127.0.0.1", 0), Endpoint("127.0.0.1", 5555))
    with tempfile.TemporaryDirectory() as folder, ExitStack() as stack:
        seen = LinuxBackend(StateDirectory(Path(folder)), stack).conntrack.handshake_seen
        server = stack.enter_context(socket.create_server(flow.server))
        client = stack.enter_context(socket.create_connection(flow.server))
        other, _ = server.accept()
        flow = FlowId(Endpoint(*client.getsockname()), flow.server)
        assert seen(flow)
        assert not seen(FlowId(flow.client._replace(port=1), flow.server))
        shell("conntrack -F")
        assert not seen(flow)
        for one, two in ((client, other), (other, client), (client, other)):
            one.send(b"x")
            two.recv(1)
        assert "ASSURED" in shell(f"conntrack -L -p tcp --orig-port-src {flow.client.port}")
        assert not seen(flow), "its first packet was amid it"


if __name__ == "__main__":
    globals()[sys.argv[1]](*sys.argv[2:])
