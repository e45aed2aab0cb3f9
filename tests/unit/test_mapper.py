"""The process that has ports mapped: what it asks the router in front for, when, and what it tells."""

from __future__ import annotations

import json
import socket
import threading
from collections.abc import Callable, Iterator

from nfreaim.core.address import Endpoint
from nfreaim.host.upstream.gateway import Gateway, Mapped, NoMapping
from nfreaim.host.upstream.mapper import Mapper, serve

BEHIND, OUTSIDE = "192.168.178.2", "8.8.4.1"
ONE, TWO, THREE = (Endpoint(BEHIND, port) for port in (40000, 40001, 40002))


class Box:
    """A router in front, its own clock and ours; *mappings*: its port by ours."""

    protocol = "PCP"

    def __init__(self) -> None:
        self.now, self.forgot = 1000.0, False
        self.mappings: dict[int, int] = {}
        self.address, self.lifetime, self.trouble = OUTSIDE, 600.0, ""
        self.asked: list[str] = []
        self.hidden = [BEHIND]
        self.mapper = Mapper(self.ways, lambda: self.hidden, lambda: self.now)

    def ways(self, own: str) -> Iterator[Callable[[], Gateway]]:
        yield lambda: self

    def outside(self) -> str | None:
        self.asked.append("outside")
        self._fail()
        return self.address

    def map(self, port: int, suggested: int) -> Mapped:
        self.asked.append(f"map {port} {suggested}")
        self._fail()
        self.mappings[port] = suggested
        return Mapped(Endpoint(self.address, suggested), self.lifetime)

    def unmap(self, port: int, told: int) -> None:
        self.asked.append(f"unmap {port} {told}")
        self._fail()
        self.mappings.pop(port, None)

    def _fail(self) -> None:
        if self.trouble:
            raise NoMapping(self.trouble)

    def run(self, seconds: float = 0.0) -> None:
        """Let time pass, and make all requests that are due meanwhile."""
        until = self.now + seconds
        while True:
            while self.mapper.step():
                pass
            if (due := self.mapper.due()) > until:
                break
            self.now = max(self.now, due)
        self.now = until


def told(*endpoints: Endpoint) -> dict[Endpoint, Endpoint]:
    return {own: Endpoint(OUTSIDE, own.port) for own in endpoints}


def test_what_is_wanted_is_mapped_and_what_is_not_is_given_back() -> None:
    box = Box()
    box.mapper.want([ONE, TWO])
    box.run()
    assert box.mapper.told() == told(ONE, TWO)
    box.mapper.want([TWO, THREE])
    box.run()
    assert box.mapper.told() == told(TWO, THREE)
    assert sorted(box.mappings) == [40001, 40002]
    box.mapper.want([])
    box.run()
    assert not box.mappings


def test_a_mapping_is_renewed_in_time_and_under_its_port() -> None:
    box = Box()
    box.mapper.want([ONE])
    box.run(3600)
    maps = [text for text in box.asked if text.startswith("map")]
    assert 12 <= len(maps) <= 14
    assert set(maps) == {"map 40000 40000"}


def test_a_mapping_that_cannot_be_renewed_is_told_until_its_end() -> None:
    box = Box()
    box.mapper.want([ONE])
    box.run()
    box.trouble = "no resources"
    box.run(590)
    assert box.mapper.told() == told(ONE)
    box.run(20)
    assert box.mapper.told() == {}
    assert box.mapper.trouble() == {BEHIND: "no resources"}


def test_a_router_that_refuses_is_asked_ever_more_rarely() -> None:
    box = Box()
    box.hidden, box.trouble = [], "it answers nothing"
    box.mapper.want([ONE, TWO])
    box.run(3600)
    assert 10 <= len(box.asked) <= 20
    box.trouble = ""
    box.run(400)
    assert box.mapper.told() == told(ONE, TWO)
    assert box.mapper.trouble() == {}


def test_a_private_address_is_refused_and_given_back() -> None:
    box = Box()
    box.hidden, box.address = [], "100.64.0.7"
    box.mapper.want([ONE])
    box.run()
    assert box.mapper.told() == {}
    assert not box.mappings
    assert "its own outside address is 100.64.0.7 (carrier-grade NAT)" in box.mapper.trouble()[BEHIND]
    assert box.mapper.outside() == {}


def test_all_are_renewed_when_the_router_has_restarted() -> None:
    box = Box()
    box.mapper.want([ONE, TWO])
    box.run()
    box.mappings.clear()
    box.forgot = True
    box.mapper.want([ONE, TWO, THREE])
    box.mapper.step()
    box.forgot = False
    box.run()
    assert sorted(box.mappings) == [40000, 40001, 40002]


def test_what_an_earlier_daemon_left_goes_on_or_is_given_back() -> None:
    box = Box()
    box.mappings = {40000: 41000, 40001: 41001}
    box.mapper.left([(ONE, Endpoint(OUTSIDE, 41000)), (TWO, Endpoint(OUTSIDE, 41001)), (THREE, None)])
    box.mapper.want([ONE])
    assert box.mapper.told() == {ONE: Endpoint(OUTSIDE, 41000)}, "before anything was asked"
    box.run()
    assert box.mappings == {40000: 41000}
    assert "map 40000 41000" in box.asked
    assert "unmap 40002 40002" in box.asked, "its port there is not known, so it is the one asked for"


def test_the_outside_address_is_asked_for_while_nothing_is_mapped() -> None:
    box = Box()
    box.run(300)
    assert box.mapper.outside() == {BEHIND: OUTSIDE}
    assert set(box.asked) == {"outside"}
    assert len(box.asked) == 3
    box.trouble = "gone"
    box.run(120)
    assert box.mapper.outside() == {}
    assert box.mapper.trouble() == {BEHIND: "gone"}


def test_everything_is_given_back_at_the_end() -> None:
    box = Box()
    box.mapper.want([ONE, TWO])
    box.run()
    box.mapper.stop()
    assert not box.mappings


def test_a_router_that_has_gone_does_not_keep_the_end_waiting() -> None:
    box = Box()
    box.mapper.want([ONE, TWO, THREE])
    box.run()
    box.trouble = "silent"
    box.run(310)
    box.asked.clear()
    box.mapper.stop()
    assert box.asked == []


def conversation(box: Box, *messages: dict[str, object]) -> tuple[list[dict[str, object]], threading.Thread]:
    """What the process says to each message, and the thread that is the process."""
    box.mapper = Mapper(box.ways, lambda: box.hidden)
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    ours.settimeout(10)
    thread = threading.Thread(target=serve, args=(theirs, box.mapper))
    thread.start()
    said = []
    with ours:
        for message in messages:
            ours.send(json.dumps(message).encode())
            while "stop" not in message:
                state = json.loads(ours.recv(65536))
                wanted = message["wanted"]
                assert isinstance(wanted, list)
                if state["number"] == message["number"] and len(state["told"]) == len(wanted):
                    said.append(state)
                    break
    thread.join(10)
    theirs.close()
    return said, thread


def test_the_process_says_what_holds_and_ends_when_it_is_told_to() -> None:
    box = Box()
    box.hidden = []
    wanted = {"number": 1, "wanted": [list(ONE)], "left": [[*TWO, "", 0]]}
    said, thread = conversation(box, wanted, {"stop": True})
    expected = {"number": 1, "told": [[*ONE, OUTSIDE, 40000]], "outside": {}}
    assert said == [expected | {"speaks": {BEHIND: "PCP"}, "trouble": {}}]
    assert not thread.is_alive()
    assert not box.mappings


def test_the_process_leaves_all_to_the_next_daemon_when_this_one_has_gone() -> None:
    box = Box()
    said, thread = conversation(box, {"number": 7, "wanted": [list(ONE), list(TWO)], "left": []})
    assert not thread.is_alive()
    assert len(said) == 1
    assert sorted(box.mappings) == [40000, 40001]
