"""Stand-ins for a SIP phone and its registrar over UDP (RFC 3261), with sockets of a lab's nodes.

The phone announces its own address everywhere where phones do: Via, Contact and the session description (RFC
4566). The registrar only receives: what a router made of a message is read from what came.
"""

from __future__ import annotations

import itertools
import re
import socket
from contextlib import suppress
from typing import Final

from tests.lab.namespace import Network, socket_in

PORT: Final = 5060
PATIENCE_S: Final = 0.7  # for what must not come; what has to come is there within milliseconds
_numbers = itertools.count(1)

AUDIO: Final = "m=audio {media} RTP/AVP 0\r\n"
TEXT: Final = "m=message {media} TCP/MSRP *\r\na=path:msrp://{host}:{media}/x;tcp\r\n"


def udp(network: Network, node: str, address: str, port: int) -> socket.socket:
    """A bound UDP socket of a node."""
    made = socket_in(network, node, socket.AF_INET, socket.SOCK_DGRAM)
    made.bind((address, port))
    return made


def session(host: str, lines: str, media: int) -> str:
    """A session description; *lines* are AUDIO, TEXT or both."""
    head = f"v=0\r\no=- 1 1 IN IP4 {host}\r\ns=-\r\nc=IN IP4 {host}\r\nt=0 0\r\n"
    return head + lines.format(host=host, media=media)


def request(method: str, host: str, port: int, body: str = "", transport: str = "UDP") -> bytes:
    """A request of the user at *host*:*port*."""
    number = next(_numbers)
    kind = "application/sdp" if body.startswith("v=0") else "text/plain"
    to = "sip:example.test" if method == "REGISTER" else "sip:bob@example.test"
    lines = [
        f"{method} {to} SIP/2.0",
        f"Via: SIP/2.0/{transport} {host}:{port};branch=z9hG4bK{number}",
        "Max-Forwards: 70",
        f"From: <sip:alice@example.test>;tag=a{number}",
        f"To: <{'sip:alice@example.test' if method == 'REGISTER' else to}>",
        f"Call-ID: c{number}@example.test",
        f"CSeq: 1 {method}",
        f"Contact: <sip:alice@{host}:{port}>",
        *(["Expires: 3600"] if method == "REGISTER" else []),
        *([f"Content-Type: {kind}"] if body else []),
        f"Content-Length: {len(body)}",
    ]
    return ("\r\n".join(lines) + "\r\n\r\n" + body).encode()


def answer(message: bytes) -> bytes:
    """The registrar's 200 to *message*, without a body."""
    kept = [
        line
        for line in message.split(b"\r\n\r\n")[0].split(b"\r\n")[1:]
        if re.match(b"Via|From|To|Call|CS|Cont.*:.*<", line)
    ]
    return b"\r\n".join([b"SIP/2.0 200 OK", *kept, b"Expires: 3600", b"Content-Length: 0", b"", b""])


def received(sink: socket.socket, wait_s: float = 5.0) -> bytes:
    """The next datagram, or b"" if none comes."""
    sink.settimeout(wait_s)
    with suppress(TimeoutError):
        return sink.recv(4096)
    return b""


def arrives(source: socket.socket, to: tuple[str, int], sink: socket.socket, expected: bool = True) -> bool:
    """Whether a datagram from *source* to *to* reaches *sink*. *expected* decides how long to wait."""
    text = b"%d" % next(_numbers)
    source.sendto(text, to)
    return received(sink, 5.0 if expected else PATIENCE_S) == text


def header(message: bytes, name: str) -> str:
    """The value of a header."""
    found = re.search(rf"(?m)^{name}: (.*?)\r$", message.decode())
    assert found is not None, message
    return found[1]
