"""Edits that grow beyond the window, as conversations between two ends, with connection tracking between."""

from __future__ import annotations

import pytest

from nfreaim.core.tcp.offsets import Edit
from tests.property.choices import Choices
from tests.property.world import MANNERS, World
from tests.tcp.ends import Manner


@pytest.mark.parametrize("kind", [1, 2], ids=["server inside", "client inside"])
@pytest.mark.parametrize("manner", MANNERS)
def test_an_ack_from_beyond_the_window_makes_connection_tracking_forget_nothing(
    manner: Manner, kind: int
) -> None:
    """A server fills a window of 20 bytes, of which edits make 26, and then acknowledges something.

    Its ACK would stand at 23: beyond the window, and before the end of what the client takes.
    """
    world = World(Choices(script=[kind]))
    assert (world.server_inside, world.resizes) == (kind == 1, True)
    client, server = world.ends
    client.limit, client.manner, client.mss, client.text = 20, manner, 20, b"x" * 4
    server.limit, server.mss, server.text = 20, 20, b"abcdefghijklmnopqrst"
    client.window = server.window = 20
    for side in world.tracker.sides:
        side.limit = side.window = 20
    world.script.edits[1].extend([Edit(0, 2, b"WIDER"), Edit(10, 12, b"WIDER")])
    world.handshake()
    server.send(0, 10)
    server.send(10, 10)
    for _ in range(2):
        world.arrive(1, world.before[1].pop(0))
    world.deliver(1, world.behind[1].pop(0))
    client.send_ack()
    world.arrive(0, world.before[0].pop(0))
    world.deliver(0, world.behind[0].pop(0))
    server.send_ack()  # from the end of the window as it sees it: seven bytes from the tenth on
    world.pump()
    client.send(0, 4)
    world.calm()
    world.compare()
    assert world.tracker.invalid == 0
    assert bytes(client.got) == b"WIDERcdefghijWIDERmnopqrst"
