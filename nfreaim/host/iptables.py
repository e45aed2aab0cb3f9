"""Iptables: pinholes as rules of our chain in the nat table. The only module that knows python-iptables.

The chain is made and removed by rules/nfreaim-rules; this fills it and touches nothing else. The library
has to be used in one way only: without autocommit (which swallows the kernel's refusals), under the lock of
the iptables programs (which it ignores), and with a refresh inside the lock (or a concurrent change is lost).

A pinhole is two rules: the first marks the connection, so that the static rule of the filter table accepts
it, the second translates it. Both carry the pinhole in their comment: the kernel is the source of truth, and
a restarted daemon reads it back. A forward of the configuration is two rules of the same kind, over a range
of ports and without a destination address: what is sent to our chain is for the router itself.
"""

from __future__ import annotations

import fcntl
import os
import re
import socket
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import iptc

from nfreaim.core.flow import Endpoint, Owner
from nfreaim.core.pinhole import Forward, Pinhole
from nfreaim.errors import BackendError
from nfreaim.host.forwards import Forwards

CHAIN: Final = "NFREAIM"
PINHOLE_MARK: Final = 0x200000

_LOCK: Final = Path("/run/xtables.lock")
_LOCK_WAIT: Final = 0.25  # seconds; a packet waits meanwhile, and its sender will soon retransmit
_TRIES: Final = 5
_COMMENT: Final = re.compile(
    r"nfreaim out=(?P<out>\S+) in=(?P<in>\S+) flow=(?P<client>\S+)>(?P<server>\S+)"
    r" for=(?P<service>\S+) cookie=(?P<cookie>[0-9a-f]*) until=(?P<until>\S+) since=(?P<since>\S+)"
    r" peer=(?P<peer>\S+)"
)
_FORWARD: Final = re.compile(r"nfreaim forward=(?P<low>\d+)-(?P<high>\d+) in=(?P<host>\S+)")
# What libiptc says of a rule that is not in the chain; which of the two depends on its build.
_ABSENT: Final = ("does a matching rule exist", "No chain/target/match by that name")
_LISTEN: Final = "0A"


class Iptables:
    """The firewall behind the pinhole table (core.pinhole.Firewall)."""

    def __init__(self, forwards: Forwards) -> None:
        self._forwards = forwards

    def commit(self, add: Sequence[Pinhole], remove: Sequence[Pinhole]) -> None:
        """Add and remove pinholes in one replacement of the table. Raises BackendError."""
        if not add and not remove:
            return
        added = [rule for pinhole in add for rule in _rules(pinhole)]
        removed = [rule for pinhole in remove for rule in _rules(pinhole)]

        def change(chain: Any) -> None:
            for rule in removed:
                _delete(chain, rule)
            for rule in added:
                chain.append_rule(rule)

        _replace(change)

    def forward(self, forwards: Sequence[Forward]) -> None:
        """Make these the forwards in our chain, in place of those that are there. Raises BackendError.

        They stand before the pinholes, which never use their ports for anybody else.
        """
        if not forwards and not self.forwards():
            return
        wanted = [rule for forward in forwards for rule in _forward_rules(forward)]

        def change(chain: Any) -> None:
            for rule in chain.rules:
                if _FORWARD.fullmatch(_comment_of(rule)):
                    chain.delete_rule(rule)
            for rule in reversed(wanted):
                chain.insert_rule(rule)

        _replace(change)

    def forwards(self) -> list[Forward]:
        """The forwards in the kernel. Raises BackendError."""
        found = [_FORWARD.fullmatch(comment) for comment in _comments()]
        return [Forward(it["host"], range(int(it["low"]), int(it["high"]) + 1)) for it in found if it]

    def list(self) -> list[Pinhole]:
        """The pinholes in the kernel. Raises BackendError."""
        return [pinhole for comment in _comments() if (pinhole := _parse(comment)) is not None]

    def busy(self, outside: Endpoint) -> bool:
        """Whether the router itself listens there, or somebody else's rule forwards that port."""
        return self._forwards.covers(outside.port) or _listens(outside)


@contextmanager
def _chain() -> Iterator[tuple[Any, Any]]:
    """The nat table, just read, and our chain in it, under the lock. Raises BackendError, IPTCError."""
    try:
        # As iptables itself does: to lock it, reading is enough, and the daemon need not own it.
        lock = os.fdopen(os.open(_LOCK, os.O_RDONLY | os.O_CREAT | os.O_CLOEXEC, 0o600))
    except OSError as error:
        raise BackendError(f"the lock of iptables cannot be taken: {error}; are you root?") from error
    with lock:
        deadline = time.monotonic() + _LOCK_WAIT
        while True:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() > deadline:
                    raise BackendError(f"another program holds {_LOCK} for {_LOCK_WAIT} s") from None
                time.sleep(0.005)
        table = iptc.Table(iptc.Table.NAT, autocommit=False)
        table.refresh()
        if not table.is_chain(CHAIN):
            raise BackendError(f"chain {CHAIN} is missing in the legacy nat table: run make install-rules")
        yield table, iptc.Chain(table, CHAIN)


def _replace(change: Callable[[Any], None]) -> None:
    """Let *change* work on our chain, and commit. Raises BackendError."""
    for attempt in range(1, _TRIES + 1):
        try:
            with _chain() as (table, chain):
                change(chain)
                table.commit()
            return
        except iptc.IPTCError as error:
            # Somebody who ignores the lock changed the table between refresh and commit.
            if "temporarily unavailable" not in str(error) or attempt == _TRIES:
                raise BackendError(f"iptables-legacy nat: {error}") from error


def _comments() -> list[str]:
    """The comments of the translating rules in our chain. Raises BackendError."""
    try:
        with _chain() as (_, chain):
            return [_comment_of(rule) for rule in chain.rules if rule.target.name == "DNAT"]
    except iptc.IPTCError as error:
        raise BackendError(f"iptables-legacy nat: {error}") from error


def _rules(pinhole: Pinhole) -> list[Any]:
    return _marked(lambda: _match(pinhole), str(pinhole.inside))


def _forward_rules(forward: Forward) -> list[Any]:
    low, high = forward.ports[0], forward.ports[-1]

    def match() -> Any:
        rule = iptc.Rule()
        rule.protocol = "tcp"
        rule.create_match("tcp").dport = f"{low}:{high}" if low < high else str(low)
        rule.create_match("comment").comment = f"nfreaim forward={low}-{high} in={forward.host}"
        return rule

    return _marked(match, forward.host)


def _marked(match: Callable[[], Any], destination: str) -> list[Any]:
    """Two rules of this match: the mark that the filter table accepts, and the translation.

    Raises BackendError if an extension of iptables that they need is missing.
    """
    try:
        mark, forward = match(), match()
        mark.create_target("CONNMARK").set_xmark = f"{PINHOLE_MARK:#x}/{PINHOLE_MARK:#x}"
        forward.create_target("DNAT").to_destination = destination
    except iptc.XTablesError as error:
        raise BackendError(f"an extension of iptables is missing: {error}") from error
    return [mark, forward]


def _match(pinhole: Pinhole) -> Any:
    rule = iptc.Rule()
    rule.protocol = "tcp"
    rule.dst = f"{pinhole.outside.address}/255.255.255.255"
    if pinhole.peer is not None:
        rule.src = f"{pinhole.peer}/255.255.255.255"
    rule.create_match("tcp").dport = str(pinhole.outside.port)
    rule.create_match("comment").comment = (
        f"nfreaim out={pinhole.outside} in={pinhole.inside}"
        f" flow={pinhole.owner.client}>{pinhole.owner.server}"
        f" for={pinhole.service} cookie={pinhole.cookie.hex()} until={pinhole.deadline:.3f}"
        f" since={pinhole.since:.3f} peer={pinhole.peer or 'any'}"
    )
    return rule


def _delete(chain: Any, rule: Any) -> None:
    try:
        chain.delete_rule(rule)
    except iptc.IPTCError as error:
        if not any(text in str(error) for text in _ABSENT):
            raise


def _comment_of(rule: Any) -> str:
    found = next((str(match.comment) for match in rule.matches if match.name == "comment"), "")
    return found.strip('"')


def _parse(comment: str) -> Pinhole | None:
    found = _COMMENT.fullmatch(comment)
    if found is None:
        return None
    try:
        return Pinhole(
            _endpoint(found["in"]),
            _endpoint(found["out"]),
            Owner(_endpoint(found["client"]), _endpoint(found["server"])),
            bytes.fromhex(found["cookie"]),
            found["service"],
            float(found["until"]),
            None if found["peer"] == "any" else found["peer"],
            float(found["since"]),
        )
    except ValueError:
        return None


def _endpoint(text: str) -> Endpoint:
    address, _, port = text.rpartition(":")
    return Endpoint(socket.inet_ntoa(socket.inet_pton(socket.AF_INET, address)), int(port))


def _listens(outside: Endpoint) -> bool:
    """Whether a socket of the router's own listens on that port, on that address or on all."""
    port = f"{outside.port:04X}"
    own = socket.inet_aton(outside.address)[::-1].hex().upper()
    for name, addresses in (("tcp", {own, "0" * 8}), ("tcp6", {"0" * 32})):
        try:
            lines = Path("/proc/net", name).read_text().splitlines()[1:]
        except FileNotFoundError:  # a kernel without IPv6
            continue
        for line in lines:
            words = line.split()
            address, _, local = words[1].partition(":")
            if local == port and words[3] == _LISTEN and address in addresses:
                return True
    return False
