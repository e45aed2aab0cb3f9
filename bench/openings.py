"""What a firewall takes for a pinhole: runs on a router whose rules are those of the firewall.

``python -m bench.openings`` prints a JSON object of microseconds: to open one pinhole for everybody whose
first bytes are verified, to narrow it to one peer, to close it, and to renew one of a thousand.
"""

from __future__ import annotations

import json
import statistics
import time
from collections.abc import Callable, Iterable
from dataclasses import replace
from typing import TypeVar

from nfreaim.core.address import Endpoint, FlowId
from nfreaim.core.firewall.pinhole import Pinhole
from nfreaim.host.pinholes import leases
from nfreaim.host.pinholes.chosen_firewall import kernel_firewall

_INSIDE, _OUTSIDE = "10.0.0.5", "203.0.113.1"
_FLOW = FlowId(Endpoint(_INSIDE, 40123), Endpoint("203.0.113.9", 5190))
_MANY = 1000

T = TypeVar("T")


def main() -> None:
    ahead = [0.0]
    firewall = kernel_firewall(lambda: time.clock_gettime(time.CLOCK_BOOTTIME) + ahead[0])
    pinholes = [_pinhole(20000 + number) for number in range(_MANY)]
    narrow = [replace(one, peers=("203.0.113.20",)) for one in pinholes]
    firewall.prepare(_INSIDE)
    firewall.upkeep()
    took = {"open": _each(lambda one: firewall.open(one, None), pinholes)}
    ahead[0] += leases.RENEW_AFTER_S + 1.0
    renewals = []
    for _ in range(4):
        began = time.perf_counter()
        firewall.renew(pinholes)
        renewals.append(time.perf_counter() - began)
    took["renew"] = sum(renewals) / _MANY
    took["longest renewal"] = max(renewals)
    took["narrow"] = _each(lambda pair: firewall.open(*pair), zip(narrow, pinholes, strict=True))
    took["close"] = _each(firewall.close, narrow)
    firewall.clear()
    print(json.dumps({name: seconds * 1e6 for name, seconds in took.items()}))


def _pinhole(port: int) -> Pinhole:
    deadline = time.clock_gettime(time.CLOCK_BOOTTIME) + 600
    inside, outside = Endpoint(_INSIDE, port), Endpoint(_OUTSIDE, port)
    one = Pinhole(inside, outside, _FLOW, b"12345678", "send-file", deadline, protocol="oscar")
    return replace(one, verify=True)


def _each(work: Callable[[T], object], things: Iterable[T]) -> float:
    """The median of the seconds that *work* takes for one of *things*."""
    took = []
    for one in things:
        began = time.perf_counter()
        work(one)
        took.append(time.perf_counter() - began)
    return statistics.median(took)


if __name__ == "__main__":
    main()
