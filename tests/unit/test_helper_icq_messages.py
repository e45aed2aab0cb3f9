"""ICQ's reverse connections and type-2 messages: ports in two places and in two byte orders."""

from __future__ import annotations

import pytest

from pcaps.wire import put, received, tlv
from tests.unit.fakes import packed
from tests.unit.icq_frames import (
    ACK,
    RELAY,
    REVERSE,
    STATUS,
    beside,
    direct,
    ends,
    info,
    moved_wire,
    reasons,
    snac,
)
from tests.unit.proposals import OUT, OWN, wire_of

BARE = bytes(4)  # user info without TLVs

# --- reverse connections ----------------------------------------------------------------------------------


def test_a_reverse_request_wherever_it_is_cut() -> None:
    for cut in range(1, len(REVERSE)):
        wire = wire_of()
        assert wire.client(REVERSE, [cut]) == put(REVERSE, (81, OUT)), cut
        (pinhole,) = wire.router.firewall.pinholes
        assert (pinhole.service, pinhole.inside.port, pinhole.session) == ("icq-reverse", 4001, False)


def test_a_reverse_request_whose_port_had_to_change_keeps_the_port_that_failed() -> None:
    other = (40001).to_bytes(4, "little")
    assert moved_wire().client(REVERSE) == put(REVERSE, (81, OUT + other), (94, other))


def test_a_reverse_request_for_the_published_port_shares_its_pinhole() -> None:
    wire = wire_of()
    wire.client(STATUS + REVERSE)
    assert [hole.session for hole in wire.router.firewall.pinholes] == [True]
    wire.router.wait(1000.0)
    assert [hole.service for hole in wire.router.firewall.pinholes] == ["icq-direct"]


@pytest.mark.parametrize(
    ("frame", "reason"),
    [
        (put(REVERSE, (85, bytes(4)), (94, bytes(4))), "does not name one port"),
        (put(REVERSE, (94, (4002).to_bytes(4, "little"))), "does not name one port"),
        (
            put(REVERSE, (4, b"\0\x61"), (34, b"\0\x05\0\x42"[1:]), (75, b"\0\x1a"))[:-1],
            "does not name one port",
        ),
        (put(REVERSE, (81, packed("10.0.0.6"))), "not the sender's own address"),
        (put(REVERSE, (81, OUT)), "not the sender's own address"),
        (put(REVERSE, (85, b"\x50\0\0\0"), (94, b"\x50\0\0\0")), "port 80 is not one to open"),
    ],
)
def test_a_reverse_request_that_is_left_says_why(frame: bytes, reason: str) -> None:
    wire = wire_of()
    assert wire.client(frame) == frame
    assert reasons(wire) == [reason]
    assert not wire.router.firewall.changes


def test_a_reverse_request_that_comes_from_the_own_network() -> None:
    wire = moved_wire()
    came = received(wire.client(REVERSE), BARE)
    amy = beside(wire)
    for cut in range(1, len(came)):
        assert amy.server(came, [cut]) == received(REVERSE, BARE), cut
    assert wire.router.watcher.reports[-1].service == "icq-reverse"


def test_a_reverse_request_of_a_stranger_is_left() -> None:
    wire = wire_of()
    wire.client(STATUS)
    came = received(put(REVERSE, (81, packed("203.0.113.20"))), BARE)
    assert wire.server(came) == came


def test_a_refused_reverse_request_closes_its_pinhole() -> None:
    wire = wire_of()
    wire.client(REVERSE)
    refusal = (
        REVERSE[16:26]
        + b"\x06100004\0\3"
        + REVERSE[77:81]
        + REVERSE[90:94]
        + REVERSE[85:89]
        + REVERSE[98:104]
    )
    wire.server(snac("0004000b", refusal))
    assert ends(wire) == ["declined"]


# --- type-2 messages --------------------------------------------------------------------------------------

ACK_OUT = put(ACK, (77, OUT))


def test_a_file_ack_after_its_client_published_wherever_it_is_cut() -> None:
    for cut in range(1, len(ACK)):
        wire = wire_of()
        wire.client(STATUS)
        assert wire.client(ACK, [cut]) == ACK_OUT, cut
        holes = {hole.inside.port: (hole.service, hole.session) for hole in wire.router.firewall.pinholes}
        assert holes == {4001: ("icq-direct", True), 4010: ("icq-relay", False)}


def test_a_file_ack_whose_ports_had_to_change_in_all_their_encodings() -> None:
    wire = moved_wire()
    wire.client(STATUS)
    assert wire.client(ACK) == put(
        ACK_OUT,
        (85, (40001).to_bytes(2, "big")),
        (196, (40002).to_bytes(2, "big")),
        (212, (40002).to_bytes(4, "little")),
    )


def test_licq_s_byte_order_where_the_published_port_proves_it() -> None:
    wire = moved_wire()
    wire.client(STATUS)
    swapped = put(ACK, (85, (4001).to_bytes(2, "little")))
    assert wire.client(swapped)[85:87] == (40001).to_bytes(2, "little")


def test_an_ack_admits_only_the_peer_whose_request_it_answers() -> None:
    wire = wire_of()
    request = put(ACK, (68, b"\1"), (77, packed("203.0.113.20")), (85, b"\x10\x00"), (212, bytes(4)))
    block = request[33:]
    verified = tlv(4, packed("203.0.113.20"))
    longer = (int.from_bytes(block[2:4], "big") + len(verified)).to_bytes(2, "big")
    whom = info(name=request[27:33])
    wire.server(snac("00040007", request[16:26] + whom + block[:2] + longer + block[4:] + verified))
    wire.client(ACK)
    assert [(hole.inside.port, hole.peers) for hole in wire.router.firewall.pinholes] == [
        (4010, ("203.0.113.20",))
    ]


def test_without_a_published_port_0x0005_proves_nothing_and_stays() -> None:
    wire = moved_wire()
    out = wire.client(ACK)
    assert out[85:87] == ACK[85:87]
    assert out[196:198] == (40001).to_bytes(2, "big")


def test_a_text_message_that_repeats_the_published_endpoint() -> None:
    wire = wire_of()
    wire.client(STATUS)
    text = put(ACK, (136, b"\1"))
    assert wire.client(text) == put(text, (77, OUT))
    assert len(wire.router.firewall.pinholes) == 1


def test_a_text_message_without_a_published_port_is_nobody_s_business() -> None:
    wire = wire_of()
    text = put(ACK, (136, b"\1"))
    assert wire.client(text) == text
    assert not wire.router.firewall.changes


@pytest.mark.parametrize(
    "frame",
    [
        put(ACK, (212, bytes(4))),
        put(ACK, (196, b"\x2d\x38\x44\x44"), (212, bytes(4))),
        put(ACK, (196, bytes(2)), (212, bytes(4))),
        put(ACK, (214, b"\1")),
        put(ACK, (138, b"\1")),
        put(ACK, (147, bytes(16))),
        put(ACK, (142, b"\xff\xff")),
        put(ACK, (91, b"\x1c")),
    ],
)
def test_requests_refusals_and_unsound_messages_open_nothing(frame: bytes) -> None:
    wire = wire_of()
    assert wire.client(frame) == frame
    assert not wire.router.firewall.changes


def blocks(kind: int, rest: bytes, status: int = 0) -> bytes:
    """A type-2 message of that type, after Licq's."""
    return ACK[91:136] + bytes([kind, 0]) + status.to_bytes(2, "little") + b"\0\0\1\0\0" + rest


def chat(port: int, *, plugin: bool, twice: bool = True) -> bytes:
    tail = b"\7\0" + b"100003\0" + port.to_bytes(2, "big") + bytes(2)
    tail += port.to_bytes(4, "little") if twice else b""
    if not plugin:
        return blocks(2, tail)
    title = bytes(2) + b"\x15\0\0\0Send / Start ICQ Chat" + bytes(15)
    guid = bytes.fromhex("bff720b2378ed411bd280004ac96d905")
    head = (16 + len(title)).to_bytes(2, "little") + guid + title
    return blocks(0x1A, head + (len(tail) + 6).to_bytes(4, "little") + b"\2\0\0\0hi" + tail)


def relay(data: bytes) -> bytes:
    """SNAC(04,06) as climm sends it: no addresses beside the message itself."""
    inner = tlv(0xA, b"\0\1") + tlv(0xF, b"") + tlv(0x2711, data)
    block = tlv(5, bytes(2) + b"COOKIE7\0" + RELAY + inner)
    return snac("00040006", b"COOKIE7\0\0\2\x06100004" + block)


def error(data: bytes, reason: int = 3) -> bytes:
    return snac("0004000b", b"COOKIE7\0\0\2\x06100004" + reason.to_bytes(2, "big") + data)


@pytest.mark.parametrize("message", [relay, error])
@pytest.mark.parametrize(("plugin", "twice"), [(True, True), (True, False), (False, True), (False, False)])
def test_a_chat_whose_port_had_to_change(message: object, plugin: bool, twice: bool) -> None:
    assert callable(message)
    frame = message(chat(4010, plugin=plugin, twice=twice))
    for cut in range(1, len(frame)):
        wire = moved_wire()
        assert wire.client(frame, [cut]) == message(chat(40001, plugin=plugin, twice=twice)), cut
        (pinhole,) = wire.router.firewall.pinholes
        assert (pinhole.inside.port, pinhole.service, pinhole.agreement) == (4010, "icq-relay", b"COOKIE7\0")


def test_an_answer_in_a_client_error_is_no_refusal_but_a_refusal_in_it_is() -> None:
    wire = wire_of()
    wire.client(relay(chat(4010, plugin=True)))
    wire.server(error(blocks(2, chat(5000, plugin=False)[53:])))
    wire.server(error(blocks(1, bytes(8))))
    assert len(wire.router.firewall.pinholes) == 1
    wire.server(error(blocks(2, b"", status=1)))
    assert ends(wire) == ["declined"]


@pytest.mark.parametrize("data", [b"\0\2\0\1", b"", b"\x1b\0\x08\0"])
def test_a_client_error_with_anything_else_is_a_refusal(data: bytes) -> None:
    wire = wire_of()
    wire.client(relay(chat(4010, plugin=True)))
    wire.server(error(data))
    assert ends(wire) == ["declined"]


def test_a_file_ack_that_comes_from_the_own_network() -> None:
    wire = moved_wire()
    wire.client(STATUS)
    amy = beside(wire)
    came = received(wire.client(ACK), BARE)
    for cut in range(1, len(came)):
        assert amy.server(came, [cut]) == received(ACK, BARE), cut


def test_a_chat_of_the_own_network_whose_address_is_in_the_user_info_only() -> None:
    wire = moved_wire()
    wire.client(STATUS)
    wire.client(relay(chat(4010, plugin=True)))

    def came(address: bytes, port: int, chat_port: int) -> bytes:
        whom = info(tlv(0xC, direct(address, port)), tlv(0xA, address))
        inner = tlv(0xA, b"\0\1") + tlv(0x2711, chat(chat_port, plugin=True))
        block = tlv(5, bytes(2) + b"COOKIE7\0" + RELAY + inner)
        return snac("00040007", b"COOKIE7\0\0\2" + whom + block)

    amy, frame = beside(wire), came(OUT, 40001, 40002)
    for cut in range(1, len(frame)):
        assert amy.server(frame, [cut]) == came(OWN, 4001, 4010), cut


def test_a_stranger_s_ports_are_left_even_if_they_equal_ours() -> None:
    wire = wire_of()
    wire.client(STATUS + ACK)
    came = received(put(ACK, (77, packed("203.0.113.20"))), BARE)
    assert beside(wire).server(came) == came
