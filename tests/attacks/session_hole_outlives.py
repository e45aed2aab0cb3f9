"""An ICQ pinhole outlives its session where the daemon dies and does not come back.

alice has published her port; the daemon is killed, alice signs off, and conntrack knows of no connection.
30 s later the pinhole must not lead to alice any more.
"""

from __future__ import annotations

import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
from tests.attacks.kit import say, verdict

# isort: split
import struct

from tests.attacks import network, wire
from tests.lab.namespace import socket_in
from tests.lab.net import ADDRESS
from tests.lab.scene import eventually, scene
from tests.lab.sockets import exactly
from tests.oscar.snac import SET_STATUS, snac_frame
from tests.oscar.tlv import tlv
from tests.oscar.values import ip4

DIRECT = struct.pack("!IBHIIIIIIH", network.PORT, 4, 8, 0x1234, 0x50, 3, 0, 0, 0, 0)
STATUS = snac_frame(SET_STATUS, tlv(0x0C, ip4(ADDRESS["alice"]) + DIRECT), number=2, request=0)


def main() -> None:
    with scene() as made:
        lab = made.lab
        network.service(lab, "alice")
        with network.listen(lab, "bob") as listener, socket_in(lab, "alice") as end:
            end.connect((ADDRESS["bob"], 5190))
            peer, _ = listener.accept()
            end.sendall(wire.SIGN_ON)
            network.greet(peer)
            exactly(end, len(wire.GREETING))
            end.sendall(STATUS)
            eventually(made.pinholes)
            made.daemon.kill()
            end.close()
            peer.close()
        lab.run("A", "conntrack", "-D", "-p", "tcp", check=False)
        time.sleep(30)
        pins = " | ".join(map(str, made.pinholes()))
        got = network.reach(lab, "server")
        say(f"30 s after the daemon was killed and alice signed off: {got!r}; {pins}")
    # The gate may refuse what is said here, so the entry alone is a hole.
    text = f"the pinhole of a session that is over: {got!r}, {pins or 'no entry'}"
    verdict(bool(pins) or b"alice's" in got, text)


if __name__ == "__main__":
    main()
