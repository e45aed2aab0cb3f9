"""The lab's stand-ins are held to packets recorded from libpurple 2.12.1 and open-oscar-server v0.24.0.

If a stand-in drifts from what real software sends, the lab proves nothing. Recorded packets are embedded;
whole recordings are read from ``../shared/pcaps`` where that folder exists.
"""

from __future__ import annotations

import asyncio
import struct
from pathlib import Path
from typing import Any

import pytest

from tests.lab import client as lab_client
from tests.lab import oscar_wire as wire
from tests.lab import peer, recorded, server
from tests.lab.client import Client
from tests.lab.link import WriteMode
from tests.lab.oscar_wire import Rendezvous, Snac
from tests.lab.profiles import PROFILES, Offer, objection

LIBPURPLE, WINAIM = PROFILES["libpurple"], PROFILES["winaim"]
PCAPS = Path(__file__).resolve().parents[3] / "shared" / "pcaps"

COOKIE = b"3275328\0"


def snac(packet: str) -> Snac:
    """The SNAC in a FLAP given in hex."""
    [(channel, _, data)] = wire.FlapReader().feed(bytes.fromhex(packet))
    assert channel == wire.FLAP_SNAC
    return Snac.decode(data)


def shown(body: bytes, subtype: int = 6) -> Any:
    """A (04,06) or (04,07) body taken apart, so that a failed comparison can be read."""
    message = wire.parse_icbm(Snac(4, subtype, body))
    return (
        message.cookie,
        message.channel,
        message.name,
        [kind for kind, _ in message.outer],
        message.rendezvous(),
    )


# --- what the clients send ----------


def test_libpurple_file_offer_is_the_recorded_one() -> None:
    offer = Offer(COOKIE, wire.SEND_FILE, "10.0.0.5", 5190, 1, "f.bin", 30000)
    sent = LIBPURPLE.proposal("carol1", offer)
    assert shown(sent) == shown(snac(recorded.FILE_OFFER).body)
    assert wire.flap(2, 0x1D, Snac(4, 6, sent, 0x29).encode()).hex() == recorded.FILE_OFFER


def test_libpurple_counter_offer_is_the_recorded_one() -> None:
    offer = Offer(COOKIE, wire.SEND_FILE, "192.168.7.5", 5190, 2, "f.bin", 30000)
    sent = LIBPURPLE.proposal("alice1", offer)
    assert shown(sent) == shown(snac(recorded.COUNTER_OFFER).body)
    assert sent == snac(recorded.COUNTER_OFFER).body


def test_libpurple_direct_im_offer_is_the_recorded_one() -> None:
    sent = LIBPURPLE.proposal("carol1", Offer(b"4615264\0", wire.DIRECT_IM, "10.0.0.5", 5190))
    assert shown(sent) == shown(snac(recorded.IM_OFFER).body)
    assert sent == snac(recorded.IM_OFFER).body


def test_accept_is_the_recorded_one() -> None:
    assert LIBPURPLE.accept("bob1", b"4895608\0", wire.SEND_FILE) == snac(recorded.ACCEPT).body


def test_aim_offer_with_complements_is_the_published_one() -> None:
    offer = Offer(b"3A5D19C\0", wire.SEND_FILE, "10.0.0.5", 4000, 1, "f.bin", 30000)
    sent = WINAIM.proposal("carol1", offer)
    assert shown(sent) == shown(snac(recorded.AIM_OFFER_CONSTRUCTED).body)
    assert sent == snac(recorded.AIM_OFFER_CONSTRUCTED).body


def test_aim_counter_offer_has_the_published_order() -> None:
    offer = Offer(COOKIE, wire.SEND_FILE, "10.0.0.5", 4000, 2)
    block = wire.parse_icbm(Snac(4, 6, WINAIM.proposal("carol1", offer))).rendezvous()
    assert block is not None
    assert [kind for kind, _ in block.tlvs] == [0x0A, 0x14, 0x02, 0x16, 0x03, 0x05, 0x17]


def test_cancel_and_decline_are_the_published_ones() -> None:
    assert LIBPURPLE.cancel("carol1", COOKIE, wire.SEND_FILE) == snac(recorded.CANCEL_CONSTRUCTED).body
    assert wire.client_error(COOKIE, "alice1", 1) == snac(recorded.DECLINE_CONSTRUCTED).body


def test_sign_on_packets_are_the_recorded_ones() -> None:
    assert lab_client.challenge_body("alice1") == snac(recorded.CHALLENGE).body
    assert lab_client.login_body("alice1", server.CHALLENGE) == snac(recorded.LOGIN).body
    assert snac(recorded.VERSIONS).body == lab_client.VERSIONS
    assert snac(recorded.ONLINE).body == lab_client.ONLINE


@pytest.mark.parametrize(
    ("tag", "value"),
    [(0x0002, b"\xcb\x00\x71\x01"), (0x0005, b"\x9c\x41"), (0x0016, bytes(4)), (0x0017, bytes(2))],
)
def test_aim_client_objects_to_a_half_done_rewrite(tag: int, value: bytes) -> None:
    block = wire.parse_icbm(snac(recorded.AIM_OFFER_CONSTRUCTED)).rendezvous()
    assert block is not None
    assert objection(block.cookie, block) is None
    changed = [(kind, value if kind == tag else old) for kind, old in block.tlvs]
    assert objection(block.cookie, Rendezvous(0, block.cookie, block.capability, changed))


def test_aim_client_objects_to_duplicates_and_to_a_foreign_cookie() -> None:
    block = wire.parse_icbm(snac(recorded.AIM_OFFER_CONSTRUCTED)).rendezvous()
    assert block is not None
    twice = Rendezvous(0, block.cookie, block.capability, [*block.tlvs, (0x0003, bytes(4))])
    assert objection(block.cookie, twice) == "duplicate TLV"
    assert objection(COOKIE, block)


# --- what the server makes of it ----------


def test_oos_server_relays_the_recorded_offer_as_recorded() -> None:
    golden = wire.parse_icbm(snac(recorded.FILE_OFFER_RELAYED))
    session = server.Session("alice1", None, 0x6B02F855, lab_client.CAPABILITIES)  # type: ignore[arg-type]
    block = wire.parse_icbm(snac(recorded.FILE_OFFER)).rendezvous()
    assert block is not None
    outer = [(wire.ICBM_RDV, server.relayed(block, "oos", "203.0.113.1").encode())]
    sent = wire.icbm_to_client(COOKIE, 2, session.info("oos"), outer)
    assert shown(sent, 7) == shown(snac(recorded.FILE_OFFER_RELAYED).body, 7)
    assert [kind for kind, _ in golden.info] == [3, 1, 6, 0x1D, 0x0D, 0x1E]
    assert sent == snac(recorded.FILE_OFFER_RELAYED).body


def test_aol_server_only_appends_the_verified_address() -> None:
    block = wire.parse_icbm(snac(recorded.FILE_OFFER)).rendezvous()
    assert block is not None
    assert server.relayed(block, "aol", "203.0.113.1").tlvs == [
        *block.tlvs,
        (0x0004, wire.ip4("203.0.113.1")),
    ]


@pytest.mark.parametrize("mode", ["oos", "aol"])
def test_servers_leave_accepts_cancels_and_offers_without_0003_alone(mode: str) -> None:
    for kind, items in (
        (wire.ACCEPT, []),
        (wire.CANCEL, [(0x000B, b"\0\1")]),
        (wire.PROPOSE, [(0x000A, b"\0\1")]),
    ):
        block = Rendezvous(kind, COOKIE, wire.SEND_FILE, items)
        assert server.relayed(block, mode, "203.0.113.1") == block


def test_user_info_holds_the_four_byte_traps() -> None:
    session = server.Session("alice1", None)  # type: ignore[arg-type]
    for mode, traps in (("oos", {3}), ("aol", {3, 5})):
        _, items, rest = wire.take_user_info(session.info(mode))
        assert not rest
        assert traps <= {kind for kind, value in items if len(value) == 4}


def test_flagged_snac_is_read_behind_its_extra_block() -> None:
    flagged = snac(recorded.FLAGGED_ACCEPT_CONSTRUCTED)
    assert flagged.extra == bytes.fromhex("000100020004")
    block = wire.parse_icbm(flagged).rendezvous()
    assert block == Rendezvous(wire.ACCEPT, COOKIE, wire.SEND_FILE, [])
    assert wire.flap(2, 0x107, flagged.encode()).hex() == recorded.FLAGGED_ACCEPT_CONSTRUCTED


# --- peer links ----------


def test_odc_frames_are_the_recorded_ones() -> None:
    text = b"<HTML><BODY>hello over dim</BODY></HTML>"
    assert peer.odc_frame(b"8589038\0", "alice1", flags=0x60).hex() == recorded.ODC_GREETING
    assert peer.odc_frame(b"8589038\0", "alice1", text).hex() == recorded.ODC_MESSAGE_HEAD + text.hex()


def test_oft_prompt_ack_and_done_are_the_recorded_ones() -> None:
    prompt = peer.oft_header(peer.PROMPT, bytes(8), 30000, 0x8EF80000, "f.bin")
    rest = bytes.fromhex(recorded.OFT_PROMPT_HEAD).ljust(192, b"\0") + b"f.bin".ljust(64, b"\0")
    assert prompt.hex() == rest.hex()
    ack = peer.oft_header(peer.ACK, b"4895608\0", 30000, 0x8EF80000, "f.bin")
    done = peer.oft_header(peer.DONE, b"4895608\0", 30000, 0x8EF80000, "f.bin", 30000, 0x8EF80000)
    assert {i for i in range(256) if ack[i] != prompt[i]} == set(range(6, 15))
    assert {i: done[i] for i in range(256) if done[i] != ack[i]} == {
        7: 4,
        62: 0x75,
        63: 0x30,
        64: 0x8E,
        65: 0xF8,
    }


# --- writes ----------


def test_write_modes_cut_where_they_say_and_lose_nothing() -> None:
    frame = bytes.fromhex(recorded.FILE_OFFER)
    assert [len(piece) for piece in WriteMode("oos").pieces(frame)] == [1, 1, 2, 2, 111]
    assert [len(piece) for piece in WriteMode("oos").pieces(frame[:6])] == [1, 1, 2, 2]
    assert [len(piece) for piece in WriteMode("cut", (73, 88)).pieces(frame)] == [73, 15, 29]
    assert len(WriteMode("bytes").pieces(frame)) == len(frame)
    one, same = WriteMode("random", seed=3), WriteMode("random", seed=3)
    for _ in range(50):
        pieces = one.pieces(frame)
        assert pieces == same.pieces(frame)
        assert b"".join(pieces) == frame
    with pytest.raises(ValueError, match="unknown write mode"):
        WriteMode("sideways")


# --- against each other, on loopback ----------


async def _loopback(mode: str, write: str, profile: str, kind: str, how: dict[str, Any]) -> tuple[Any, Any]:
    """Two clients at one server on 127.0.0.1; returns both ends' results."""
    stand_in = server.Server("", mode, WriteMode(write))
    listener = await asyncio.start_server(stand_in.serve, "127.0.0.1", 0)
    stand_in.announce = f"127.0.0.1:{listener.sockets[0].getsockname()[1]}"
    one, two = (Client(name, PROFILES[profile], 35190) for name in ("Alice One", "bob1"))
    try:
        for client in (one, two):
            await client.sign_on(stand_in.announce, services=True)
        cookie = (b"1234567\0").hex()
        arguments = {
            "to": "BOB 1",
            "kind": kind,
            "cookie": cookie,
            "text": "hello",
            "write": how,
            "patience": 10.0,
        }
        proposed = asyncio.create_task(one.command({"cmd": "propose", **arguments}))
        received = await two.command({"cmd": "wait", "cookie": cookie, "seconds": 10.0})
        return await asyncio.wait_for(proposed, 15), received
    finally:
        for client in (one, two):
            await client.do_sign_off("reset")
        listener.close()


@pytest.mark.parametrize("kind", ["file", "im"])
@pytest.mark.parametrize(
    ("mode", "write", "profile", "how"),
    [
        ("oos", "oos", "libpurple", {"name": "whole"}),
        ("aol", "coalesced", "winaim", {"name": "bytes"}),
        ("aol", "random", "libpurple", {"name": "cut", "cuts": [73, 88], "pause": 0.01}),
        ("oos", "whole", "winaim", {"name": "random"}),
        ("aol", "bytes", "winaim", {"name": "oos"}),
    ],
)
def test_stand_ins_complete_a_rendezvous_however_frames_are_cut(
    kind: str, mode: str, write: str, profile: str, how: dict[str, Any]
) -> None:
    proposer, receiver = asyncio.run(_loopback(mode, write, profile, kind, how))
    assert (proposer["ok"], receiver["ok"]) == (True, True), (proposer, receiver)
    assert proposer["attempt"] == receiver["attempt"] == "direct"
    assert (proposer["sent"], proposer["received"]) == (receiver["received"], receiver["sent"])
    assert proposer["sent"]
    assert bool(proposer["received"]) == (kind == "im")


async def _ends_badly(ending: str) -> dict[str, Any]:
    """A rendezvous that the receiver refuses, that finds nobody, or that is malformed."""
    stand_in = server.Server("", "oos", WriteMode("oos"))
    listener = await asyncio.start_server(stand_in.serve, "127.0.0.1", 0)
    stand_in.announce = f"127.0.0.1:{listener.sockets[0].getsockname()[1]}"
    one, two = (Client(name, LIBPURPLE, 35190) for name in ("alice1", "bob1"))
    try:
        for client in (one, two):
            await client.sign_on(stand_in.announce)
        await two.do_policy(action="decline" if ending == "declined" else "ignore")
        to = "nobody" if ending == "absent" else "bob1"
        cookie = COOKIE.hex()
        proposed = asyncio.create_task(one.do_propose("file", to, cookie, patience=10.0))
        await asyncio.sleep(0.05)
        if ending == "cancelled":
            await one.do_cancel(cookie)
        elif ending == "malformed":
            block = Rendezvous(0, COOKIE, wire.SEND_FILE).encode() + b"\0\3\0\xff"
            body = wire.icbm_to_server(COOKIE, 2, "bob1", [(wire.ICBM_RDV, block)])
            await one.do_send_snac(4, 6, body.hex())
        return await asyncio.wait_for(proposed, 15)
    finally:
        for client in (one, two):
            await client.do_sign_off("close")
        listener.close()


@pytest.mark.parametrize(
    ("ending", "reason"),
    [
        ("declined", "declined by the other side"),
        ("absent", "server error 4"),
        ("cancelled", "cancelled here"),
        ("malformed", "control connection lost"),
    ],
)
def test_a_rendezvous_that_ends_badly_says_why(ending: str, reason: str) -> None:
    result = asyncio.run(_ends_badly(ending))
    assert (result["ok"], result["reason"]) == (False, reason)


# --- the recordings ----------


def payloads(name: str) -> list[tuple[str, bytes]]:
    """(source address, TCP payload) of each frame of a recording: classic pcap, Ethernet, IPv4."""
    path = PCAPS / name
    if not path.exists():
        pytest.skip(f"the recordings are not here: {path}")
    raw, offset, frames = path.read_bytes(), 24, []
    assert struct.unpack_from("<I", raw)[0] in (0xA1B2C3D4, 0xA1B23C4D)
    while offset < len(raw):
        (length,) = struct.unpack_from("<I", raw, offset + 8)
        ip = raw[offset + 16 + 14 : offset + 16 + length]
        header, total = (ip[0] & 15) * 4, struct.unpack_from("!H", ip, 2)[0]
        frames.append((wire.ip_text(ip[12:16]), ip[header + (ip[header + 12] >> 4) * 4 : total]))
        offset += 16 + length
    return frames


@pytest.mark.parametrize(
    ("recording", "frame", "to", "offer"),
    [
        (
            "send-alice-bob",
            342,
            "bob1",
            Offer(b"1568758\0", wire.SEND_FILE, "10.0.0.5", 5190, 1, "f.bin", 30000),
        ),
        ("dim-alice-bob", 345, "bob1", Offer(b"8589038\0", wire.DIRECT_IM, "10.0.0.5", 5190)),
        ("send-alice-carol.rb-lan", 368, "alice1", Offer(COOKIE, wire.SEND_FILE, "192.168.7.5", 5190, 2)),
    ],
)
def test_offers_equal_the_recorded_frames(recording: str, frame: int, to: str, offer: Offer) -> None:
    _, payload = payloads(f"libpurple-{recording}.pcap")[frame - 1]
    seen = snac(payload.hex())
    sent = LIBPURPLE.proposal(to, offer)
    assert shown(sent) == shown(seen.body)
    assert sent == seen.body


def test_accept_equals_the_recorded_frame() -> None:
    _, payload = payloads("libpurple-send-bob-alice.pcap")[392 - 1]
    assert LIBPURPLE.accept("bob1", b"4895608\0", wire.SEND_FILE) == snac(payload.hex()).body


def test_server_writes_and_relays_as_recorded() -> None:
    frames = payloads("libpurple-send-alice-carol.rb-lan.pcap")[357 - 1 : 361]
    pieces = [payload for _, payload in frames]
    whole = b"".join(pieces)
    assert WriteMode("oos").pieces(whole) == pieces
    block = wire.parse_icbm(snac(recorded.FILE_OFFER)).rendezvous()
    assert block is not None
    assert wire.parse_icbm(snac(whole.hex())).rendezvous() == server.relayed(block, "oos", "203.0.113.1")


def test_recorded_file_transfer_is_what_the_stand_ins_speak() -> None:
    frames = payloads("libpurple-send-bob-alice.pcap")
    sent = b"".join(payload for source, payload in frames[387 - 1 : 404] if source == "203.0.113.20")
    answered = [frames[393 - 1][1], frames[404 - 1][1]]
    data = sent[256:]
    checksum = peer.oft_checksum(data)
    assert (len(data), checksum) == (30000, 0x8EF80000)
    cookie = b"4895608\0"
    assert sent[:256] == peer.oft_header(peer.PROMPT, bytes(8), 30000, checksum, "f.bin")
    assert answered[0] == peer.oft_header(peer.ACK, cookie, 30000, checksum, "f.bin")
    assert answered[1] == peer.oft_header(peer.DONE, cookie, 30000, checksum, "f.bin", 30000, checksum)
