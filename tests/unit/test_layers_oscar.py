"""The wire layer: what it reads it can write back byte for byte, and what it cannot read it refuses."""

from __future__ import annotations

import subprocess
import sys

import pytest

from nfreaim.layers.oscar_messages import (
    CAPABILITIES,
    FLAP,
    SNAC,
    TLV,
    ClientError,
    IcbmChannel,
    IcbmToClient,
    IcbmToHost,
    RdvTag,
    RdvType,
    Rendezvous,
    RendezvousTLV,
    UserInfo,
    dissect,
    rebuild,
    rendezvous_of,
)
from nfreaim.layers.structs import header_struct
from tests.golden import load
from tests.oscar.messages import BLOCKS, OUT, OWN, READABLE, block, to_host
from tests.oscar.snac import kind_of
from tests.oscar.tlv import tlv
from tests.oscar.values import put

GOLDEN = load()

# --- golden packets -----------------------------------------------------------------------------------------


def test_golden_file_holds_every_kind_of_readable_frame() -> None:
    assert {kind_of(GOLDEN[name].data) for name in READABLE} == {(4, 6), (4, 7), (4, 0x0B)}
    assert len(READABLE) == 19


@pytest.mark.parametrize("name", READABLE)
def test_golden_frame_survives_dissection_and_rebuild(name: str) -> None:
    data = GOLDEN[name].data
    flap = dissect(data)
    assert rebuild(flap) == data
    assert isinstance(flap.payload, SNAC)


@pytest.mark.parametrize("name", [name for name in GOLDEN if name not in READABLE])
def test_frame_of_another_kind_is_refused(name: str) -> None:
    with pytest.raises(ValueError, match=r"not an ICBM|not a data frame|too short"):
        dissect(GOLDEN[name].data)


@pytest.mark.parametrize("name", BLOCKS)
def test_block_cookie_equals_icbm_cookie_in_every_golden_message(name: str) -> None:
    flap = dissect(GOLDEN[name].data)
    rdv = rendezvous_of(flap)
    assert rdv is not None
    assert rdv.cookie == flap.payload.payload.cookie
    assert len(rdv.cookie) == 8
    assert rdv.capability in CAPABILITIES


def test_proposal_can_be_built_from_nothing_and_equals_the_recorded_one() -> None:
    cookie = b"3275328\0"
    inner = [
        TLV(type=RdvTag.RDV_IP, value=OWN),
        TLV(type=RdvTag.REQUESTER_IP, value=OWN),
        TLV(type=RdvTag.PORT, value=b"\x14\x46"),
        TLV(type=RdvTag.SEQ_NUM, value=b"\x00\x01"),
        TLV(type=RdvTag.REQUEST_HOST_CHK),
        TLV(type=RdvTag.SVC_DATA, value=bytes.fromhex("0001000100007530") + b"f.bin\0"),
    ]
    send_file = next(uuid for uuid, name in CAPABILITIES.items() if name == "send-file")
    outer = [
        TLV(type=3),
        RendezvousTLV(
            value=Rendezvous(type=RdvType.PROPOSE, cookie=cookie, capability=send_file, tlvs=inner)
        ),
    ]
    icbm = IcbmToHost(cookie=cookie, channel=IcbmChannel.RENDEZVOUS, screen_name=b"carol1", tlvs=outer)
    built = FLAP(sequence=29) / SNAC(request_id=0x29) / icbm
    assert bytes(built) == GOLDEN["send-file-proposal"].data


def test_relayed_message_can_be_built_with_lengths_and_counts_computed() -> None:
    sender = UserInfo(
        screen_name=b"alice1", tlvs=[TLV(type=1, value=b"\x00\x10"), TLV(type=3, value=b"\x6b\x02\xf8\x55")]
    )
    data = GOLDEN["accept-with-snac-extra"].data
    accept = Rendezvous(type=RdvType.ACCEPT, cookie=b"3275328\0", capability=data[73:89])
    built = (
        FLAP(sequence=263)
        / SNAC(flags=0x8000, request_id=0x80000001, extra=tlv(1, b"\x00\x04"))
        / IcbmToClient(cookie=b"3275328\0", sender=sender, tlvs=[RendezvousTLV(value=accept)])
    )
    assert bytes(built) == data


# --- changing a message -------------------------------------------------------------------------------------


def rewrite(name: str, port: bytes | None) -> bytes:
    flap = dissect(GOLDEN[name].data)
    rdv = rendezvous_of(flap)
    assert rdv is not None
    new = {
        RdvTag.RDV_IP: OUT,
        RdvTag.REQUESTER_IP: OUT,
        RdvTag.IP_XOR: bytes(b ^ 255 for b in OUT),
    }
    if port is not None:
        new |= {RdvTag.PORT: port, RdvTag.PORT_XOR: bytes(b ^ 255 for b in port)}
    for tag, value in new.items():
        if (found := rdv.first(tag)) is not None:
            found.value = value
    return rebuild(flap)


@pytest.mark.parametrize(
    ("name", "case", "port"),
    [
        ("send-file-proposal", "same-port", None),
        ("send-file-proposal", "port-40001", b"\x9c\x41"),
        ("aim-proposal", "port-40001", b"\x9c\x41"),
    ],
)
def test_values_set_two_layers_down_reach_the_rebuilt_frame(name: str, case: str, port: bytes | None) -> None:
    assert rewrite(name, port) == GOLDEN[name].expected[case]


def test_rewriting_a_relayed_message_leaves_the_sign_on_time_of_the_sender_alone() -> None:
    before = GOLDEN["send-file-proposal-received"].data
    flap = dissect(before)
    icbm = flap.payload.payload
    assert [t.type for t in icbm.sender.tlvs] == [3, 1, 6, 0x1D, 0x0D, 0x1E]
    rdv = rendezvous_of(flap)
    assert rdv is not None
    for tag in (RdvTag.REQUESTER_IP, RdvTag.VERIFIED_IP):
        for found in rdv.all(tag):
            found.value = OWN
    after = rebuild(flap)
    assert after == put(before, (286, OWN), (328, OWN))
    assert after[37:45] == bytes.fromhex("000300046b02f855")


def test_member_since_in_user_info_is_not_taken_for_a_block_or_a_port() -> None:
    sender = UserInfo(
        screen_name=b"alice1",
        tlvs=[TLV(type=5, value=b"\x6b\x02\xf8\x1d"), TLV(type=3, value=b"\x6b\x02\xf8\x55")],
    )
    rdv = Rendezvous(cookie=bytes(8), tlvs=[TLV(type=5, value=b"\x14\x46")])
    data = bytes(
        FLAP() / SNAC() / IcbmToClient(cookie=bytes(8), sender=sender, tlvs=[RendezvousTLV(value=rdv)])
    )
    flap = dissect(data)
    assert [type(t) for t in flap.payload.payload.sender.tlvs] == [TLV, TLV]
    found = rendezvous_of(flap)
    assert found is not None
    assert [t.value for t in found.all(RdvTag.PORT)] == [b"\x14\x46"]
    assert rebuild(flap) == data


def test_length_that_no_longer_fits_its_value_is_not_repaired() -> None:
    flap = dissect(GOLDEN["send-file-proposal"].data)
    rdv = rendezvous_of(flap)
    assert rdv is not None
    port = rdv.first(RdvTag.PORT)
    assert port is not None
    port.value = b"\x14\x46\x00"
    assert b"\x00\x05\x00\x02\x14\x46\x00" in rebuild(flap)
    assert rebuild(flap)[4:6] == GOLDEN["send-file-proposal"].data[4:6]
    with pytest.raises(ValueError, match="FLAP length"):
        dissect(rebuild(flap))


def test_two_messages_do_not_share_their_fields() -> None:
    one, two = (dissect(GOLDEN["send-file-proposal"].data) for _ in range(2))
    rdv = rendezvous_of(one)
    assert rdv is not None
    rdv.tlvs[0].value = OUT
    assert rebuild(two) == GOLDEN["send-file-proposal"].data
    assert bytes(FLAP() / SNAC() / IcbmToHost()) == bytes(FLAP() / SNAC() / IcbmToHost())
    assert Rendezvous().tlvs == []


# --- finding the block --------------------------------------------------------------------------------------


def test_missing_tlv_is_none_and_duplicates_come_in_order() -> None:
    inner = tlv(3, OWN) + tlv(3, OUT)
    rdv = rendezvous_of(dissect(to_host(tlv(5, block(inner)))))
    assert rdv is not None
    assert rdv.first(RdvTag.USE_ARS) is None
    assert [t.value for t in rdv.all(RdvTag.REQUESTER_IP)] == [OWN, OUT]
    assert rdv.first(RdvTag.REQUESTER_IP) is rdv.tlvs[0]


def test_empty_tlv_0010_behind_the_addresses_is_seen() -> None:
    rdv = rendezvous_of(dissect(GOLDEN["relay-proposal"].data))
    assert rdv is not None
    assert rdv.first(RdvTag.USE_ARS) is not None


@pytest.mark.parametrize("channel", [1, 3, 4, 0x0202])
def test_text_that_imitates_a_block_stays_bytes_on_other_channels(channel: int) -> None:
    data = to_host(tlv(5, block(tlv(3, OWN) + tlv(5, b"\x14\x46"))), channel=channel)
    flap = dissect(data)
    assert rendezvous_of(flap) is None
    assert flap.payload.payload.tlvs[0].value == block(tlv(3, OWN) + tlv(5, b"\x14\x46"))
    assert rebuild(flap) == data


def test_two_blocks_in_one_message_are_nobodys_block() -> None:
    data = to_host(tlv(5, block(tlv(3, OWN))) + tlv(5, block(tlv(3, OUT))))
    flap = dissect(data)
    assert rendezvous_of(flap) is None
    assert rebuild(flap) == data


def test_decline_has_a_reason_and_no_block() -> None:
    flap = dissect(GOLDEN["decline"].data)
    error = flap.payload.payload
    assert isinstance(error, ClientError)
    assert (error.cookie, error.screen_name, error.reason) == (b"3275328\0", b"alice1", 3)
    assert error.data == bytes.fromhex("00020001")
    assert rendezvous_of(flap) is None


def test_snac_extra_block_moves_the_body() -> None:
    flap = dissect(GOLDEN["accept-with-snac-extra"].data)
    snac = flap.payload
    assert (snac.flags, snac.extra_length, snac.extra) == (0x8000, 6, tlv(1, b"\x00\x04"))
    assert snac.payload.cookie == b"3275328\0"
    rdv = rendezvous_of(flap)
    assert rdv is not None
    assert rdv.type == RdvType.ACCEPT


# --- the fast path ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("cls", "expected"),
    [
        (FLAP, "!BBHH"),
        (SNAC, "!HHHI"),
        (TLV, "!HH"),
        (Rendezvous, "!H8s16s"),
        (IcbmToClient, "!8sH"),
        (IcbmToHost, "!8sHB"),
        (ClientError, "!8sHB"),
        (UserInfo, "!B"),
    ],
)
def test_struct_compiled_from_the_declaration(cls: type[FLAP], expected: str) -> None:
    assert header_struct(cls).format == expected


def test_structs_read_what_the_layers_read() -> None:
    data = GOLDEN["send-file-proposal"].data
    flap = dissect(data)
    assert header_struct(FLAP).unpack_from(data) == (0x2A, 2, flap.sequence, flap.length)
    assert header_struct(SNAC).unpack_from(data, 6) == (4, 6, 0, flap.payload.request_id)
    assert header_struct(IcbmToHost).unpack_from(data, 16) == (b"3275328\0", 2, 6)


def test_little_endian_or_variable_head_has_no_struct() -> None:
    from scapy.fields import LEShortField, StrField
    from scapy.packet import Packet

    little = type("Little", (Packet,), {"fields_desc": [LEShortField("n", 0)]})
    variable = type("Variable", (Packet,), {"fields_desc": [StrField("text", b"")]})
    with pytest.raises(TypeError, match="big-endian"):
        header_struct(little)
    with pytest.raises(TypeError, match="fixed size"):
        header_struct(variable)


def test_import_stays_small_and_silent() -> None:
    code = "import sys, nfreaim.layers.oscar_messages; print(*sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True
    )
    assert done.stderr == ""
    loaded = set(done.stdout.split())
    assert "scapy.packet" in loaded
    assert not loaded & {"scapy.all", "scapy.layers", "scapy.sendrecv", "scapy.arch"}
