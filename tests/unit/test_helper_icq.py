"""ICQ's published endpoints, on golden packets: what is opened, what comes back, what is left alone."""

from __future__ import annotations

import pytest

from nfreaim.core.address import Endpoint
from tests.golden import load, packets
from tests.oscar.icq import ARRIVAL, STATUS, direct, set_status, user
from tests.oscar.messages import OUT, OWN
from tests.oscar.snac import BUDDY_ARRIVED, SELF_INFO, SET_STATUS, TO_CLIENT, USER_INFO, snac_frame
from tests.oscar.tlv import tlv
from tests.oscar.values import put
from tests.tcp.packets import packed
from tests.unit.fakes import OUTSIDE
from tests.unit.oscar_wires import beside, ends, moved_wire, reasons, wire_of

GOLDEN = packets()
PUBLISHED = load()["icq-status"].expected["same-port"]


def publishing(*infos: bytes) -> bytes:
    return snac_frame(SET_STATUS, set_status(*infos))


# --- publishing -------------------------------------------------------------------------------------------


def test_a_published_endpoint_wherever_its_message_is_cut() -> None:
    for cut in range(1, len(STATUS)):
        wire = wire_of()
        assert wire.client(STATUS, [cut]) == PUBLISHED, cut
        (pinhole,) = wire.router.firewall.pinholes
        assert (pinhole.inside, pinhole.outside) == (Endpoint("10.0.0.5", 4001), Endpoint(OUTSIDE, 4001))
        assert pinhole.standing
        assert pinhole.service == "icq-direct"


def test_only_what_could_be_edited_waits_for_the_rest() -> None:
    wire = wire_of()
    assert wire.client(STATUS[:34]) == STATUS[:34]
    assert wire.client(STATUS[34:60]) == b""
    wire.client(STATUS[60:])
    assert wire.c2s.endswith(PUBLISHED)
    amy = beside(wire)
    assert amy.server(ARRIVAL[:37]) == ARRIVAL[:37]
    assert amy.server(ARRIVAL[37:41]) == b""
    amy.server(ARRIVAL[41:])
    assert amy.s2c.endswith(put(ARRIVAL, (37, OWN), (78, OWN)))


def test_a_published_port_that_another_host_holds_outside() -> None:
    wire = moved_wire()
    assert wire.client(STATUS, range(1, len(STATUS))) == put(PUBLISHED, (38, (40001).to_bytes(4, "big")))
    (report,) = wire.router.watcher.reports
    assert (report.service, report.action, report.agreement) == ("icq-direct", "rewritten", b"")
    assert report.after == Endpoint(OUTSIDE, 40001)


@pytest.mark.parametrize("name", ["icq-status-climm", "icq-status-icq2000"])
def test_a_published_address_that_is_not_the_client_s_own_is_left(name: str) -> None:
    wire = wire_of()
    assert wire.client(GOLDEN[name]) == GOLDEN[name]
    assert [reason.partition(":")[0] for reason in reasons(wire)] == ["not the sender's own address"]
    assert not wire.router.firewall.changes


@pytest.mark.parametrize("port", [4001, 40000], ids=["the same port", "another port"])
def test_a_published_outside_address_is_as_good_as_the_inside_one(port: int) -> None:
    wire = wire_of()
    if port != 4001:
        wire.router.firewall.taken = {Endpoint(OUTSIDE, 4001)}
    assert wire.client(publishing(direct(OUT))) == publishing(direct(OUT, port=port))
    assert reasons(wire) == ["own outside address"]
    (pinhole,) = wire.router.firewall.pinholes
    assert (pinhole.inside, pinhole.outside.port) == (Endpoint("10.0.0.5", 4001), port)


@pytest.mark.parametrize(
    "frame",
    [
        GOLDEN["icq-status-hidden"],
        publishing(direct(OWN, port=0)),
        publishing(direct(bytes(4))),
        publishing(direct(OWN, kind=0)),
        publishing(direct(OWN, kind=6)),
    ],
)
def test_a_hidden_client_is_left_and_loses_what_it_had_published(frame: bytes) -> None:
    wire = wire_of()
    assert wire.client(frame) == frame
    assert not wire.router.watcher.reports
    assert not wire.router.firewall.changes
    wire.client(STATUS)
    assert wire.client(frame) == frame
    assert not wire.router.firewall.pinholes
    assert ends(wire) == ["no longer published"]


@pytest.mark.parametrize(
    "frame",
    [
        publishing(),
        snac_frame(SET_STATUS, tlv(0xC, direct(OWN)[:36])),
        snac_frame(SET_STATUS, tlv(0xC, direct(OWN) + b"\0")),
        snac_frame(SET_STATUS, tlv(0xC, b"")),
        snac_frame(SET_STATUS, tlv(0xC, direct(OWN)) + b"\0\6\0\4\0"),
        snac_frame(SET_STATUS, tlv(0xC, direct(OWN)) + b"\0"),
        snac_frame(SET_STATUS, b""),
        publishing(direct(OWN), direct(OWN, port=4002)),
    ],
)
def test_a_status_without_a_sound_block_changes_nothing(frame: bytes) -> None:
    wire = wire_of()
    wire.client(STATUS)
    assert wire.client(frame) == frame
    assert [pinhole.inside.port for pinhole in wire.router.firewall.pinholes] == [4001]


def test_a_block_that_stands_there_twice_is_edited_twice() -> None:
    frame = publishing(direct(OWN), direct(OWN))
    assert wire_of().client(frame) == frame.replace(OWN, OUT)


def test_a_repeated_status_keeps_the_pinhole_and_a_changed_port_moves_it() -> None:
    wire = wire_of()
    wire.client(STATUS)
    commits = wire.router.firewall.changes
    assert wire.client(STATUS) == PUBLISHED
    assert wire.router.firewall.changes == commits
    assert wire.client(publishing(direct(OWN, port=4002))) == publishing(direct(OUT, 4002))
    assert [pinhole.inside.port for pinhole in wire.router.firewall.pinholes] == [4002]
    assert ends(wire) == ["replaced by a new proposal"]


def test_another_address_than_its_own_withdraws_what_was_published() -> None:
    wire = wire_of()
    wire.client(STATUS)
    elsewhere = publishing(direct(packed("198.51.100.7")))
    assert wire.client(elsewhere) == elsewhere
    assert ends(wire) == ["another endpoint was published"]


@pytest.mark.parametrize("port", [80, 1023, 3389, 65536, 2**32 - 1])
def test_ports_that_are_not_to_be_opened_or_are_none(port: int) -> None:
    wire = wire_of()
    frame = publishing(direct(OWN, port=port))
    assert wire.client(frame) == frame
    assert reasons(wire) == [f"port {port} is not one to open"]


def test_a_block_whose_beginning_left_before_its_end_came_is_left() -> None:
    wire = wire_of()
    wire.client(STATUS[:40])
    wire.router.wait(1.0)
    wire.client(STATUS[40:])
    assert wire.c2s.endswith(STATUS)
    assert reasons(wire) == ["its address had left before its end came"]
    assert not wire.router.firewall.changes


@pytest.mark.parametrize(
    ("way", "how"), [(0, "signoff"), (1, "signoff"), (0, "fin"), (1, "fin"), (0, "lost")]
)
def test_the_end_of_the_connection_closes_it(way: int, how: str) -> None:
    wire = wire_of()
    wire.client(STATUS)
    if how == "signoff":
        wire.send(way, GOLDEN["signoff"])
    elif how == "fin":
        wire.fin(way)
    else:
        wire.router.kernel.dead.add(wire.flow_id)
        wire.router.wait(3.0)
    assert not wire.router.firewall.pinholes


def test_hours_later_it_is_still_open() -> None:
    wire = wire_of()
    wire.client(STATUS)
    for _ in range(30):
        wire.client(GOLDEN["keepalive"])
        wire.router.wait(3600.0)
    assert len(wire.router.firewall.pinholes) == 1


@pytest.mark.parametrize(
    ("only_for", "reason"),
    [
        ({"icq-direct": frozenset()}, "service icq-direct is switched off in the configuration"),
        (
            {"icq-direct": frozenset({"10.0.0.6"})},
            "service icq-direct is not switched on for 10.0.0.5 in the configuration",
        ),
    ],
)
def test_switched_off(only_for: dict[str, frozenset[str]], reason: str) -> None:
    wire = wire_of(only_for=only_for)
    assert wire.client(STATUS) == STATUS
    assert reasons(wire) == [reason]


# --- what comes back --------------------------------------------------------------------------------------


def test_a_contact_of_the_own_network_is_shown_where_it_is() -> None:
    for cut in range(1, len(ARRIVAL)):
        wire = wire_of()
        wire.client(STATUS)
        assert beside(wire).server(ARRIVAL, [cut]) == put(ARRIVAL, (37, OWN), (78, OWN)), cut
        assert wire.router.watcher.reports[-1].action == "mapped-back"


def test_a_contact_whose_port_had_to_change() -> None:
    wire = moved_wire()
    wire.client(STATUS)
    came = put(ARRIVAL, (41, (40001).to_bytes(4, "big")))
    assert beside(wire).server(came, range(1, len(came))) == put(ARRIVAL, (37, OWN), (78, OWN))


def test_the_external_address_before_the_block() -> None:
    wire = wire_of()
    wire.client(STATUS)
    frame = snac_frame(BUDDY_ARRIVED, user(tlv(0xA, OUT), tlv(0xC, direct(OUT)), tlv(3, OUT), tlv(5, OUT)))
    back = snac_frame(BUDDY_ARRIVED, user(tlv(0xA, OWN), tlv(0xC, direct(OWN)), tlv(3, OUT), tlv(5, OUT)))
    for cut in range(1, len(frame)):
        assert beside(wire).server(frame, [cut]) == back, cut


def test_several_contacts_in_one_message_each_for_itself() -> None:
    wire = wire_of()
    wire.client(STATUS)
    bob = user(tlv(0xC, direct(packed("203.0.113.20"))), tlv(0xA, packed("203.0.113.20")), name=b"100004")
    stranger = user(tlv(0xC, direct(OUT, 4009)), tlv(0xA, OUT), name=b"100005")
    came = snac_frame(BUDDY_ARRIVED, bob + user(tlv(0xC, direct(OUT)), tlv(0xA, OUT)) + stranger)
    back = snac_frame(BUDDY_ARRIVED, bob + user(tlv(0xC, direct(OWN)), tlv(0xA, OWN)) + stranger)
    assert beside(wire).server(came) == back


def test_located_user_and_the_tlvs_behind_its_info() -> None:
    wire = wire_of()
    wire.client(STATUS)
    behind = tlv(0xC, direct(OUT)) + tlv(1, b"text/plain")
    came = snac_frame(USER_INFO, user(tlv(0xC, direct(OUT))) + behind)
    assert beside(wire).server(came) == snac_frame(USER_INFO, user(tlv(0xC, direct(OWN))) + behind)


def test_a_client_is_not_told_its_own_inside_endpoint() -> None:
    """It tells its peers what it is told: its external address, and where it is published."""
    wire = wire_of()
    wire.client(STATUS)
    came = snac_frame(SELF_INFO, user(tlv(0xC, direct(OUT)), tlv(0xA, OUT)))
    assert wire.server(came) == came
    assert beside(wire).server(came) != came


@pytest.mark.parametrize("channel", [1, 4])
def test_the_sender_of_a_message_of_any_channel(channel: int) -> None:
    wire = wire_of()
    wire.client(STATUS)

    def message(address: bytes) -> bytes:
        whom = user(tlv(3, OUT), tlv(0xC, direct(address)), tlv(0xA, address))
        return snac_frame(TO_CLIENT, b"COOKIE7\0" + channel.to_bytes(2, "big") + whom + tlv(2, direct(OUT)))

    frame = message(OUT)
    for cut in range(1, len(frame)):
        assert beside(wire).server(frame, [cut]) == message(OWN), cut


@pytest.mark.parametrize(
    "frame",
    [
        snac_frame(BUDDY_ARRIVED, user(tlv(0xC, direct(OUT)[:36]))),
        snac_frame(BUDDY_ARRIVED, user(tlv(0xC, direct(OUT)))[:-1]),
        snac_frame(BUDDY_ARRIVED, user(tlv(0xC, direct(OUT))) + b"\6abc"),
        snac_frame(BUDDY_ARRIVED, user(tlv(0xC, direct(OUT, 4002)), tlv(0xA, OUT))),
        snac_frame(BUDDY_ARRIVED, user(tlv(0xC, direct(packed("203.0.113.2"))))),
        snac_frame(BUDDY_ARRIVED, user(tlv(0xA, OUT))),
        snac_frame(BUDDY_ARRIVED, b""),
        GOLDEN["self-info"],
    ],
)
def test_user_info_that_names_nothing_of_ours_or_is_unsound(frame: bytes) -> None:
    wire = wire_of()
    wire.client(STATUS)
    amy = beside(wire)
    assert amy.server(frame) == frame
    assert amy.server(ARRIVAL) == put(ARRIVAL, (37, OWN), (78, OWN))


def test_user_info_is_not_even_kept_while_nobody_has_published() -> None:
    wire = wire_of()
    assert wire.server(ARRIVAL[:60]) == ARRIVAL[:60]
    assert not wire.stored.reading.helper._readers[1].kept  # type: ignore[attr-defined]
