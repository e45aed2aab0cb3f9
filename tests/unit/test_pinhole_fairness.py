"""Who is served when all pinholes, all ports, or the whole rate are taken."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest

from nfreaim.core.address import Endpoint, FlowId
from nfreaim.core.firewall.fairness import Machines
from nfreaim.core.firewall.pinhole import Origin, Pinhole
from nfreaim.core.guarded import GuardedMachine
from nfreaim.core.helper import Expectation, Refused
from tests.unit.fakes import OUTSIDE
from tests.unit.pinhole_table import ALICE, AMY, SERVER, A, B, C, Table

HERS = "02:00:00:00:00:aa"
FAST: dict[str, Any] = {"rate_per_host": 100000, "rate_total": 1000000}


class Neighbourhood:
    """One machine has every address from 10.0.1.0 on; each other address is a machine. Counts questions."""

    def __init__(self) -> None:
        self.asked: Counter[str] = Counter()

    def __call__(self, address: str) -> str:
        self.asked[address] += 1
        return address if address.startswith("10.0.0.") else HERS


def hers(number: int) -> str:
    return f"10.0.{1 + number // 250}.{number % 250}"


def take(table: Table, host: str, number: int, now: float = 0.0, standing: bool = False) -> Pinhole:
    """*host* opens its pinhole of that number, eight from each of its connections."""
    flow = FlowId(Endpoint(host, 40000 + number // 8), SERVER)
    wanted = Expectation(b"%d" % number, "send-file", Endpoint(host, 20000 + number), standing=standing)
    return table.open(flow, wanted, Origin("oscar", host, OUTSIDE), now)


def filled(addresses: int, each: int, **policy: object) -> Table:
    """A table that one machine has filled, from so many addresses, a pinhole a second."""
    table = Table(machine=Neighbourhood(), **{**FAST, "ports": range(40000, 50000), **policy})
    for number in range(addresses * each):
        take(table, hers(number // each), number % each, now=number / 1000)
    return table


@pytest.mark.parametrize(("addresses", "each"), [(32, 32), (128, 8), (1024, 1)])
def test_one_machine_with_many_addresses_takes_all_pinholes_and_another_host_is_served(
    addresses: int, each: int
) -> None:
    table = filled(addresses, each)
    assert len(table) == 1024
    opened = table.ask(now=2.0)
    assert (len(table), table.gave_way) == (1024, 1)
    assert opened in table.firewall.pinholes
    ((closed, reason),) = table.watcher.closes
    assert closed.inside == Endpoint(hers(0), 20000), "the oldest"
    assert reason == "gave way to 10.0.0.5, which has fewer"


def test_a_machine_that_is_not_known_counts_by_its_addresses() -> None:
    table = Table(**FAST, total=6)
    for number in range(6):
        take(table, ("10.0.1.1", "10.0.1.2", "10.0.1.3")[number % 3], number)
    assert table.ask()
    assert [pinhole.inside.address for pinhole, _ in table.watcher.closes] == ["10.0.1.1"]
    assert table.ask(flow=AMY, port=4000)
    assert len(table) == 6


def test_a_machine_that_answers_no_more_for_its_addresses_is_still_one() -> None:
    """The router's neighbour table forgets it."""
    near = Neighbourhood()
    silent = False
    table = Table(machine=lambda address: address if silent else near(address), **FAST, total=40)
    for number in range(40):
        take(table, hers(number), 0, now=float(number))
    silent = True
    assert table.ask(now=100.0)
    assert table.gave_way == 1


def test_the_machine_of_an_address_is_not_asked_for_while_there_is_room() -> None:
    near = Neighbourhood()
    table = Table(machine=near, **FAST, total=10)
    for number in range(4):
        take(table, hers(number), 0)
    assert not near.asked
    for number in range(4, 10):
        take(table, hers(number), 0)
    assert near.asked.total() == 6
    table.ask(now=1.0)
    assert set(near.asked.values()) == {1}
    before = near.asked.total()
    table.ask(B, 4001, now=2.0)
    assert near.asked.total() <= before + 1, "remembered for some seconds"


def test_who_holds_most_is_refused_and_takes_nothing_from_others() -> None:
    table = filled(4, 4, total=18)
    table.ask(A, 4001)
    table.ask(A, 4001, flow=AMY)
    for number in range(4, 9):
        with pytest.raises(
            Refused, match=r"18 pinholes in all \(total\); no host has two more than this one"
        ):
            take(table, hers(9), number, now=9.0)
    assert not table.watcher.closes
    table.consistent()


def test_two_hosts_do_not_take_from_each_other_in_turn() -> None:
    table = Table(**FAST, total=4)
    for number in range(4):
        take(table, "10.0.0.5", number)
    for number in range(20):
        for host in ("10.0.0.6", "10.0.0.5"):
            try:
                take(table, host, 10 + number, now=1.0 + number)
            except Refused:
                continue
    assert table.gave_way == 2
    assert Counter(pinhole.inside.address for pinhole in table) == {"10.0.0.5": 2, "10.0.0.6": 2}


def test_pinholes_that_nobody_has_claimed_go_first_and_then_the_oldest() -> None:
    table = Table(**FAST, total=4, lifetime=1e6)
    opened = [take(table, "10.0.0.9", number, now=float(number), standing=True) for number in range(4)]
    for claimed in (opened[0], opened[2]):
        table.claimed(claimed.outside, "203.0.113.20", 5.0)
    table.ask(A, flow=ALICE, now=6.0)
    table.ask(A, flow=AMY, now=7.0)
    assert [pinhole for pinhole, _ in table.watcher.closes] == [opened[1], opened[3]]
    table.ask(A, flow=FlowId(Endpoint("10.0.0.7", 1), SERVER), now=8.0)
    with pytest.raises(Refused, match="total"):
        table.ask(A, flow=FlowId(Endpoint("10.0.0.8", 1), SERVER), now=8.0)


def test_a_claimed_pinhole_of_a_host_with_its_fair_share_is_never_closed_for_others() -> None:
    table = filled(5, 4, total=24)
    mine = [table.ask(b"%d" % number, 4000 + number) for number in range(4)]
    for each in mine:
        table.claimed(each.outside, "203.0.113.20", 1.0)
    for number in range(200):
        host = f"10.0.0.{20 + number % 40}"
        try:
            take(table, host, number, now=2.0)
        except Refused:
            continue
    assert not {pinhole for pinhole, _ in table.watcher.closes} & {table.firewall.pinholes[0]}
    left = {pinhole.inside for pinhole in table}
    assert sum(each.inside in left for each in mine) >= 1
    assert table.gave_way


def test_agreements_that_shared_what_gave_way_are_over() -> None:
    table = Table(**FAST, total=2, per_flow=8)
    table.ask(A, 4001)
    table.ask(B, 4001)
    table.ask(C, 4002)
    table.ask(A, 4001, flow=AMY)
    assert [pinhole.inside.port for pinhole, _ in table.watcher.closes] == [4001]
    assert table._index.flows[ALICE] == {C}
    table.close(ALICE, A, "cancelled")
    table.close_flow(ALICE, "control connection closed")
    table.consistent()
    assert len(table) == 1


def test_an_agreement_that_moves_needs_nobody_to_give_way() -> None:
    table = filled(3, 1, total=4)
    table.ask(A, 4001)
    table.ask(A, 4002)
    assert not table.gave_way
    assert len(table) == 4


def test_a_pinhole_that_cannot_be_closed_makes_no_room_and_is_counted() -> None:
    table = filled(4, 1, total=4)
    table.firewall.refuse_remove = True
    with pytest.raises(Refused, match="another pinhole cannot be closed"):
        table.ask()
    assert len(table) == 3
    table.firewall.refuse_remove = False
    table.expire(1.0)
    assert table.ask(now=2.0)


def test_nothing_gives_way_for_what_is_refused_for_another_reason() -> None:
    table = filled(16, 2, total=32, per_host=2, rate_per_host=2)
    table.ask(A, 4001, now=2.0)
    table.ask(B, 4002, now=2.0)
    table.close(ALICE, B, "cancelled")
    take(table, hers(50), 0, now=2.0)
    closed = table.gave_way
    for port, cookie in ((22, C), (3389, C), (4002, C)):  # the last is one too many in a minute
        with pytest.raises(Refused):
            table.ask(cookie, port, now=2.0)
    assert table.gave_way == closed


def test_neighbours_that_cannot_be_asked_are_no_reason_to_fail() -> None:
    def broken(address: str) -> str:
        raise OSError("no buffer space")

    table = Table(machine=GuardedMachine(broken), **FAST, total=4)
    for number in range(4):
        take(table, "10.0.0.9", number)
    assert table.ask()


def test_machines_that_are_remembered_are_few() -> None:
    near = Neighbourhood()
    machines = Machines(near)
    for number in range(20000):
        machines.of(f"10.1.{number // 250}.{number % 250}", 0.0)
        assert len(machines._known) <= 4096
    assert machines.of("10.0.1.1", 5.0) == HERS
    assert machines.of("10.0.1.1", 30.0) == HERS
    assert near.asked["10.0.1.1"] == 2


# --- ports ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("announce", [None, "198.51.100.1"])
def test_one_machine_with_many_addresses_takes_all_ports_and_another_host_is_served(
    announce: str | None,
) -> None:
    """Its own ports are those of the range, so nothing is left for a client whose port is taken as well."""
    table = Table(machine=Neighbourhood(), **FAST, ports=range(20000, 20100), announce=announce)
    for number in range(100):
        take(table, hers(number % 10), number)
    flow = FlowId(Endpoint(hers(11), 40000), SERVER)
    table.open(flow, Expectation(A, "x", Endpoint(hers(11), 5190)), Origin("oscar", hers(11), OUTSIDE), 0.5)
    assert table.ask(now=1.0).outside.port in range(20000, 20100)
    assert table.gave_way == 1
    with pytest.raises(Refused, match="no free outside port in 20000-20099"):
        take(table, hers(12), 7)
    table.consistent()


def test_forwards_of_the_router_are_not_given_away_with_a_port() -> None:
    table = Table(machine=Neighbourhood(), **FAST, ports=range(20000, 20040))
    for number in range(40):
        take(table, hers(number % 10), number)
    table.firewall.taken = {Endpoint(OUTSIDE, port) for port in (5190, *range(20000, 20040))}
    with pytest.raises(Refused, match="another pinhole cannot be closed"):
        table.ask()


# --- the rate in all --------------------------------------------------------------------------------------


def flood(table: Table, hosts: list[str], now: float, each: int = 60) -> int:
    """Each of *hosts* opens and closes; returns how many could be opened."""
    opened = 0
    for host in hosts:
        for number in range(each):
            try:
                take(table, host, number, now)
            except Refused:
                continue
            opened += 1
            table.close(FlowId(Endpoint(host, 40000 + number // 8), SERVER), b"%d" % number, "cancelled")
    return opened


def test_one_machine_that_uses_up_the_rate_does_not_keep_others_from_opening() -> None:
    table = Table(machine=Neighbourhood())
    many = [hers(number) for number in range(33)]
    assert flood(table, many, now=0.0) == 1200
    for second in range(1, 10):
        assert flood(table, many, now=float(second)) <= 20, "what the bucket gains in a second"
        assert take(table, "10.0.0.5", second, now=float(second))
    table.consistent()


def test_the_rate_in_all_stays_a_brake() -> None:
    """However many machines flood, the sum grows as slowly as that of 1/n."""
    table = Table(rate_total=100)
    opened = sum(flood(table, [f"10.0.0.{host}"], now=0.0) for host in range(1, 101))
    assert 100 <= opened <= 100 * sum(1 / number for number in range(1, 101)) < 520
    assert flood(table, ["10.0.0.1"], now=1.0) <= 2


def test_the_minute_before_is_forgotten() -> None:
    table = Table(rate_total=10)
    assert flood(table, ["10.0.0.9"], now=0.0) == 10
    assert flood(table, ["10.0.0.9"], now=100.0) == 10
    assert len(table._rates._recent) == 10
    assert table._rates._counts == {"10.0.0.9": 10}
