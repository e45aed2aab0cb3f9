"""What tests/lab/test_kernel.py lets happen to time-outs of pinholes on a router, as on_router.py does it."""

from __future__ import annotations

import math
import re
import sys
import time
from dataclasses import replace

from nfreaim.core.address import Endpoint
from nfreaim.core.firewall.pinhole import Pinhole
from nfreaim.host.pinholes import leases
from tests.lab.on_router import FLOW, OUTSIDE, members, now, pinhole, pins, shell

_ENTRY = re.compile(r"^add nfreaim_pin \S+,tcp:(\d+),\S+ timeout (\d+) (.*)$", re.MULTILINE)


def entries() -> list[tuple[int, int, str]]:
    """Port, seconds left, and all other data of each entry."""
    found = _ENTRY.findall(shell("ipset save nfreaim_pin"))
    return sorted((int(port), int(seconds), rest) for port, seconds, rest in found)


def short_time_outs_are_renewed_and_nothing_else_changes() -> None:
    firewall = pins()
    standing = replace(pinhole(5190), deadline=math.inf, verify=True)
    long, brief = pinhole(5191, "203.0.113.20", "203.0.113.21"), pinhole(5192, lasting=3.2)
    for each in (standing, long, brief):
        firewall.open(each, None)
    first = [(port, rest) for port, _, rest in entries()]
    assert len(first) == 2 + 2 + 2
    for _ in range(8):
        living = [each for each in (standing, long, brief) if each.deadline > now()]
        assert firewall.renew(living) == []
        left = [seconds for port, seconds, _ in entries() if port < 5192]
        assert len(left) == 4
        assert 17 <= min(left) <= max(left) <= 25
        time.sleep(1.0)
    assert [(port, rest) for port, _, rest in entries()] == first[:4], "the deadline of one is over"
    assert firewall.list()
    firewall.close(standing)
    assert firewall.renew([long]) == []
    assert {port for port, _, _ in entries()} == {5191}, "what was closed is not renewed"


def what_nobody_renews_ends_by_itself() -> None:
    """As after the daemon's death, and after a pause of its that is no damage of somebody else's."""
    leases.LEASE_S = 2  # type: ignore[misc]
    firewall = pins()
    standing = replace(pinhole(5190), deadline=math.inf)
    firewall.open(standing, None)
    assert members() == 2
    time.sleep(3.2)
    assert members() == 0
    assert firewall.renew([standing]) == []
    assert members() == 2


def what_others_removed_is_told() -> None:
    firewall = pins()
    one, other = pinhole(5190), pinhole(5191, "203.0.113.20")
    firewall.open(one, None)
    firewall.open(other, None)
    leases.RENEW_AFTER_S = -1.0  # type: ignore[misc]
    shell("ipset del nfreaim_pin 203.0.113.1,tcp:5190,0.0.0.0/1")
    assert firewall.renew([one, other]) == [one]
    assert firewall.renew([one, other]) == []
    assert members() == 3


def entries_of_the_version_before_become_short() -> None:
    """Theirs lasted as long as their pinholes, those of a session for ever."""
    for port, seconds, until in ((5190, 0, "inf"), (5191, 500, f"{now() + 500:.3f}")):
        for half in ("0.0.0.0/1", "128.0.0.0/1"):
            shell(
                f"ipset add nfreaim_pin {OUTSIDE},tcp:{port},{half} timeout {seconds} packets 1 bytes 42"
                f' comment "nfreaim in=10.0.0.5:{port} flow={FLOW.client}>{FLOW.server} for=icq-direct'
                f' cookie= until={until} since=12.500 proto=oscar"'
            )
    firewall = pins()
    found = firewall.list()
    assert {each.standing for each in found} == {True, False}
    before = [(port, rest) for port, _, rest in entries()]
    assert firewall.renew(found) == []
    assert all(20 <= seconds <= 25 for _, seconds, _ in entries())
    assert [(port, rest) for port, _, rest in entries()] == before


def a_thousand_are_renewed_in_slices() -> None:
    firewall = pins()
    opened = [numbered(number) for number in range(1024)]
    for each in opened:
        firewall.open(each, None)
    leases.RENEW_AFTER_S = 1.0  # type: ignore[misc]
    time.sleep(3.0)
    took = []
    for _ in range(4):
        assert max(seconds for _, seconds, _ in entries()) <= 25
        began = time.perf_counter()
        assert firewall.renew(opened) == []
        took.append((time.perf_counter() - began) * 1000)
    left = [seconds for _, seconds, _ in entries()]
    assert len(left) == 2048
    assert min(left) >= 23, "each was renewed once"
    print("milliseconds of each renewal:", *(f"{one:.1f}" for one in took))


def numbered(number: int) -> Pinhole:
    inside = Endpoint(f"10.0.0.{5 + number // 32}", 20000 + number)
    return replace(pinhole(5190), inside=inside, outside=Endpoint(OUTSIDE, 20000 + number), deadline=math.inf)


if __name__ == "__main__":
    globals()[sys.argv[1]](*sys.argv[2:])
