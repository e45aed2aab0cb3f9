"""Recognition is a state machine: what must have happened before a flow opens anything, attack by attack."""

from __future__ import annotations

import logging

import pytest

from nfreaim.core.address import Endpoint
from nfreaim.core.tcp.segment import ACK, SYN
from nfreaim.errors import Malformed
from nfreaim.helpers.oscar.flap import SERVER_SLACK, FlapReader, OutOfSequence
from tests.golden import packets
from tests.oscar.flap import FLAP_SNAC, flap
from tests.oscar.signon import CLIENT_SIGNON, HOST_ONLINE, KEEPALIVE, families, hello
from tests.oscar.snac import FAMILY_LIST, snac_frame
from tests.unit.oscar_wires import PROPOSAL, Numbered

GOLDEN = packets()
RECEIVED, REDIRECT = GOLDEN["send-file-proposal-received"], GOLDEN["login-reply"]
SIGNON, COOKIE = hello(), CLIENT_SIGNON


def test_what_has_to_happen_first_and_then_it_opens() -> None:
    wire = Numbered().online()
    assert wire.opens()


FOREIGN = {
    "HTTP": b"POST / HTTP/1.1\r\nHost: 203.0.113.9:5190\r\n\r\n",
    "TLS": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(200),
    "SMTP": b"EHLO example.org\r\n",
    "FTP": b"USER anonymous\r\n",
    "SIP": b"REGISTER sip:203.0.113.9:5190;transport=TCP SIP/2.0\r\n",
    "WebSocket": b"GET /chat HTTP/1.1\r\nUpgrade: websocket\r\n\r\n",
    "random": bytes(range(43, 143)),
    "a keep-alive": KEEPALIVE,
    "a proposal": PROPOSAL,
}


@pytest.mark.parametrize("way", [0, 1], ids=["client", "server"])
@pytest.mark.parametrize("first", FOREIGN.values(), ids=FOREIGN)
def test_other_protocol_first_is_never_parsed_again_for_the_life_of_the_flow(first: bytes, way: int) -> None:
    wire = Numbered().handshake()
    wire.send(way, first)
    assert wire.router.kernel.offloaded == [wire.flow_id]
    # The kernel's entry is over after an hour, or gave way to others: packets come again, perfect ones.
    wire.router.wait(3601)
    wire.say(1, SIGNON, HOST_ONLINE)
    wire.say(0, COOKIE)
    assert not wire.opens()
    # The engine forgets the flow, too: without a SYN it stays unknown, and leaves the queue again.
    wire.router.wait(5 * 3600)
    assert len(wire.router.engine.flows) == 0
    wire.say(1, SIGNON, HOST_ONLINE)
    wire.say(0, COOKIE)
    assert not wire.opens()
    assert wire.router.kernel.offloaded[-1] == wire.flow_id
    assert bytes(wire.sent[1]) == wire.s2c


@pytest.mark.parametrize("cut", range(1, len(COOKIE) - 1, 7))
def test_sign_on_cut_over_segments_is_one_and_a_cut_imitation_is_none(cut: int) -> None:
    wire = Numbered().handshake()
    wire.say(1, SIGNON)
    wire.send(0, COOKIE, [cut])
    wire.due[0] = int.from_bytes(COOKIE[2:4], "big") + 1
    wire.say(1, HOST_ONLINE)
    assert wire.opens()
    posted = Numbered().handshake()
    posted.say(1, SIGNON)
    posted.send(0, b"POST / HTTP/1.1\r\n\r\n" + COOKIE, [19, 19 + cut])  # the padding of a form
    posted.say(1, HOST_ONLINE)
    assert not posted.opens()


def test_server_speaks_first_and_is_no_oscar_server() -> None:
    wire = Numbered().handshake()
    wire.send(1, b"220 mail.example.org ESMTP\r\n")
    wire.say(0, COOKIE)
    wire.say(1, SIGNON, HOST_ONLINE)
    assert not wire.opens()


def test_client_signs_on_and_the_server_does_not() -> None:
    wire = Numbered().handshake()
    wire.say(0, COOKIE)
    assert not wire.opens()
    wire.say(1, HOST_ONLINE)
    assert not wire.opens()
    assert not wire.read


def test_server_signs_on_and_the_client_does_not() -> None:
    wire = Numbered().handshake()
    wire.say(1, SIGNON, HOST_ONLINE)
    assert not wire.opens()


def test_families_listed_before_the_client_signed_on_count_for_nothing() -> None:
    wire = Numbered().handshake()
    wire.say(1, SIGNON, HOST_ONLINE)
    wire.say(0, COOKIE)
    assert not wire.opens()


def test_families_listed_by_the_client_itself_count_for_nothing() -> None:
    wire = Numbered().begin()
    wire.say(0, HOST_ONLINE)
    assert not wire.opens()


def test_proposals_before_the_session_is_past_sign_on_are_left_alone_in_both_directions() -> None:
    wire = Numbered().begin()
    wire.say(1, RECEIVED)
    wire.say(0, PROPOSAL)
    wire.say(1, HOST_ONLINE)
    assert not wire.router.firewall.changes
    assert (wire.c2s, wire.s2c) == (bytes(wire.sent[0]), bytes(wire.sent[1]))
    assert wire.opens()


def test_login_connection_that_offers_no_messages_opens_nothing() -> None:
    wire = Numbered().begin()
    wire.say(1, snac_frame(FAMILY_LIST, families([1, 0x17])))
    assert not wire.opens()
    wire.say(1, REDIRECT)
    assert not wire.opens()


def test_second_list_of_families_changes_nothing() -> None:
    wire = Numbered().online()
    wire.say(1, snac_frame(FAMILY_LIST, families([1])), HOST_ONLINE)
    assert wire.read
    assert wire.opens()


@pytest.mark.parametrize("way", [0, 1], ids=["client", "server"])
def test_sign_on_frame_in_the_midst_of_a_session_ends_the_reading(way: int) -> None:
    wire = Numbered().online()
    wire.say(way, (COOKIE, SIGNON)[way])
    assert not wire.opens()
    assert not wire.read
    assert wire.router.engine.counters.malformed_flows == 1


def test_client_that_greets_before_it_signs_on_is_read() -> None:
    wire = Numbered().handshake()
    wire.say(0, SIGNON, COOKIE)
    wire.say(1, SIGNON, HOST_ONLINE)
    assert wire.opens()


def test_migration_to_another_server_begins_with_a_sign_on_there() -> None:
    other = Endpoint("203.0.113.9", 5199)
    wire = Numbered().online()
    body = b"\0\1\0\x12\0\0\0\0\0\1" + b"\0\1\0\4" + b"\0\5\0\x10203.0.113.9:5199"
    wire.say(1, flap(FLAP_SNAC, 0, body))
    assert wire.router.kernel.diverted == [other]
    moved = Numbered(wire.router, other).handshake()
    assert not moved.opens()
    signed = Numbered(wire.router, other)
    signed.isn = (77, 78)
    assert signed.online().opens()


def test_data_ahead_of_the_answer_to_the_syn_is_no_beginning() -> None:
    wire = Numbered()
    wire.inject(0, -1, flags=SYN)
    wire.inject(0, 0, b"GET / HTTP/1.1\r\n\r\n")
    assert wire.router.kernel.offloaded == []
    wire.inject(1, -1, flags=SYN | ACK)
    wire.inject(0, 18, flags=ACK)
    assert len(wire.router.engine.flows) == 1
    wire.say(1, SIGNON)
    wire.inject(0, 18, COOKIE)  # what is before was not seen: it has to come again
    wire.say(1, HOST_ONLINE)
    assert not wire.router.firewall.changes
    assert not wire.stored.reading.helper or not wire.stored.reading.helper.established


def test_flow_whose_answer_came_from_the_wrong_side_is_none() -> None:
    wire = Numbered()
    wire.inject(0, -1, flags=SYN)
    wire.router.process(wire, wire.raw(1, -1, flags=SYN | ACK), True)
    assert len(wire.router.engine.flows) == 0
    wire.say(1, SIGNON, HOST_ONLINE)
    wire.say(0, COOKIE)
    assert not wire.opens()


# --- numbers ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("jump", [-2, -1, 1, 2, 300, 0x7FFF])
def test_client_whose_numbers_jump_opens_nothing_any_more(
    jump: int, caplog: pytest.LogCaptureFixture
) -> None:
    wire = Numbered().online()
    with caplog.at_level(logging.INFO):
        wire.say(0, KEEPALIVE, number=(wire.due[0] + jump) & 0xFFFF)
        assert not wire.opens()
        wire.say(0, PROPOSAL, number=0x1236)
    counters = wire.router.engine.counters
    assert (counters.helpers["unsequenced_flows"], counters.malformed_flows) == (1, 1)
    assert caplog.text.count("no longer read: frame has the number") == 1
    assert wire.c2s == bytes(wire.sent[0])


def test_skipped_frames_count_too() -> None:
    wire = Numbered().online()
    text = GOLDEN["text-message"]
    wire.say(
        0,
        text,
        KEEPALIVE,
        flap(FLAP_SNAC, 0, bytes(3)),
        flap(FLAP_SNAC, 0, b"\0\x10\0\2" + bytes(20000)),
        text,
    )
    assert wire.opens()
    wire.say(0, text, number=wire.due[0] - 1)
    assert not wire.read


@pytest.mark.parametrize(
    ("last", "first"), [(0xFF, 0), (0x7FFF, 0), (0x7FFF, 1), (0x8000, 0), (0xFFFF, 0), (0xFFFF, 1)]
)
def test_counter_of_any_width_turns_over(last: int, first: int) -> None:
    reader = FlapReader({}, False)
    reader.begun = True
    for number in (last, first, first + 1):
        reader.feed(KEEPALIVE[:2] + number.to_bytes(2, "big") + KEEPALIVE[4:], 0)
    with pytest.raises(OutOfSequence):
        reader.feed(KEEPALIVE[:2] + b"\0\x09" + KEEPALIVE[4:], 0)


@pytest.mark.parametrize("off", [-SERVER_SLACK, -1, 1, SERVER_SLACK])
def test_server_with_many_writers_costs_its_users_nothing(off: int) -> None:
    wire = Numbered().online()
    for _ in range(3):
        wire.say(1, KEEPALIVE, number=wire.due[1] + off)
    assert wire.opens()


def test_server_that_always_says_the_same_number_costs_its_users_nothing() -> None:
    wire = Numbered().online()
    for _ in range(100):
        wire.say(1, KEEPALIVE, number=0x65)
    assert wire.opens()


def test_server_whose_numbers_jump_is_no_longer_read_and_everything_passes() -> None:
    wire = Numbered().online()
    wire.say(1, KEEPALIVE, number=wire.due[1] + SERVER_SLACK + 1)
    assert not wire.read
    assert not wire.opens()
    assert wire.s2c == bytes(wire.sent[1])


def test_sign_off_without_a_length_is_not_judged() -> None:
    wire = Numbered().online()
    wire.send(1, b"\x2a\x04\xff\xff")
    assert wire.read


def test_frames_before_one_out_of_sequence_count_however_they_are_cut() -> None:
    good, bad = PROPOSAL[:2] + b"\0\1" + PROPOSAL[4:], PROPOSAL[:2] + b"\0\5" + PROPOSAL[4:]
    for cut in range(1, len(good + bad)):
        reader = FlapReader({b"\0\4\0\6": True}, False)
        reader.begun = True
        found, broken = [], False
        for low, high in ((0, cut), (cut, len(good + bad)), (len(good + bad), len(good + bad) + 1)):
            try:
                found += reader.feed((good + bad + b"\x2a")[low:high], low)
            except Malformed:
                broken = True
                break
        assert [frame.data for frame in found] == [good], cut
        assert broken
