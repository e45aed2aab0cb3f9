"""Two ends of a FLAP connection: ``python -m bench.echo server|client ADDRESS PORT ROUNDS``.

Both sign on as an OSCAR client and server do, so that the flow is read; then a text message goes to and fro.
The client prints seconds a round trip, one a line.
"""

from __future__ import annotations

import socket
import sys
import time

from tests.golden import load

SIGN_ON = bytes.fromhex("2a0100010004 00000001")


def receive(link: socket.socket, size: int) -> bytes:
    data = b""
    while len(data) < size:
        piece = link.recv(size - len(data))
        if not piece:
            raise SystemExit("the other end has gone")
        data += piece
    return data


def server(address: str, port: int, rounds: int) -> None:
    golden = load()
    message = golden["text-message"].data
    with socket.create_server((address, port)) as listener:
        print("ready", flush=True)
        while True:
            link, _ = listener.accept()
            with link:
                link.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                link.sendall(SIGN_ON)
                receive(link, len(SIGN_ON))
                link.sendall(golden["host-online"].data)
                for _ in range(rounds):
                    link.sendall(receive(link, len(message)))


def client(address: str, port: int, rounds: int) -> None:
    golden = load()
    message = golden["text-message"].data
    with socket.create_connection((address, port)) as link:
        link.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        link.sendall(SIGN_ON)
        receive(link, len(SIGN_ON) + len(golden["host-online"].data))
        for _ in range(rounds):
            begin = time.perf_counter()
            link.sendall(message)
            receive(link, len(message))
            print(time.perf_counter() - begin)


if __name__ == "__main__":
    role, host, number, count = sys.argv[1:]
    {"server": server, "client": client}[role](host, int(number), int(count))
