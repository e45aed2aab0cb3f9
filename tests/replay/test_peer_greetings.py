"""What peers said first in recorded connections, and what is expected of them: no real client is refused."""

from __future__ import annotations

from ipaddress import IPv4Network
from pathlib import Path

import pytest

from nfreaim.capture import Capture
from nfreaim.capture.link_layer import network_offset
from nfreaim.core.address import Endpoint, reverse
from nfreaim.core.greeting import match
from nfreaim.core.tcp.segment import SYN, Segment
from nfreaim.helpers.oscar.peer_greetings import Party, greetings
from tests.golden import load
from tests.lab import icq_peer
from tests.oscar.messages import BASIC, SECOND, proposal
from tests.oscar.tlv import tlv
from tests.replay.played import SHARED
from tests.unit.oscar_wires import wire_of

OWN = Path(__file__).parents[2] / "pcaps" / "oscar"
GOLDEN = load()
# The connections through which peers talk, by capture: in all other ones nobody begins like a peer.
PEER_LINKS = {
    "libpurple-send-bob-alice": "send-file",
    "libpurple-dim-alice-bob": "direct-im",
    "evidence01": "send-file",
    "oft2-on-5190": "send-file",
}
RECORDED = [OWN / f"{name}.in.pcap" for name in list(PEER_LINKS)[:2]]
FOREIGN = sorted(SHARED.glob("*.pcap*")) if SHARED.is_dir() else []


def first_bytes(path: Path) -> dict[bytes, bytes]:
    """What each direction of each TCP connection began with, by key; those met in the middle, too."""
    found: dict[bytes, tuple[int, dict[int, bytes]]] = {}
    for frame in Capture.load(path):
        at = network_offset(frame.link, frame.data)
        total = int.from_bytes(frame.data[at + 2 : at + 4], "big") if at is not None else 0
        segment = Segment.parse(frame.data[at : at + total]) if at is not None else None
        if segment is None:
            continue
        if segment.flags & SYN or segment.key not in found:
            found[segment.key] = (segment.seq + bool(segment.flags & SYN), {})
        base, pieces = found[segment.key]
        if data := segment.raw[segment.start :]:
            pieces.setdefault(segment.seq - base & 0xFFFFFFFF, data)
    joined: dict[bytes, bytes] = {}
    for key, (_, pieces) in found.items():
        data = b""
        while len(data) < 256 and pieces.get(len(data)):
            data += pieces[len(data)]
        joined[key] = data
    return joined


@pytest.mark.parametrize("path", [*RECORDED, *FOREIGN], ids=lambda path: path.name)
def test_recorded_peers_pass_whichever_end_is_outside_and_nobody_else_does(path: Path) -> None:
    service = PEER_LINKS.get(path.name.partition(".")[0])
    began = first_bytes(path)
    peers = 0
    for key, data in began.items():
        if not data:
            continue
        if data[:4] not in (b"OFT2", b"ODC2"):
            for other in ("send-file", "get-file", "direct-im"):
                assert match(data, greetings(other)) is not True
            continue
        assert service is not None
        peers += 1
        cookie = data[12:20]
        party: Party = "sender" if data[6:8] == b"\x01\x01" else "receiver"
        assert match(data, greetings(service, cookie, party)) is True
        assert match(data, greetings(service)) is True
        if service == "direct-im":
            assert began[reverse(key)][12:20] == cookie
            assert match(data, greetings(service, b"another\0")) is False
        else:
            assert (
                match(data, greetings(service, cookie, "sender" if party == "receiver" else "receiver"))
                is False
            )
    assert peers == (2 if service else 0)


@pytest.mark.parametrize(
    ("name", "service", "party"),
    [
        ("odc2-hello", "direct-im", None),
        ("odc2-message", "direct-im", None),
        ("oft2-prompt", "send-file", "sender"),
        ("oft2-ack", "send-file", "receiver"),
        ("oft2-done", "send-file", "receiver"),
    ],
)
def test_published_headers_pass(name: str, service: str, party: Party | None) -> None:
    data = GOLDEN[name].data
    assert match(data, greetings(service, data[12:20], party)) is True


@pytest.mark.parametrize(
    ("name", "first"),
    [
        ("send-file-proposal", "oft2-ack"),
        ("aim-proposal", "oft2-ack"),
        ("kopete-proposal", "oft2-ack"),
        ("loopback-send-file-proposal", "oft2-ack"),
        ("counter-proposal", "oft2-prompt"),
        ("direct-im-proposal", "odc2-hello"),
        ("loopback-direct-im-proposal", "odc2-hello"),
    ],
)
def test_each_proposal_expects_the_other_party(name: str, first: str) -> None:
    wire = wire_of(name)
    wire.router.kernel.networks = [IPv4Network("0.0.0.0/0")]
    wire.client(GOLDEN[name].data)
    (pinhole,) = wire.router.firewall.pinholes
    assert pinhole.verify
    expected = wire.router.pinholes.expected(pinhole.inside)
    data = GOLDEN[first].data
    if first == "odc2-hello":
        data = data[:12] + GOLDEN[name].data[16:24] + data[20:]  # the cookie of the proposal
    assert match(data, expected) is True
    for other in {"oft2-prompt", "oft2-ack", "odc2-hello"} - {first}:
        assert match(GOLDEN[other].data, expected) is False
    wire.client(GOLDEN["signoff"].data)
    assert wire.router.pinholes.expected(pinhole.inside) == []


def test_proposals_whose_part_is_not_certain_expect_either() -> None:
    third = BASIC + tlv(10, b"\0\3")
    for inner in (BASIC, BASIC + tlv(10, b"\0\1"), third):  # no number, no file, a third one
        wire = wire_of()
        wire.client(proposal(inner))
        expected = wire.router.pinholes.expected(Endpoint("10.0.0.5", 5190))
        assert match(GOLDEN["oft2-prompt"].data, expected) is True
        assert match(GOLDEN["oft2-ack"].data, expected) is True


HELLO = bytes.fromhex("16030100f8010000f40303")
HTTP = b"GET / HTTP/1.1"


def test_link_that_will_be_tls_begins_with_tls_which_proves_little() -> None:
    wire = wire_of()
    wire.client(proposal(BASIC + tlv(0x11, b"")))
    (pinhole,) = wire.router.firewall.pinholes
    assert pinhole.verify
    assert pinhole.unverified == "tls"
    expected = wire.router.pinholes.expected(pinhole.inside)
    assert match(HELLO, expected) is True
    for other in (HTTP, b"\x16\x03\x01\0\x20\x0b", b"SSH-2.0", GOLDEN["oft2-ack"].data):
        assert match(other, expected) is False
    wire = wire_of()
    wire.server(proposal(BASIC.replace(bytes([10, 0, 0, 5]), bytes([198, 51, 100, 7])) + tlv(0x11, b""), 7))
    wire.client(proposal(BASIC + SECOND))  # the answer does not say it again
    (pinhole,) = wire.router.firewall.pinholes
    assert pinhole.verify
    assert pinhole.unverified == "tls"
    expected = wire.router.pinholes.expected(pinhole.inside)
    assert match(HELLO, expected) is True
    assert match(GOLDEN["oft2-prompt"].data, expected) is True
    assert match(HTTP, expected) is False


def test_link_that_will_be_tls_can_be_denied() -> None:
    wire = wire_of(deny_services=frozenset({"tls"}))
    wire.client(proposal(BASIC + tlv(0x11, b"")))
    assert not wire.router.firewall.pinholes
    wire.client(proposal(BASIC))
    (pinhole,) = wire.router.firewall.pinholes
    assert pinhole.unverified == ""


@pytest.mark.parametrize("service", ["icq-direct", "icq-reverse", "icq-relay"])
def test_icq_clients_begin_with_their_init_packet(service: str) -> None:
    expected = greetings(service)
    for version, size in ((8, 48), (7, 48), (6, 44), (4, 26), (10, 48)):
        init = size.to_bytes(2, "little") + b"\xff" + version.to_bytes(2, "little") + bytes(size - 3)
        assert match(init, expected) is True
        assert match(init[:4], expected) is None
    for other in (HTTP, HELLO, b"SSH-2.0-x", b"\0\0\0\x48", b"RFB 003", b"\xff\xfb\x01", b"0\0\xff\x0d\0"):
        assert match(other, expected) is False
    own = icq_peer.Self(100001, "10.0.0.5", "203.0.113.1", 4000, 77)
    init = icq_peer.init_packet(own, 100002, 77)
    assert match(len(init).to_bytes(2, "little") + init, expected) is True


def test_gate_that_is_switched_off_marks_no_pinhole() -> None:
    wire = wire_of(verify_peers=False)
    wire.client(proposal(BASIC))
    (pinhole,) = wire.router.firewall.pinholes
    assert not pinhole.verify
