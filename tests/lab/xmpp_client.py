"""A stand-in XMPP client of the lab that sends and gets files as libpurple 2.14 does, and by Jingle.

It offers the address of its own end of the connection (XEP-0065; XEP-0260), and sends in band (XEP-0047) if
the receiver reaches nothing of it: 4,096 bytes at a time, each acknowledged. Who is offered something tries
the addresses in order, 5 s each.
"""

from __future__ import annotations

import base64
import hashlib
import itertools
import socket
import threading
import time
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal
from xml.etree.ElementTree import Element

from tests.lab.namespace import socket_in
from tests.lab.net import ADDRESS, Lab
from tests.lab.xmpp_codec import (
    XmppError,
    XmppStream,
    destination,
    socks_accepted,
    socks_dialled,
    tag,
)
from tests.lab.xmpp_server import DOMAIN, PASSWORD, PORT

BYTESTREAMS = "http://jabber.org/protocol/bytestreams"
IBB = "http://jabber.org/protocol/ibb"
JINGLE = "urn:xmpp:jingle:1"
S5B = "urn:xmpp:jingle:transports:s5b:1"
NOT_FOUND = "<error type='cancel'><item-not-found xmlns='urn:ietf:params:xml:ns:xmpp-stanzas'/></error>"
PATIENCE_S = 5.0

Kind = Literal["query", "jingle"]


@dataclass(frozen=True)
class Outcome:
    """What came of an offer: *direct*: not in band; *peer*: the receiver as the sender's socket shows it."""

    ok: bool
    direct: bool
    seconds: float
    peer: str = ""
    reason: str = ""


@dataclass
class _Coming:
    """A file that is on its way here."""

    data: bytes = b""
    ended: threading.Event | None = None


class XmppClient:
    """A client on a node of the lab, whose account has that node's name; *ports*: those it listens on."""

    def __init__(self, lab: Lab, node: str, ports: Iterable[int] = ()) -> None:
        self.node = node
        self._lab = lab
        self._ports = iter(ports)
        self._sids = itertools.count(1)
        self._coming: dict[str, _Coming] = {}
        self._jingle: dict[str, list[Element]] = {}  # messages about the sessions that it has begun
        self._told = threading.Condition()
        self.ignores = False
        """Offers are not answered."""
        self.offered: list[tuple[str, int]] = []
        """The endpoints in the offers that have come, as they came."""

    @property
    def jid(self) -> str:
        """Its full JID."""
        return f"{self.node}@{DOMAIN}/pc"

    def sign_on(self, address: str, port: int = PORT) -> None:
        """Connect and sign on; raises XmppError and OSError."""
        connection = socket_in(self._lab, self.node)
        connection.settimeout(10.0)
        connection.connect((address, port))
        self._stream = XmppStream(connection, self._handle)
        self._stream.sign_on(self.node, DOMAIN, PASSWORD)
        if self._stream.jid != self.jid:
            raise XmppError(f"signed on as {self._stream.jid}")

    def sign_off(self) -> None:
        """End the session."""
        self._stream.close()

    def say(self, text: str) -> None:
        """Write a stanza as it stands."""
        self._stream.send(text)

    def send(self, to: XmppClient, content: bytes, kind: Kind = "query", in_band: bool = True) -> Outcome:
        """Offer a file to another client, and wait for it there."""
        sid = f"{self.node}{next(self._sids)}"
        began = time.monotonic()
        peer = ""
        with self._listener() as listener:
            try:
                link = (self._offered if kind == "query" else self._negotiated)(to, sid, listener)
                if link is not None:
                    with link:
                        peer = "{}:{}".format(*link.getpeername())
                        link.sendall(content)
                elif in_band:
                    self._in_band(to, sid, content)
            except (OSError, XmppError) as error:
                return Outcome(
                    False, False, time.monotonic() - began, peer, f"{type(error).__name__}: {error}"
                )
        ok = to._got(sid, content, began + 15.0)
        reason = "" if ok else "the contents differ"
        return Outcome(ok, bool(peer), time.monotonic() - began, peer, reason)

    def offer(self, to: XmppClient, port: int, address: str = "") -> None:
        """Offer something that nobody listens for, and do not wait for an answer."""
        host = f"<streamhost jid='{self.jid}' host='{address or ADDRESS[self.node]}' port='{port}'/>"
        query = f"<query xmlns='{BYTESTREAMS}' sid='{self.node}{next(self._sids)}'>{host}</query>"
        self.say(f"<iq type='set' id='offer{port}' to='{to.jid}'>{query}</iq>")

    # --- who sends ---

    def _listener(self) -> socket.socket:
        listener = socket_in(self._lab, self.node)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(("0.0.0.0", next(self._ports, 0)))
        listener.listen(4)
        return listener

    def _offered(self, to: XmppClient, sid: str, listener: socket.socket) -> socket.socket | None:
        """XEP-0065: the link, if the receiver has reached the address."""
        accepting = _Accepting(listener, destination(sid, self.jid, to.jid))
        port = listener.getsockname()[1]
        host = f"<streamhost jid='{self.jid}' host='{ADDRESS[self.node]}' port='{port}'/>"
        answer = self._stream.ask(to.jid, f"<query xmlns='{BYTESTREAMS}' sid='{sid}'>{host}</query>")
        used = answer.find(f".//{tag(BYTESTREAMS, 'streamhost-used')}")
        if answer.get("type") != "result" or used is None:
            return None
        return accepting.link()

    def _negotiated(self, to: XmppClient, sid: str, listener: socket.socket) -> socket.socket | None:
        """XEP-0260: the link, if one of both sides has reached the other."""
        accepting = _Accepting(listener, destination(sid, self.jid, to.jid))
        port = listener.getsockname()[1]
        self._jingle[sid] = []
        self._stream.ask(to.jid, _session("session-initiate", sid, _candidate(ADDRESS[self.node], port)))
        accepted = self._hears(sid, "session-accept")
        said = self._hears(sid, "transport-info")
        if said.find(f".//{tag(S5B, 'candidate-used')}") is not None:
            return accepting.link()
        reached = _dialled(self, accepted.iter(tag(S5B, "candidate")), destination(sid, to.jid, self.jid))
        child = "<candidate-error/>" if reached is None else "<candidate-used cid='c'/>"
        self._stream.ask(to.jid, _session("transport-info", sid, child))
        return reached

    def _in_band(self, to: XmppClient, sid: str, content: bytes) -> None:
        self._stream.ask(to.jid, f"<open xmlns='{IBB}' sid='{sid}' block-size='4096'/>")
        for number, at in enumerate(range(0, len(content), 4096)):
            block = base64.b64encode(content[at : at + 4096]).decode()
            self._stream.ask(to.jid, f"<data xmlns='{IBB}' sid='{sid}' seq='{number}'>{block}</data>")
        self._stream.ask(to.jid, f"<close xmlns='{IBB}' sid='{sid}'/>")

    def _hears(self, sid: str, action: str) -> Element:
        with self._told:
            deadline = time.monotonic() + 30.0
            while True:
                for message in self._jingle[sid]:
                    if message.get("action") == action:
                        self._jingle[sid].remove(message)
                        return message
                if not self._told.wait(deadline - time.monotonic()):
                    raise XmppError(f"no {action}")

    # --- who gets ---

    def _got(self, sid: str, content: bytes, until: float) -> bool:
        """Whether a file has come whole, at *until* at the latest."""
        digest = hashlib.sha256(content).digest()
        while hashlib.sha256(self._file(sid).data).digest() != digest:
            if time.monotonic() > until:
                return False
            time.sleep(0.005)
        return True

    def _file(self, sid: str) -> _Coming:
        return self._coming.setdefault(sid, _Coming())

    def _handle(self, stanza: Element) -> None:
        if stanza.get("type") != "set" or not len(stanza):
            return
        payload = stanza[0]
        if payload.tag == tag(BYTESTREAMS, "query"):
            self._reached(stanza, payload)
        elif payload.tag == tag(JINGLE, "jingle"):
            self._jingle_came(stanza, payload)
        elif payload.tag.startswith(f"{{{IBB}}}"):
            if payload.tag == tag(IBB, "data"):
                self._file(payload.get("sid", "")).data += base64.b64decode(payload.text or "")
            self._stream.answer(stanza)

    def _reached(self, stanza: Element, query: Element) -> None:
        sid, sender = query.get("sid", ""), stanza.get("from", "")
        hosts = list(query.iter(tag(BYTESTREAMS, "streamhost")))
        self._note(hosts)
        host = destination(sid, sender, self.jid)
        if self.ignores:
            return
        link = _dialled(self, hosts, host)
        if link is None:
            self._stream.answer(stanza, NOT_FOUND, "error")
            return
        used = f"<streamhost-used jid='{sender}'/>"
        self._stream.answer(stanza, f"<query xmlns='{BYTESTREAMS}' sid='{sid}'>{used}</query>")
        self._download(sid, link)

    def _jingle_came(self, stanza: Element, jingle: Element) -> None:
        sid, sender = jingle.get("sid", ""), stanza.get("from", "")
        self._stream.answer(stanza)
        if sid in self._jingle:
            with self._told:
                self._jingle[sid].append(jingle)
                self._told.notify_all()
            return
        if jingle.get("action") != "session-initiate":
            with self._told:
                self._jingle.setdefault(f"{sid} here", []).append(jingle)
                self._told.notify_all()
            return
        candidates = list(jingle.iter(tag(S5B, "candidate")))
        self._note(candidates)
        with self._listener() as listener:
            accepting = _Accepting(listener, destination(sid, self.jid, sender))
            own = _candidate(ADDRESS[self.node], listener.getsockname()[1])
            self._jingle.setdefault(f"{sid} here", [])
            self._stream.ask(sender, _session("session-accept", sid, own))
            link = _dialled(self, candidates, destination(sid, sender, self.jid))
            child = "<candidate-error/>" if link is None else "<candidate-used cid='c'/>"
            self._stream.ask(sender, _session("transport-info", sid, child))
            if link is None:
                said = self._hears(f"{sid} here", "transport-info")
                if said.find(f".//{tag(S5B, 'candidate-used')}") is None:
                    return
                link = accepting.link()
        self._download(sid, link)

    def _note(self, hosts: Iterable[Element]) -> None:
        self.offered += [(host.get("host", ""), int(host.get("port", "0"))) for host in hosts]

    def _download(self, sid: str, link: socket.socket) -> None:
        with link:
            link.settimeout(15.0)
            while data := link.recv(65536):
                self._file(sid).data += data


class _Accepting:
    """Waits in a thread for the peer that names *host* at a listener; others are sent away."""

    def __init__(self, listener: socket.socket, host: bytes) -> None:
        self._listener, self._host = listener, host
        self._link: socket.socket | None = None
        self._there = threading.Event()
        threading.Thread(target=self._accept, daemon=True).start()

    def link(self) -> socket.socket:
        """The link to that peer; raises XmppError if it has not come."""
        if not self._there.wait(10.0) or self._link is None:
            raise XmppError("nobody has connected")
        return self._link

    def _accept(self) -> None:
        while self._link is None:
            try:
                link, _ = self._listener.accept()
            except OSError:
                return
            link.settimeout(15.0)
            try:
                socks_accepted(link, self._host)
            except (OSError, XmppError):
                link.close()
                continue
            self._link = link
        self._there.set()


def _dialled(client: XmppClient, hosts: Iterable[Element], host: bytes) -> socket.socket | None:
    """The first of *hosts* that answers as the peer of a stream."""
    for one in hosts:
        link = socket_in(client._lab, client.node)
        link.settimeout(PATIENCE_S)
        try:
            link.connect((one.get("host", ""), int(one.get("port", "1080"))))
            socks_dialled(link, host)
        except (OSError, XmppError):
            link.close()
            continue
        return link
    return None


def _candidate(address: str, port: int) -> str:
    return f"<candidate cid='c' host='{address}' jid='x' port='{port}' priority='8257636' type='direct'/>"


def _session(action: str, sid: str, children: str) -> str:
    transport = f"<transport xmlns='{S5B}' sid='{sid}' mode='tcp'>{children}</transport>"
    content = f"<content creator='initiator' name='a'>{transport}</content>"
    return f"<jingle xmlns='{JINGLE}' action='{action}' sid='{sid}'>{content}</jingle>"
