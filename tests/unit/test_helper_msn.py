"""The MSN helper: which messages it changes and how, what it leaves, and who may end what was agreed."""

from __future__ import annotations

import pytest

from nfreaim.core.address import Endpoint
from tests.unit.helper_session import C2S, S2C
from tests.unit.msn_session import (
    CALL,
    INSIDE,
    LISTENS,
    NEIGHBOUR,
    OUTSIDE,
    MsnNat,
    Session,
    accept,
    chat,
    heard,
    invitation,
    listening,
    msg,
    p2p,
    slp,
)

FILE = b"EUF-GUID: {5D3E02AB-6190-11D3-BBBB-00C04F795683}"
PICTURE = b"EUF-GUID: {A4268EEC-FEC5-49E5-95C3-F126696BDBF6}"


def offer(*lines: bytes, **more: bytes) -> bytes:
    """A message of who listens, with these lines of addresses."""
    return msg(p2p(slp(*LISTENS, *lines, **more)), b"D")


def external(address: str, port: int, *more: bytes) -> bytes:
    return offer(b"IPv4External-Addrs: %s" % address.encode(), b"IPv4External-Port: %d" % port, *more)


# --- services and agreements -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("guid", "service"), [(FILE, "msn-file"), (PICTURE, "msn-object"), (b"", "msn-file")]
)
@pytest.mark.parametrize("incoming", [False, True])
def test_what_the_connection_is_for_is_told_by_the_invitation(
    guid: bytes, service: str, incoming: bool
) -> None:
    session = Session().on_sb()
    text = slp(guid or b"X: y", start=b"INVITE MSNMSGR:x MSNSLP/1.0", content=b"sessionreqbody")
    if incoming:
        session.hear(heard(p2p(text, b"alice1@lab.test")))
    else:
        session.say(msg(p2p(text), b"D"))
    session.say(msg(p2p(listening()), b"D"))
    (expectation,) = session.nat.expected
    assert (expectation.service, expectation.inside) == (service, Endpoint(INSIDE, 44397))
    assert (expectation.after_flow, expectation.needs_session) == (60.0, True)
    assert expectation.greetings


def test_the_same_text_again_is_the_same_agreement() -> None:
    session = Session().on_sb()
    for text in (listening(), listening(), listening(call=CALL.lower())):
        session.say(msg(p2p(text), b"D"))
    session.say(msg(p2p(listening(), b"carol1@lab.test"), b"D"))
    session.say(msg(p2p(listening(call=b"{00000000-0000-0000-0000-000000000001}")), b"D"))
    names = [one.agreement for one in session.nat.expected]
    assert len(set(names[:3])) == 1
    assert len(set(names)) == 3


@pytest.mark.parametrize(
    "start", [b"MSNSLP/1.0 603 Decline", b"MSNSLP/1.0 481 No Such Call", b"BYE MSNMSGR:x MSNSLP/1.0"]
)
def test_the_peer_ends_what_was_agreed_and_a_stranger_does_not(start: bytes) -> None:
    text = slp(start=start, content=b"sessionclosebody")
    session = Session().on_sb()
    session.say(msg(p2p(listening()), b"D"))
    session.hear(heard(p2p(text, b"alice1@lab.test"), b"mallory@lab.test"))
    assert len(session.nat.pinholes) == 1
    session.hear(
        heard(p2p(text, b"alice1@lab.test"), b"Bob1@lab.test;{281f2818-580b-46f0-909f-c009de526642}")
    )
    assert session.nat.pinholes == {}


def test_cancel_of_a_file_ends_it_and_a_stranger_s_does_not() -> None:
    asked = invitation(
        b"Invitation-Command: ACCEPT", b"Invitation-Cookie: 33267", b"Launch-Application: FALSE"
    )
    cancel = invitation(b"Invitation-Command: CANCEL", b"Invitation-Cookie: 33267", b"Cancel-Code: FAIL")
    session = Session().on_sb()
    session.hear(heard(asked))
    session.say(msg(accept()))
    session.hear(heard(cancel, b"mallory@lab.test"))
    session.hear(heard(asked, b"mallory@lab.test") + heard(cancel, b"mallory@lab.test"))
    assert len(session.nat.pinholes) == 1
    session.hear(heard(cancel))
    assert session.nat.pinholes == {}
    session.say(msg(accept()))
    session.say(msg(cancel))
    assert session.nat.pinholes == {}


def test_who_leaves_the_conversation_has_a_minute_left() -> None:
    session = Session().on_sb()
    session.say(msg(p2p(listening()), b"D"))
    session.hear(b"BYE carol1@lab.test\r\n")
    assert session.nat.agreed == []
    session.hear(b"BYE bob1@lab.test\r\n")
    assert session.nat.agreed == [session.nat.expected[0].agreement]
    session.hear(b"BYE bob1@lab.test 1\r\n")
    assert len(session.nat.agreed) == 1


# --- SLP: which address, which port -------------------------------------------------------------------------


def test_inside_port_of_a_client_that_knows_its_outside_address() -> None:
    session = Session(MsnNat(moved={7000: 7000})).on_sb()
    inner = b"IPv4Internal-Addrs: %s" % INSIDE.encode(), b"IPv4Internal-Port: 7000"
    session.say(external(OUTSIDE, 6891, *inner))
    assert session.nat.expected[0].inside == Endpoint(INSIDE, 7000)
    assert session.nat.expected[0].announced == Endpoint(OUTSIDE, 6891)


@pytest.mark.parametrize(
    ("before", "after", "moved"),
    [
        (b"192.168.77.2 10.0.0.5|6891", b"192.168.77.2 203.0.113.1|6891", {}),
        (b"192.168.77.2 10.0.0.5|6891", b"", {6891: 40000}),  # the port is the other address's, too
        (b"192.168.77.2 10.0.0.5|7000 6891", b"192.168.77.2 203.0.113.1|7000 40000", {6891: 40000}),
        (b"10.0.0.5 10.0.0.6|6891 6891", b"203.0.113.1 10.0.0.6|6891 6891", {}),
        (b"10.0.0.5 10.0.0.5|6891", b"203.0.113.1 203.0.113.1|40000", {6891: 40000}),
        (b"10.0.0.5 10.0.0.5|6891 6892", b"", {}),
        (b"10.0.0.5  10.0.0.6|6891 6892 6893", b"", {}),  # which port is whose?
        (b"10.0.0.6|6891", b"", {}),
        (b"10.0.0.6 " * 8 + b"10.0.0.5|6891", b"", {}),  # more than anybody has
        (b"127.0.0.1|6891", b"", {}),
        (b"10.0.0.5|0", b"", {}),
        (b"10.0.0.5|65536", b"", {}),
        (b"10.0.0.05|6891", b"", {}),
        (b"::1|6891", b"", {}),
        (b"|6891", b"", {}),
        (b" 10.0.0.5 \t|\t6891", b" 203.0.113.1 \t|\t6891", {}),
    ],
)
@pytest.mark.parametrize("backward", [False, True])
def test_lists_of_addresses(before: bytes, after: bytes, moved: dict[int, int], backward: bool) -> None:
    def lines(text: bytes) -> tuple[bytes, bytes]:
        addresses, ports = text.split(b"|")
        if not backward:
            return b"IPv4External-Addrs:" + addresses, b"IPv4External-Port:" + ports
        return b"srddA-lanretxE4vPI:" + addresses[::-1], b"troP-lanretxE4vPI:" + ports[::-1]

    nat = MsnNat(moved=moved)
    came, leaves = offer(*lines(before)), offer(*lines(after)) if after else b""
    assert Session(nat).on_sb().say(came) == (leaves or came)
    assert len(nat.pinholes) == bool(after)
    assert nat.counts["rewritten" if after else "left"] == 1


def test_address_and_port_in_one_line() -> None:
    for name, value in (("IPv4ExternalAddrsAndPorts", "192.168.7.7:9 10.0.0.5:6891"), ("x", "")):
        if not value:
            continue
        for turn in (1, -1):
            line = f"{name[::turn]}: {value[::turn]}".encode()
            wanted = f"{name[::turn]}: {value.replace('10.0.0.5', OUTSIDE)[::turn]}".encode()
            assert Session().on_sb().say(offer(line)) == offer(wanted)


def test_internal_pair_is_edited_only_if_there_is_no_external_one() -> None:
    inner = b"IPv4Internal-Addrs: 10.0.0.5", b"IPv4Internal-Port: 6891"
    outer = inner[0].replace(b"10.0.0.5", b"203.0.113.1"), inner[1]
    assert Session().on_sb().say(offer(*inner)) == offer(*outer)
    stranger = external("198.51.100.7", 6891, *inner)
    session = Session().on_sb()
    assert session.say(stranger) == stranger
    assert session.nat.expected == []


LEFT = {
    "does not listen": offer(b"X: y").replace(b"Listening: true", b"Listening: fals"),
    "no bridge": msg(p2p(slp(*LISTENS[1:], b"IPv4External-Addrs: 10.0.0.5", b"IPv4External-Port: 6891"))),
    "another bridge": external(INSIDE, 6891).replace(b"Bridge: TCPv1", b"Bridge: TRUDP"),
    "two nonces": external(INSIDE, 6891, b"Hashed-Nonce: {0}"),
    "no nonce": external(INSIDE, 6891).replace(b"Nonce:", b"Nance:"),
    "request": msg(
        p2p(
            slp(
                *LISTENS,
                b"IPv4External-Addrs: 10.0.0.5",
                b"IPv4External-Port: 6891",
                start=b"INVITE MSNMSGR:bob1@lab.test MSNSLP/1.0",
                content=b"transreqbody",
            )
        )
    ),
    "update": msg(
        p2p(
            slp(
                *LISTENS,
                b"IPv4External-Addrs: 10.0.0.5",
                b"IPv4External-Port: 6891",
                start=b"ACK MSNMSGR:x MSNSLP/1.0",
                content=b"transdestaddrupdate",
            )
        )
    ),
    "a text that imitates it": msg(chat(listening())),
    "a piece": msg(p2p(listening()[:200], total=len(listening()), size=200), b"D"),
    "64 lines before it": offer(
        *(b"L%d: x" % number for number in range(64)),
        b"IPv4External-Addrs: 10.0.0.5",
        b"IPv4External-Port: 6891",
    ),
    "a later piece": msg(
        p2p(listening()[200:], total=len(listening()), size=len(listening()) - 200, offset=200)
    ),
    "data of a file": msg(p2p(listening(), session=7), b"D"),
}
CONTRADICTS = {
    "size": msg(p2p(listening(), size=9), b"D"),
    "size beyond the total": msg(p2p(listening(), total=5), b"D"),
    "two spellings": external(INSIDE, 6891, b"srddA-lanretnI4vPI: 5.0.0.01", b"troP-lanretnI4vPI: 1986"),
    "pair and combined form": external(INSIDE, 6891, b"IPv4ExternalAddrsAndPorts: 10.0.0.5:6891"),
    "twice": external(INSIDE, 6891, b"IPv4External-Addrs: 10.0.0.5"),
    "no port": offer(b"IPv4External-Addrs: 10.0.0.5"),
    "PortX is none": msg(accept(INSIDE, 6891, b"PortX: 99999")),
    "IP is none": msg(accept("10.0.0.500")),
    "coded address of another": msg(accept(INSIDE, 6891, b"IP-Address-Enc64: MTAuMC4wLjY6Njg5MQ==")),
}


@pytest.mark.parametrize("message", [*LEFT.values(), *CONTRADICTS.values()], ids=[*LEFT, *CONTRADICTS])
def test_left_to_the_byte(message: bytes) -> None:
    session = Session().on_sb()
    assert session.say(message) == message
    assert session.nat.expected == []
    assert session.helper.established
    assert session.say(msg(accept())) != msg(accept()), "the connection is read on"


@pytest.mark.parametrize("message", CONTRADICTS.values(), ids=CONTRADICTS)
def test_what_contradicts_itself_is_counted(message: bytes) -> None:
    session = Session().on_sb()
    session.say(message)
    assert session.nat.counts["malformed_messages"] == 1


def test_wrong_content_length_stays() -> None:
    came = external(INSIDE, 6891)
    at = came.index(b"Content-Length: ") + 16
    came = came[:at] + b"043" + came[at + 3 :]
    assert b"Content-Length: 043\r\n" in Session().on_sb().say(came)
    assert b"203.0.113.1" in Session().on_sb().say(came)


def test_message_that_the_server_would_refuse_is_left() -> None:
    empty = len(p2p(slp(*LISTENS, b"IPv4External-Addrs: 10.0.0.5", b"IPv4External-Port: 6891", b"X:")))
    for spare, edited in ((-3, True), (-2, False), (0, False), (5, False)):
        came = external(INSIDE, 6891, b"X:" + b"y" * (1664 + spare - empty - 1))  # a digit of Content-Length
        assert b"D %d\r\n" % (1664 + spare) in came
        session = Session().on_sb()
        assert (session.say(came) != came) is edited, spare
        assert len(session.nat.pinholes) == edited


# --- MSNFTP -------------------------------------------------------------------------------------------------


def test_every_line_that_has_the_port_follows() -> None:
    lines = (
        b"IP-Address-Internal: 10.0.0.5",
        b"PortX: %d" % (6891 ^ 0x3141),
        b"PortX-Internal: %d" % (6891 ^ 0x3141),
        b"IP-Address-Enc64: MTAuMC4wLjU6Njg5MQ==",
        b"Sender-Connect: TRUE",
    )
    leaves = Session(MsnNat(moved={6891: 40001})).on_sb().say(msg(accept(INSIDE, 6891, *lines)))
    assert leaves == msg(
        accept(
            OUTSIDE,
            40001,
            lines[0],
            b"PortX: %d" % (40001 ^ 0x3141),
            lines[2],
            b"IP-Address-Enc64: MjAzLjAuMTEzLjE6NDAwMDE=",
            lines[4],
        )
    )


def test_inside_port_where_the_outside_address_is_announced() -> None:
    session = Session(MsnNat(moved={7000: 6891})).on_sb()
    came = msg(accept(OUTSIDE, 6891, b"PortX-Internal: %d" % (7000 ^ 0x3141)))
    assert session.say(came) == came
    assert session.nat.expected[0].inside == Endpoint(INSIDE, 7000)


def test_other_applications_are_left() -> None:
    for line in (
        b"Application-GUID: {02D3C01F-BF30-4825-A83A-DE7AF41648AA}",
        b"Application-GUID: {5D3E02AB-6190-11d3-BBBB-00C04F795683}\r\nApplication-GUID: {0}",
    ):
        came = msg(accept(INSIDE, 6891, line))
        assert Session().on_sb().say(came) == came
    own = msg(accept(INSIDE, 6891, b"Application-GUID: {5D3E02AB-6190-11d3-BBBB-00C04F795683}"))
    assert Session().on_sb().say(own) != own


# --- the same network ---------------------------------------------------------------------------------------


def test_announcement_of_a_neighbour_is_mapped_back() -> None:
    nat = MsnNat(pinholes={Endpoint(OUTSIDE, 40007): Endpoint(NEIGHBOUR, 6891)})
    session = Session(nat).on_sb()
    got = session.hear(heard(p2p(listening(OUTSIDE, 40007))))
    assert got == heard(p2p(listening(NEIGHBOUR, 6891)))
    got = session.hear(heard(accept(OUTSIDE, 40007, b"PortX: %d" % (40007 ^ 0x3141))))
    assert got == heard(accept(NEIGHBOUR, 6891, b"PortX: %d" % (6891 ^ 0x3141)))
    assert nat.counts["mapped_back"] == 2
    assert nat.expected == []


def test_acknowledgement_of_a_mapped_message_is_translated_once_its_size_is_that() -> None:
    nat = MsnNat(pinholes={Endpoint(OUTSIDE, 40007): Endpoint(NEIGHBOUR, 6891)})
    session = Session(nat).on_sb()
    text, after = listening(OUTSIDE, 40007), listening(NEIGHBOUR, 6891)
    session.hear(heard(p2p(text, message=77)))

    def ack(size: int) -> bytes:
        frame = bytearray(p2p(b"", message=99, total=size, size=0))
        at = frame.index(b"\r\n\r\n") + 4
        frame[at + 28 : at + 32] = (2).to_bytes(4, "little")
        frame[at + 32 : at + 36] = (77).to_bytes(4, "little")
        frame[at + 40 : at + 48] = size.to_bytes(8, "little")
        return msg(bytes(frame), b"D")

    assert session.say(ack(len(after))) == ack(len(text))
    assert session.say(ack(5)) == ack(5)


# --- waiting ------------------------------------------------------------------------------------------------


def test_a_message_waits_from_its_length_on_and_a_text_does_not() -> None:
    session = Session().on_sb()
    start = len(session.seen[C2S])
    came = msg(p2p(listening()), b"D")
    session.say(came, 9, 12, 40, 200)
    assert session.holds == [start + 8] * 4
    text = msg(chat(b"hello " * 50))
    session = Session().on_sb()
    session.say(text, 120, 200)
    assert session.holds == []


def test_nothing_waits_on_the_way_in_while_no_pinhole_is_open() -> None:
    session = Session().on_sb()
    came = heard(p2p(listening(OUTSIDE)))
    session.hear(came, 9, 30, 200)
    assert session.holds == []
    session.nat.pinholes[Endpoint(OUTSIDE, 1)] = Endpoint(NEIGHBOUR, 1)
    session.hear(came, 30, 200)
    assert len(session.holds) == 2


def test_address_that_has_left_is_not_edited_and_opens_nothing() -> None:
    session = Session().on_sb()
    came = msg(p2p(listening()), b"D")
    session.feed(C2S, came[:100])
    session.nat.left[C2S] = len(session.seen[C2S])  # its time was up
    session.feed(C2S, came[100:])
    assert session.edits[C2S] == []
    assert session.nat.expected == []
    assert session.reasons() == ["its beginning had left before its end came"]


def test_uun_and_ubn_on_the_notification_server() -> None:
    text = slp(*LISTENS, b"IPv4External-Addrs: 10.0.0.5", b"IPv4External-Port: 6891", nul=b"")
    after = slp(*LISTENS, b"IPv4External-Addrs: 203.0.113.1", b"IPv4External-Port: 6891", nul=b"")
    session = Session().on_ns()
    came = b"UUN 31 bob1@lab.test;{x} 3 %d\r\n" % len(text) + text
    assert session.say(came) == b"UUN 31 bob1@lab.test;{x} 3 %d\r\n" % len(after) + after
    for kind in (b"1", b"2", b"4", b"10"):
        other = b"UUN 31 bob1@lab.test %s %d\r\n" % (kind, len(text)) + text
        assert session.say(other) == other
    session.nat.pinholes = {Endpoint(OUTSIDE, 6891): Endpoint(NEIGHBOUR, 7000)}
    back = slp(*LISTENS, b"IPv4External-Addrs: 10.0.0.6", b"IPv4External-Port: 7000", nul=b"")
    got = session.hear(b"UBN bob1@lab.test 3 %d\r\n" % len(after) + after)
    assert got == b"UBN bob1@lab.test 3 %d\r\n" % len(back) + back
    assert session.feed(S2C, b"OUT OTH\r\n") is None
    assert session.nat.over == ["signed off"]
