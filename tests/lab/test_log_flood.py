"""A program on the LAN that makes the daemon log as much as it can, of every kind that it can repeat."""

from __future__ import annotations

import contextlib
import re
import socket
import threading
import time
from collections import Counter

import pytest

from tests.lab.namespace import socket_in
from tests.lab.net import ADDRESS, Lab
from tests.lab.scene import scene
from tests.lab.sockets import exactly
from tests.oscar import icbm
from tests.oscar import rendezvous as rdv
from tests.oscar.rendezvous import rdv_block
from tests.oscar.signon import HOST_ONLINE, SIGNON, hello
from tests.oscar.snac import TO_HOST, snac_frame
from tests.oscar.tlv import tlv
from tests.oscar.values import ip4, u16

KIND = re.compile(r"INFO (?:worker \d: )?(.*)")
WORDS = ("left alone", "pinhole opened", "pinhole closed", "no longer read")


def serving(lab: Lab) -> None:
    """A server on bob that lets everybody sign on, and reads."""
    listener = socket_in(lab, "bob")
    listener.settimeout(600)
    listener.bind((ADDRESS["bob"], 5190))
    listener.listen(64)

    def serve(end: socket.socket) -> None:
        with contextlib.suppress(OSError, AssertionError):
            exactly(end, len(hello()))
            end.sendall(SIGNON + HOST_ONLINE)
            while end.recv(1 << 16):
                pass

    def run() -> None:
        with contextlib.suppress(OSError):
            while True:
                end, _ = listener.accept()
                end.settimeout(60)
                threading.Thread(target=serve, args=(end,), daemon=True).start()

    threading.Thread(target=run, daemon=True).start()


def signed_on(lab: Lab) -> socket.socket:
    end = socket_in(lab, "amy")
    end.settimeout(60)
    end.connect((ADDRESS["bob"], 5190))
    end.sendall(hello(1))
    exactly(end, len(SIGNON + HOST_ONLINE))
    return end


def offer(number: int, address: str, port: int, kind: int = rdv.PROPOSE) -> bytes:
    cookie = b"%07d\0" % port
    fields = tlv(rdv.RDV_IP, ip4(address)) + tlv(rdv.REQUESTER_IP, ip4(address)) + tlv(rdv.PORT, u16(port))
    block = rdv_block(kind, cookie, rdv.SEND_FILE, b"" if kind else fields)
    body = icbm.icbm_to_server(cookie, icbm.RENDEZVOUS, "bob", tlv(icbm.ICBM_RDV, block))
    return snac_frame(TO_HOST, body, number=number & 0xFFFF)


def floods(lab: Lab) -> None:
    """100 offers of somebody else's address, 40 that are opened and cancelled, 40 sessions with junk.

    They come slowly enough to be read.
    """
    with signed_on(lab) as end:
        end.sendall(b"".join(offer(number, "10.0.0.77", 6000) for number in range(2, 102)))
        time.sleep(1.5)
        number = 102
        for port in range(7000, 7040):
            end.sendall(
                offer(number, ADDRESS["amy"], port) + offer(number + 1, ADDRESS["amy"], port, rdv.CANCEL)
            )
            number += 2
            time.sleep(0.1)
    for _ in range(40):
        with signed_on(lab) as end:
            end.sendall(b"junk that is no frame")
            time.sleep(0.01)


def counted(lines: list[str]) -> Counter[str]:
    """How many lines of each kind, without the sums."""
    plain = [line for line in lines if "more lines in the last minute" not in line]
    return Counter(word for line in plain for word in WORDS if word in line)


@pytest.mark.parametrize("workers", [1, 2])
def test_a_program_of_the_lan_gets_ten_lines_of_each_kind_and_their_sum(workers: int) -> None:
    settings = f"workers = {workers}\n[pinholes]\nrate_per_host = 1000\nrate_total = 1000\n"
    with scene(settings=settings) as made:
        serving(made.lab)
        floods(made.lab)
        time.sleep(1.0)
        said = counted(made.daemon.log_text().splitlines())
        assert said == dict.fromkeys(WORDS, 10), made.daemon.log_text()
        assert made.daemon.stop() == 0
        text = made.daemon.log_text()
        sums = re.findall(r"(\d+) more lines in the last minute for 10.0.0.6 like: (.*)", text)
        each = {word: int(count) for count, line in sums for word in WORDS if word in line}
        assert each == {
            "left alone": 90,
            "pinhole opened": 30,
            "pinhole closed": 30,
            "no longer read": 30,
        }, text
        assert "counters: " in text
