"""4,096 silent connections to one host's pinhole lock every other host's peers out.

amy opens a gated pinhole to a listener of hers; an accomplice outside connects 4,096 times and says
nothing. alice's peer must reach alice's pinhole meanwhile, and when amy's has been closed.
"""

from __future__ import annotations

import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
from tests.attacks.kit import say, verdict

# isort: split
from tests.attacks import network, peers, wire
from tests.lab.namespace import socket_in
from tests.lab.net import ADDRESS
from tests.lab.scene import Scene, eventually, scene
from tests.lab.standin import Client, Transfer
from tests.oscar import rendezvous as rdv

COUNT = 4096
PORT = 5400
COOKIE = b"cookieX\0"


def through(made: Scene, client: Client, peer: Client) -> str:
    """What becomes of a connection of bob's to the pinhole that *client*, alice, opens: "" if it is there."""
    transfer = Transfer(client, peer, "file")
    own = ADDRESS["alice"] + ":"
    pinhole = eventually(lambda: next((one for one in made.pinholes() if one.inside.startswith(own)), None))
    assert pinhole is not None
    inside, result = pinhole.inside, ""
    with socket_in(made.lab, "bob") as caller:
        caller.settimeout(8)
        try:
            caller.connect((network.ROUTER, int(pinhole.outside.rsplit(":")[1])))
        except OSError as error:
            result = type(error).__name__
        # While the call waits: the stand-in gives up without a word when it ends.
        client.call("cancel", cookie=transfer.cookie)
    eventually(lambda: not made.pinhole_of(inside), 30)
    return result


def main() -> None:
    peers.many_files()
    with scene() as made:
        lab = made.lab
        alice, amy, bob = made.clients(
            made.server(), ("alice", "Alice"), ("amy", "Amy", 5300), ("bob", "Bobby")
        )
        bob.call("policy", action="ignore")
        lab.run("amy", "sysctl", "-qw", "net.core.somaxconn=65535", "net.ipv4.tcp_max_syn_backlog=65535")
        before = through(made, alice, bob)
        say(f"before: bob at alice's pinhole: {before or 'there'}")
        listener = socket_in(lab, "amy")
        listener.bind(("0.0.0.0", PORT))
        listener.listen(peers.FILES)
        body = wire.body_to_server("Bobby", COOKIE, inner=wire.offer(ADDRESS["amy"], PORT))
        amy.call("send_snac", family=4, subtype=6, body=body.hex())
        eventually(lambda: made.pinhole_of(f"{ADDRESS['amy']}:{PORT}"))
        start = time.monotonic()
        ends = peers.silent(made, PORT, COUNT)
        say(f"{len(ends)} silent connections in {time.monotonic() - start:.1f} s; {made.pinholes()}")
        during = through(made, alice, bob)
        say(f"meanwhile: bob at alice's pinhole: {during or 'there'}")
        body = wire.body_to_server("Bobby", COOKIE, rdv.CANCEL)
        amy.call("send_snac", family=4, subtype=6, body=body.hex())
        eventually(lambda: not made.pinhole_of(f"{ADDRESS['amy']}:{PORT}"))
        after = through(made, alice, bob)
        say(f"when amy's pinhole has been closed: bob at alice's pinhole: {after or 'there'}")
        for end in [*ends, listener]:
            end.close()
    seen = ", ".join(
        f"{when} {what or 'there'}"
        for when, what in (("before", before), ("during", during), ("with amy's pinhole closed", after))
    )
    verdict(not before and bool(during), f"alice's peer: {seen}", control=not before and len(ends) == COUNT)


if __name__ == "__main__":
    main()
