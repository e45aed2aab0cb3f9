"""What others can make the log say: ten lines of a kind and source a minute, then a sum of the rest."""

from __future__ import annotations

import io
import logging
import random
import re
from collections.abc import Iterator

import pytest

from nfreaim.core.address import Endpoint, FlowId
from nfreaim.core.firewall.pinhole import Pinhole
from nfreaim.core.helper import Report
from nfreaim.host.report.journal import Journal
from nfreaim.host.report.log_limit import LogLimit, tick_all
from nfreaim.host.report.log_output import QuietFormatter

SERVER = Endpoint("203.0.113.9", 7777)
MORE = re.compile(r"(\d+) more lines in the last minute(?: for (\S+|\d+ other hosts))? like: (.*)")


class Log:
    """The log of a process, with its limit, at a time that the test sets."""

    def __init__(self) -> None:
        self.now = 1000.0
        self.text = io.StringIO()
        self.limit = LogLimit(lambda: self.now)
        self.handler = logging.StreamHandler(self.text)
        self.handler.setFormatter(QuietFormatter("%(levelname)s %(message)s"))
        self.handler.addFilter(self.limit)

    def lines(self) -> list[str]:
        """What was written since the last call."""
        said = self.text.getvalue().splitlines()
        self.text.seek(0)
        self.text.truncate()
        return said

    def wait(self, seconds: float) -> None:
        self.now += seconds
        tick_all()


@pytest.fixture
def log() -> Iterator[Log]:
    made, root = Log(), logging.getLogger()
    level = logging.getLogger("nfreaim").level
    logging.getLogger("nfreaim").setLevel(logging.INFO)
    root.addHandler(made.handler)
    yield made
    root.removeHandler(made.handler)
    logging.getLogger("nfreaim").setLevel(level)


def flow(host: str = "10.0.0.6", port: int = 40123) -> FlowId:
    return FlowId(Endpoint(host, port), SERVER)


def left(host: str = "10.0.0.6") -> None:
    """A proposal that gets nothing."""
    here = Endpoint("10.0.0.77", 6000)
    Journal().reported(flow(host), "one", Report("out", "chat", 1, b"", here, here, "left", "no"))


def opened(host: str, port: int) -> None:
    inside, outside = Endpoint(host, port), Endpoint("203.0.113.1", port)
    Journal().opened(Pinhole(inside, outside, flow(host), b"", "chat", 1.0, protocol="one"))


def broken(host: str, port: int) -> None:
    """A line of core, with a traceback."""
    core = logging.getLogger("nfreaim.core.engine")
    try:
        raise KeyError(host)
    except KeyError as error:
        core.error("%s: no longer read: %s", flow(host, port), "KeyError", exc_info=error)


def sums(lines: list[str]) -> list[tuple[int, str]]:
    """How many more, and whose."""
    found = [MORE.search(line) for line in lines]
    return [(int(match[1]), match[2] or "") for match in found if match]


def test_ten_lines_of_a_kind_in_any_minute_and_then_their_sum(log: Log) -> None:
    for _ in range(1000):
        left()
    assert len(log.lines()) == 10
    log.wait(59.0)
    assert log.lines() == []
    log.wait(1.0)
    (said,) = log.lines()
    assert said == (
        "INFO 990 more lines in the last minute for 10.0.0.6 like: "
        "one: left alone: chat of 10.0.0.6:40123 naming 10.0.0.77:6000: no"
    )
    log.wait(600.0)
    assert log.lines() == [], "the sum is told once"


def test_no_minute_has_more_wherever_it_begins(log: Log) -> None:
    rng = random.Random(3)
    said: list[float] = []
    for _ in range(3000):
        log.wait(rng.random() * 0.4)
        left()
        said += [log.now for line in log.lines() if not MORE.search(line)]
    assert max(sum(each <= other < each + 60 for other in said) for each in said) == 10
    assert len(said) > 50, "and each minute has some"


def test_nothing_is_lost_from_the_sums(log: Log) -> None:
    rng = random.Random(4)
    written = more = 0
    for _ in range(5000):
        log.wait(rng.random() * 0.1)
        left(f"10.0.0.{rng.randrange(30)}")
    log.limit.flush()
    for line in log.lines():
        found = MORE.search(line)
        more += int(found[1]) if found else 0
        written += not found
    assert written + more == 5000


def test_the_end_of_the_process_writes_the_sums(log: Log) -> None:
    for _ in range(15):
        left()
    log.lines()
    log.limit.flush()
    assert sums(log.lines()) == [(5, "10.0.0.6")]


def test_each_kind_and_each_host_has_its_own_ten(log: Log) -> None:
    for number in range(20):
        left()
        left("10.0.0.7")
        opened("10.0.0.6", 5000 + number)
    assert len(log.lines()) == 30


def test_a_flood_from_many_hosts_leaves_room_for_a_host_that_said_nothing(log: Log) -> None:
    for number in range(10_000):
        left(f"10.0.{number % 100 >> 8}.{number % 100}")
    assert 100 <= len(log.lines()) <= 300
    left("10.0.7.7")
    opened("10.0.7.7", 5000)
    assert len(log.lines()) == 2
    for number in range(100_000):
        left(f"10.{number >> 16}.{number >> 8 & 255}.{number & 255}")
    assert len(log.lines()) < 300
    assert len(log.limit._lines) <= 1100
    log.wait(60.0)
    told = sums(log.lines())
    assert len(told) == 11
    assert sum(count for count, _ in told) > 109_000
    assert told[-1][1].endswith("other hosts")


def test_a_flood_does_not_silence_the_daemon_itself(log: Log) -> None:
    for number in range(1000):
        left(f"10.0.0.{number % 250}")
        opened(f"10.0.0.{number % 250}", 5000)
    log.lines()
    own = logging.getLogger("nfreaim")
    for _ in range(10):
        own.warning("the rules are gone")
    own.info("counters: %s", "packets=3")
    assert len(log.lines()) == 11


def test_a_line_of_the_daemon_s_own_that_somebody_can_repeat_is_bounded_too(log: Log) -> None:
    for _ in range(1000):
        logging.getLogger("nfreaim").error("a packet failed")
    assert len(log.lines()) == 10
    log.wait(60.0)
    assert log.lines() == ["ERROR 990 more lines in the last minute like: a packet failed"]


def test_connections_of_one_host_are_one_source_and_tracebacks_are_few(log: Log) -> None:
    for port in range(1000, 2000):
        broken("10.0.0.6", port)
    lines = log.lines()
    assert sum("no longer read" in line for line in lines) == 10
    assert sum(line.startswith("Traceback") for line in lines) == 3
    for port in range(1000, 1005):
        broken("10.0.0.7", port)
    assert not any(line.startswith("Traceback") for line in log.lines())
    assert all(lines.last is None or not lines.last.exc_info for lines in log.limit._lines.values())
    log.wait(60.0)
    broken("10.0.0.8", 1)
    assert any(line.startswith("Traceback") for line in log.lines())
