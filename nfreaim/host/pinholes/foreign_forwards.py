"""Foreign forwards: the ports that other rules forward, read from the output of the firewall's programs.

No peer would reach a pinhole on such a port, because the operator's forwards come first, and so do those that
programs make on request of LAN hosts (UPnP, PCP). They may be made at any time, so they are watched.
"""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Callable, Collection, Iterable
from contextlib import suppress
from ipaddress import IPv4Address, IPv4Network
from typing import Final, NamedTuple

from nfreaim.core.address import Endpoint
from nfreaim.errors import BackendError
from nfreaim.host.netfilter.interfaces import is_named
from nfreaim.host.netfilter.legacy_tables import LegacyTables
from nfreaim.host.netfilter.names import COMMENT, is_our_table
from nfreaim.host.netfilter.nft_generation import generation
from nfreaim.host.rules.background import BackgroundPrograms

_LEGACY: Final = ("iptables-legacy-save", "-t", "nat")
_NATIVE: Final = ("nft", "list", "ruleset")
_TIMEOUT_S: Final = 5.0
# The statement. A look at what another rule translated (ct status dnat, --ctstate DNAT) is none, nor is the
# name of a chain, or a type of ICMP.
_TRANSLATES: Final = re.compile(
    r'(?:-j |xt target ")(?:DNAT|REDIRECT)\b|\bdnat (?:ip6? )?(?:addr \. port )?(?:prefix )?to\b'
    r"|(?<!chain )(?<!jump )(?<!goto )(?<!type )\bredirect\b"
)
# --dport 80, --dport 80:90, --dports 80,443,8000:8100; nft says dport 80, dport 80-90, dport { 80, 443 }
_RANGE: Final = r"([0-9]+)(?:[:-]([0-9]+))?"
_PORTS: Final = re.compile(rf"\bdports? (?:\{{ )?({_RANGE}(?:, ?{_RANGE})*)")
# What programs write there may be a LAN host's words (the description of a UPnP mapping).
_COMMENT: Final = re.compile(r'(?:-m comment --)?\bcomment "((?:[^"\\]|\\.)*)"')
_OWN: Final = f"{COMMENT} "
_TABLE: Final = re.compile(r"table (\S+) (\S+) \{")
# Other transports than TCP. miniupnpd compares the protocol's byte in the IPv4 header, which nft prints raw.
_OTHER: Final = re.compile(
    r"-p (?:udp|sctp|dccp)\b|\b(?:udp|sctp|dccp) dport\b|\b(?:l4proto|ip protocol) (?:udp|17)\b"
    r"|@nh,72,8 (?:0x11|17)\b"
)
_ADDRESS: Final = re.compile(r"(?:(?<!! )-d|\bip daddr) ([0-9][0-9.]*(?:/[0-9]+)?)(?= )")
_INTERFACE: Final = re.compile(r"(?:(?<!! )-i|\biif(?:name)?) \"?([^\s\"{]+)")
_LOOK_EVERY_S: Final = 2.0
_ASK_EVERY_S: Final = 0.1  # while ports are looked for: of a whole range, hundreds may be asked about at once
_ASK_SHARE: Final = 0.25  # at most so much of the time is spent on that in the long run: packets wait
_ASK_AHEAD_S: Final = 10.0  # by so much time it may be ahead of that
_READ_EVERY_S: Final = 30.0  # without a sign of change

_Version = tuple[bytes, int | None]
"""Changes with the rules: a digest of those in the legacy table, and nft's generation number."""

_UNREAD: Final[_Version] = (b"", -1)
_NO_PORTS: Final = bytes(1 << 16)


class ForeignForward(NamedTuple):
    """TCP ports that another rule forwards.

    ports      empty if the rule names none that could be read: perhaps it is for all (a "DMZ host")
    addresses  outside ones, as the rule names them: an address or a network; "" for any
    interface  where packets must come in; "" for any
    """

    ports: range
    addresses: str = ""
    interface: str = ""

    def takes(self, outside: Endpoint, inside: Collection[str]) -> bool:
        """Whether the rule gets what comes for *outside*. *inside*: interfaces where that never comes in."""
        return outside.port in self.ports and not is_named(self.interface, inside) and self._is_for(outside)

    def may_take(self, outside: Endpoint) -> bool:
        """The same, as far as is known; of a rule without ports it is not known."""
        return (outside.port in self.ports or not self.ports) and self._is_for(outside)

    def _is_for(self, outside: Endpoint) -> bool:
        return not self.addresses or IPv4Address(outside.address) in IPv4Network(self.addresses, strict=False)


def foreign_forwards() -> list[ForeignForward]:
    """What other rules forward; takes some milliseconds. An unreadable ruleset counts as empty.

    Raises BackendError if it cannot be told which rules there are.
    """
    tables = LegacyTables()
    try:
        legacy = "nat" in tables.sizes()
    finally:
        tables.close()
    return [found for program in _programs(legacy) for found in forwarded(_output(program))]


def forwarded(rules: str) -> list[ForeignForward]:
    """The forwards of TCP ports among *rules*, one rule per line, without our own rules."""
    found = []
    ours = False
    for line in rules.splitlines():
        if table := _TABLE.match(line):
            ours = is_our_table(table[1], table[2])
        if ours:
            continue
        comment = _COMMENT.search(line)
        if comment is not None and comment[1].startswith(_OWN):
            continue
        line = _COMMENT.sub("", line)
        if _OTHER.search(line) or not _TRANSLATES.search(line) or line.startswith("-A OUTPUT "):
            continue
        ports = _PORTS.search(line)
        address, interface = _ADDRESS.search(line), _INTERFACE.search(line)
        for low, high in re.findall(_RANGE, ports[1]) if ports else [("0", "-1")]:
            numbers = range(int(low), int(high or low) + 1)
            found.append(
                ForeignForward(numbers, address[1] if address else "", interface[1] if interface else "")
            )
    return found


class ForeignForwards:
    """What other rules forward. *clock* tells the time.

    A look costs some 5 µs for each rule of the legacy nat table. It compares all of them, because a table of
    the same size may have one mapping less and another one more. Programs read the rules that have changed:
    beside the daemon, or at once if a port is about to be opened.
    """

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._tables = LegacyTables()
        self._known: list[ForeignForward] = []
        self._ports = _NO_PORTS
        self._read = self._begun = _UNREAD
        self._look_at = self._read_at = 0.0  # when to look again, and to read without a sign of change
        self._ask_at = self._paid_at = 0.0
        self._told = True
        self._programs = BackgroundPrograms()
        self._found: list[ForeignForward] = []

    def close(self) -> None:
        """Wait for the programs that run, and close the socket."""
        self._programs.end()
        self._tables.close()

    @property
    def busy(self) -> bool:
        """Whether a program runs. Then ``look`` should be called often."""
        return bool(self._programs)

    def look(self) -> bool:
        """Whether they were read anew since the last look; reads them if it is time. Raises BackendError."""
        now = self._clock()
        if self._programs:
            self._collect()
        elif now >= self._look_at:
            self._look_at = now + _LOOK_EVERY_S
            version = self._version()
            if version != self._read or now >= self._read_at:
                self._begun, self._found = version, []
                self._programs.start(_programs(bool(version[0])), _TIMEOUT_S)
        told, self._told = self._told, True
        return not told

    def refresh(self) -> None:
        """Read them now; takes some milliseconds. Raises BackendError."""
        self._know(self._version(), foreign_forwards())

    def has(self, port: int) -> bool:
        """Whether another rule forwards TCP port *port* at this moment, to whatever address it is sent."""
        now = self._clock()
        if now >= self._ask_at:
            with suppress(BackendError):  # then what was read last counts, and ``look`` says so
                if self._version() != self._read:
                    self.refresh()
            self._paid_at = max(now, self._paid_at) + (self._clock() - now) / _ASK_SHARE
            self._ask_at = max(now + _ASK_EVERY_S, self._paid_at - _ASK_AHEAD_S)
        return self._ports[port : port + 1] == b"\1"

    def takes(self, outside: Endpoint, inside: Collection[str]) -> bool:
        """Whether a rule that is known gets what comes for *outside*; see ``ForeignForward.takes``."""
        return any(one.takes(outside, inside) for one in self._known)

    def may_take(self, outside: Endpoint) -> bool:
        """Whether a rule that is known may get what comes for *outside*; see ``ForeignForward.may_take``."""
        return any(one.may_take(outside) for one in self._known)

    def _version(self) -> _Version:
        return self._tables.others("nat"), generation()

    def _know(self, version: _Version, found: list[ForeignForward]) -> None:
        self._read, self._known, self._told = version, found, False
        self._ports = _marked(one.ports for one in found)
        self._read_at = self._clock() + _READ_EVERY_S
        self._begun = _UNREAD  # what a program is reading now may be older

    def _collect(self) -> None:
        try:
            for done in self._programs.ended():
                self._found += forwarded(done.stdout if done.returncode == 0 else "")
        except BackendError:
            self._begun = _UNREAD
            raise
        if not self._programs and self._begun != _UNREAD:
            self._know(self._begun, self._found)


def _programs(legacy: bool) -> list[tuple[str, ...]]:
    """Those that read the rules. The first makes the table that it reads, if that is not there."""
    return [_LEGACY, _NATIVE] if legacy else [_NATIVE]


def _marked(some: Iterable[range]) -> bytes:
    """A byte for each port: 1 if it is in *some*. There may be thousands, and as many questions at once."""
    ports = bytearray(_NO_PORTS)
    for one in some:
        ports[one.start : one.stop] = b"\1" * len(one)
    return bytes(ports)


def _output(command: tuple[str, ...]) -> str:
    if shutil.which(command[0]) is None:
        return ""
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=_TIMEOUT_S, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout
