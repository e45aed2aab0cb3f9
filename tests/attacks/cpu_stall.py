"""One LAN program stalls everybody's sessions: 8 KiB frames of 1,800 TLVs, as fast as TCP takes them.

amy has a server of her own (bob) and four connections to it. alice's keep-alives, in a session with another
server, must not wait behind what amy sends.
"""

from __future__ import annotations

import contextlib
import sys
import threading
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
from tests.attacks.kit import say, verdict

# isort: split
import itertools
import socket

from tests.attacks import network
from tests.lab.scene import scene
from tests.oscar import rendezvous as rdv
from tests.oscar.snac import TO_HOST, snac_frame
from tests.oscar.tlv import name8, tlv

SECONDS = 15
BLOCK = tlv(5, rdv.rdv_block(rdv.PROPOSE, b"cookie1\0", rdv.SEND_FILE, tlv(0x7777) * 100))
BODY = b"cookie1\0\0\2" + name8("bob") + BLOCK * 18


class Attack:
    """Four connections that send all the time; *sent* bytes so far."""

    def __init__(self) -> None:
        self.sent, self.over = 0, threading.Event()

    def send(self, end: socket.socket) -> None:
        with contextlib.suppress(OSError):
            for number in itertools.count(2):
                if self.over.is_set():
                    return
                frame = snac_frame(TO_HOST, BODY, number=number, request=7)
                end.sendall(frame)
                self.sent += len(frame)


def main() -> None:
    with scene() as made:
        lab = made.lab
        network.serve(network.listen(lab, "bob"), network.sink)
        network.serve(network.listen(lab, "server"), network.echo)
        alice = network.KeepAlives(network.sign_on(lab, "alice", "server"))
        attack, ends = Attack(), [network.sign_on(lab, "amy", "bob") for _ in range(4)]
        for end in ends:
            threading.Thread(target=attack.send, args=(end,), daemon=True).start()
        used = network.cpu_seconds(made.daemon.pid)
        try:
            took = alice.measure(SECONDS)
        finally:
            attack.over.set()
        used = network.cpu_seconds(made.daemon.pid) - used
        rate = attack.sent * 8 / took / 1e6
        say(f"amy sent {attack.sent / 1e6:.1f} MB in {took:.1f} s ({rate:.1f} Mbit/s); {used:.1f} s of CPU")
        say(str(alice))
        say("queue: " + network.queues(lab))
        for end in ends:
            end.close()
    seconds, before = alice.longest, alice.before * 1e3
    verdict(
        seconds > 1.0, f"keep-alive of another host takes up to {seconds:.2f} s instead of {before:.1f} ms"
    )


if __name__ == "__main__":
    main()
