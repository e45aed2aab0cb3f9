"""Sessions older than the daemon: read again if they are known, and only passed if not, whoever says so."""

from __future__ import annotations

import json
import os
import stat
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.lab.net import Lab
from tests.lab.scene import INSTALL, Scene, SeenPinhole, announced, eventually
from tests.lab.standin import Client, Server, Transfer

OUTSIDE = "203.0.113.1"


@contextmanager
def installed() -> Iterator[tuple[Scene, Server, Client]]:
    """A router whose rules outlive the daemon, a server, and bob outside, who never answers a proposal."""
    with Lab() as lab:
        lab.run("A", *INSTALL)
        made = Scene(lab)
        made.restart()
        server = made.server()
        (bob,) = made.clients(server, ("bob", "bob"))
        yield made, server, bob


def state(made: Scene) -> Path:
    return made.lab.dir / "run-A" / "nfreaim" / "flows"


def records(made: Scene) -> set[Path]:
    return set(state(made).glob("*.json"))


def signed_on(made: Scene, server: Server, name: str, port: int) -> tuple[Client, Path]:
    """A client of alice's host and the record of its session."""
    before = records(made)
    (client,) = made.clients(server, ("alice", name, port))
    (record,) = eventually(lambda: records(made) - before)
    return client, record


def crash(made: Scene) -> None:
    """Kill the daemon once it has written down where flows stand, as it does when no packet waits."""
    places, seen = state(made) / "places", b""
    while (now := places.read_bytes()) != seen:
        seen = now
        time.sleep(1.0)
    made.daemon.kill()


def transfers(client: Client, other: Client) -> bool:
    return Transfer(client, other, "file").outcome().first_attempt


def left_alone(made: Scene, client: Client, other: Client) -> bool:
    """Whether a proposal arrives as it was sent; nothing may be opened for it."""
    before = made.pinholes()
    offer = Transfer(client, other, "file")
    block = announced(other, offer.cookie)
    assert made.pinholes() <= before
    return block.address(2) == "10.0.0.5"


def answers(client: Client) -> int:
    return len(client.call("received", family=1, subtype=0x0F)["bodies"])


def talk(client: Client, times: int) -> None:
    """Questions to the server, and its answers, with the pauses that people make."""
    for _ in range(times):
        count = answers(client)
        client.call("send_snac", family=1, subtype=0x0E, body="")
        eventually(lambda: answers(client) > count)  # noqa: B023
        time.sleep(1.1)


def test_sessions_outlive_a_crash_and_a_stop_and_what_signed_on_between_only_passes() -> None:
    with installed() as (made, server, bob):
        alice, record = signed_on(made, server, "alice", 5200)
        for path in state(made).iterdir():
            assert stat.S_IMODE(path.stat().st_mode) == 0o600, path
            said = path.read_bytes().lower()
            assert b"alice" not in said, path
            assert b"bob" not in said, path
        crash(made)
        daemon = made.restart()
        assert transfers(alice, bob), daemon.log_text()
        assert "read again, nothing was missed" in daemon.log_text()
        assert daemon.stop() == 0
        assert record.exists()
        made.restart()
        assert transfers(alice, bob), made.daemon.log_text()

        made.daemon.kill()
        talk(alice, 1)  # passes unread
        (dora,) = made.clients(server, ("alice", "dora", 5210))
        daemon = made.restart()
        assert left_alone(made, dora, bob)
        talk(dora, 1)
        assert left_alone(made, dora, bob)
        assert daemon.log_text().count("has to sign on again") == 1
        talk(alice, 2)
        assert transfers(alice, bob), daemon.log_text()
        assert SeenPinhole(f"{OUTSIDE}:5210", "10.0.0.5:5210") not in made.pinholes()
        alice.call("sign_off", how="close")
        assert daemon.stop() == 0
        made.restart()
        eventually(lambda: not record.exists())


def test_state_that_is_not_ours_or_not_true_is_not_believed() -> None:
    with installed() as (made, server, bob):
        bob.call("policy", action="ignore")
        names = ("mode", "owner", "cut", "side", "true")
        found = {name: signed_on(made, server, name, 5200 + 10 * i) for i, name in enumerate(names)}
        crash(made)
        found["mode"][1].chmod(0o644)
        os.chown(found["owner"][1], 1000, 1000)
        cut = found["cut"][1]
        cut.write_bytes(cut.read_bytes()[:-5])
        side = found["side"][1]
        side.write_text(side.read_text().replace("false", "true", 1))
        true = json.loads(found["true"][1].read_text())
        for way in ("nobody's", "another name's"):
            forged = bytearray.fromhex(true["flow"]["key"])
            forged[9] ^= 0xFF if way == "nobody's" else 0x55
            document = json.loads(json.dumps(true))
            if way == "nobody's":
                document["flow"]["key"] = forged.hex()
            path = state(made) / f"{forged.hex()}.json"
            path.write_text(json.dumps(document))
            path.chmod(0o600)
        daemon = made.restart()
        assert records(made) == {found["true"][1]}
        log = daemon.log_text()
        assert log.count("is damaged, its connection cannot go on") == 3
        assert "not ours alone" in log
        for name in names[:-1]:
            assert left_alone(made, found[name][0], bob), name
        Transfer(found["true"][0], bob, "file")
        eventually(lambda: SeenPinhole(f"{OUTSIDE}:5240", "10.0.0.5:5240") in made.pinholes())
        assert len(made.pinholes()) == 1
