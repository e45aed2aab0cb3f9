"""The OSCAR helper on golden packets: what is edited, to the byte, and what must leave as it came."""

from __future__ import annotations

from ipaddress import IPv4Network

import pytest

from nfreaim.core.address import Endpoint
from nfreaim.core.firewall.policy import PinholePolicy
from nfreaim.layers.oscar_messages import MAX_TLVS
from tests.golden import load
from tests.oscar.flap import resized
from tests.oscar.messages import BASIC, OUT, OWN, addressed, checks, proposal
from tests.oscar.signon import HOST_ONLINE, SIGNON
from tests.oscar.snac import Snac, snac_frame
from tests.oscar.tlv import tlv
from tests.oscar.values import put
from tests.tcp.packets import packed
from tests.unit.fakes import CLIENT, OUTSIDE
from tests.unit.oscar_fixtures import Router, Wire
from tests.unit.oscar_wires import beside, wire_of

GOLDEN = load()
PROPOSAL = GOLDEN["send-file-proposal"].data


def edited(name: str, port: int | None = None) -> bytes:
    """What the ALG must make of a golden proposal; by hand, where the golden file does not say."""
    golden, address = GOLDEN[name], packed(wire_of(name).flow_id.client.address)
    case = "same-port" if port is None else f"port-{port}"
    if case in golden.expected:
        return golden.expected[case]
    data = golden.data.replace(b"\0\2\0\4" + address, b"\0\2\0\4" + OUT)
    data = data.replace(b"\0\3\0\4" + address, b"\0\3\0\4" + OUT)
    data = data.replace(b"\0\x16\0\4\xf5\xff\xff\xfa", b"\0\x16\0\4\x34\xff\x8e\xfe")
    if port is not None:
        at = data.index(b"\0\5\0\2")
        old = data[at + 4 : at + 6]
        data = put(data, (at + 4, port.to_bytes(2, "big")))
        data = data.replace(
            tlv(0x17, bytes(b ^ 255 for b in old)), tlv(0x17, (port ^ 0xFFFF).to_bytes(2, "big"))
        )
    return data


PROPOSALS = {
    "send-file-proposal": 5190,
    "counter-proposal": 5190,
    "direct-im-proposal": 5190,
    "aim-proposal": 4000,
    "kopete-proposal": 5191,
    "loopback-send-file-proposal": 5190,
    "loopback-direct-im-proposal": 5190,
}
ICQ = {"icq-status", "icq-reverse-connect", "icq-file-ack"}  # edited, but not here: test_helper_icq.py
UNTOUCHED = [
    name
    for name, golden in GOLDEN.items()
    if golden.protocol == "flap" and golden.direction != "S>C" and name not in {*PROPOSALS, *ICQ}
]


@pytest.mark.parametrize("name", PROPOSALS)
def test_a_proposal_with_its_port_free_outside(name: str) -> None:
    wire = wire_of(name)
    wire.router.kernel.networks = [IPv4Network(wire.flow_id.client.address)]
    assert wire.client(GOLDEN[name].data) == edited(name)
    (pinhole,) = wire.router.firewall.pinholes
    assert pinhole.inside == Endpoint(wire.flow_id.client.address, PROPOSALS[name])
    assert pinhole.outside == Endpoint(OUTSIDE, PROPOSALS[name])
    assert pinhole.flow == wire.flow_id
    (report,) = wire.router.watcher.reports
    assert (report.action, report.before, report.after) == ("rewritten", pinhole.inside, pinhole.outside)
    assert report.service == pinhole.service
    assert report.agreement in GOLDEN[name].data


@pytest.mark.parametrize("name", PROPOSALS)
def test_a_proposal_whose_port_another_host_holds(name: str) -> None:
    wire = wire_of(name, taken=(PROPOSALS[name],), ports=range(40001, 40002))
    wire.router.kernel.networks = [IPv4Network(wire.flow_id.client.address)]
    assert wire.client(GOLDEN[name].data) == edited(name, 40001)
    assert wire.router.firewall.pinholes[0].outside == Endpoint(OUTSIDE, 40001)


def test_two_hosts_announce_the_same_port() -> None:
    router = Router(policy=PinholePolicy(ports=range(40001, 40010)))
    alice = Wire(router).sign_on()
    amy = Wire(router, client=Endpoint("10.0.0.6", 40123)).sign_on()
    assert alice.client(PROPOSAL) == GOLDEN["send-file-proposal"].expected["same-port"]
    assert (
        amy.client(PROPOSAL.replace(OWN, packed("10.0.0.6")))
        == GOLDEN["send-file-proposal"].expected["port-40001"]
    )
    assert {p.outside.port: p.inside.address for p in router.pinholes} == {
        5190: "10.0.0.5",
        40001: "10.0.0.6",
    }


@pytest.mark.parametrize("name", UNTOUCHED)
def test_every_other_message_of_a_client_leaves_as_it_came(name: str) -> None:
    wire = wire_of(name)
    assert wire.client(GOLDEN[name].data) == GOLDEN[name].data
    assert not wire.router.firewall.changes


@pytest.mark.parametrize(
    "name", [n for n, g in GOLDEN.items() if g.protocol == "flap" and g.direction == "S>C"]
)
def test_every_message_of_a_server_leaves_as_it_came_without_a_pinhole(name: str) -> None:
    wire = wire_of()
    assert wire.server(GOLDEN[name].data, [1, 2, 4]) == GOLDEN[name].data
    assert not wire.router.firewall.changes


def test_a_relay_proposal_and_a_relay_request_say_why_they_are_left() -> None:
    wire = wire_of()
    wire.client(GOLDEN["relay-proposal"].data + GOLDEN["stage-3a-request"].data)
    assert [r.reason for r in wire.router.watcher.reports] == ["goes through a relay", "announces no port"]
    assert [r.stage for r in wire.router.watcher.reports] == [3, 2]


def test_a_proposal_in_a_snac_with_an_extra_block() -> None:
    snac = Snac.decode(PROPOSAL[6:])
    extra = snac_frame(snac.kind, snac.body, request=snac.request, extra=b"\0\6\0\1\0\2\0\4")
    for cut in range(1, len(extra)):
        assert wire_of().client(extra, [cut]) == extra.replace(OWN, OUT), cut


# --- what must be there before anything is edited --------------------------------------------------------


def unedited(wire: Wire) -> None:
    assert wire.client(PROPOSAL) == PROPOSAL
    assert not wire.router.firewall.changes


def test_without_a_handshake_nothing_is_read_and_the_flow_leaves_the_queue() -> None:
    wire = Wire()
    wire.client(GOLDEN["signon-with-cookie"].data)
    unedited(wire)
    assert set(wire.router.kernel.offloaded) == {wire.flow_id}


def test_without_sign_on_frames_the_flow_is_foreign() -> None:
    wire = Wire().handshake()
    unedited(wire)
    assert wire.router.kernel.offloaded == [wire.flow_id]
    assert wire.router.engine.counters.foreign_flows == 1


def test_a_first_byte_that_is_not_0x2a_is_enough() -> None:
    wire = Wire().handshake()
    wire.client(b"\x16")
    assert wire.router.kernel.offloaded == [wire.flow_id]
    wire.server(SIGNON + HOST_ONLINE)
    unedited(wire)


@pytest.mark.parametrize(
    "missing", ["the client's sign-on", "the server's sign-on", "host online", "the ICBM family"]
)
def test_nothing_is_edited_before_the_connection_is_known_to_carry_messages(missing: str) -> None:
    wire = Wire().handshake()
    online = HOST_ONLINE.replace(b"\0\4", b"\0\x99") if missing == "the ICBM family" else HOST_ONLINE
    if missing != "the server's sign-on":
        wire.server(SIGNON)
    if missing != "the client's sign-on":
        wire.client(GOLDEN["signon-with-cookie"].data)
    if missing != "host online":
        wire.server(online)
    if missing == "the client's sign-on":  # it comes, but too late
        wire.client(GOLDEN["signon-with-cookie"].data)
    unedited(wire)


def test_a_family_that_only_looks_like_icbm_across_two_entries_does_not_count() -> None:
    wire = Wire().handshake()
    wire.server(SIGNON)
    wire.client(GOLDEN["signon-with-cookie"].data)
    wire.server(resized(HOST_ONLINE[:16] + b"\1\0\4\0"))
    unedited(wire)


# --- proposals that are not for us to edit ----------------------------------------------------------------


@pytest.mark.parametrize(
    ("frame", "reason"),
    [
        (proposal(BASIC, cookie=b"COOKIE8\0"), "message and proposal have different cookies"),
        (proposal(BASIC + tlv(0x10, b"")), "goes through a relay"),
        (proposal(tlv(0x10, b"") + BASIC), "goes through a relay"),
        (proposal(addressed(2, 3, port=0)), "announces no port"),
        (proposal(tlv(2, OWN) + tlv(3, OWN)), "announces no port"),
        (proposal(addressed()), "announces no address"),
        (proposal(addressed(2, 3, address=bytes(4))), "announces no address"),
        (proposal(addressed(2, 3, address=packed("10.0.0.6"))), "not the sender's own address"),
        (proposal(addressed(2, 3, address=packed("127.0.1.1"))), "not the sender's own address"),
        (proposal(addressed(2, 3, address=packed("192.168.56.1"))), "not the sender's own address"),
        (proposal(BASIC + tlv(2, packed("10.0.0.7"))), "TLV 0x0002 stands there twice and differs"),
        (proposal(BASIC + tlv(5, b"\0\1")), "TLV 0x0005 stands there twice and differs"),
        (proposal(tlv(3, OWN + b"\0") + addressed(2)), "TLV 0x0003 has another length than 4"),
        (proposal(tlv(2, OWN) + tlv(5, b"\0\0\x14\x46")), "TLV 0x0005 has another length than 2"),
        (proposal(BASIC + tlv(0x17, b"\xeb")), "TLV 0x0017 has another length than 2"),
        (proposal(addressed(2, 3, port=1023)), "port 1023 is not one to open"),
        (proposal(addressed(2, 3, port=3389)), "port 3389 is not one to open"),
    ],
)
def test_a_proposal_that_is_left_alone_says_why(frame: bytes, reason: str) -> None:
    wire = wire_of()
    assert wire.client(frame) == frame
    assert [r.reason.partition(": it")[0] for r in wire.router.watcher.reports] == [reason]
    assert not wire.router.firewall.pinholes
    assert wire.router.engine.counters.helpers["left"] == 1


@pytest.mark.parametrize(
    "tlvs", [addressed(2, 3, address=OUT), tlv(3, OUT) + addressed(2), addressed(2, address=OUT)]
)
@pytest.mark.parametrize("taken", [False, True])
def test_the_outside_address_is_as_good_as_the_inside_one(tlvs: bytes, taken: bool) -> None:
    wire = wire_of()
    if taken:
        wire.router.firewall.taken = {Endpoint(OUTSIDE, 5190)}
    port = 40000 if taken else 5190
    expected = tlvs.replace(OWN, OUT).replace(tlv(5, (5190).to_bytes(2)), tlv(5, port.to_bytes(2)))
    assert wire.client(proposal(tlvs)) == proposal(expected)
    (pinhole,) = wire.router.firewall.pinholes
    assert (pinhole.inside, pinhole.outside.port) == (Endpoint("10.0.0.5", 5190), port)


def test_an_outside_endpoint_that_another_rule_forwards_already_is_left() -> None:
    wire = wire_of()
    wire.router.firewall.foreign = {Endpoint(OUTSIDE, 5190)}
    frame = proposal(addressed(2, 3, address=OUT))
    assert wire.client(frame) == frame
    assert "another rule forwards" in wire.router.watcher.reports[-1].reason


def test_what_a_client_announces_is_said() -> None:
    wire = wire_of()
    wire.client(proposal(addressed(2, 3, address=packed("127.0.1.1"))))
    reason = wire.router.watcher.reports[-1].reason
    assert "it announces 127.0.1.1 (loopback), and its connection comes from 10.0.0.5; remedy:" in reason


@pytest.mark.parametrize("whose", ["its own", "a neighbour's"])
def test_an_endpoint_is_mapped_back_for_everybody_but_who_announced_it(whose: str) -> None:
    wire = wire_of()
    wire.client(proposal(BASIC))
    reader = wire if whose == "its own" else beside(wire)
    came = proposal(addressed(2, 3, 4, address=OUT), subtype=7)
    assert (reader.server(came) == came) is (whose == "its own")


def test_a_repeated_tlv_that_agrees_is_edited_everywhere() -> None:
    frame = proposal(BASIC + addressed(2))
    assert wire_of().client(frame) == frame.replace(OWN, OUT)


def test_checks_that_were_wrong_stay_wrong_each_on_its_own() -> None:
    frame = proposal(BASIC + tlv(0x16, b"\1\2\3\4") + tlv(0x17, (5190 ^ 0xFFFF).to_bytes(2, "big")))
    out = wire_of(taken=(5190,), ports=range(40001, 40002)).client(frame)
    assert tlv(0x16, b"\1\2\3\4") in out
    assert tlv(0x17, (40001 ^ 0xFFFF).to_bytes(2, "big")) in out


def test_only_the_own_address_is_replaced_where_another_stands_beside_it() -> None:
    frame = proposal(tlv(2, packed("10.0.0.77")) + tlv(3, OWN) + tlv(5, b"\x14\x46"))
    assert wire_of().client(frame) == frame.replace(tlv(3, OWN), tlv(3, OUT))


def test_a_text_that_imitates_a_proposal_is_a_text() -> None:
    frame = proposal(BASIC)
    text = frame.replace(b"COOKIE7\0\0\2", b"COOKIE7\0\0\1", 1)
    assert wire_of().client(text) == text


@pytest.mark.parametrize(
    "frame",
    [
        proposal(BASIC + b"\0\2\0\xff\0"),
        proposal(BASIC, outer=b"\0\3\0\xff"),
        proposal(BASIC + b"\xff"),
        proposal(BASIC, outer=tlv(5, b"")),
        proposal(BASIC, outer=tlv(5, bytes(26))),
        proposal(BASIC + tlv(0x99, b"") * (MAX_TLVS + 1)),
        proposal(BASIC, outer=tlv(0x99, b"") * (MAX_TLVS + 1)),
        put(proposal(BASIC), (26, b"\xff")),
    ],
)
def test_a_contradictory_message_leaves_as_it_came_and_the_next_one_is_read(frame: bytes) -> None:
    wire = wire_of()
    assert wire.client(frame) == frame
    assert not wire.router.firewall.pinholes
    assert wire.client(PROPOSAL) == GOLDEN["send-file-proposal"].expected["same-port"]


def test_an_announcement_that_goes_back_to_the_sender_s_network_becomes_its_own_again() -> None:
    router = Router(policy=PinholePolicy(ports=range(40001, 40002)))
    router.firewall.taken = {Endpoint(OUTSIDE, 5190)}
    alice = Wire(router).sign_on()
    amy = Wire(router, client=Endpoint("10.0.0.6", 40123)).sign_on()
    out = alice.client(proposal(addressed(2, 3) + checks()))
    inner = out[out.index(b"COOKIE7\0", 30) + 24 :]
    relayed = proposal(inner + tlv(4, OUT), subtype=7)
    back = amy.server(relayed, [1, 2, 4, 6])
    assert back == proposal(addressed(2, 3) + checks() + tlv(4, OWN), subtype=7)
    assert router.engine.counters.helpers["mapped_back"] == 1
    report = router.watcher.reports[-1]
    assert (report.direction, report.action) == ("in", "mapped-back")
    assert (report.before, report.after) == (Endpoint(OUTSIDE, 40001), Endpoint(CLIENT.address, 5190))


def test_the_user_info_of_a_message_that_is_mapped_back_is_not_touched() -> None:
    router = Router()
    Wire(router).sign_on().client(PROPOSAL)
    amy = Wire(router, client=Endpoint("10.0.0.6", 40123)).sign_on()
    golden = GOLDEN["send-file-proposal-received"].data
    trap = put(golden, (41, OUT))  # the sign-on time in the user info happens to be the address
    for cut in range(1, len(trap)):
        out = amy.server(trap, [cut])
        assert out == trap[:286] + OWN + trap[290:328] + OWN, cut


@pytest.mark.parametrize(
    ("address", "port"), [("203.0.113.1", 5191), ("203.0.113.2", 5190), ("203.0.113.7", 1)]
)
def test_an_announcement_of_somebody_else_is_left(address: str, port: int) -> None:
    wire = wire_of()
    wire.client(PROPOSAL)
    frame = proposal(addressed(2, 3, 4, port=port, address=packed(address)), subtype=7)
    assert wire.server(frame) == frame


def test_an_address_in_the_servers_own_field_is_held_like_the_others() -> None:
    message = proposal(addressed(4, 2, 3))
    wire = wire_of()
    at = message.index(OWN)
    assert wire.client(message, range(at + 6, len(message), 6)) == message.replace(OWN, OUT)
    assert wire.router.engine.counters.failed_flows == 0
