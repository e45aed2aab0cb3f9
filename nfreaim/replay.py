"""``nfreaim replay``: what nfreaim would have done to the packets of a capture. No root, no network.

The capture stands for the router's LAN side, before source NAT, where each packet is seen once. The engine
gets what the hooks would queue; firewall and connection tracking are stand-ins that agree to everything, and
the clock is the capture's. This module may not import anything of host/, nor decide what becomes of a
message.

What a capture cannot tell: that a peer used a pinhole, or that a control connection was lost without a FIN.
Pinholes therefore live until a message, a FIN or their deadline ends them.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from ipaddress import IPv4Address, IPv4Network
from typing import Any, Final, NamedTuple

from nfreaim.capture import Capture, CaptureError, Frame, network_offset
from nfreaim.core.address import Endpoint, FlowId, flow_id, reverse
from nfreaim.core.backend import Record
from nfreaim.core.engine import Engine
from nfreaim.core.firewall.pinhole import Pinhole
from nfreaim.core.firewall.policy import PinholePolicy
from nfreaim.core.firewall.table import PinholeTable
from nfreaim.core.flow import Flow
from nfreaim.core.helper import Report
from nfreaim.core.settings import EngineSettings
from nfreaim.core.tcp.segment import SYN, Segment
from nfreaim.core.verdict import Verdicts
from nfreaim.errors import ConfigError

DEFAULT_PORTS: Final = (5190,)


@dataclass(frozen=True, slots=True)
class Message:
    """What became of one proposal; *frame* is the one whose arrival completed it, from 1 as in tshark."""

    frame: int
    report: Report

    def as_dict(self) -> dict[str, Any]:
        report = self.report
        return {
            "frame": self.frame,
            "direction": report.direction,
            "service": report.service,
            "stage": report.stage,
            "cookie": report.cookie.hex(),
            "before": str(report.before),
            "after": str(report.after),
            "action": report.action,
            "reason": report.reason,
        }

    def __str__(self) -> str:
        report = self.report
        what = f"frame {self.frame}: {report.direction} {report.service} stage {report.stage}"
        if report.before == report.after:
            return f"{what} {report.before} {report.action}: {report.reason}"
        return f"{what} {report.before} -> {report.after} {report.action}: {report.reason}"


@dataclass(slots=True)
class Replay:
    """The outcome of a replay.

    packets    in the capture, of whatever kind
    changed    of those, how many leave with other bytes
    flows      control connections that were followed
    messages   every proposal that was read, in order
    pinholes   every pinhole that was opened, in order: inside, outside
    malformed  flows and messages that were given up because their bytes contradict the protocol
    """

    packets: int = 0
    changed: int = 0
    flows: int = 0
    messages: list[Message] = field(default_factory=list)
    pinholes: list[tuple[Endpoint, Endpoint]] = field(default_factory=list)
    malformed: int = 0

    def as_dict(self) -> dict[str, Any]:
        """The object that ``--json`` prints."""
        return {
            "packets": self.packets,
            "changed": self.changed,
            "flows": self.flows,
            "messages": [message.as_dict() for message in self.messages],
            "pinholes": [
                {"inside": str(inside), "outside": str(outside)} for inside, outside in self.pinholes
            ],
            "malformed": self.malformed,
        }

    def __str__(self) -> str:
        lines = [str(message) for message in self.messages]
        lines += [f"pinhole {outside} -> {inside}" for inside, outside in self.pinholes]
        lines.append(
            f"{self.packets} packets, {self.changed} changed; {self.flows} flows, {self.malformed} malformed"
        )
        return "\n".join(lines)


def replay(
    capture: Capture,
    inside: IPv4Network,
    outside: str,
    ports: Sequence[int] = DEFAULT_PORTS,
    midstream: bool = False,
) -> Replay:
    """Play *capture* through the engine and let it hold, frame by frame, what would have left.

    inside     the network behind the router: of clients, of servers, or of both
    outside    the router's outside address; written into messages whatever it is, a private one included
    ports      the servers' ports, inside as well as outside; a client redirected to another is followed there
    midstream  read flows whose beginning is not in the capture, too

    A packet behind a hole in its stream is offered again when the hole is filled, as its sender would do; one
    whose hole is never filled stays as it is, and so does all the rest of its flow.
    """
    return _Player(capture, inside, outside, ports, midstream).play()


class _Packet(NamedTuple):
    """A packet on its way through the engine, and the frame that it lies in from byte *at* on."""

    frame: Frame
    at: int
    segment: Segment
    from_inside: bool


class _OpenFirewall:
    """A firewall that lets everything be done and has no ports of its own."""

    def put(self, pinhole: Pinhole, earlier: Pinhole | None) -> None:
        """Nothing stands behind the pinhole table here."""

    def drop(self, pinhole: Pinhole) -> None:
        pass

    def prepare(self, host: str) -> None:
        pass

    def upkeep(self) -> None:
        pass

    def list(self) -> list[Pinhole]:
        return []

    def busy(self, outside: Endpoint) -> bool:
        return False


class _OneAddress:
    """A router that translates everything to one address, port by port, and never loses anything.

    followed  servers that clients were redirected to
    """

    def __init__(self, outside: str, inside: IPv4Network) -> None:
        self._outside = outside
        self._inside = inside
        self.followed: set[Endpoint] = set()

    def outside_address(self, owner: FlowId) -> str:
        return self._outside

    def alive(self, owner: FlowId) -> bool:
        return True

    def ended(self, owner: FlowId) -> bool:
        return False

    def offload(self, owner: FlowId) -> None:
        """There is no queue to leave."""

    def reclaim(self, owner: FlowId) -> None:
        """There is no queue to come back to."""

    def reached(self, owner: FlowId) -> Endpoint:
        return Endpoint(self._outside, owner.server.port)

    def lan(self, address: str) -> bool:
        return IPv4Address(address) in self._inside

    def divert(self, server: Endpoint) -> None:
        self.followed.add(server)

    def protect(self, key: bytes, record: Record) -> None:
        """Nothing outlives a replay."""

    def unprotect(self, key: bytes) -> None:
        """Nothing was kept."""

    def keep(self, key: bytes, record: Record) -> None:
        """Nobody goes on with a capture's flows."""

    def note(self, key: bytes, place: bytes) -> None:
        """As above."""

    def drop(self, key: bytes, skewed: bool) -> None:
        """As above."""

    def reset(self, segment: Segment) -> None:
        """No flow of a capture is from before its engine."""


class _Player:
    """One run over a capture. Also the engine's watcher: it knows which frame has just arrived."""

    def __init__(
        self, capture: Capture, inside: IPv4Network, outside: str, ports: Sequence[int], midstream: bool
    ) -> None:
        self._capture = capture
        self._inside = inside
        self._ports = frozenset(ports)
        self._result = Replay()
        self._number = 0
        self._now = 0.0
        self._dropped: dict[bytes, list[_Packet]] = {}
        self._kernel = _OneAddress(outside, inside)
        from nfreaim.helpers import HELPERS  # with scapy, which the other commands do without

        self._engine = Engine(
            helpers=dict.fromkeys(self._ports, HELPERS["oscar"]),
            pinholes=PinholeTable(PinholePolicy(announce=outside), _OpenFirewall(), self),
            kernel=self._kernel,
            watcher=self,
            settings=EngineSettings(midstream=midstream),
        )

    def play(self) -> Replay:
        result = self._result
        for frame in self._capture:
            result.packets += 1
            self._now = max(self._now, frame.time)
            self._let_go(self._engine.tick(self._now))
            packet = self._queued(frame)
            if packet is not None:
                self._arrive(packet)
        self._let_go(self._engine.shutdown("end of the capture"))
        counters = self._engine.counters
        result.flows = counters.flows
        result.malformed = counters.malformed_flows + counters.malformed_messages
        return result

    def _queued(self, frame: Frame) -> _Packet | None:
        """The packet in *frame*, if the hooks would queue it: it crosses the router, to or from a port."""
        at = network_offset(frame.link, frame.data)
        if at is None:
            return None
        length = int.from_bytes(frame.data[at + 2 : at + 4], "big")
        segment = Segment.parse(frame.data[at : at + length])
        if segment is None:
            return None
        key = segment.key
        source, target = (IPv4Address(key[low : low + 4]) in self._inside for low in (0, 4))
        if source == target or not any(self._served(end) for end in flow_id(key)):
            return None
        return _Packet(frame, at, segment, source)

    def _served(self, end: Endpoint) -> bool:
        return end.port in self._ports or end in self._kernel.followed

    def _arrive(self, packet: _Packet) -> None:
        key = packet.segment.key
        self._number = packet.frame.number
        if packet.segment.flags & SYN:
            # The hole of an old connection between the same endpoints will not be filled by the new one.
            self._dropped.pop(key, None)
            self._dropped.pop(reverse(key), None)
        self._offer(packet)
        self._catch_up(key)

    def _offer(self, packet: _Packet) -> bool:
        """Whether the engine took *packet*, be it to hold it, rather than have it sent again."""
        verdicts = self._engine.process(packet.segment.raw, packet, packet.from_inside, self._now)
        self._settle(verdicts)
        return all(verdict.accept for token, verdict in verdicts if token is packet)

    def _settle(self, verdicts: Verdicts) -> None:
        for packet, verdict in verdicts:
            if not verdict.accept:
                self._dropped.setdefault(packet.segment.key, []).append(packet)
            elif verdict.payload is not None:
                self._write(packet, verdict.payload)

    def _let_go(self, verdicts: Verdicts) -> None:
        """Carry out what the clock decided, and see to those that waited for it."""
        self._settle(verdicts)
        for key in {packet.segment.key: None for packet, _ in verdicts}:
            self._catch_up(key)

    def _catch_up(self, key: bytes) -> None:
        """Offer again what was dropped of *key* and does not lie behind a hole any more."""
        progress = True
        while progress and key in self._dropped:
            progress = False
            for packet in self._dropped.pop(key):
                if not self._in_order(packet):
                    self._dropped.setdefault(key, []).append(packet)
                elif self._offer(packet):
                    progress = True

    def _in_order(self, packet: _Packet) -> bool:
        stream = self._engine.flows.streams.get(packet.segment.key)
        return stream is not None and stream.offset(packet.segment.seq) <= stream.next

    def _write(self, packet: _Packet, payload: bytes) -> None:
        data, at = packet.frame.data, packet.at
        behind = data[at + len(packet.segment.raw) :]
        self._capture.replace(packet.frame.number, data[:at] + payload + behind)
        self._result.changed += 1

    def reported(self, flow: Flow, report: Report) -> None:
        self._result.messages.append(Message(self._number, report))

    def opened(self, pinhole: Pinhole) -> None:
        self._result.pinholes.append((pinhole.inside, pinhole.outside))

    def claimed(self, pinhole: Pinhole, peer: str) -> None:
        """Never called: nobody watches the peers."""

    def closed(self, pinhole: Pinhole, reason: str) -> None:
        """The outcome lists what was opened."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The arguments that ``main`` reads."""
    parser.add_argument("capture", metavar="IN.pcap", help="pcap or pcapng, taken on the router's LAN side")
    parser.add_argument("-o", "--output", metavar="OUT.pcap", help="write the capture as it would have left")
    parser.add_argument("--inside", metavar="CIDR", required=True, help="the network behind the router")
    parser.add_argument("--outside", metavar="ADDRESS", required=True, help="the router's outside address")
    parser.add_argument(
        "--port", metavar="N", action="append", help="a port of the servers (default 5190); repeatable"
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object instead of text")
    parser.add_argument(
        "--midstream", action="store_true", help="also read connections whose beginning is not in the capture"
    )


def main(arguments: argparse.Namespace) -> int:
    """``nfreaim replay``: 0, or 2 with one line on stderr if there is nothing to work on."""
    try:
        inside = _network(arguments.inside)
        outside = _address(arguments.outside)
        ports = [_port(text) for text in arguments.port or DEFAULT_PORTS]
        capture = Capture.load(arguments.capture)
        if capture.truncated:
            print(f"nfreaim replay: {capture.truncated}; replayed up to there", file=sys.stderr)
        result = replay(capture, inside, outside, ports, arguments.midstream)
        if arguments.output is not None:
            capture.save(arguments.output)
    except ConfigError as error:
        print(f"nfreaim replay: {error}", file=sys.stderr)
        return 2
    except CaptureError as error:
        remedy = "name a readable pcap or pcapng file and a writable place for -o"
        print(f"nfreaim replay: {error}; {remedy}", file=sys.stderr)
        return 2
    print(json.dumps(result.as_dict(), indent=2) if arguments.json else result)
    return 0


def _network(text: str) -> IPv4Network:
    try:
        return IPv4Network(text, strict=False)
    except ValueError:
        raise ConfigError(f"--inside {text}: not an IPv4 network; write one like 192.168.1.0/24") from None


def _address(text: str) -> str:
    try:
        return str(IPv4Address(text))
    except ValueError:
        raise ConfigError(f"--outside {text}: not an IPv4 address; write one like 203.0.113.1") from None


def _port(text: str | int) -> int:
    try:
        port = int(text)
    except ValueError:
        port = 0
    if not 0 < port < 65536:
        raise ConfigError(f"--port {text}: not a TCP port; write a number from 1 to 65535")
    return port
