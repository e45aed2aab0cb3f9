"""Fairness: who gives way when all pinholes are taken, and who may open one when the rate is used up.

Addresses cost nothing: one machine may have hundreds. So here machines count, not addresses. The machine of
an address is asked for only when half of what there is has been taken, because the answer costs system calls.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable, Iterable, Mapping
from typing import Final

from nfreaim.core.firewall.index import Entry
from nfreaim.core.firewall.policy import PERIOD_S, PinholePolicy, RateLimit
from nfreaim.core.helper import Refused

MachineOf = Callable[[str], str]
"""The name of the machine that has an inside address: the same for all addresses of one machine, and the
address itself where nothing is known. Raises nothing."""

_REMEMBERED_S: Final = 10.0
_MOST_REMEMBERED: Final = 4096


class Machines:
    """Which machine has an address, remembered for some seconds.

    A machine that stops answering is unknown to the router after a while, and counts as before.
    """

    def __init__(self, ask: MachineOf) -> None:
        self._ask = ask
        self._known: dict[str, tuple[str, float]] = {}

    def of(self, address: str, now: float) -> str:
        """The machine that has *address*."""
        machine, until = self._known.get(address, (address, 0.0))
        if now >= until:
            found = self._ask(address)
            machine = machine if found == address else found
            if len(self._known) >= _MOST_REMEMBERED:
                self._known.clear()
            self._known[address] = machine, now + _REMEMBERED_S
        return machine


class ByMachine:
    """Numbers by address, added up by machine. Added up again only after a change or some seconds.

    So a flood of proposals that are refused costs no more than before.
    """

    def __init__(self, machines: Machines) -> None:
        self._machines = machines
        self._counted: tuple[int, float] | None = None
        self._sums: Counter[str] = Counter()
        self._most = 0

    def of(self, counts: Mapping[str, int], version: int, now: float) -> tuple[Counter[str], int]:
        """The sums, and the largest. *version* differs if *counts* does."""
        counted = version, now // _REMEMBERED_S
        if counted != self._counted:
            self._counted = counted
            self._sums = Counter()
            for address, count in counts.items():
                self._sums[self._machines.of(address, now)] += count
            self._most = max(self._sums.values(), default=0)
        return self._sums, self._most


def giving_way(
    entries: Iterable[Entry], held: Mapping[str, int], mine: int, machine: MachineOf, lead: int = 2
) -> Entry | None:
    """The entry among *entries* that is closed for a new one of a machine that has *mine*; None: none.

    held  how many pinholes each machine has in all
    lead  by how many the machine that has most must be ahead

    With a lead of 2 a machine that gives one away still has as many as the other with one more. So two
    machines never take from each other in turn, and a machine with no more than its fair share loses nothing.
    Pinholes that nobody has claimed go first, then the oldest.
    """
    of_machine: dict[str, list[Entry]] = {}
    for entry in entries:
        of_machine.setdefault(machine(entry.pinhole.inside.address), []).append(entry)
    most = max((held[name] for name in of_machine), default=0)
    if most - mine < lead:
        return None
    candidates = [entry for name, some in of_machine.items() if held[name] == most for entry in some]
    return min(candidates, key=lambda entry: (bool(entry.peers), entry.pinhole.since))


class OpeningRates:
    """How many pinholes may be opened in a minute, for one inside host and in all.

    When the rate in all is used up, a machine that has opened less than its share of it in the last minute is
    served nevertheless. The share is the rate divided by the machines that opened any. So the rate stays a
    brake: a hundred machines that all flood open five times as much, as 1 + 1/2 + 1/3 + ... says.
    """

    def __init__(self, policy: PinholePolicy, machines: Machines) -> None:
        self._host, self._total = RateLimit(policy.rate_per_host), RateLimit(policy.rate_total)
        self._machines = machines
        self._recent: deque[tuple[float, str]] = deque()
        self._counts: Counter[str] = Counter()
        self._changes = 0
        self._by_machine = ByMachine(machines)

    def obey(self, policy: PinholePolicy) -> None:
        """From now on the rates of *policy* count."""
        self._host.size, self._total.size = policy.rate_per_host, policy.rate_total

    def take(self, host: str, now: float) -> None:
        """One more opening for *host*; one that the firewall refuses afterwards counts. Raises Refused."""
        if not self._host.allows(host, now):
            raise Refused(f"{self._host.size} pinholes a minute to one host (rate_per_host)")
        self._forget(now)
        if self._total.allows("", now):
            self._total.take("", now)
        elif not self._below_share(host, now):
            raise Refused(f"{self._total.size} pinholes a minute in all (rate_total)")
        self._host.take(host, now)
        if self._total.level("", now) < self._total.size / 2:
            self._machines.of(host, now)
        self._recent.append((now, host))
        self._counts[host] += 1
        self._changes += 1

    def _below_share(self, host: str, now: float) -> bool:
        opened, _ = self._by_machine.of(self._counts, self._changes, now)
        mine = self._machines.of(host, now)
        return opened[mine] < self._total.size // (len(opened) + (mine not in opened))

    def _forget(self, now: float) -> None:
        while self._recent and self._recent[0][0] <= now - PERIOD_S:
            _, host = self._recent.popleft()
            self._changes += 1
            self._counts[host] -= 1
            if not self._counts[host]:
                del self._counts[host]
