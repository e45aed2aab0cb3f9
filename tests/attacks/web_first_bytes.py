"""What a browser can be made to send first, then a whole session behind it, opens nothing.

Each beginning is followed by sign-on and proposal, in segments of their own or in one, with the server
first or last. ICE-TCP (RFC 6544, 4571) begins with 2A 01 if a packet of 10,753 bytes can be the first, and
STUN's type and length then stand where FLAP's number is. Through the engine, no lab.
"""

from __future__ import annotations

import itertools
import struct
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
from tests.attacks.kit import say, verdict

# isort: split
from tests.attacks import wire
from tests.unit.oscar_fixtures import Router, Wire

TXN = bytes(12)
STUN = struct.pack("!HHI", 1, 0x54, 0x2112A442) + TXN
BEGINNINGS = {
    "GET": b"GET / HTTP/1.1\r\nHost: x:5190\r\n\r\n",
    "POST": b"POST / HTTP/1.1\r\n",
    "method *": b"* / HTTP/1.1\r\n",
    "OPTIONS": b"OPTIONS * HTTP/1.1\r\n",
    "CONNECT": b"CONNECT x:5190 HTTP/1.1\r\n\r\n",
    "h2 preface": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    "TLS": bytes.fromhex("1603010200010001fc0303"),
    "TLS padded": bytes.fromhex("16030100ff"),
    "DTLS": bytes.fromhex("16fefd"),
    "TURN allocate": struct.pack("!HHI", 3, 0, 0x2112A442) + TXN,
    "TURN channel data": b"\x40\0\0\x0a",
    "STUN": STUN,
    "ICE-TCP": struct.pack("!H", len(STUN)) + STUN,
    "ICE-TCP of 10,753": b"\x2a\x01" + STUN,
    "ICE-TCP of 10,753, type 1": b"\x2a\x01\0\1\0\x54\x21\x12\xa4\x42",
    "FTP": b"USER x\r\n",
    "SMTP": b"EHLO x\r\n",
    "SIP": b"INVITE sip:x SIP/2.0\r\n",
    "IRC": b"NICK x\r\n",
    "RTSP": b"OPTIONS rtsp://x RTSP/1.0\r\n",
    "gopher": b"/x\r\n",
    "gopher with *": b"*\x01\r\n",
    "telnet": b"\xff\xfb\x01",
    "SSH": b"SSH-2.0-x\r\n",
    "git": b"002agit-upload-pack /x\0host=x\0",
    "LDAP": b"0\x0c\x02\x01\x01`\x07\x02\x01\x03\x04\0\x80\0",
    "SMB": b"\0\0\0\x2a\xffSMB",
    "RDP": b"\3\0\0\x13\x0e\xe0",
    "mysql": b"\x2a\x01\0\1\x85\xa6\0\0\0\0\0\1",
    "VNC": b"RFB 003.008\n",
    "MQTT": b"\x10\x2a\0\4MQTT",
    "AMQP": b"AMQP\0\0\x09\1",
    "redis": b"*1\r\n$4\r\nPING\r\n",
    "memcache": b"\x80\x01",
    "postgres": b"\0\0\0\x2a\0\3\0\0",
    "proxy v1": b"PROXY TCP4 1.1.1.1 2.2.2.2 1 2\r\n",
    "proxy v2": b"\r\n\r\n\0\r\nQUIT\n",
    "socks5": b"\5\1\0",
    "socks4": b"\4\1\x14\x46\1\1\1\1\0",
    "DNS over TCP": b"\x2a\x01\0\0\1\0\0\1\0\0\0\0\0\0",
    "DNS over TCP, id": b"\x2a\x01\x2a\x01\x01\0\0\1",
    "ADB": b"CNXN",
    "X11": b"l\0\x0b\0",
    "NUL": b"\0",
    "FLAP 2": b"\x2a\x02\0\1\0\4\0\0\0\1",
    "version 2": b"\x2a\x01\0\1\0\4\0\0\0\2",
    "short sign-on": b"\x2a\x01\0\1\0\3\0\0\0",
}
ANSWERS = (wire.GREETING, b"HTTP/1.1 200 OK\r\n\r\n" + wire.GREETING, b"")
SESSION = [wire.SIGN_ON, wire.proposal("10.0.0.5", 6000, 2)]


def opens(first: bytes, server_first: bool, joined: bool, answer: bytes) -> bool:
    """Whether a connection that begins so opens a pinhole."""
    router = Router()
    one = Wire(router)
    one.handshake()
    if server_first and answer:
        one.server(answer)
    one.client(first + b"".join(SESSION) if joined else first)
    if not server_first and answer:
        one.server(answer)
    if not joined:
        for part in SESSION:
            one.client(part)
    if answer:
        one.server(wire.GREETING)
    one.client(wire.proposal("10.0.0.5", 6000, 3))
    return bool(len(router.pinholes))


def control() -> bool:
    """Whether a session as it should be opens one."""
    router = Router()
    one = Wire(router)
    one.handshake()
    one.server(wire.SIGN_ON)
    one.client(wire.SIGN_ON)
    one.server(wire.HOST_ONLINE)
    one.client(wire.proposal("10.0.0.5", 6000, 2))
    return len(router.pinholes) == 1


def main() -> None:
    cases = list(itertools.product(BEGINNINGS, (True, False), (True, False), ANSWERS))
    opened = [case for case in cases if opens(BEGINNINGS[case[0]], *case[1:])]
    for name, server_first, joined, _ in opened:
        say(f"opened: {name}, server first: {server_first}, joined: {joined}")
    proper = control()
    say(f"a session as it should be opens a pinhole: {proper}")
    count = f"{len(cases)} attempts with {len(BEGINNINGS)} beginnings"
    verdict(bool(opened), f"{count}, {len(opened)} opened", control=proper)


if __name__ == "__main__":
    main()
