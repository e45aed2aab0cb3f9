"""What people write and who they are stays between them: nothing of it is found where nfreaim writes."""

from __future__ import annotations

import json
import signal
import socket
import stat

import pytest

from tests.lab import home, kernel_sets
from tests.lab.namespace import socket_in
from tests.lab.net import ADDRESS, WAN, Lab
from tests.lab.scene import Scene, eventually, nfreaim, scene
from tests.lab.standin import Client, Server, Transfer
from tests.oscar import icbm

ALICE, BOB, CAROL, DORA = "markalice", "markbob", "markcarol", "markdora"
TEXT, FILE, DIRECT = "markedtext at 198.18.77.77", "markedfile.txt", "markeddirect"
HTTP = b"GET /markedpath HTTP/1.1\r\nHost: marked.example\r\n\r\n"
COOKIES = ("4d61726b65644300", "4d61726b65644400")  # "MarkedC", "MarkedD"
MARKS = ("mark", "198.18.77.77", "6d61726b", *COOKIES)  # as they are, and the names in hex


def found(text: str) -> list[str]:
    return [line for line in text.splitlines() if any(mark in line.lower() for mark in MARKS)]


def message(to: str, text: str) -> str:
    """Body of (04,06) with a plain text message, in hex."""
    return icbm.icbm_to_server(b"MarkedE\0", icbm.TEXT, to, icbm.text(text.encode())).hex()


@pytest.mark.parametrize("level", ["info", "debug"])
def test_no_name_text_or_cookie_is_in_log_status_or_rules(level: str) -> None:
    with scene(settings=f'[log]\nlevel = "{level}"\n') as made:
        lab = made.lab
        server = made.server()
        alice, bob, carol = made.clients(server, ("alice", ALICE, 5200), ("bob", BOB), ("carol", CAROL))
        alice.call("send_snac", family=4, subtype=6, body=message(BOB, TEXT))
        eventually(lambda: TEXT.encode().hex() in str(bob.call("received", family=4, subtype=7)))
        assert Transfer(alice, carol, "im", text=DIRECT, cookie=COOKIES[0]).outcome().first_attempt
        bob.call("policy", action="ignore")
        Transfer(alice, bob, "file", file_name=FILE, cookie=COOKIES[1])
        eventually(lambda: "  send-file  " in nfreaim(lab, "A", "status"))
        # What is no frame, in a connection that was one; and what never was one.
        (dora,) = made.clients(server, ("alice", DORA, 5210))
        dora.call("send_raw", data=b"markedrest".hex())
        with socket_in(lab, "server") as listener, socket_in(lab, "alice") as browser:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listener.bind(("203.0.113.10", 5190))
            listener.listen()
            browser.connect(("203.0.113.10", 5190))
            browser.sendall(HTTP)
            assert listener.accept()[0].recv(3) == b"GET"
        made.daemon.process.send_signal(signal.SIGUSR1)
        made.daemon.wait_log("malformed_flows=1")
        made.daemon.wait_log("foreign_flows=1")
        status = nfreaim(lab, "A", "status") + nfreaim(lab, "A", "status", "--json")
        assert json.loads(nfreaim(lab, "A", "status", "--json"))["running"]
        rules = lab.firewall_rules("A")
        if kernel_sets.NFT:
            rules += lab.run("A", "nft", "list", "ruleset").stdout
        assert made.daemon.stop() == 0
        assert "pinhole claimed" in made.daemon.log_text()
        assert found(made.daemon.log_text()) == []
        assert found(status) == []
        # A pinhole's comment names its agreement, which a restarted daemon needs, but not the cookie.
        assert "cookie=" in rules
        for mark in (ALICE, BOB, CAROL, "markedfile", "198.18.77.77", "6d61726b", *COOKIES):
            assert mark not in rules


def test_state_of_edited_connections_holds_addresses_only() -> None:
    with Lab(home_server=True) as lab:
        made = Scene(lab)
        home.forward(lab)
        daemon = made.restart(settings='[log]\nlevel = "debug"\n')
        server = Server(lab, address=home.HOME, node="hsrv")
        alice, bob = Client(lab, "alice", ALICE), Client(lab, "bob", BOB)
        for waiting in (server, alice, bob):
            waiting.wait_ready()
        alice.sign_on(f"{home.HOME}:5190")
        bob.sign_on(f"{WAN['A']}:5190", services=True)
        alice.call("send_snac", family=4, subtype=6, body=message(BOB, TEXT))
        eventually(lambda: TEXT.encode().hex() in str(bob.call("received", family=4, subtype=7)))
        assert Transfer(alice, bob, "file", file_name=FILE).outcome().first_attempt
        directory = lab.dir / "run-A" / "nfreaim" / "flows"
        files = list(directory.iterdir())
        assert files
        assert stat.S_IMODE(directory.stat().st_mode) == 0o700
        for file in files:
            assert stat.S_IMODE(file.stat().st_mode) == 0o600
            assert found(file.read_text(encoding="latin-1")) == []
        kept = [json.loads(file.read_text())["flow"] for file in directory.glob("*.json")]
        edits = [edit for flow in kept for stream in flow.get("streams", ()) for edit in stream["edits"]]
        assert edits
        for _, _, data in edits:
            written = bytes.fromhex(data)
            assert len(written) <= 6 or written.lstrip(bytes(range(32))) == f"{WAN['A']}:5190".encode()
        daemon.stop()
        assert ADDRESS["bob"] in daemon.log_text()
        assert found(daemon.log_text()) == []
