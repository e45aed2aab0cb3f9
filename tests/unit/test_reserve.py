"""The daemon's side of mappings: how many are wanted, which answers are believed, and what is kept."""

from __future__ import annotations

import json
import logging
import selectors
import socket
import subprocess
from pathlib import Path
from typing import Any

import pytest

from nfreaim.config import Config
from nfreaim.core.address import Endpoint, FlowId
from nfreaim.core.firewall.pinhole import Origin
from nfreaim.core.firewall.policy import PinholePolicy
from nfreaim.core.helper import Expectation
from nfreaim.host.upstream.reserve import RESERVE, Upstream
from tests.unit.pinhole_table import ALICE, OFT, A, Table

BEHIND, OUTSIDE = "192.168.178.2", "8.8.4.1"


class Process:
    """In the place of the process that asks: its end of the socket."""

    def __init__(self, words: list[str], **options: Any) -> None:
        self.words = words
        (handle,) = options["pass_fds"]
        self.link = socket.socket(fileno=socket.dup(handle))
        self.link.settimeout(5)
        self.ended = self.killed = False
        self.waited: list[float] = []

    def heard(self) -> dict[str, Any]:
        found = json.loads(self.link.recv(65536))
        assert isinstance(found, dict)
        return found

    def say(self, **state: Any) -> None:
        usual: dict[str, Any] = {"number": 1, "told": [], "outside": {}, "speaks": {}, "trouble": {}}
        self.link.send(json.dumps(usual | state).encode())

    def poll(self) -> int | None:
        return 0 if self.ended else None

    def wait(self, timeout: float | None = None) -> int:
        self.waited += [timeout] if timeout else []
        if not self.ended and not self.killed:
            raise subprocess.TimeoutExpired(self.words, timeout or 0.0)
        self.link.close()
        return 0

    def kill(self) -> None:
        self.killed = True


class Here:
    """A table, the daemon's side, and the processes that it started."""

    def __init__(self, directory: Path, **policy: Any) -> None:
        self.table = Table(upstream="auto", **policy)
        self.config = Config(
            wan=("wan",), state_dir=directory, pinholes=PinholePolicy(upstream="auto", **policy)
        )
        self.processes: list[Process] = []
        self.selector = selectors.DefaultSelector()
        self.now = 100.0
        self.open: set[FlowId] = set()
        self.upstream = Upstream(self.config, self.table, self.open.__contains__, lambda: self.now)

    def started(self, words: list[str], **options: Any) -> Process:
        self.processes.append(Process(words, **options))
        return self.processes[-1]

    def begin(self) -> Here:
        self.upstream.begin()
        self.upstream.attach(self.selector)
        return self

    def read(self) -> None:
        for key, _ in self.selector.select(5):
            key.data()

    def sign_on(self) -> list[list[Any]]:
        """Somebody signs on: what is wanted then."""
        self.table.reserve(ALICE, BEHIND)
        self.upstream.look()
        wanted = self.processes[-1].heard()["wanted"]
        assert isinstance(wanted, list)
        return wanted

    def mapped(self, wanted: list[list[Any]], **more: Any) -> None:
        told = [[*own, OUTSIDE, own[1] + 1000] for own in wanted]
        self.processes[-1].say(**({"told": told, "speaks": {BEHIND: "PCP"}} | more))
        self.read()

    def offer(self) -> Endpoint | None:
        wanted = Expectation(A, "send-file", Endpoint("10.0.0.5", 5190), None, greetings=OFT)
        return self.table.open(ALICE, wanted, Origin("oscar", "10.0.0.5", BEHIND, mapped=True), 0.0).told


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Here:
    made = Here(tmp_path)

    def start(words: list[str], **options: Any) -> Process:
        return made.started(words, **options)  # a test may put another one there

    monkeypatch.setattr(subprocess, "Popen", start)
    return made


def test_nothing_is_wanted_while_nobody_is_signed_on(here: Here) -> None:
    here.begin()
    here.upstream.look()
    here.processes[0].link.settimeout(0.0)
    with pytest.raises(BlockingIOError):
        here.processes[0].heard()
    assert here.processes[0].words[-3:] == ["auto", here.processes[0].words[-2], "wan"]


def test_a_few_ports_are_wanted_from_sign_on_to_sign_off(here: Here) -> None:
    wanted = here.begin().sign_on()
    assert len(wanted) == RESERVE
    assert {address for address, _ in wanted} == {BEHIND}
    here.mapped(wanted)
    assert here.table.reach.in_front == {BEHIND: OUTSIDE}
    here.table.close_flow(ALICE, "signed off", 1.0)
    here.upstream.look()
    assert here.processes[0].heard()["wanted"] == []
    assert here.table.mappings.told == {}, "what is about to be given back is not taken"


def test_what_an_offer_takes_is_replaced_and_what_it_leaves_is_given_back(here: Here) -> None:
    wanted = here.begin().sign_on()
    here.mapped(wanted)
    assert here.offer() == Endpoint(OUTSIDE, wanted[0][1] + 1000)
    here.upstream.look()
    more = here.processes[0].heard()["wanted"]
    assert len(more) == RESERVE + 1
    assert more[0] == wanted[0]
    here.table.close(ALICE, A, "cancelled")
    here.upstream.look()
    after = here.processes[0].heard()["wanted"]
    assert len(after) == RESERVE
    assert wanted[0] not in after, "another host must not be reached by who was told of this one"


def test_a_mapping_stays_while_a_connection_through_it_is_open(here: Here) -> None:
    wanted = here.begin().sign_on()
    here.mapped(wanted)
    here.offer()
    here.table.claimed(Endpoint(*wanted[0]), "8.8.4.20", 1.0, 50000)
    here.open.add(FlowId(Endpoint("8.8.4.20", 50000), Endpoint("10.0.0.5", 5190)))
    here.table.close(ALICE, A, "done")
    here.upstream.look()
    assert wanted[0] in here.processes[0].heard()["wanted"]
    here.open.clear()
    here.upstream.look()
    assert wanted[0] not in here.processes[0].heard()["wanted"]


def test_an_answer_to_an_earlier_wish_does_not_count_for_a_later_one(here: Here) -> None:
    wanted = here.begin().sign_on()
    here.mapped(wanted, number=0)
    assert here.table.mappings.told == {}
    here.mapped(wanted, number=1)
    assert len(here.table.mappings.told) == RESERVE


@pytest.mark.parametrize(
    "told",
    [("10.0.0.1", 40000), ("100.64.0.1", 40000), ("8.8.4.1", 0), ("8.8.4.1", 70000), ("home.example", 40000)],
)
def test_what_peers_cannot_reach_is_not_believed(here: Here, told: tuple[str, int]) -> None:
    wanted = here.begin().sign_on()
    here.mapped(wanted, told=[[*wanted[0], *told]])
    assert here.table.mappings.told == {}
    here.mapped(wanted, told=[[BEHIND, 5190, OUTSIDE, 5190]])
    assert here.table.mappings.told == {}, "it was not asked for"
    here.mapped(wanted, told=[], outside={BEHIND: "192.168.0.1"})
    assert here.table.reach.in_front == {}


def test_a_pinhole_whose_mapping_is_lost_or_moved_is_closed(here: Here) -> None:
    wanted = here.begin().sign_on()
    here.mapped(wanted)
    here.offer()
    here.mapped(wanted, told=[[*wanted[0], OUTSIDE, 50000]])
    assert here.table.ends == ["the router in front no longer maps its port"]


@pytest.mark.parametrize("nonsense", [b"{", b"[]", b"{}", b'{"number": 1}', b'{"number": "x"}', b"\xff"])
def test_a_process_that_talks_nonsense_is_replaced(here: Here, nonsense: bytes) -> None:
    here.begin().sign_on()
    here.processes[0].link.send(nonsense)
    here.read()
    assert here.processes[0].killed
    here.upstream.look()
    assert len(here.processes) == 1, "not at once"
    here.now += 6.0
    here.upstream.look()
    assert len(here.processes[1].heard()["wanted"]) == RESERVE


def test_mappings_outlive_the_process(here: Here) -> None:
    wanted = here.begin().sign_on()
    here.mapped(wanted)
    here.processes[0].ended = True
    here.processes[0].link.close()
    here.read()
    assert here.offer() is not None
    here.now += 6.0
    here.upstream.look()
    left = here.processes[1].heard()["left"]
    assert [one[:2] for one in left] == wanted
    here.processes[1].say(number=0)
    here.read()
    assert len(here.table) == 1, "it has not heard of them yet"


def test_the_next_daemon_gives_back_what_this_one_could_not(here: Here, tmp_path: Path) -> None:
    wanted = here.begin().sign_on()
    here.mapped(wanted[:2])
    nonce = here.processes[0].words[-2]
    later = Here(tmp_path)
    here.started = later.started  # type: ignore[method-assign]
    later.begin()
    heard = later.processes[0].heard()
    assert later.processes[0].words[-2] == nonce
    assert heard["wanted"] == []
    told = [[*own, OUTSIDE, own[1] + 1000] for own in wanted[:2]]
    assert heard["left"] == told + [[*own, "", 0] for own in wanted[2:]]
    assert (tmp_path / "upstream").stat().st_mode & 0o777 == 0o600


def test_a_pinhole_of_the_earlier_daemon_keeps_its_mapping(here: Here, tmp_path: Path) -> None:
    here.mapped(here.begin().sign_on())
    told = here.offer()
    later = Here(tmp_path)
    here.started = later.started  # type: ignore[method-assign]
    later.table.firewall.pinholes = list(here.table.firewall.pinholes)
    later.table.adopt(lambda flow: True, 1.0)
    later.begin()
    (own,) = (one.outside for one in later.table)
    assert later.table.mappings.told == {own: told}
    assert later.processes[0].heard()["wanted"] == [list(own)]


@pytest.mark.parametrize("text", ["", "{", "[]", '{"nonce": 1}', '{"nonce": "00", "mappings": [1]}'])
def test_a_damaged_record_keeps_nobody_from_starting(here: Here, tmp_path: Path, text: str) -> None:
    (tmp_path / "upstream").write_text(text)
    assert len(here.begin().sign_on()) == RESERVE


def test_at_the_end_everything_is_given_back_and_no_record_stays(here: Here, tmp_path: Path) -> None:
    here.mapped(here.begin().sign_on())
    here.processes[0].ended = True
    here.upstream.close()
    assert not list(tmp_path.iterdir())


def test_a_process_that_does_not_end_is_killed_and_its_record_stays(here: Here, tmp_path: Path) -> None:
    here.mapped(here.begin().sign_on())
    here.upstream.close()
    assert here.processes[0].killed
    assert (tmp_path / "upstream").exists()


def test_a_router_that_never_answered_does_not_keep_the_end_waiting(here: Here, tmp_path: Path) -> None:
    here.begin().sign_on()
    here.mapped([], trouble={BEHIND: "it answers nothing"}, speaks={})
    here.upstream.close()
    assert here.processes[0].waited == [1.0]
    assert here.processes[0].killed
    assert not list(tmp_path.iterdir())


def test_trouble_is_said_once_and_again_when_it_comes_back(
    here: Here, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    wanted = here.begin().sign_on()
    trouble = {BEHIND: "it answers\n2026 INFO nothing"}
    for _ in range(3):
        here.mapped([], trouble=trouble, speaks={})
    assert [record.message.count("\n") for record in caplog.records] == [0]
    assert "maps no port: it answers?2026 INFO nothing; nothing is announced" in caplog.text
    here.mapped(wanted)
    assert "maps ports of 8.8.4.1 to 192.168.178.2 (PCP)" in caplog.text
    here.mapped([], trouble=trouble, speaks={})
    assert caplog.text.count("maps no port") == 2


def test_several_uplinks_have_a_reserve_each(here: Here) -> None:
    here.begin()
    here.table.reserve(FlowId(Endpoint("10.0.0.6", 1), Endpoint("8.8.4.9", 5190)), "192.168.1.2")
    wanted = here.sign_on()
    assert sorted(address for address, _ in wanted) == ["192.168.1.2"] * RESERVE + [BEHIND] * RESERVE
