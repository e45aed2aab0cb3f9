"""ICQ's reverse connections and type-2 messages: ports in two places and in two byte orders."""

from __future__ import annotations

import pytest

from nfreaim.core.address import Endpoint
from tests.oscar.icbm import client_error
from tests.oscar.icq import (
    CHAT,
    FILE_ACK,
    REVERSE,
    STATUS,
    chat_ports,
    chat_request,
    direct,
    received,
    type2,
    user,
)
from tests.oscar.messages import COOKIE, OUT, OWN, to_client, to_host
from tests.oscar.rendezvous import RELAY, rdv_block
from tests.oscar.snac import CLIENT_ERROR, TO_CLIENT, snac_frame
from tests.oscar.tlv import tlv
from tests.oscar.values import put
from tests.tcp.packets import packed
from tests.unit.fakes import OUTSIDE
from tests.unit.oscar_wires import beside, ends, moved_wire, reasons, wire_of

BARE = bytes(4)  # user info without TLVs

# --- reverse connections ----------------------------------------------------------------------------------


def test_a_reverse_request_wherever_it_is_cut() -> None:
    for cut in range(1, len(REVERSE)):
        wire = wire_of()
        assert wire.client(REVERSE, [cut]) == put(REVERSE, (81, OUT)), cut
        (pinhole,) = wire.router.firewall.pinholes
        assert (pinhole.service, pinhole.inside.port, pinhole.standing) == ("icq-reverse", 4001, False)


def test_a_reverse_request_whose_port_had_to_change_keeps_the_port_that_failed() -> None:
    other = (40001).to_bytes(4, "little")
    assert moved_wire().client(REVERSE) == put(REVERSE, (81, OUT + other), (94, other))


def test_a_reverse_request_for_the_published_port_shares_its_pinhole() -> None:
    wire = wire_of()
    wire.client(STATUS + REVERSE)
    assert [pinhole.standing for pinhole in wire.router.firewall.pinholes] == [True]
    wire.router.wait(1000.0)
    assert [pinhole.service for pinhole in wire.router.firewall.pinholes] == ["icq-direct"]


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
        (put(REVERSE, (85, b"\x50\0\0\0"), (94, b"\x50\0\0\0")), "port 80 is not one to open"),
    ],
)
def test_a_reverse_request_that_is_left_says_why(frame: bytes, reason: str) -> None:
    wire = wire_of()
    assert wire.client(frame) == frame
    assert [text.partition(":")[0] for text in reasons(wire)] == [reason]
    assert not wire.router.firewall.changes


def test_a_reverse_request_that_names_the_outside_address() -> None:
    wire, plain = wire_of(), wire_of()
    for one in (wire, plain):
        one.router.firewall.taken = {Endpoint(OUTSIDE, 4001)}
    changed = plain.client(REVERSE)
    assert wire.client(put(REVERSE, (81, OUT))) == changed
    assert reasons(wire) == ["own outside address"]


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
    wire.server(snac_frame(CLIENT_ERROR, refusal))
    assert ends(wire) == ["declined"]


def test_a_stranger_refuses_no_reverse_request() -> None:
    wire = wire_of()
    wire.client(REVERSE)
    for way in (wire.server, wire.client):
        way(snac_frame(CLIENT_ERROR, client_error(REVERSE[16:24], b"100005", b"\0\2\0\1")))
    assert not ends(wire)
    wire.server(snac_frame(CLIENT_ERROR, client_error(REVERSE[16:24], b"10 0004", b"\0\2\0\1")))
    assert ends(wire) == ["declined"]


# --- type-2 messages --------------------------------------------------------------------------------------

ACK_OUT = put(FILE_ACK, (77, OUT))


def test_a_file_ack_after_its_client_published_wherever_it_is_cut() -> None:
    for cut in range(1, len(FILE_ACK)):
        wire = wire_of()
        wire.client(STATUS)
        assert wire.client(FILE_ACK, [cut]) == ACK_OUT, cut
        pinholes = {
            pinhole.inside.port: (pinhole.service, pinhole.standing)
            for pinhole in wire.router.firewall.pinholes
        }
        assert pinholes == {4001: ("icq-direct", True), 4010: ("icq-relay", False)}


def test_a_file_ack_whose_ports_had_to_change_in_all_their_encodings() -> None:
    wire = moved_wire()
    wire.client(STATUS)
    assert wire.client(FILE_ACK) == put(
        ACK_OUT,
        (85, (40001).to_bytes(2, "big")),
        (196, (40002).to_bytes(2, "big")),
        (212, (40002).to_bytes(4, "little")),
    )


def test_licq_s_byte_order_where_the_published_port_proves_it() -> None:
    wire = moved_wire()
    wire.client(STATUS)
    swapped = put(FILE_ACK, (85, (4001).to_bytes(2, "little")))
    assert wire.client(swapped)[85:87] == (40001).to_bytes(2, "little")


def test_an_ack_admits_only_the_peer_whose_request_it_answers() -> None:
    wire = wire_of()
    request = put(FILE_ACK, (68, b"\1"), (77, packed("203.0.113.20")), (85, b"\x10\x00"), (212, bytes(4)))
    block = request[33:]
    verified = tlv(4, packed("203.0.113.20"))
    longer = (int.from_bytes(block[2:4], "big") + len(verified)).to_bytes(2, "big")
    whom = user(name=request[27:33])
    wire.server(snac_frame(TO_CLIENT, request[16:26] + whom + block[:2] + longer + block[4:] + verified))
    wire.client(FILE_ACK)
    assert [(pinhole.inside.port, pinhole.peers) for pinhole in wire.router.firewall.pinholes] == [
        (4010, ("203.0.113.20",))
    ]


def test_without_a_published_port_0x0005_proves_nothing_and_stays() -> None:
    wire = moved_wire()
    out = wire.client(FILE_ACK)
    assert out[85:87] == FILE_ACK[85:87]
    assert out[196:198] == (40001).to_bytes(2, "big")


def test_a_text_message_that_repeats_the_published_endpoint() -> None:
    wire = wire_of()
    wire.client(STATUS)
    text = put(FILE_ACK, (136, b"\1"))
    assert wire.client(text) == put(text, (77, OUT))
    assert len(wire.router.firewall.pinholes) == 1


def test_a_text_message_without_a_published_port_is_nobody_s_business() -> None:
    wire = wire_of()
    text = put(FILE_ACK, (136, b"\1"))
    assert wire.client(text) == text
    assert not wire.router.firewall.changes


@pytest.mark.parametrize(
    "frame",
    [
        put(FILE_ACK, (212, bytes(4))),
        put(FILE_ACK, (196, b"\x2d\x38\x44\x44"), (212, bytes(4))),
        put(FILE_ACK, (196, bytes(2)), (212, bytes(4))),
        put(FILE_ACK, (214, b"\1")),
        put(FILE_ACK, (138, b"\1")),
        put(FILE_ACK, (147, bytes(16))),
        put(FILE_ACK, (142, b"\xff\xff")),
        put(FILE_ACK, (91, b"\x1c")),
    ],
)
def test_requests_refusals_and_unsound_messages_open_nothing(frame: bytes) -> None:
    wire = wire_of()
    assert wire.client(frame) == frame
    assert not wire.router.firewall.changes


def relay(data: bytes) -> bytes:
    """SNAC(04,06) as climm sends it: no addresses beside the message itself."""
    inner = tlv(0xA, b"\0\1") + tlv(0xF) + tlv(0x2711, data)
    return to_host(tlv(5, rdv_block(0, COOKIE, RELAY, inner)), name=b"100004")


def error(data: bytes, reason: int = 3) -> bytes:
    return snac_frame(CLIENT_ERROR, client_error(COOKIE, "100004", data, reason))


@pytest.mark.parametrize("message", [relay, error])
@pytest.mark.parametrize(("plugin", "twice"), [(True, True), (True, False), (False, True), (False, False)])
def test_a_chat_whose_port_had_to_change(message: object, plugin: bool, twice: bool) -> None:
    assert callable(message)
    frame = message(chat_request(4010, plugin=plugin, twice=twice))
    for cut in range(1, len(frame)):
        wire = moved_wire()
        assert wire.client(frame, [cut]) == message(chat_request(40001, plugin=plugin, twice=twice)), cut
        (pinhole,) = wire.router.firewall.pinholes
        assert (pinhole.inside.port, pinhole.service) == (4010, "icq-relay")


def test_an_answer_in_a_client_error_is_no_refusal_but_a_refusal_in_it_is() -> None:
    wire = wire_of()
    wire.client(relay(chat_request(4010, plugin=True)))
    wire.server(error(type2(CHAT, chat_ports(5000))))
    wire.server(error(type2(1, bytes(8))))
    assert len(wire.router.firewall.pinholes) == 1
    wire.server(error(type2(CHAT, b"", status=1)))
    assert ends(wire) == ["declined"]


@pytest.mark.parametrize("data", [b"\0\2\0\1", b"", b"\x1b\0\x08\0"])
def test_a_client_error_with_anything_else_is_a_refusal(data: bytes) -> None:
    wire = wire_of()
    wire.client(relay(chat_request(4010, plugin=True)))
    wire.server(error(data))
    assert ends(wire) == ["declined"]


def test_a_file_ack_that_comes_from_the_own_network() -> None:
    wire = moved_wire()
    wire.client(STATUS)
    amy = beside(wire)
    came = received(wire.client(FILE_ACK), BARE)
    for cut in range(1, len(came)):
        assert amy.server(came, [cut]) == received(FILE_ACK, BARE), cut


def test_a_chat_of_the_own_network_whose_address_is_in_the_user_info_only() -> None:
    wire = moved_wire()
    wire.client(STATUS)
    wire.client(relay(chat_request(4010, plugin=True)))

    def came(address: bytes, port: int, chat_port: int) -> bytes:
        whom = user(tlv(0xC, direct(address, port)), tlv(0xA, address))
        inner = tlv(0xA, b"\0\1") + tlv(0x2711, chat_request(chat_port, plugin=True))
        return to_client(whom, tlv(5, rdv_block(0, COOKIE, RELAY, inner)))

    amy, frame = beside(wire), came(OUT, 40001, 40002)
    for cut in range(1, len(frame)):
        assert amy.server(frame, [cut]) == came(OWN, 4001, 4010), cut


def test_a_stranger_s_ports_are_left_even_if_they_equal_ours() -> None:
    wire = wire_of()
    wire.client(STATUS + FILE_ACK)
    came = received(put(FILE_ACK, (77, packed("203.0.113.20"))), BARE)
    assert beside(wire).server(came) == came
