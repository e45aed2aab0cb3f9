"""The lab's stand-ins are held to packets recorded from libpurple 2.12.1 and open-oscar-server v0.24.0.

If a stand-in drifts from what real software sends, the lab proves nothing. Recorded packets
are in tests/golden; whole recordings are read from ``../shared/pcaps`` where that folder exists.
"""

from __future__ import annotations

import asyncio
import struct
from pathlib import Path
from typing import Any

import pytest

from tests.golden import packets
from tests.lab import client as lab_client
from tests.lab import server
from tests.lab.client import Client
from tests.lab.link import WriteMode
from tests.oscar import rendezvous as rdv
from tests.oscar.flap import FLAP_SNAC, FlapReader, flap
from tests.oscar.icbm import DECLINED, ICBM_RDV, client_error, icbm_to_client, icbm_to_server, parse_icbm
from tests.oscar.peer_headers import ACK, DONE, PROMPT, odc_frame, oft_checksum, oft_header
from tests.oscar.profiles import PROFILES, Offer, objection
from tests.oscar.rendezvous import Rendezvous
from tests.oscar.snac import TO_HOST, Snac
from tests.oscar.tlv import take_user_info, tlv
from tests.oscar.values import ip4, ip_text

LIBPURPLE, WINAIM = PROFILES["libpurple"], PROFILES["winaim"]
PCAPS = Path(__file__).resolve().parents[3] / "shared" / "pcaps"
GOLDEN = packets()
COOKIE = b"3275328\0"


def snac(packet: bytes) -> Snac:
    """The SNAC in a FLAP."""
    [(channel, _, data)] = FlapReader().feed(packet)
    assert channel == FLAP_SNAC
    return Snac.decode(data)


def shown(body: bytes, subtype: int = 6) -> Any:
    """A (04,06) or (04,07) body taken apart, so that a failed comparison can be read."""
    message = parse_icbm(Snac(4, subtype, body))
    return (
        message.cookie,
        message.channel,
        message.name,
        [kind for kind, _ in message.outer],
        message.rendezvous(),
    )


# --- what the clients send ----------


def offer(
    cookie: bytes, service: bytes, address: str = "10.0.0.5", port: int = 5190, stage: int = 1
) -> Offer:
    return Offer(cookie, service, address, port, stage, "f.bin", 30000)


SAID = {
    "send-file-proposal": LIBPURPLE.proposal("carol1", offer(COOKIE, rdv.SEND_FILE)),
    "counter-proposal": LIBPURPLE.proposal("alice1", offer(COOKIE, rdv.SEND_FILE, "192.168.7.5", stage=2)),
    "direct-im-proposal": LIBPURPLE.proposal("carol1", offer(b"4615264\0", rdv.DIRECT_IM)),
    "accept": LIBPURPLE.accept("bob1", b"4895608\0", rdv.SEND_FILE),
    "aim-proposal": WINAIM.proposal("carol1", offer(b"3A5D19C\0", rdv.SEND_FILE, port=4000)),
    "cancel": LIBPURPLE.cancel("carol1", COOKIE, rdv.SEND_FILE),
    "decline": client_error(COOKIE, "alice1", DECLINED),
    "challenge-request": lab_client.challenge_body("alice1"),
    "login": lab_client.login_body("alice1", server.CHALLENGE),
    "client-versions": lab_client.VERSIONS,
    "client-online": lab_client.ONLINE,
}


@pytest.mark.parametrize("name", SAID)
def test_what_a_client_says_is_the_recorded_or_published(name: str) -> None:
    golden = snac(GOLDEN[name])
    if golden.kind == TO_HOST:
        assert shown(SAID[name]) == shown(golden.body)
    assert SAID[name] == golden.body
    if name == "send-file-proposal":
        assert flap(FLAP_SNAC, 0x1D, Snac(4, 6, SAID[name], 0x29).encode()) == GOLDEN[name]


def test_aim_counter_offer_has_the_published_order() -> None:
    sent = WINAIM.proposal("carol1", offer(COOKIE, rdv.SEND_FILE, port=4000, stage=2))
    block = parse_icbm(Snac(4, 6, sent)).rendezvous()
    assert block is not None
    assert [kind for kind, _ in block.tlvs] == [0x0A, 0x14, 0x02, 0x16, 0x03, 0x05, 0x17]


@pytest.mark.parametrize(
    ("tag", "value"),
    [(0x0002, b"\xcb\x00\x71\x01"), (0x0005, b"\x9c\x41"), (0x0016, bytes(4)), (0x0017, bytes(2))],
)
def test_aim_client_objects_to_a_half_done_rewrite(tag: int, value: bytes) -> None:
    block = parse_icbm(snac(GOLDEN["aim-proposal"])).rendezvous()
    assert block is not None
    assert objection(block.cookie, block) is None
    changed = [(kind, value if kind == tag else old) for kind, old in block.tlvs]
    assert objection(block.cookie, Rendezvous(0, block.cookie, block.capability, changed))


def test_aim_client_objects_to_duplicates_and_to_a_foreign_cookie() -> None:
    block = parse_icbm(snac(GOLDEN["aim-proposal"])).rendezvous()
    assert block is not None
    twice = Rendezvous(0, block.cookie, block.capability, [*block.tlvs, (0x0003, bytes(4))])
    assert objection(block.cookie, twice) == "duplicate TLV"
    assert objection(COOKIE, block)


# --- what the server makes of it ----------


def test_oos_server_relays_the_recorded_offer_as_recorded() -> None:
    golden = parse_icbm(snac(GOLDEN["send-file-proposal-received"]))
    session = server.Session("alice1", None, 0x6B02F855, lab_client.CAPABILITIES)  # type: ignore[arg-type]
    block = parse_icbm(snac(GOLDEN["send-file-proposal"])).rendezvous()
    assert block is not None
    outer = tlv(ICBM_RDV, server.relayed(block, "oos", "203.0.113.1").encode())
    sent = icbm_to_client(COOKIE, 2, session.info("oos"), outer)
    assert shown(sent, 7) == shown(snac(GOLDEN["send-file-proposal-received"]).body, 7)
    assert [kind for kind, _ in golden.info] == [3, 1, 6, 0x1D, 0x0D, 0x1E]
    assert sent == snac(GOLDEN["send-file-proposal-received"]).body


def test_aol_server_only_appends_the_verified_address() -> None:
    block = parse_icbm(snac(GOLDEN["send-file-proposal"])).rendezvous()
    assert block is not None
    assert server.relayed(block, "aol", "203.0.113.1").tlvs == [
        *block.tlvs,
        (0x0004, ip4("203.0.113.1")),
    ]


@pytest.mark.parametrize("mode", ["oos", "aol"])
def test_servers_leave_accepts_cancels_and_offers_without_0003_alone(mode: str) -> None:
    for kind, items in (
        (rdv.ACCEPT, []),
        (rdv.CANCEL, [(0x000B, b"\0\1")]),
        (rdv.PROPOSE, [(0x000A, b"\0\1")]),
    ):
        block = Rendezvous(kind, COOKIE, rdv.SEND_FILE, items)
        assert server.relayed(block, mode, "203.0.113.1") == block


def test_user_info_holds_the_four_byte_traps() -> None:
    session = server.Session("alice1", None)  # type: ignore[arg-type]
    for mode, traps in (("oos", {3}), ("aol", {3, 5})):
        _, items, rest = take_user_info(session.info(mode))
        assert not rest
        assert traps <= {kind for kind, value in items if len(value) == 4}


# --- peer links ----------


def test_odc_frames_are_the_recorded_ones() -> None:
    text = b"<HTML><BODY>hello over dim</BODY></HTML>"
    assert odc_frame(b"8589038\0", "alice1", flags=0x60) == GOLDEN["odc2-hello"]
    assert odc_frame(b"8589038\0", "alice1", text) == GOLDEN["odc2-message"]


def test_oft_prompt_ack_and_done_are_the_recorded_ones() -> None:
    prompt = oft_header(PROMPT, bytes(8), 30000, 0x8EF80000, "f.bin")
    assert prompt.hex() == GOLDEN["oft2-prompt"].hex()
    ack = oft_header(ACK, b"4895608\0", 30000, 0x8EF80000, "f.bin")
    done = oft_header(DONE, b"4895608\0", 30000, 0x8EF80000, "f.bin", 30000, 0x8EF80000)
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
    frame = GOLDEN["send-file-proposal"]
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
            block = Rendezvous(0, COOKIE, rdv.SEND_FILE).encode() + b"\0\3\0\xff"
            body = icbm_to_server(COOKIE, 2, "bob1", tlv(ICBM_RDV, block))
            await one.do_send_snac(4, 6, body.hex())
        return await asyncio.wait_for(proposed, 15)
    finally:
        for client in (one, two):
            await client.do_sign_off("close")
        listener.close()


async def _strangers() -> dict[str, Any]:
    """A rendezvous of alice1 and bob1, which carol1 cancels, declines and accepts before bob1 answers."""
    stand_in = server.Server("", "oos", WriteMode("oos"))
    listener = await asyncio.start_server(stand_in.serve, "127.0.0.1", 0)
    stand_in.announce = f"127.0.0.1:{listener.sockets[0].getsockname()[1]}"
    clients = [Client(name, LIBPURPLE, 35190) for name in ("alice1", "bob1", "carol1")]
    try:
        for client in clients:
            await client.sign_on(stand_in.announce)
        one, two, carol = clients
        await two.do_policy(action="accept", delay=0.5)
        proposed = asyncio.create_task(one.do_propose("file", "bob1", COOKIE.hex()))
        await asyncio.sleep(0.1)
        for to in ("alice1", "bob1"):
            await carol.send_decline(to, COOKIE, 1)
            for kind in (rdv.CANCEL, rdv.ACCEPT):
                block = Rendezvous(kind, COOKIE, rdv.SEND_FILE).encode()
                body = icbm_to_server(COOKIE, 2, to, tlv(ICBM_RDV, block))
                await carol.do_send_snac(4, 6, body.hex())
        return await asyncio.wait_for(proposed, 15)
    finally:
        for client in clients:
            await client.do_sign_off("close")
        listener.close()


def test_stand_ins_do_not_believe_a_stranger_who_knows_the_cookie() -> None:
    result = asyncio.run(_strangers())
    assert result["ok"], result


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
        frames.append((ip_text(ip[12:16]), ip[header + (ip[header + 12] >> 4) * 4 : total]))
        offset += 16 + length
    return frames


@pytest.mark.parametrize(
    ("recording", "frame", "sent"),
    [
        ("send-alice-bob", 342, LIBPURPLE.proposal("bob1", offer(b"1568758\0", rdv.SEND_FILE))),
        ("dim-alice-bob", 345, LIBPURPLE.proposal("bob1", offer(b"8589038\0", rdv.DIRECT_IM))),
        ("send-alice-carol.rb-lan", 368, SAID["counter-proposal"]),
        ("send-bob-alice", 392, SAID["accept"]),
    ],
)
def test_messages_equal_the_recorded_frames(recording: str, frame: int, sent: bytes) -> None:
    _, payload = payloads(f"libpurple-{recording}.pcap")[frame - 1]
    assert shown(sent) == shown(snac(payload).body)
    assert sent == snac(payload).body


def test_server_writes_and_relays_as_recorded() -> None:
    frames = payloads("libpurple-send-alice-carol.rb-lan.pcap")[357 - 1 : 361]
    pieces = [payload for _, payload in frames]
    whole = b"".join(pieces)
    assert WriteMode("oos").pieces(whole) == pieces
    block = parse_icbm(snac(GOLDEN["send-file-proposal"])).rendezvous()
    assert block is not None
    assert parse_icbm(snac(whole)).rendezvous() == server.relayed(block, "oos", "203.0.113.1")


def test_recorded_file_transfer_is_what_the_stand_ins_speak() -> None:
    frames = payloads("libpurple-send-bob-alice.pcap")
    sent = b"".join(payload for source, payload in frames[387 - 1 : 404] if source == "203.0.113.20")
    answered = [frames[393 - 1][1], frames[404 - 1][1]]
    data = sent[256:]
    checksum = oft_checksum(data)
    assert (len(data), checksum) == (30000, 0x8EF80000)
    cookie = b"4895608\0"
    assert sent[:256] == oft_header(PROMPT, bytes(8), 30000, checksum, "f.bin")
    assert answered[0] == oft_header(ACK, cookie, 30000, checksum, "f.bin")
    assert answered[1] == oft_header(DONE, cookie, 30000, checksum, "f.bin", 30000, checksum)
