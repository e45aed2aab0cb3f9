"""Readers in processes of their own: what they ask of the main process, and do without an answer."""

from __future__ import annotations

import math
import mmap
import os
import select
import socket
import threading
import time
from collections.abc import Iterator

import pytest

pytest.importorskip("netfilterqueue")
pytest.importorskip("iptc")

from nfreaim.core.address import Endpoint, FlowId
from nfreaim.core.backend import Followed
from nfreaim.core.counters import EngineStats
from nfreaim.core.firewall.pinhole import Origin, Pinhole
from nfreaim.core.firewall.policy import PinholePolicy
from nfreaim.core.followed import FollowedServers
from nfreaim.core.greeting import Field, match
from nfreaim.core.helper import Expectation, Refused
from nfreaim.core.queue_sets import QueueSets
from nfreaim.core.settings import EngineSettings
from nfreaim.errors import BackendError
from nfreaim.host.loop import clock
from nfreaim.host.workers import rpc as links
from nfreaim.host.workers.reaper import PinholeReaper
from nfreaim.host.workers.remote import RemoteFollowed, RemoteHomeServers, RemotePinholes, RemoteQueueControl
from nfreaim.host.workers.rpc import Gone, RpcClient, receive, reply, socket_pair
from nfreaim.host.workers.shared_page import SharedPage, Slot
from nfreaim.host.workers.supervisor import PublishingJournal, RequestHandlers
from tests.unit.fake_firewall import FakeFirewall
from tests.unit.fakes import OUTSIDE, FakeKernel, guarded_table
from tests.unit.oscar_fixtures import AnyNumbers, spec_of

SERVER = Endpoint("203.0.113.9", 5190)
BOS = Endpoint("203.0.113.10", 5191)
ALICE = FlowId(Endpoint("10.0.0.5", 40123), SERVER)
AMY = FlowId(Endpoint("10.0.0.6", 40124), SERVER)
A, B, C = b"COOKIE-A", b"COOKIE-B", b"COOKIE-C"


class Reader:
    """What one reader has: a link, a read-only view of the page, and pinholes that are another process's."""

    def __init__(self, main: Table) -> None:
        ours, theirs = socket_pair()
        self.end = theirs
        self.link = RpcClient(theirs)
        self.page = SharedPage(os.dup(main.page.view))
        self.pinholes = RemotePinholes(main.policy, self.link, self.page)
        self.followed = RemoteFollowed(self.link, self.page)
        self.thread = threading.Thread(target=main.serve, args=(ours,), daemon=True)
        self.thread.start()
        main.readers.append(self)

    def ask(self, flow: FlowId, agreement: bytes = A, port: int = 5190, now: float = 0.0) -> Pinhole:
        inside = Endpoint(flow.client.address, port)
        greetings = ((Field(0, frozenset({b"OFT2"})),),)
        expectation = Expectation(agreement, "send-file", inside, None, False, greetings)
        return self.pinholes.open(flow, expectation, Origin("oscar", flow.client.address, OUTSIDE), now)


class Table:
    """A real table behind real links; each link is served by a thread, one request at a time."""

    def __init__(self, **policy: object) -> None:
        self.policy = PinholePolicy(**policy)  # type: ignore[arg-type]
        self.page = SharedPage.make()
        self.firewall = FakeFirewall()
        self.table = guarded_table(self.policy, self.firewall, PublishingJournal(self.page))
        self.kernel = FakeKernel()
        self.followed = FollowedServers(self.kernel)
        self.handlers = RequestHandlers(self.table, self.followed, self.kernel, self.page)
        self.turn = threading.Lock()
        self.asked: list[str] = []
        self.readers: list[Reader] = []

    def serve(self, end: socket.socket) -> None:
        buffer = bytearray(1 << 20)
        with end:
            while True:
                try:
                    number, name, arguments = receive(end, buffer)
                except Gone:
                    return
                with self.turn:
                    self.asked.append(name)
                    outcome = self.handlers.handle(name, arguments)
                if number:
                    reply(end, number, *outcome)


def settled(reader: Reader) -> None:
    """What was said without waiting for an answer has been heard: an answer comes behind it."""
    reader.link.request("flows")


@pytest.fixture
def main() -> Iterator[Table]:
    made = Table(per_host=2, total=3, rate_per_host=100, rate_total=4)
    yield made
    for reader in made.readers:
        reader.link.close()
        reader.thread.join(10)
        reader.page.close()


def test_the_address_that_a_name_stands_for_is_the_same_in_all_processes() -> None:
    main = Table(announce="home.example")
    reader = Reader(main)
    try:
        assert reader.pinholes.reach.address is None
        for address in ("198.51.100.7", "198.51.100.8"):
            main.table.reach.address = address
            main.handlers.publish()
            assert reader.pinholes.reach.told("192.168.178.2") == address
    finally:
        reader.link.close()
        reader.thread.join(10)
        reader.page.close()
        main.page.close()


def test_a_pinhole_of_one_reader_is_known_to_the_other_and_closed_by_who_opened_it(main: Table) -> None:
    one, two = Reader(main), Reader(main)
    assert not two.pinholes
    assert not two.pinholes.leads_to(Endpoint("10.0.0.5", 5190))
    assert main.asked == [], "nothing is open: nothing has to be asked"
    opened = one.ask(ALICE)
    assert opened.outside == Endpoint(OUTSIDE, 5190)
    assert len(two.pinholes) == 1
    assert two.pinholes.inside_of(opened.outside) == Endpoint("10.0.0.5", 5190)
    assert two.pinholes.inside_of(Endpoint(OUTSIDE, 5191)) is None
    assert two.pinholes.leads_to(Endpoint("10.0.0.5", 5190))
    assert not two.pinholes.leads_to(Endpoint("10.0.0.6", 5190))
    assert two.pinholes.flows() == {ALICE}
    assert two.pinholes.tended() == set(), "the main process looks after them"
    assert main.table.expected(Endpoint("10.0.0.5", 5190)), "the gate has to know what is said first"
    one.pinholes.close_flow(ALICE, "control connection closed")
    settled(one)
    assert not two.pinholes
    assert not two.pinholes.leads_to(Endpoint("10.0.0.5", 5190))
    assert main.firewall.pinholes == []


def test_what_was_left_alone_in_one_reader_is_let_in_where_another_opened_a_pinhole(main: Table) -> None:
    one, two = Reader(main), Reader(main)
    door = Endpoint("10.0.0.5", 5190)
    left = Expectation(B, "direct-im", door, greetings=((Field(0, frozenset({b"ODC2"})),),))
    one.pinholes.offered(ALICE, left, 0.0)
    settled(one)
    again = FlowId(Endpoint("10.0.0.5", 40125), SERVER)
    opened = two.ask(again)
    assert two.pinholes.inside_of(opened.outside, again) is None
    assert match(b"ODC2", main.table.expected(door))
    one.pinholes.close_flow(ALICE, "control connection closed")
    settled(one)
    assert match(b"ODC2", main.table.expected(door)) is False


def test_new_connections_ask_the_main_process_only_when_something_was_opened_or_closed(main: Table) -> None:
    one, two = Reader(main), Reader(main)
    one.ask(ALICE)
    for _ in range(100):
        two.pinholes.leads_to(Endpoint("10.0.0.5", 5190))
    assert main.asked.count("insides") == 1
    one.ask(AMY, B)
    assert two.pinholes.leads_to(Endpoint("10.0.0.6", 5190))
    assert main.asked.count("insides") == 2


def test_caps_and_rates_hold_for_all_readers_together(main: Table) -> None:
    one, two = Reader(main), Reader(main)
    one.ask(ALICE, A, 5190)
    two.ask(ALICE, B, 5191)
    for reader in (one, two):
        with pytest.raises(Refused, match=r"2 pinholes to one host \(per_host\)"):
            reader.ask(ALICE, C, 5192)
    one.ask(AMY, A, 5190)
    with pytest.raises(Refused, match=r"3 pinholes in all \(total\)"):
        two.ask(AMY, B, 5191)
    one.pinholes.close(ALICE, A, "cancelled")
    settled(one)
    two.ask(AMY, B, 5191)
    two.pinholes.close(AMY, B, "cancelled")
    settled(two)
    with pytest.raises(Refused, match=r"4 pinholes a minute in all \(rate_total\)"):
        one.ask(AMY, C, 5192)


def test_the_first_cookie_of_every_client_is_the_same_and_does_not_mix_up_two_readers(main: Table) -> None:
    one, two = Reader(main), Reader(main)
    first, second = one.ask(ALICE, A), two.ask(AMY, A)
    assert (first.outside.port, second.outside.port) == (5190, 40000)
    one.pinholes.close(ALICE, A, "cancelled")
    settled(one)
    assert two.pinholes.inside_of(second.outside) == second.inside
    assert two.pinholes.inside_of(first.outside) is None


def test_sessions_and_deadlines_are_those_of_the_main_process(main: Table) -> None:
    one, two = Reader(main), Reader(main)
    expectation = Expectation(A, "icq-direct", Endpoint("10.0.0.5", 5190), standing=True)
    opened = one.pinholes.open(ALICE, expectation, Origin("oscar", "10.0.0.5", OUTSIDE), 0.0)
    assert math.isinf(opened.deadline)
    assert two.pinholes.has_standing()
    one.ask(AMY, B)
    one.pinholes.accepted(AMY, B, 0.0)
    settled(one)
    assert [each.deadline for each in main.table if each.agreement == B] == [main.policy.accept_grace]
    one.pinholes.close_all("a reader ends")
    settled(one)
    assert len(two.pinholes) == 2, "they outlive their reader"


def test_a_main_process_that_does_not_answer_costs_a_proposal_and_its_late_answer_is_nobodys(
    main: Table, monkeypatch: pytest.MonkeyPatch
) -> None:
    reader = Reader(main)
    monkeypatch.setattr(links.RpcClient.request, "__kwdefaults__", {"patience": 0.05})
    with main.turn, pytest.raises(Refused, match="does not answer"):
        reader.ask(ALICE)
    monkeypatch.setattr(links.RpcClient.request, "__kwdefaults__", {"patience": 10.0})
    assert select.select([reader.link], [], [], 10.0)[0]
    # The late answer is a pinhole that nobody was told of: it is closed, and answers nothing else.
    assert reader.link.request("flows") == frozenset()
    assert not main.table
    assert main.asked == ["open", "close", "flows"]
    assert reader.ask(ALICE).outside.port == 5190


def test_a_main_process_that_is_stuck_is_waited_for_once_and_not_for_every_proposal(main: Table) -> None:
    reader = Reader(main)
    with main.turn:
        with pytest.raises(BackendError, match="does not answer"):
            reader.link.request("flows", patience=0.05)
        for _ in range(100):  # at ten seconds each this would never end
            with pytest.raises(BackendError, match="does not answer"):
                reader.link.request("flows", patience=10.0)
    assert select.select([reader.link], [], [], 10.0)[0]
    assert not reader.link.gone(), "its late answers are read by the loop"
    assert reader.link.request("flows", patience=10.0) == frozenset()


def test_without_a_main_process_everything_is_refused_at_once_and_the_reader_is_told(main: Table) -> None:
    reader = Reader(main)
    reader.ask(ALICE)
    assert not reader.link.gone()
    reader.end.shutdown(socket.SHUT_RDWR)
    reader.thread.join(10)
    assert reader.link.gone()
    with pytest.raises(Refused):
        reader.ask(ALICE, B)
    assert reader.pinholes.inside_of(Endpoint(OUTSIDE, 5190)) is None
    assert reader.pinholes.flows() == set()
    reader.pinholes.close_flow(ALICE, "closed")  # raises nothing


def test_a_refusal_by_the_firewall_is_one_for_the_reader_and_a_mistake_is_too(main: Table) -> None:
    reader = Reader(main)
    main.firewall.refuse_add = True
    with pytest.raises(Refused, match="the firewall refused"):
        reader.ask(ALICE)
    with pytest.raises(BackendError, match="nonsense failed: KeyError"):
        reader.link.request("nonsense")


@pytest.mark.parametrize("when", ["in time", "before the next question"])
def test_closings_that_find_no_room_are_said_later_and_in_order(when: str, main: Table) -> None:
    reader = Reader(main)
    reader.ask(ALICE)
    with main.turn:  # the main process is busy: its buffer fills up
        for number in range(20_000):
            reader.link.notify("close", ALICE, b"other", "x" * 1000 + str(number))
            if reader.link._backlog:
                break
        assert reader.link._backlog, "the buffer of the socket has no end"
        reader.pinholes.close_flow(ALICE, "closed")
    deadline = time.monotonic() + 10
    while when == "in time" and main.table and time.monotonic() < deadline:
        reader.pinholes.expire(0.0)
    assert when != "in time" or not main.table
    reader.ask(AMY, B)
    assert [pinhole.agreement for pinhole in main.table] == [B]
    assert main.asked[-2:] == ["close_flow", "open"]


def test_a_server_that_one_reader_follows_is_followed_by_the_others_before_its_first_packet(
    main: Table,
) -> None:
    one, two = Reader(main), Reader(main)
    helpers = {5190: spec_of(AnyNumbers)}
    sets = [
        QueueSets(helpers, RemoteQueueControl(FakeKernel()), 100, reader.followed) for reader in (one, two)
    ]
    to_bos = bytes([10, 0, 0, 6, 203, 0, 113, 10]) + (40125).to_bytes(2) + (5191).to_bytes(2)
    assert sets[1].protocol_of(to_bos) is None
    assert main.asked == []
    one.followed.follow(Followed(BOS, "10.0.0.6", "oscar"), 0.0)
    for each in sets:
        found = each.protocol_of(to_bos)
        assert found is not None
        assert found.make is AnyNumbers
    for _ in range(10):
        sets[1].protocol_of(to_bos[:10] + b"\x01\xbb")
    assert main.asked.count("followed") == 2, "asked for once each"
    others = bytes([10, 0, 0, 7]) + to_bos[4:]
    assert sets[1].protocol_of(others) is None, "another client was not redirected there"


def test_the_main_process_says_who_may_speak_for_a_host(main: Table) -> None:
    home = RemoteHomeServers(Reader(main).link)
    main.kernel.distrusted = {"10.0.0.6": "who is that?"}
    home.met(ALICE)
    reached = Endpoint(OUTSIDE, 5190)
    assert home.why_not(ALICE, reached, "10.0.0.5") is None
    assert home.why_not(ALICE, reached, "10.0.0.6") == "who is that?"
    assert main.kernel.met_flows == [ALICE]
    main.kernel.broken = True
    with pytest.raises(BackendError, match="netlink is gone"):
        home.why_not(ALICE, reached, "10.0.0.5")


def test_figures_of_a_full_table_of_edited_connections_fit_into_one_message(main: Table) -> None:
    edited = tuple(FlowId(Endpoint(f"203.0.{n >> 8}.{n & 255}", 1024 + n), BOS) for n in range(16384))
    ours, theirs = socket_pair()
    with ours, theirs:
        RpcClient(theirs).notify("stats", EngineStats(16384, edited, {}), keep=False)
        ours.settimeout(10.0)
        _, name, (stats,) = receive(ours, bytearray(links.LARGEST_MESSAGE))
    assert name == "stats"
    assert stats.edited == edited


def test_page_is_written_by_the_main_process_only(main: Table) -> None:
    view = SharedPage(os.dup(main.page.view))
    main.page[Slot.PINHOLES] = 1 << 40
    assert view[Slot.PINHOLES] == 1 << 40
    with pytest.raises(TypeError):
        view[Slot.PINHOLES] = 0
    view.close()
    with pytest.raises(PermissionError):
        mmap.mmap(main.page.view, mmap.PAGESIZE)


def test_the_main_process_ends_what_belongs_to_connections_that_ended_without_a_word(main: Table) -> None:
    kernel = FakeKernel()
    reader = Reader(main)
    reader.ask(ALICE, A, now=clock())
    reader.ask(AMY, B, now=clock())
    reaper = PinholeReaper(main.table, kernel, EngineSettings(poll=0.0, grace=10.0))
    reaper.tick()
    assert len(main.table) == 2
    kernel.dead.add(AMY)
    reaper.tick()
    assert main.table.flows() == {ALICE}
    reader.pinholes.accepted(ALICE, A, clock() - main.policy.accept_grace)
    settled(reader)
    reaper.tick()
    assert not main.table, "nor what is past its deadline"
