"""A stranger with an account closes the pinhole of somebody else's transfer, by its cookie alone.

A CANCEL or a decline (04,0B) from carol, with the cookie of alice's offer to bob, must leave alice's
pinhole open. Cookies need not be guessed: the first cookie of every libpurple process is the same.
"""

from __future__ import annotations

import contextlib
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
from tests.attacks.kit import say, verdict

# isort: split
from tests.attacks import network, wire
from tests.lab.net import LabError
from tests.lab.scene import eventually, scene
from tests.lab.standin import Transfer
from tests.oscar import rendezvous as rdv
from tests.oscar.icbm import DECLINED, client_error

CONTROL, CANCEL, DECLINE = "control: nobody cancels", "a stranger's CANCEL", "a stranger's decline"


def main() -> None:
    results: dict[str, bool] = {}
    with scene() as made:
        alice, bob, carol = made.clients(
            made.server(), ("alice", "Alice"), ("bob", "Bobby"), ("carol", "Carol")
        )
        bob.call("policy", action="ignore")
        for name in (CONTROL, CANCEL, DECLINE):
            transfer = Transfer(alice, bob, "file")
            eventually(made.pinholes)
            cookie = bytes.fromhex(transfer.cookie)
            if name == CANCEL:
                body = wire.body_to_server("Alice", cookie, rdv.CANCEL)
                carol.call("send_snac", family=4, subtype=6, body=body.hex())
            elif name == DECLINE:
                body = client_error(cookie, "Alice", DECLINED)
                carol.call("send_snac", family=4, subtype=0x0B, body=body.hex())
            time.sleep(1.5)
            results[name] = bool(made.pinholes())
            line = network.last_lines(made, "pinhole").split(" | ")[-1]
            say(f"{name}: the pinhole is {'open' if results[name] else 'closed'}; {line}")
            with contextlib.suppress(LabError):  # the stand-in believes the stranger, too
                alice.call("cancel", cookie=transfer.cookie)
            eventually(lambda: not made.pinholes())
    control = results.pop(CONTROL)
    verdict(control and not all(results.values()), f"pinholes that stay open: {results}", control=control)


if __name__ == "__main__":
    main()
