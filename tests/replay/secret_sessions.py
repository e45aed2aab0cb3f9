"""A session of each protocol that is full of secrets, with an offer and the peer's connection that follows.

Everything that must not be in a copy is made of the words of `SECRETS`.
"""

from __future__ import annotations

import base64
from dataclasses import dataclass
from urllib.parse import quote

from tests.msn.fields import block
from tests.msn.p2p import Header
from tests.oscar import peer_headers
from tests.oscar.flap import flap, numbered
from tests.oscar.icbm import icbm_to_client, icbm_to_server, text
from tests.oscar.rendezvous import SEND_FILE, rdv_block
from tests.oscar.signon import HOST_ONLINE, VERSION
from tests.oscar.snac import snac_frame
from tests.oscar.tlv import tlv, user_info
from tests.oscar.values import ip4
from tests.tcp.captures import Conversation, Frames
from tests.xmpp import texts
from tests.yahoo import ymsg

ME, FRIEND, PASSWORD = "Zuleika", "Quentin", "Hunter2Secret"
TICKET, TEXT, FILE = "TICKETq8z7y6x5", "whisper nothing to anybody", "taxreturn"
CONTENT = "ledger of the year"
SECRETS = (ME, FRIEND, PASSWORD, TICKET, TEXT, "whisper", FILE, CONTENT, "ledger")
HOST, SERVER, PEER, PORT = "10.0.0.5", "203.0.113.9", "203.0.113.20", 5500
ROAST = bytes.fromhex("f32681c43986db9271a3b9e6537a957c")
COOKIE = b"4711471\0"

Turns = list[tuple[str, bytes]]


def spellings() -> set[bytes]:
    """The secrets in every way in which they could stand in a file."""
    found: set[bytes] = set()
    for word in SECRETS:
        for spelled in (word, word.lower(), word.upper(), word[::-1]):
            raw = spelled.encode()
            found |= {raw, spelled.encode("utf-16-be"), spelled.encode("utf-16-le"), raw.hex().encode()}
            found |= {raw.hex().upper().encode(), quote(raw).encode()}
            # Base64 has three forms of a text, by where it begins; their ends depend on what is beside it.
            found |= {base64.b64encode(bytes(lead) + raw)[4:-4] for lead in range(3)}
    found.add(bytes(byte ^ ROAST[at % 16] for at, byte in enumerate(PASSWORD.encode())))
    return {one for one in found if len(one) >= 6}


@dataclass(frozen=True)
class Session:
    """What is said on a connection to a server, and on the peer's; *greets*: what of the latter stays."""

    protocol: str
    port: int
    turns: Turns
    peer: Turns
    greets: bytes

    def frames(self) -> Frames:
        """All of it as a capture of the LAN side."""
        control = Conversation((HOST, 40123), (SERVER, self.port), timestamps=True).open()
        for side, data in self.turns:
            control.send("client" if side == ">" else "server", data)
        if not self.peer:
            return control.close().frames
        direct = Conversation((PEER, 50123), (HOST, PORT), start=control.time + 0.1).open()
        for side, data in self.peer:
            direct.send("client" if side == ">" else "server", data)
        direct.close()
        control.time = direct.time + 0.1
        return [*control.frames, *direct.frames, *control.close().frames[-3:]]


def _oscar() -> Session:
    login = flap(1, 0, VERSION + tlv(1, ME.encode()) + tlv(2, TICKET.encode()) + tlv(6, PASSWORD.encode()))
    inner = tlv(10, b"\0\1") + tlv(3, ip4(HOST)) + tlv(5, PORT.to_bytes(2, "big")) + tlv(15)
    inner += tlv(12, TEXT.encode()) + tlv(0x2711, b"\0\1\0\1\0\0\x0b\xb8" + FILE.encode() + b"\0")
    offer = icbm_to_server(COOKIE, 2, FRIEND, tlv(5, rdv_block(0, COOKIE, SEND_FILE, inner)) + tlv(3))
    said = icbm_to_server(b"12345678", 1, FRIEND, text(TEXT.encode()))
    heard = icbm_to_client(b"87654321", 1, user_info(FRIEND, tlv(1, TICKET.encode())), text(TEXT.encode()))
    client = [
        login,
        snac_frame((4, 6), said),
        snac_frame((2, 4), tlv(2, TEXT.encode())),
        snac_frame((4, 6), offer),
    ]
    server = [flap(1, 0, VERSION), HOST_ONLINE, snac_frame((1, 15), user_info(ME)), snac_frame((4, 7), heard)]
    server.append(snac_frame((1, 5), tlv(5, b"203.0.113.9:5190") + tlv(6, TICKET.encode())))
    turns: Turns = [("<", server[0]), (">", client[0])]
    turns += [("<", numbered(frame, number)) for number, frame in enumerate(server[1:], 1)]
    turns += [(">", numbered(frame, number)) for number, frame in enumerate(client[1:], 1)]
    prompt = peer_headers.oft_header(peer_headers.PROMPT, COOKIE, 1, 3, FILE)
    ack = peer_headers.oft_header(peer_headers.ACK, COOKIE, 1, 3, FILE)
    return Session("oscar", 5190, turns, [("<", prompt), (">", ack), ("<", CONTENT.encode())], b"OFT2")


def _irc() -> Session:
    turns: Turns = [
        (">", f"PASS {PASSWORD}\r\nNICK {ME}\r\nUSER {ME} 0 * :{ME} {FRIEND}\r\n".encode()),
        ("<", f":irc.test 001 {ME} :Welcome {ME}!{ME}@{TICKET}\r\n:irc.test 372 {ME} :{TEXT}\r\n".encode()),
        (">", f"JOIN #{FRIEND} {PASSWORD}\r\nPRIVMSG NickServ :IDENTIFY {PASSWORD}\r\n".encode()),
        ("<", f"@account={ME} :{FRIEND}!~{FRIEND}@{TICKET} PRIVMSG {ME} :{TEXT}\r\n".encode()),
        (">", f'PRIVMSG {FRIEND} :\x01DCC SEND "{FILE} of {ME}" 167772165 {PORT} 3000\x01\r\n'.encode()),
        (">", f"NOTICE {FRIEND} :\x01PING {TEXT}\x01\r\n{TEXT}\r\n".encode()),
    ]
    return Session("irc", 6667, turns, [("<", CONTENT.encode()), (">", b"\0\0\0\x12")], b"")


def _msn() -> Session:
    me, friend = f"{ME}@{FRIEND}.test", f"{FRIEND}@{FRIEND}.test"
    body = block(
        (
            *(("Bridge", "TCPv1"), ("Listening", "true"), ("Nonce", "{" + "7" * 8 + "-TICKETq8z7y6x5}")),
            *(("IPv4External-Addrs", HOST), ("IPv4External-Port", str(PORT)), ("Context", TICKET)),
        )
    )
    head = block(
        (
            *(("To", f"<msnmsgr:{friend}>"), ("From", f"<msnmsgr:{me}>"), ("Call-ID", "{1234-5678}")),
            ("Content-Type", "application/x-msnmsgr-transrespbody"),
            ("Content-Length", str(len(body) + 1)),
        )
    )
    slp = b"MSNSLP/1.0 200 OK\r\n" + head + body + b"\0"
    p2p = Header(total=len(slp), size=len(slp), message=7).encode() + slp + bytes(4)
    kind = b"MIME-Version: 1.0\r\nContent-Type: "
    frame = kind + f"application/x-msnmsgrp2p\r\nP2P-Dest: {friend}\r\n\r\n".encode() + p2p
    words = kind + f"text/plain\r\nX-MMS-IM-Format: FN={TICKET}\r\n\r\n{TEXT}".encode()
    typing = kind + f"text/x-msmsgscontrol\r\nTypingUser: {friend}\r\n\r\n".encode()
    turns: Turns = [
        (">", f"ANS 1 {me} {TICKET} 17\r\n".encode()),
        ("<", f"IRO 1 1 1 {friend} {FRIEND}\r\nANS 1 OK\r\nJOI {friend} {FRIEND}\r\n".encode()),
        (">", f"MSG 2 N {len(words)}\r\n".encode() + words),
        ("<", f"MSG {friend} {FRIEND} {len(words)}\r\n".encode() + words),
        ("<", f"MSG {friend} {FRIEND} {len(typing)}\r\n".encode() + typing),
        (">", f"MSG 3 D {len(frame)}\r\n".encode() + frame),
    ]
    nonce = Header(message=9).encode()[:32] + TICKET.encode() + b"zz"
    peer = [(">", b"\4\0\0\0foo\0" + b"\x30\0\0\0" + nonce), ("<", CONTENT.encode())]
    return Session("msn", 1864, turns, peer, b"\4\0\0\0foo\0\x30\0\0\0")


def _msn_notification() -> Session:
    me = f"{ME}@{FRIEND}.test"
    profile = f"MIME-Version: 1.0\r\nContent-Type: text/x-msmsgsprofile\r\nMSPAuth: {TICKET}\r\n\r\n".encode()
    contacts = f"<ml><d n='{FRIEND}.test'><c n='{ME}'/></d></ml>".encode()
    turns: Turns = [
        (">", b"VER 1 MSNP18 CVR0\r\n"),
        ("<", b"VER 1 MSNP18\r\n"),
        (">", f"CVR 2 0x0409 winnt 5.1 i386 MSNMSGR 8.5 MSMSGS {me}\r\nUSR 3 SSO I {me}\r\n".encode()),
        ("<", f"CVR 2 1.0 1.0 1.0 http://{TICKET} http://x\r\nUSR 3 SSO S MBI_KEY {TICKET}\r\n".encode()),
        (">", f"USR 4 SSO S t={TICKET} {base64.b64encode(PASSWORD.encode()).decode()}\r\n".encode()),
        ("<", f"USR 4 OK {me} 1 0\r\nMSG Hotmail Hotmail {len(profile)}\r\n".encode() + profile),
        (">", f"ADL 5 {len(contacts)}\r\n".encode() + contacts + b"XFR 6 SB\r\n"),
        ("<", f"ADL 5 OK\r\nXFR 6 SB 203.0.113.9:1864 CKI {TICKET}\r\n".encode()),
        ("<", f"RNG 11 203.0.113.9:1864 CKI {TICKET} {me} {FRIEND}\r\n".encode()),
        ("<", f"NLN NLN {me} 1 {FRIEND} 0 %3C{TICKET}%3E\r\n".encode()),
    ]
    return Session("msn", 1863, turns, [], b"")


def _xmpp() -> Session:
    plain = base64.b64encode(f"\0{ME}\0{PASSWORD}".encode()).decode()
    me, friend = f"{ME}@{FRIEND}.test/{TICKET}", f"{FRIEND}@{FRIEND}.test/pc"
    turns: Turns = [("<" if way == texts.S2C else ">", data) for way, data in texts.SIGN_ON]
    turns[2] = (">", f"<auth {texts.SASL.decode()} mechanism='PLAIN'>{plain}</auth>".encode())
    bound = f"<iq type='result' id='b1'><bind {texts.BIND.decode()}><jid>{me}</jid></bind></iq>"
    turns[7] = ("<", bound.encode())
    offer = texts.query(texts.streamhost(HOST, PORT), ends=f"to='{friend}'".encode())
    turns += [
        (">", f"<message to='{friend}' type='chat'><body>{TEXT}</body></message>".encode()),
        ("<", f"<message from='{friend}'><body>{TEXT}</body><x key=\"{TICKET}\"/></message>".encode()),
        (">", f"<iq type='set' to='{friend}' id='f1'><si><file name='{FILE}' size='18'/></si></iq>".encode()),
        (">", offer.replace(b"alice", ME.encode())),
    ]
    greeting = b"\5\1\0"
    peer = [(">", greeting), ("<", b"\5\0"), (">", b"\5\1\0\3" + TICKET.encode()), ("<", CONTENT.encode())]
    return Session("xmpp", 5222, turns, peer, greeting)


def _yahoo() -> Session:
    auth, challenge, answer, welcome = ymsg.sign_on(ymsg.V9)
    me, friend = ME.encode(), FRIEND.encode()
    reply = ymsg.ymsg(ymsg.AUTHRESP, [(6, TICKET.encode()), (96, PASSWORD.encode()), (0, me), (2, b"1")])
    buddies = ymsg.ymsg(ymsg.LIST, [(87, b"Friends:" + friend), (59, b"Y\tv=" + TICKET.encode())], status=1)
    where = f"http://{HOST}:{PORT}/Messenger.{ME}.{TICKET}?{FILE}".encode()
    turns: Turns = [
        *((">", auth), ("<", challenge), (">", reply), ("<", buddies), ("<", welcome)),
        (">", ymsg.ymsg(ymsg.MESSAGE, [(1, me), (5, friend), (14, TEXT.encode())])),
        ("<", ymsg.ymsg(ymsg.MESSAGE, [(4, friend), (5, me), (14, TEXT.encode())])),
        (
            ">",
            ymsg.ymsg(
                ymsg.P2PFILEXFER,
                [(5, friend), (4, me), (13, b"1"), (14, TEXT.encode()), (20, where), (27, FILE.encode())],
            ),
        ),
    ]
    del answer
    request = f"GET /Messenger.{ME}.{TICKET}?{FILE} HTTP/1.1\r\nCookie: {TICKET}\r\n\r\n".encode()
    return Session("yahoo", 5050, turns, [(">", request), ("<", CONTENT.encode())], b"GET /Messenger")


SESSIONS = (_oscar(), _irc(), _msn(), _msn_notification(), _xmpp(), _yahoo())
