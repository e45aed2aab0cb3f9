"""NatTable: the rules that the daemon changes while it runs. The only module that imports python-iptables.

rules/nfreaim-rules makes and removes our chain in the legacy nat table; this module adds rules to that chain
and changes nothing else. The library is safe in one way only: without autocommit, which hides the kernel's
refusals; under the lock of the iptables programs, which the library ignores; and with a refresh inside the
lock, because a concurrent change would be lost otherwise.

A *destination* is an inside host that pinholes lead to, with a port unless that equals the outside port. One
rule per destination translates the connections that an entry of the pinhole set assigns to it; without an
entry the rule matches no packet. These rules stand in chains of their own, the *buckets*, so that a new
connection passes the jumps to the buckets and the rules of one bucket only. A forward of the configuration is
two rules over a range of ports at the head of our chain. These rules name no outside address, because the
script sends only packets to the router's own addresses to our chain.
"""

from __future__ import annotations

import fcntl
import os
import re
import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

from nfreaim.core.address import Endpoint
from nfreaim.core.firewall.policy import Forward
from nfreaim.errors import BackendError
from nfreaim.host.netfilter.ipset import pin_data
from nfreaim.host.netfilter.legacy_tables import LegacyTables
from nfreaim.host.netfilter.names import BUCKET_CHAIN, CHAIN, COMMENT, PIN_SET
from nfreaim.host.slim_imports import fast_iptc_import
from nfreaim.marks import DEFAULT, Marks

with fast_iptc_import():
    import iptc

_LOCK: Final = Path("/run/xtables.lock")
_LOCK_WAIT_S: Final = 0.25  # a packet waits meanwhile, until its sender retransmits
_TRIES: Final = 5
# More files than the library opens at once. If it gets some of them and not the next, it may crash.
_DESCRIPTORS: Final = 12
_BUCKET: Final = re.compile(rf"{BUCKET_CHAIN}(\d+)")
_DESTINATION: Final = re.compile(rf"{COMMENT} to=(?P<address>[0-9.]+):(?P<port>\d+)")
_FORWARD: Final = re.compile(rf"{COMMENT} forward=(?P<low>\d+)-(?P<high>\d+) in=(?P<host>\S+)")


class NatTable:
    """The legacy nat table of this network namespace. *marks* are those of the rules."""

    def __init__(self, marks: Marks = DEFAULT) -> None:
        self._marks = marks
        self._tables = LegacyTables()

    def close(self) -> None:
        """Close the socket."""
        self._tables.close()

    def version(self) -> bytes:
        """Bytes that change with the table's size and shape; takes microseconds. Raises BackendError."""
        return self._tables.info("nat")

    def destinations(self) -> set[tuple[Endpoint, int]]:
        """The destinations that have a rule, with the numbers of their buckets. Raises BackendError."""
        with _reading() as (table, _):
            return _destinations(table)

    def set_destinations(
        self,
        wanted: Mapping[Endpoint, int],
        missing: Collection[Endpoint],
        unwanted: Mapping[Endpoint, int],
        trusted: bytes,
    ) -> bytes:
        """Make the destinations that have rules exactly *wanted*, each in the bucket given.

        trusted   the version of the table that *missing* and *unwanted* are true of; if the table has another
                  version, it is read instead
        missing   destinations of *wanted* that have no rule
        unwanted  destinations outside *wanted* that have a rule

        Replaces the table at most once, and returns its version afterwards. Raises BackendError.
        """
        versions = []

        def change(table: Any, chain: Any) -> bool:
            if self.version() == trusted:
                new, old = {(one, wanted[one]) for one in missing}, set(unwanted.items())
                lacking = {number for _, number in new if not table.is_chain(_bucket(number))}
            else:
                found = _destinations(table)
                new, old = wanted.items() - found, found - wanted.items()
                lacking = set(wanted.values()) - set(_jumps(chain))
            for number in lacking:
                _make_bucket(table, chain, number)
            for destination, number in new:
                bucket = iptc.Chain(table, _bucket(number))
                bucket.append_rule(_destination_rule(destination, number))
            for destination, number in old:
                bucket = iptc.Chain(table, _bucket(number))
                bucket.delete_rule(_destination_rule(destination, number))
            for number in {number for _, number in old}:
                _remove_bucket(table, chain, number, empty=True)
            return bool(new or old or lacking)

        _replace(change, lambda: versions.append(self.version()))
        return versions[-1]

    def clear(self) -> None:
        """Remove all destinations and their buckets. Raises BackendError."""

        def change(table: Any, chain: Any) -> bool:
            numbers = _numbers(table)
            for number in numbers:
                _remove_bucket(table, chain, number)
            return bool(numbers)

        _replace(change)

    def set_forwards(self, forwards: Sequence[Forward]) -> None:
        """Replace the forwards in our chain by *forwards*. Raises BackendError.

        They stand before the rules for pinholes. This is no conflict, because the ports of a forward are
        given to pinholes of its own host only.
        """
        if not forwards and not self.forwards():
            return
        wanted = [rule for forward in forwards for rule in _forward_rules(forward, self._marks)]

        def change(table: Any, chain: Any) -> bool:
            for rule in chain.rules:
                if _FORWARD.fullmatch(_comment_of(rule)):
                    chain.delete_rule(rule)
            for rule in reversed(wanted):
                chain.insert_rule(rule)
            return True

        _replace(change)

    def forwards(self) -> list[Forward]:
        """The forwards in the kernel. Raises BackendError."""
        with _reading() as (_, chain):
            comments = [_comment_of(rule) for rule in chain.rules if rule.target.name == "DNAT"]
        found = [_FORWARD.fullmatch(comment) for comment in comments]
        return [Forward(it["host"], range(int(it["low"]), int(it["high"]) + 1)) for it in found if it]


@contextmanager
def _chain() -> Iterator[tuple[Any, Any]]:
    """The nat table, just read, and our chain in it, under the lock. Raises BackendError, IPTCError."""
    try:
        # Opened as iptables does: reading is enough for a lock, and the file may belong to another user.
        lock = os.fdopen(os.open(_LOCK, os.O_RDONLY | os.O_CREAT | os.O_CLOEXEC, 0o600))
    except OSError as error:
        raise BackendError(f"the lock of iptables cannot be taken: {error}; are you root?") from error
    with lock:
        _check_descriptors(lock.fileno())
        deadline = time.monotonic() + _LOCK_WAIT_S
        while True:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() > deadline:
                    raise BackendError(f"another program holds {_LOCK} for {_LOCK_WAIT_S} s") from None
                time.sleep(0.005)
        table = iptc.Table(iptc.Table.NAT, autocommit=False)
        table.refresh()
        if not table.is_chain(CHAIN):
            raise BackendError(f"chain {CHAIN} is missing in the legacy nat table: run make install-rules")
        yield table, iptc.Chain(table, CHAIN)


def _check_descriptors(any_one: int) -> None:
    """Raise BackendError if this process may not open as many files as the library needs."""
    taken: list[int] = []
    try:
        taken += (os.dup(any_one) for _ in range(_DESCRIPTORS))
    except OSError as error:
        raise BackendError(f"the nat table cannot be read: {error}") from error
    finally:
        for descriptor in taken:
            os.close(descriptor)


@contextmanager
def _reading() -> Iterator[tuple[Any, Any]]:
    """``_chain`` for a caller that only reads. Raises BackendError."""
    try:
        with _chain() as found:
            yield found
    except (iptc.IPTCError, iptc.XTablesError) as error:
        raise BackendError(f"iptables-legacy nat: {error}") from error


def _replace(change: Callable[[Any, Any], bool], then: Callable[[], None] = lambda: None) -> None:
    """Call *change* with the table and our chain, and commit the table unless it returns False.

    *then* is called under the same lock, before another program can change the table. Raises BackendError.
    """
    for attempt in range(1, _TRIES + 1):
        try:
            with _chain() as (table, chain):
                if change(table, chain):
                    table.commit()
                then()
            return
        except iptc.XTablesError as error:
            raise BackendError(f"an extension of iptables is missing: {error}") from error
        except iptc.IPTCError as error:
            # A program that ignores the lock changed the table between refresh and commit.
            if "temporarily unavailable" not in str(error) or attempt == _TRIES:
                raise BackendError(f"iptables-legacy nat: {error}") from error


def _destinations(table: Any) -> set[tuple[Endpoint, int]]:
    return {
        (Endpoint(it["address"], int(it["port"])), number)
        for number in _numbers(table)
        for rule in iptc.Chain(table, _bucket(number)).rules
        if (it := _DESTINATION.fullmatch(_comment_of(rule)))
    }


def _numbers(table: Any) -> list[int]:
    """The numbers of the buckets in the table."""
    return [int(it[1]) for chain in table.chains if (it := _BUCKET.fullmatch(chain.name))]


def _bucket(number: int) -> str:
    return f"{BUCKET_CHAIN}{number:02d}"


def _jumps(chain: Any) -> list[int]:
    """For each rule of our chain the number of the bucket that the rule jumps to, or -1."""
    return [int(it[1]) if (it := _BUCKET.fullmatch(rule.target.name)) else -1 for rule in chain.rules]


def _make_bucket(table: Any, chain: Any, number: int) -> None:
    """Make bucket *number* if it is missing, and the jump to it.

    A jump matches packets whose byte counter is below the end of its bucket, so the jumps stand in ascending
    order.
    """
    name = _bucket(number)
    if not table.is_chain(name):
        table.create_chain(name)
    jump = _pin_rule("lt", number + 1 << 48)
    jump.create_target(name)
    behind = [at for at, other in enumerate(_jumps(chain)) if other > number]
    if behind:
        chain.insert_rule(jump, behind[0])
    else:
        chain.append_rule(jump)


def _remove_bucket(table: Any, chain: Any, number: int, empty: bool = False) -> None:
    """Remove bucket *number* if it exists; with *empty*, only if it has no rules."""
    name = _bucket(number)
    bucket = iptc.Chain(table, name) if table.is_chain(name) else None
    if bucket is None or (empty and bucket.rules):
        return
    for rule in [rule for rule in chain.rules if rule.target.name == name]:
        chain.delete_rule(rule)
    bucket.flush()
    table.delete_chain(name)


def _pin_rule(operator: str, data: int) -> Any:
    """A rule for packets whose pinhole's entry has a byte counter equal to ("eq") or below ("lt") *data*."""
    rule = iptc.Rule()
    match = rule.create_match("set")
    match.match_set = [PIN_SET, "dst,dst,src"]
    match.update_counters = "!"
    setattr(match, f"bytes_{operator}", str(data))
    return rule


def _destination_rule(destination: Endpoint, bucket: int) -> Any:
    rule = _pin_rule("eq", pin_data(destination, bucket))
    rule.protocol = "tcp"
    rule.create_match("comment").comment = f"{COMMENT} to={destination}"
    target = rule.create_target("DNAT")
    target.to_destination = str(destination) if destination.port else destination.address
    return rule


def _forward_rules(forward: Forward, marks: Marks) -> list[Any]:
    """Two rules with the same match: one sets the mark that the filter table accepts, one translates.

    They are for the router's own addresses, not for what it routes to a host with a public address.

    Raises BackendError if an extension of iptables that they need is missing.
    """
    low, high = forward.ports[0], forward.ports[-1]

    def match() -> Any:
        rule = iptc.Rule()
        rule.protocol = "tcp"
        rule.create_match("tcp").dport = f"{low}:{high}" if low < high else str(low)
        rule.create_match("addrtype").dst_type = "LOCAL"
        rule.create_match("comment").comment = f"{COMMENT} forward={low}-{high} in={forward.host}"
        return rule

    try:
        mark, translate = match(), match()
        bits = f"{marks.pinhole | marks.forwarded:#x}"
        mark.create_target("CONNMARK").set_xmark = f"{bits}/{bits}"
        translate.create_target("DNAT").to_destination = forward.host
    except iptc.XTablesError as error:
        raise BackendError(f"an extension of iptables is missing: {error}") from error
    return [mark, translate]


def _comment_of(rule: Any) -> str:
    found = next((str(match.comment) for match in rule.matches if match.name == "comment"), "")
    return found.strip('"')
