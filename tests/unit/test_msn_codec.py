"""The tests' own MSN codec on golden packets: what it reads it writes back, and what it builds is theirs."""

from __future__ import annotations

from dataclasses import replace

import pytest

from tests.golden.msn import packets
from tests.msn import direct, msnftp, p2p, slp
from tests.msn.commands import Command, CommandReader, command, commands_of
from tests.msn.fields import Message, get
from tests.msn.msnftp import Endpoint, fields_of
from tests.msn.slp import Addresses, Dialogue, Slp

GOLDEN = packets()
LINES = [name for name, golden in GOLDEN.items() if golden.direction != "peer"]
TEXTS = ["P1", "P2", "P3", "P4", "P5", "P7", "P8", "P9", "P10", "P11", "W1", "W2", "W4", "W5"]
FRAMES = [name for name in GOLDEN if name[0] in "PW" and name != "P12"]
BOB = "bob1@lab.test"
PURPLE = Dialogue(
    "alice1@lab.test",
    BOB,
    "{121AB601-9837-8184-81B3-170028C8AAF7}",
    "{A54D2E1E-3C40-3C8D-90B8-35445084824B}",
)
NONCE = "{0216231B-E9E8-1F16-E7CD-90118D43EF66}"
HEADER = p2p.Header(message=0x1220085A, ack=0x140E0F76)


def both(name: str) -> list[bytes]:
    """A golden packet before and after."""
    return [GOLDEN[name].before, GOLDEN[name].after]


def message(packet: bytes, from_client: bool = True) -> Message:
    """The one message in a packet."""
    (one,) = commands_of(packet, from_client)
    return Message.decode(one.payload or b"")


def read_slp(name: str, packet: bytes) -> Slp:
    """The text in a packet of one frame."""
    one = message(packet, GOLDEN[name].direction == "out")
    frame = p2p.FrameV2.of(one) if name.startswith("W") else p2p.Frame.of(one)
    return Slp.decode(frame.data)


@pytest.mark.parametrize("name", LINES)
def test_commands_are_cut_out_of_their_stream_wherever_that_is_cut(name: str) -> None:
    for packet in both(name):
        from_client = GOLDEN[name].direction == "out"
        whole = commands_of(packet, from_client)
        assert b"".join(one.encode() for one in whole) == packet
        for cut in range(len(packet)):
            reader = CommandReader(from_client)
            assert reader.feed(packet[:cut]) + reader.feed(packet[cut:]) == whole
            assert not reader.rest


def test_payloads_that_look_like_commands_are_none() -> None:
    read = commands_of(GOLDEN["R1"].before, from_client=False)
    names = "UBX UUX ADL QNG CHG ACK NLN 241 GCF UBN CHL QRY RNG".split()
    assert [one.name for one in read] == names
    assert [len(one.payload) for one in read if one.payload is not None] == [0, 25, 18, 7]


def test_a_bare_line_feed_is_refused() -> None:
    with pytest.raises(ValueError, match="bare line feed"):
        CommandReader(from_client=True).feed(b"PNG\n")


@pytest.mark.parametrize("name", [name for name in LINES if name[0] in "FAPW"])
def test_a_message_is_written_as_it_was_read(name: str) -> None:
    for packet in both(name):
        for one in commands_of(packet, GOLDEN[name].direction == "out"):
            assert Message.decode(one.payload or b"").encode() == one.payload


BUILT = {
    "F1": command("MSG", 4, "N", payload=msnftp.invite(33267, "readme.txt", 60904).encode()),
    "F2": command("MSG", 4, "N", payload=msnftp.invite(33267, "readme.txt", 60904, False).encode()),
    "F3": command("MSG", 7, "N", payload=msnftp.accept(33267).encode()),
    "F9": command("MSG", 7, "N", payload=msnftp.cancel(33267, "REJECT").encode()),
    "F10": command("MSG", BOB, "bob", payload=msnftp.cancel(33267, "FTTIMEOUT").encode()),
}
LISTENING = {
    "F4": (8, "U", Endpoint("10.0.0.5", 6891)),
    "F5": (8, "U", Endpoint("10.0.0.6", 6891)),
    "F6": (9, "N", Endpoint("203.0.113.1", 6891, "10.0.0.5", 6891, True)),
    "F7": (9, "N", Endpoint("10.0.0.5", 6891, "10.0.0.5", 6891, True)),
    "F12": (8, "U", Endpoint("198.51.100.7", 6891)),
}


@pytest.mark.parametrize("name", BUILT)
def test_an_invitation_is_built(name: str) -> None:
    assert BUILT[name].encode() == GOLDEN[name].before


@pytest.mark.parametrize("name", LISTENING)
def test_a_listener_is_announced(name: str) -> None:
    number, kind, endpoint = LISTENING[name]
    payload = msnftp.listening(33267, endpoint, 93301).encode()
    assert command("MSG", number, kind, payload=payload).encode() == GOLDEN[name].before
    assert Endpoint.of(fields_of(Message.decode(payload))) == endpoint


def test_a_receiver_that_listens_is_announced() -> None:
    endpoint = Endpoint("10.0.0.5", 6892, "10.0.0.5", extended=True)
    payload = msnftp.sender_connect(25, endpoint, 1251249521).encode()
    assert command("MSG", 5, "N", payload=payload).encode() == GOLDEN["F8"].before


@pytest.mark.parametrize("name", ["F4", "F5", "F6", "F7", "F8"])
def test_the_disguised_port_follows_the_plain_one(name: str) -> None:
    for packet in both(name):
        Endpoint.of(fields_of(message(packet)))  # else it says that they differ


def test_ports_that_differ_are_found() -> None:
    fields = Endpoint("10.0.0.5", 6891, extended=True).fields(1)
    with pytest.raises(ValueError, match="not one port"):
        Endpoint.of(tuple((name, "6892" if name == "Port" else value) for name, value in fields))


@pytest.mark.parametrize("name", FRAMES)
def test_a_frame_is_written_as_it_was_read(name: str) -> None:
    kind: type[p2p.Frame] | type[p2p.FrameV2] = p2p.FrameV2 if name.startswith("W") else p2p.Frame
    for packet in both(name):
        one = message(packet, GOLDEN[name].direction == "out")
        assert kind.of(one).message() == one


def test_the_frame_s_sizes_are_those_of_its_text() -> None:
    for name in ("P1", "P2", "P4", "P5", "P7", "P11"):
        for packet in both(name):
            frame = p2p.Frame.of(message(packet, GOLDEN[name].direction == "out"))
            assert frame.header.total == frame.header.size == len(frame.data)


def test_chunks_are_put_together_again() -> None:
    first, second = commands_of(GOLDEN["P12"].before, from_client=True)
    parts = [p2p.Frame.of(Message.decode(one.payload or b"")) for one in (first, second)]
    assert [part.header.offset for part in parts] == [0, len(parts[0].data)]
    whole = b"".join(part.data for part in parts)
    assert len(whole) == parts[0].header.total
    made = p2p.frames(p2p.Header(session=7, flags=p2p.FLAG_FILE), bytes(2 * p2p.CHUNK + 1))
    assert [(head.offset, head.size) for head, _ in made] == [(0, 1202), (1202, 1202), (2404, 1)]
    assert {head.total for head, _ in made} == {2405}


@pytest.mark.parametrize("name", TEXTS)
def test_a_text_is_written_as_it_was_read(name: str) -> None:
    for packet in both(name):
        one = message(packet, GOLDEN[name].direction == "out")
        frame = p2p.FrameV2.of(one) if name.startswith("W") else p2p.Frame.of(one)
        assert Slp.decode(frame.data).encode() == frame.data


@pytest.mark.parametrize("name", TEXTS)
def test_content_length_counts_the_nul(name: str) -> None:
    assert [read_slp(name, packet).length for packet in both(name)] == [None, None]


def test_a_wrong_content_length_is_kept() -> None:
    text = read_slp("P10", GOLDEN["P10"].before)
    wrong = text.encode().replace(b"Content-Length: 334", b"Content-Length: 43")
    assert Slp.decode(wrong) == replace(text, length=43)
    assert Slp.decode(wrong).encode() == wrong


ANSWERS = {
    "P1": Addresses("10.0.0.5", 44397),
    "P4": Addresses("203.0.113.1", 6891, "10.0.0.5", 6891),
    "P5": Addresses("10.0.0.5", 6891, "10.0.0.5", 6891),
    "P9": None,
}


@pytest.mark.parametrize("name", ANSWERS)
def test_an_answer_is_built(name: str) -> None:
    addresses = ANSWERS[name]
    body = slp.transport_response(addresses, NONCE) if addresses else slp.transport_response(None)
    assert sent(PURPLE.answer(slp.RESPONSE, body), 6) == GOLDEN[name].before


def test_invitations_are_built() -> None:
    asked = PURPLE.invitation(slp.REQUEST, slp.transport_request())
    assert sent(asked, 8) == GOLDEN["P8"].before
    listens = slp.transport_response(Addresses("10.0.0.5", 6891), NONCE)
    assert sent(PURPLE.invitation(slp.RESPONSE, listens), 11) == GOLDEN["P11"].before


def sent(text: Slp, number: int) -> bytes:
    """A text as libpurple sends it."""
    data = text.encode()
    header = replace(HEADER, total=len(data), size=len(data))
    return command("MSG", number, "D", payload=p2p.Frame(BOB, header, data).message().encode()).encode()


def test_acknowledgements_repeat_the_total() -> None:
    alice = p2p.Frame.of(message(GOLDEN["P1"].after))
    bob = p2p.Frame.of(message(GOLDEN["P6"].before, from_client=False))
    assert alice.header.acknowledged(bob.header.message) == bob.header


def test_pairs_are_read_in_both_spellings() -> None:
    plain = Addresses("203.0.113.1", 6891, "10.0.0.5", 6892)
    inverse = tuple((slp.backward(name), slp.backward(value)) for name, value in plain.fields())
    pairs = [("10.0.0.5", 6892), ("203.0.113.1", 6891)]
    assert Addresses.pairs(plain.fields()) == Addresses.pairs(inverse) == pairs
    assert Addresses.pairs(read_slp("W1", GOLDEN["W1"].after).body) == [("203.0.113.1", 3312)]
    assert get(read_slp("W2", GOLDEN["W2"].before).body, "troP-lanretxE4vPI") == "2133"


@pytest.mark.parametrize("name", ["N1", "N2"])
def test_a_text_without_a_frame_is_written_as_it_was_read(name: str) -> None:
    for packet in both(name):
        (one,) = commands_of(packet, from_client=True)
        assert Slp.decode(one.payload or b"").encode() == one.payload


def test_a_direct_connection_begins_as_recorded() -> None:
    assert direct.FOO + direct.handshake(0x1220085C, NONCE) == GOLDEN["D1"].before
    assert direct.FOO + direct.handshake_v2(NONCE) == GOLDEN["D2"].before
    assert direct.nonce_of(direct.handshake(1, NONCE)[4:]) == NONCE
    assert direct.hashed(NONCE) != NONCE


def test_msnftp_begins_as_derived() -> None:
    assert GOLDEN["D3"].before == msnftp.GREETING
    assert msnftp.GREETING + msnftp.line("FIL", 60904) == GOLDEN["D4"].before
    assert msnftp.blocks(b"x" * 2046)[:3] == b"\0\xfd\x07"


def test_an_offered_file_stands_in_its_context() -> None:
    body = slp.file_session(1303455740, "f.bin", 5000)
    text = Dialogue(BOB, "alice1@lab.test", "{2540774A-68FD-5FDD-7577-1F2521836EB0}", PURPLE.call)
    data = text.invitation(slp.SESSION, body).encode()
    assert len(data) == 0x4A4  # recorded
    assert b"\r\nContent-Length: 865\r\n" in data
    assert (get(body, "Context") or "").startswith("PgIAAAIAAACIEwAAAAAAAAEAAABmAC4AYgBpAG4A")


def test_a_command_without_payload_has_no_length() -> None:
    assert Command(("XFR", "14", "SB")).encode() == b"XFR 14 SB\r\n"
    assert command("UBX", "1:a@b", payload=b"").encode() == b"UBX 1:a@b 0\r\n"
