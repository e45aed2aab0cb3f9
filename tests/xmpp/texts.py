"""What XMPP's clients and servers say, after RFC 6120, XEP-0065, XEP-0078 and XEP-0260, for all tests.

Nothing here is taken from nfreaim, so it can judge it.
"""

from __future__ import annotations

C2S, S2C = 0, 1
"""The directions: what the client says, and what the server says."""

INSIDE = "10.0.0.5"
HEADER = (
    b"<stream:stream to='example.test' xmlns='jabber:client' "
    b"xmlns:stream='http://etherx.jabber.org/streams' version='1.0'>"
)
ANSWER = (
    b"<?xml version='1.0'?><stream:stream from='example.test' id='7' xml:lang='en' "
    b"xmlns:stream='http://etherx.jabber.org/streams' xmlns='jabber:client'>"
)
SASL = b"xmlns='urn:ietf:params:xml:ns:xmpp-sasl'"
BIND = b"xmlns='urn:ietf:params:xml:ns:xmpp-bind'"
TLS = b"xmlns='urn:ietf:params:xml:ns:xmpp-tls'"
FEATURES = (
    b"<stream:features><mechanisms %b><mechanism>PLAIN</mechanism></mechanisms></stream:features>" % SASL
)
# A sign-on, turn by turn: who says what.
SIGN_ON = [
    (C2S, b"<?xml version='1.0' ?>" + HEADER),
    (S2C, ANSWER + FEATURES),
    (C2S, b"<auth %b mechanism='PLAIN'>AGFsaWNlAHNlY3JldA==</auth>" % SASL),
    (S2C, b"<success %b/>" % SASL),
    (C2S, HEADER),
    (S2C, ANSWER + b"<stream:features><bind %b><required/></bind></stream:features>" % BIND),
    (C2S, b"<iq type='set' id='b1'><bind %b><resource>pc</resource></bind></iq>" % BIND),
    (S2C, b"<iq type='result' id='b1'><bind %b><jid>alice@example.test/pc</jid></bind></iq>" % BIND),
]
# As it was until 2004.
OLD_SIGN_ON = [
    (C2S, HEADER.replace(b" version='1.0'", b"")),
    (S2C, ANSWER),
    (C2S, b"<iq type='get' id='a1'><query xmlns='jabber:iq:auth'><username>alice</username></query></iq>"),
    (S2C, b"<iq type='result' id='a1'><query xmlns='jabber:iq:auth'><username/><digest/></query></iq>"),
    (C2S, b"<iq type='set' id='a2'><query xmlns='jabber:iq:auth'><digest>48fc</digest></query></iq>"),
    (S2C, b"<iq type='result' id='a2'/>"),
]
# A session that goes on in another connection (XEP-0198).
RESUMED = [
    *SIGN_ON[:6],
    (C2S, b"<resume xmlns='urn:xmpp:sm:3' h='4' previd='x1'/>"),
    (S2C, b"<resumed xmlns='urn:xmpp:sm:3' h='5' previd='x1'/>"),
]
ALICE, CAROL = b"alice@example.test/pc", b"carol@example.test/pc"


def streamhost(host: str = INSIDE, port: int = 43817) -> bytes:
    return b"<streamhost jid='%b' host='%b' port='%d'/>" % (ALICE, host.encode(), port)


def query(*hosts: bytes, sid: bytes = b"s1", ident: bytes = b"q1", ends: bytes = b"") -> bytes:
    """An offer; *ends*: the attributes that say who it is from and to."""
    return (
        b"<iq type='set' id='%b' %b><query xmlns='http://jabber.org/protocol/bytestreams' sid='%b'>"
        b"%b</query></iq>" % (ident, ends or b"to='%b'" % CAROL, sid, b"".join(hosts) or streamhost())
    )


def candidate(host: str = INSIDE, port: int | None = 5086, kind: bytes = b" type='direct'") -> bytes:
    named = b"" if port is None else b" port='%d'" % port
    return b"<candidate cid='c' host='%b' jid='%b'%b priority='8257636'%b/>" % (
        host.encode(),
        ALICE,
        named,
        kind,
    )


def jingle(
    *candidates: bytes,
    action: bytes = b"session-initiate",
    sid: bytes = b"j1",
    stream: bytes = b"t1",
    ends: bytes = b"",
) -> bytes:
    return (
        b"<iq type='set' id='q2' %b><jingle xmlns='urn:xmpp:jingle:1' action='%b' sid='%b'>"
        b"<content creator='initiator' name='a'><description xmlns='urn:xmpp:jingle:apps:file-transfer:5'/>"
        b"<transport xmlns='urn:xmpp:jingle:transports:s5b:1' sid='%b' mode='tcp' dstaddr='00'>"
        b"%b</transport></content></jingle></iq>"
        % (ends or b"to='%b'" % CAROL, action, sid, stream, b"".join(candidates) or candidate())
    )


def relayed(stanza: bytes, sender: bytes = CAROL, receiver: bytes = ALICE) -> bytes:
    """A stanza as the server hands it on."""
    old = b"to='%b'" % CAROL
    assert old in stanza
    return stanza.replace(old, b"xml:lang='en' from='%b' to='%b'" % (sender, receiver), 1)


OFFER = query()
LEAVES = OFFER.replace(b"10.0.0.5", b"203.0.113.1")
ENDING = b"</stream:stream>"
MESSAGE = b"<message from='carol@example.test/pc' to='alice@example.test/pc'><body>hello</body></message>"
