"""An MSN server at home behind real forwards: what its clients outside are told, and what it may have opened.

Both ends are sockets of this process.
"""

from __future__ import annotations

import socket
from collections.abc import Callable
from contextlib import ExitStack

import pytest

from tests.lab import home
from tests.lab.namespace import socket_in
from tests.lab.net import ADDRESS, WAN, Variant
from tests.lab.scene import Scene, eventually, nfreaim, scene
from tests.lab.sockets import exactly

OUTSIDE, ALICE, HOME = WAN["A"], ADDRESS["alice"], ADDRESS["amy"]
SETTINGS = 'protocols = ["oscar", "msn"]\n'


def accept(address: str, port: int) -> bytes:
    payload = (
        b"MIME-Version: 1.0\r\nContent-Type: text/x-msmsgsinvite\r\n\r\nInvitation-Command: ACCEPT\r\n"
        b"Invitation-Cookie: 7\r\nIP-Address: %s\r\nPort: %d\r\nAuthCookie: 7\r\n\r\n"
    ) % (address.encode(), port)
    return b"MSG alice1@lab.test alice %d\r\n%s" % (len(payload), payload)


def talk(made: Scene, stack: ExitStack, port: int) -> tuple[Callable[[bytes], None], Callable[..., bytes]]:
    """A connection of bob's to the server, on amy: what says, and what hears."""
    listener = stack.enter_context(socket_in(made.lab, "amy"))
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    listener.bind((HOME, port))
    listener.listen(2)
    inside = stack.enter_context(socket_in(made.lab, "alice"))  # a client inside, beside her server
    inside.connect((HOME, port))
    stack.enter_context(listener.accept()[0])
    client = stack.enter_context(socket_in(made.lab, "bob"))
    client.connect((OUTSIDE, port))
    server, _ = listener.accept()
    stack.enter_context(server)
    server.settimeout(10.0)

    def say(data: bytes) -> None:
        client.sendall(data)
        assert exactly(server, len(data)) == data

    def hear(data: bytes, arrives: bytes = b"", until: bytes = b"") -> bytes:
        server.sendall(data)
        came = b""
        while until and not came.endswith(until):
            came += exactly(client, 1)
        if not until:
            came = exactly(client, len(arrives or data))
            assert came == (arrives or data)
        return came

    return say, hear


def checked(made: Scene) -> list[str]:
    path = made.lab.log_file("check").with_suffix(".toml")
    path.write_text(SETTINGS)
    printed = nfreaim(made.lab, "A", "check", "--lan", "lan", "--wan", "wan", "--config", str(path))
    return [line for line in printed.splitlines() if "no rule forwards a port" in line]


@pytest.mark.parametrize("variant", ["legacy", "native-nft"])
def test_clients_outside_are_told_what_they_reach(variant: Variant) -> None:
    with scene(settings=SETTINGS, variants=(variant, "legacy")) as made, ExitStack() as stack:
        home.forward(made.lab, inside=HOME, port=1863)
        missing = checked(made)
        assert len(missing) == 1
        assert f"forward port 1864 to {HOME}:1864" in missing[0]
        say, hear = talk(made, stack, 1863)
        say(b"VER 1 MSNP18 CVR0\r\n")
        hear(b"VER 1 MSNP18\r\n")
        say(b"USR 2 SSO I bob1@lab.test\r\n")
        hear(b"USR 2 OK bob1@lab.test 1 0\r\n")
        say(b"XFR 3 SB\r\n")
        line = b"XFR 3 SB %s:%d CKI token U messenger.msn.com 1\r\n"
        hear(line % (HOME.encode(), 1864))
        home.forward(made.lab, inside=HOME, port=1864)
        assert checked(made) == []

        def told() -> bool:
            """Whether it is rewritten; the rules are read again seconds after the last time."""
            say(b"XFR 4 SB\r\n")
            return hear(line % (HOME.encode(), 1864), until=b"\r\n") == line % (OUTSIDE.encode(), 1864)

        eventually(told)
        hear(line % (b"198.51.100.7", 1864))
        say, hear = talk(made, stack, 1864)
        say(b"USR 1 bob1@lab.test token\r\n")
        hear(b"USR 1 OK bob1@lab.test bob\r\n")
        hear(accept(ALICE, 6891), accept(OUTSIDE, 6891))
        assert made.pinhole_of(f"{ALICE}:6891") is not None
        hear(accept("198.51.100.7", 6892))
        assert len(made.pinholes()) == 1
        assert "token" not in made.daemon.log_text()
