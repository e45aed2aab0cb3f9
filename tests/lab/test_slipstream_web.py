"""NAT slipstreaming: a page makes a LAN host's browser send what looks like a session to a hostile server.

The server is on the port that is read and decides where segments begin: by the MSS that it announces, by the
windows that it opens, by what it acknowledges. Each test first shows that a segment did begin with the
session's first byte; without that it would prove nothing.
"""

from __future__ import annotations

import contextlib
import socket
import struct
import subprocess
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.lab.forged import Forger
from tests.lab.namespace import socket_in
from tests.lab.net import ADDRESS
from tests.lab.scene import eventually
from tests.lab.slipstream import ALICE, CLIENT_PART, HOST_ONLINE, SERVER_PART, SIGN_ON, Hostile, same
from tests.lab.sockets import exactly
from tests.tcp.packets import ACK, FIN, PSH_ACK, mss

URL = f"http://{ADDRESS['bob']}:5190/upload"
FORGED = ("203.0.113.66", 5190)
SIZE = 8000  # of an upload, in bytes
# Any four bytes of it tell where in the upload they stand.
RULER = b"".join(struct.pack("!BBH", 0xFE, 0xFD, at // 4) for at in range(0, SIZE, 4))


def curl(hostile: Hostile, *words: str) -> subprocess.Popen[bytes]:
    """curl on alice; what it receives comes out of its stdout, be it HTTP or not."""
    options = "-s -S --http0.9 --noproxy * --max-time 20 -H Expect: --output -".split()
    return hostile.made.lab.spawn("alice", "curl", *options, *words, pipes=True)


def answered(browser: subprocess.Popen[bytes]) -> bytes:
    """What curl received, when it is done."""
    stuck = threading.Timer(25.0, browser.kill)
    stuck.start()
    try:
        out, _ = browser.communicate()
    finally:
        stuck.cancel()
    assert browser.returncode in (0, 18), browser.returncode  # 18: the answer is shorter than announced
    return out


def whole_request(connection: socket.socket) -> bytes:
    """A request with its body, however that is delimited, as it came."""
    data = b""
    while b"\r\n\r\n" not in data:
        data += connection.recv(65536)
    head = data[: data.index(b"\r\n\r\n") + 4]
    if b"chunked" in head:
        while not data.endswith(b"\r\n0\r\n\r\n"):
            data += connection.recv(65536)
        return data
    size = int(head.lower().split(b"content-length:")[1].split()[0])
    return data + exactly(connection, size - (len(data) - len(head)))


def upload(hostile: Hostile, listener: socket.socket, words: list[str], early: bool) -> tuple[bytes, bytes]:
    """Let curl send a request: what came, and what curl was answered. The answer is a server's part."""
    browser = curl(hostile, *words, URL)
    connection, _ = listener.accept()
    with connection:
        connection.settimeout(20.0)
        if early:
            connection.sendall(SERVER_PART)
        request = whole_request(connection)
        connection.sendall(SERVER_PART)
        connection.shutdown(socket.SHUT_WR)
        got = answered(browser)
    assert same(got, SERVER_PART * (1 + early))
    return request, got


def begins(hostile: Hostile, mark: int) -> None:
    """A segment since *mark* begins with a session's first byte; else the attack was none."""
    eventually(lambda: any(data.startswith(SIGN_ON) for data in hostile.segments_of(mark)))


def body_of(request: bytes) -> bytes:
    """What was uploaded, without head and chunks' lengths (a form's other parts stay)."""
    head, _, rest = request.partition(b"\r\n\r\n")
    if b"chunked" not in head:
        return rest
    body = b""
    while (size := int(rest.split(b"\r\n")[0], 16)) > 0:
        rest = rest.partition(b"\r\n")[2]
        body, rest = body + rest[:size], rest[size + 2 :]
    return body


def post(hostile: Hostile, how: list[str], early: bool = False, **options: int) -> None:
    """Measure where segments of an upload begin, and put a session to each of these places."""
    path = Path(hostile.made.lab.dir) / "upload.bin"
    with hostile.attack(), hostile.listen(**options) as listener:
        path.write_bytes(RULER)
        mark = len(hostile.air.packets)
        upload(hostile, listener, [word.format(path) for word in how], early)
        eventually(lambda: sum(map(len, hostile.segments_of(mark))) >= SIZE)
        starts = {RULER.find(data[:8]) for data in hostile.segments_of(mark)} - {-1}
        assert starts, "no segment begins amid the upload"
        crafted = bytearray(RULER)
        for at in sorted(starts):
            crafted[at : at + len(CLIENT_PART)] = CLIENT_PART
        crafted = crafted[:SIZE]
        path.write_bytes(crafted)
        mark = len(hostile.air.packets)
        request, _ = upload(hostile, listener, [word.format(path) for word in how], early)
        eventually(lambda: sum(map(len, hostile.segments_of(mark))) >= SIZE)
        begins(hostile, mark)
        body = body_of(request)
        assert same(body, bytes(crafted)) or bytes(crafted) in body


PLAIN = ["--data-binary", "@{}"]


def test_form_post_padded_to_the_segments_of_a_small_mss(hostile: Hostile) -> None:
    post(hostile, PLAIN, TCP_MAXSEG=536)


def test_form_post_of_several_parts_padded_to_segments(hostile: Hostile) -> None:
    post(hostile, ["-F", "text=*", "-F", "file=@{}"], TCP_MAXSEG=536)


def test_form_post_to_a_server_that_spoke_first(hostile: Hostile) -> None:
    post(hostile, PLAIN, early=True, TCP_MAXSEG=536)


def test_form_post_with_segments_as_large_as_the_link_allows(hostile: Hostile) -> None:
    post(hostile, PLAIN)


def test_chunked_body_padded_to_segments(hostile: Hostile) -> None:
    post(hostile, [*PLAIN, "-H", "Transfer-Encoding: chunked"], TCP_MAXSEG=536)


def test_request_whose_method_is_the_first_byte_of_a_frame(hostile: Hostile) -> None:
    """An asterisk is a method as good as any; what must follow it in a frame is none."""
    with hostile.attack(), hostile.listen() as listener:
        browser = curl(hostile, "-X", "*", "--data-binary", "x", URL)
        connection, _ = listener.accept()
        with connection:
            assert connection.recv(65536).startswith(b"* /upload")
            connection.sendall(SERVER_PART)
            connection.shutdown(socket.SHUT_WR)
            assert same(answered(browser), SERVER_PART)


Accepted = tuple[Forger, subprocess.Popen[bytes]]


@contextlib.contextmanager
def forged_server(hostile: Hostile, window: int = 64240) -> Iterator[Accepted]:
    """A server by hand, with curl's connection to it accepted."""
    path = Path(hostile.made.lab.dir) / "upload.bin"
    path.write_bytes(CLIENT_PART.ljust(SIZE, b"*"))
    with hostile.attack(), Forger(hostile.made.lab, "bob", FORGED) as server:
        url = f"http://{FORGED[0]}:5190/upload"
        browser = curl(hostile, "--data-binary", f"@{path}", url)
        try:
            server.accept(tcp_options=mss(1460), window=window)
            yield server, browser
        finally:
            browser.kill()


def head_of(hostile: Hostile) -> int:
    """Bytes that come before the upload in curl's request to a forged server, found by asking for one."""
    with forged_server(hostile) as (server, browser):
        finish(server, browser)
        return server.got.index(CLIENT_PART)


def finish(server: Forger, browser: subprocess.Popen[bytes]) -> None:
    """Take the rest of the request, answer with a server's part, and end."""

    def rest() -> bool:
        server.look()
        server(server.made(ACK))
        return CLIENT_PART in server.got and len(server.got) >= server.got.index(CLIENT_PART) + SIZE

    eventually(rest)
    server.send(PSH_ACK, SERVER_PART)
    server.send(FIN | ACK)
    got: list[bytes] = []
    reader = threading.Thread(target=lambda: got.append(answered(browser)))
    reader.start()

    def ended() -> bool:
        server.look()
        server(server.made(ACK))
        return not reader.is_alive()

    eventually(ended)
    assert same(got[0], SERVER_PART)
    assert server.got[server.got.index(CLIENT_PART) :] == CLIENT_PART.ljust(SIZE, b"*")


def test_form_post_behind_a_window_as_long_as_the_head(hostile: Hostile) -> None:
    head = head_of(hostile)
    with forged_server(hostile, window=head) as (server, browser):
        server.await_bytes(head)
        assert len(server.got) == head
        finish(server, browser)
        assert any(data.startswith(SIGN_ON) for _, data in server.came)


def test_form_post_of_which_only_the_head_is_acknowledged(hostile: Hostile) -> None:
    """The client repeats what was not acknowledged, and so begins a segment with it."""
    head = head_of(hostile)
    with forged_server(hostile) as (server, browser):
        server.await_bytes(head + SIZE)
        end = server.ack
        server(server.made(ACK, ack=end - SIZE))
        eventually(lambda: server.look() and any(data.startswith(SIGN_ON) for _, data in server.came))
        finish(server, browser)


# --- protocols whose bytes a page chooses in part ----------------------------------------------------------


def client_hello() -> list[bytes]:
    """TLS with the session as session id, server name and ticket, cut as a small MSS would cut it."""
    session = SIGN_ON.ljust(32, b"*")

    def extension(kind: int, data: bytes) -> bytes:
        return struct.pack("!HH", kind, len(data)) + data

    name = struct.pack("!HBH", len(CLIENT_PART) + 3, 0, len(CLIENT_PART)) + CLIENT_PART
    extensions = extension(0, name) + extension(35, CLIENT_PART)
    body = b"\x03\x03" + bytes(32) + b"\x20" + session + b"\0\x02\x13\x01\x01\0"
    body += struct.pack("!H", len(extensions)) + extensions
    hello = b"\x01" + len(body).to_bytes(3) + body
    record = b"\x16\x03\x01" + struct.pack("!H", len(hello)) + hello
    pieces = record.split(SIGN_ON)
    return [pieces[0], *(SIGN_ON + piece for piece in pieces[1:])]


def websocket() -> list[bytes]:
    """An upgrade, then frames masked so that their payload looks like the session on the wire."""
    upgrade = b"GET / HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n"
    head = struct.pack("!BBH", 0x82, 0x80 | 126, len(CLIENT_PART)) + b"\xde\xad\xbe\xef"
    return [upgrade, head, CLIENT_PART, head + CLIENT_PART]


def stun(kind: int, username: bytes) -> bytes:
    """A STUN message (RFC 8489 section 5) with one attribute, USERNAME."""
    padded = username.ljust(-(-len(username) // 4) * 4, b"\0")
    attribute = struct.pack("!HH", 6, len(username)) + padded
    return struct.pack("!HHI", kind, len(attribute), 0x2112A442) + b"transaction!" + attribute


def cut_at_session(data: bytes) -> list[bytes]:
    at = data.index(CLIENT_PART)
    return [data[:at], data[at:]]


SIP = (
    b"REGISTER sip:x SIP/2.0\r\nVia: SIP/2.0/TCP 10.0.0.5:6000\r\nContact: <sip:a@10.0.0.5:6000>\r\n"
    b"Content-Length: 200\r\n\r\n"
)
SPEECHES: dict[str, Callable[[], list[bytes]]] = {
    "tls client hello": client_hello,
    "websocket": websocket,
    "stun binding over tcp": lambda: cut_at_session(stun(0x0001, CLIENT_PART)),
    "turn allocate": lambda: cut_at_session(stun(0x0003, CLIENT_PART)),
    "ice whose length reads as a frame": lambda: [b"\x2a\x01" + stun(0x0001, b"u" * 16), *[CLIENT_PART] * 2],
    "sip": lambda: [SIP, CLIENT_PART],
    "ftp": lambda: [b"USER a\r\n", b"PORT 10,0,0,5,23,112\r\n", CLIENT_PART],
    "smtp": lambda: [b"EHLO x\r\n", b"DATA\r\n", CLIENT_PART],
    "http 2 preface": lambda: [b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", CLIENT_PART],
    "line end first": lambda: [b"\r\n", CLIENT_PART],
    "zero byte first": lambda: [b"\0", CLIENT_PART],
    "half a sign-on first": lambda: [SIGN_ON[:5], CLIENT_PART],
}


@pytest.mark.parametrize("server_first", [False, True], ids=["client first", "server first"])
@pytest.mark.parametrize("what", SPEECHES)
def test_session_within_another_protocol(hostile: Hostile, what: str, server_first: bool) -> None:
    pieces = SPEECHES[what]()
    with hostile.attack(), hostile.listen() as listener, socket_in(hostile.made.lab, "alice") as client:
        client.connect((ADDRESS["bob"], 5190))
        client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        connection, _ = listener.accept()
        mark = len(hostile.air.packets)
        with connection:
            connection.settimeout(10.0)
            if server_first:
                connection.sendall(SERVER_PART)
                assert exactly(client, len(SERVER_PART)) == SERVER_PART
            for piece in pieces:  # each has arrived before the next one leaves: a segment of its own
                client.sendall(piece)
                assert same(exactly(connection, len(piece)), piece)
                connection.sendall(SERVER_PART)
                assert same(exactly(client, len(SERVER_PART)), SERVER_PART)
            client.sendall(ALICE)
            assert exactly(connection, len(ALICE)) == ALICE
        begins(hostile, mark)


def test_the_same_bytes_on_a_connection_of_their_own_do_open_a_pinhole(hostile: Hostile) -> None:
    """What a program, but no page, can do to its own host; if it did not, all of this would prove nothing."""
    with hostile.listen() as listener, socket_in(hostile.made.lab, "alice") as client:
        client.connect((ADDRESS["bob"], 5190))
        connection, _ = listener.accept()
        with connection:
            for part in (SIGN_ON, HOST_ONLINE):
                connection.sendall(part)
                client.sendall(part)
                exactly(client, len(part))
                exactly(connection, len(part))
            client.sendall(ALICE)
            assert exactly(connection, len(ALICE)) != ALICE
            assert hostile.pinholes() == 1
        client.close()
        eventually(lambda: not hostile.pinholes())
    hostile.bystander_works()
