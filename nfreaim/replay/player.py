"""replay: plays a capture through the engine, and puts the packets that would have left into its frames."""

from __future__ import annotations

import struct
from collections.abc import Container, Iterator, Mapping, Sequence
from ipaddress import IPv4Address
from math import inf
from typing import Final, NamedTuple, Protocol

from nfreaim.capture import Frame
from nfreaim.capture.link_layer import network_offset
from nfreaim.core.address import Endpoint, FlowId, flow_id, reverse
from nfreaim.core.backend import Followed
from nfreaim.core.engine import Engine
from nfreaim.core.firewall.pinhole import Pinhole
from nfreaim.core.firewall.policy import PinholePolicy
from nfreaim.core.helper import Report
from nfreaim.core.null import NullConntrack, NullFirewall, NullQueueControl, NullWatcher, null_backend
from nfreaim.core.settings import EngineSettings
from nfreaim.core.tcp.segment import ACK, SYN, Segment, distance, wrap
from nfreaim.core.tcp.stream import FAR
from nfreaim.core.verdict import Verdicts
from nfreaim.protocols import Ports, by_port, limited, usual_ports
from nfreaim.replay.outcome import Kind, Message, Replay, Step
from nfreaim.replay.renumbering import Renumbering
from nfreaim.replay.told_table import ToldTable

_ETHERNET: Final = 1
_SHORTEST: Final = 60  # bytes of an Ethernet frame without its check sequence (IEEE 802.3 section 3.2.8)
_WIDEST: Final = bytes((1, 3, 3, 14))  # options of a SYN: NOP, window scale 14 (RFC 7323 section 2.2)


class Frames(Protocol):
    """A capture, as replay needs it: its frames in order of time, of which some are replaced."""

    def __iter__(self) -> Iterator[Frame]:
        """The frames."""

    def replace(self, number: int, data: bytes) -> None:
        """Make *data* the bytes of frame *number*."""


def replay(
    capture: Frames,
    inside: Container[IPv4Address],
    outside: str,
    protocols: Mapping[str, Sequence[int]] | None = None,
    midstream: bool = False,
) -> Replay:
    """Play *capture* through the engine, and put the packet that would have left into each frame.

    inside     the network behind the router, of clients, servers or both
    outside    the router's outside address; it is written into messages even if it is private
    protocols  the protocols to read, with the ports of their servers, inside as well as outside; servers that
               a redirect names are followed. None: the default protocol on its usual ports
    midstream  read also flows whose beginning is not in the capture

    A packet behind a gap in its stream is offered to the engine again when the gap is filled, as its sender
    would retransmit it. If the gap is never filled, this packet and the rest of its flow keep their bytes.
    After an edit that changes a length, all frames of the flow have the numbers of the edited stream.
    """
    chosen = {name: tuple(numbers) for name, numbers in (protocols or usual_ports()).items()}
    return _Player(capture, NullConntrack(outside, inside), chosen, midstream).play()


class _Packet(NamedTuple):
    """A packet on its way through the engine, and the frame that holds it from byte *at* on."""

    frame: Frame
    at: int
    segment: Segment
    from_inside: bool


class _Player(NullWatcher):
    """One run over a capture. It is also the engine's watcher, because it knows the frame that arrived last.

    taken    numbers of the frames whose packets the engine saw and let leave
    held     packets that the engine holds, by direction and number of the frame
    dropped  packets that the engine dropped, so that they have to be sent again, by direction
    ends     the sequence number behind the last byte that the engine saw in order, by direction
    """

    def __init__(self, capture: Frames, router: NullConntrack, ports: Ports, midstream: bool) -> None:
        self._capture = capture
        self._inside = router.inside
        self._ports = ports
        self._result = Replay()
        self._changed: set[int] = set()
        self._taken: set[int] = set()
        self._number = 0
        self._now = 0.0
        self._held: dict[bytes, dict[int, _Packet]] = {}
        self._dropped: dict[bytes, list[_Packet]] = {}
        self._ends: dict[bytes, int] = {}
        self._renumbering = Renumbering()
        self._queue = NullQueueControl()
        policy = limited(PinholePolicy(announce=router.outside), ports, {})
        self._engine = Engine(
            helpers=by_port(ports),
            pinholes=ToldTable(policy, NullFirewall(), self, self._history),
            backend=null_backend(router, self._queue),
            watcher=self,
            settings=EngineSettings(midstream=midstream, patience=inf),  # no receiver answers here
        )

    def _history(
        self, kind: Kind, flow: FlowId, agreement: bytes, reason: str, outside: Endpoint | None
    ) -> None:
        self._result.history.append(Step(self._number, flow, kind, agreement, reason, outside))

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
        if self._renumbering:
            self._renumber()
        counters = self._engine.stats().counters
        result.changed = len(self._changed)
        result.flows = counters["flows"]
        result.malformed = counters["malformed_flows"] + counters["malformed_messages"]
        return result

    def _queued(self, frame: Frame) -> _Packet | None:
        """The packet in *frame* if the hooks would queue it: it crosses the router to or from a server."""
        at = network_offset(frame.link, frame.data)
        if at is None:
            return None
        length = int.from_bytes(frame.data[at + 2 : at + 4], "big")
        segment = Segment.parse(frame.data[at : at + length])
        if segment is None:
            return None
        key = segment.key
        source, target = (IPv4Address(key[low : low + 4]) in self._inside for low in (0, 4))
        if source == target or not (self._served(flow_id(key)) or self._served(flow_id(reverse(key)))):
            return None
        return _Packet(frame, at, segment, source)

    def _served(self, flow: FlowId) -> bool:
        """Whether *flow* leads to a server of a protocol that is read."""
        client, server = flow
        return any(
            server.port in ports or Followed(server, client.address, name) in self._queue.followed
            for name, ports in self._ports.items()
        )

    def _arrive(self, packet: _Packet) -> None:
        segment, self._number = packet.segment, packet.frame.number
        if segment.flags & SYN:
            # The new connection cannot fill a gap of an old one between the same endpoints.
            self._dropped.pop(segment.key, None)
            self._dropped.pop(reverse(segment.key), None)
            if not segment.flags & ACK:
                self._renumbering.begin(segment, packet.frame.number)
        self._offer(packet)
        self._catch_up(segment.key)

    def _offer(self, packet: _Packet) -> bool:
        """Give *packet* to the engine. Returns whether it was taken, sent on or held, and not dropped."""
        key, number = packet.segment.key, packet.frame.number
        self._held.setdefault(key, {})[number] = packet
        self._settle(self._engine.process(self._asked(packet), packet, packet.from_inside, self._now))
        if any(one is packet for one in self._dropped.get(key, ())):
            return False
        self._advance(packet.segment)
        return True

    def _asked(self, packet: _Packet) -> bytes:
        """*packet* as it would have arrived: it acknowledges the bytes that its sender has received, with
        edits.

        It acknowledges no byte of a held packet, which has not arrived anywhere. The SYNs get the largest
        window scale, so that every edit fits into the window: a capture's sender would not repeat what did
        not fit.
        """
        segment = packet.segment
        if segment.flags & SYN:
            return segment.raw if segment.size else _with_options(segment, _WIDEST)
        if not segment.flags & ACK:
            return segment.raw
        key, ack = reverse(segment.key), segment.ack
        for held in self._held.get(key, {}).values():
            if distance(held.segment.seq, ack) > 0:
                ack = held.segment.seq
        ack = self._renumbering.numbers(key, packet.frame.number).edited(ack)
        if ack == segment.ack:
            return segment.raw
        return segment.rebuilt(segment.seq, ack, segment.raw[segment.start :], None).raw

    def _advance(self, segment: Segment) -> None:
        end = wrap(segment.seq + segment.size + bool(segment.flags & SYN))
        seen = self._ends.get(segment.key)
        if seen is None or segment.flags & SYN or 0 < distance(seen, end) <= FAR:
            self._ends[segment.key] = end

    def _settle(self, verdicts: Verdicts) -> None:
        for packet, verdict in verdicts:
            del self._held[packet.segment.key][packet.frame.number]
            if not verdict.accept:
                self._dropped.setdefault(packet.segment.key, []).append(packet)
            else:
                self._leave(packet, verdict.payload)

    def _let_go(self, verdicts: Verdicts) -> None:
        """Carry out *verdicts* that time has decided, and offer again packets that waited for them."""
        self._settle(verdicts)
        for key in {packet.segment.key: None for packet, _ in verdicts}:
            self._catch_up(key)

    def _catch_up(self, key: bytes) -> None:
        """Offer again the dropped packets of *key* that lie behind a gap no longer."""
        progress = True
        while progress and key in self._dropped:
            progress = False
            for packet in self._dropped.pop(key):
                if not self._in_order(packet.segment):
                    self._dropped.setdefault(key, []).append(packet)
                elif self._offer(packet):
                    progress = True

    def _in_order(self, segment: Segment) -> bool:
        return segment.key in self._ends and distance(self._ends[segment.key], segment.seq) <= 0

    def _leave(self, packet: _Packet, payload: bytes | None) -> None:
        """*packet* leaves, as *payload* if that is given. Its acknowledgement number is written at the end.

        So is the sequence number of a packet without data that repeats none. If such a packet precedes a
        gap's bytes, the engine moves it to the gap, because these bytes may still be edited; but bytes that
        the capture lacks will never come.
        """
        before = packet.segment
        end = self._ends.get(before.key, before.seq)
        if not before.size and distance(end, before.seq) >= 0:
            return
        self._taken.add(packet.frame.number)
        after = Segment.parse(payload) if payload is not None else None
        if before.size:
            numbers = self._renumbering.numbers(before.key, packet.frame.number)
            numbers.record(before, after or before)
        if after is not None:
            data, flags = after.raw[after.start :], after.flags
            after = before.rebuilt(after.seq, before.ack, data, None, flags)
            self._write(packet.frame, packet.at, before, after)

    def _write(self, frame: Frame, at: int, before: Segment, after: Segment) -> None:
        """Put *after* into *frame* in place of *before*, which begins at byte *at*."""
        if after.raw == before.raw:
            return
        behind = frame.data[at + len(before.raw) :]
        if frame.link == _ETHERNET and behind and len(frame.data) <= _SHORTEST:
            padding = max(0, _SHORTEST - at - len(after.raw))
            behind = behind[:padding].ljust(padding, b"\0")
        missing = max(0, at + len(before.raw) - len(frame.data))  # cut off by the snapshot length
        packet = after.raw[: len(after.raw) - missing]
        self._capture.replace(frame.number, frame.data[:at] + packet + behind)
        self._changed.add(frame.number)

    def _renumber(self) -> None:
        """Give every frame the numbers of the edited streams, also if it left before an edit was known."""
        for frame in self._capture:
            at = network_offset(frame.link, frame.data)
            if at is None:
                continue
            length = int.from_bytes(frame.data[at + 2 : at + 4], "big")
            segment = Segment.parse(frame.data[at : at + length].ljust(length, b"\0"))
            if segment is not None:
                seq = segment.seq if frame.number in self._taken else None
                after = self._renumbering.acknowledging(segment, frame.number, seq)
                self._write(frame, at, segment, after)

    def reported(self, flow: FlowId, protocol: str, report: Report) -> None:
        message = Message(self._number, protocol, report, flow)
        self._result.messages.append(message)
        self._result.history.append(message)

    def opened(self, pinhole: Pinhole) -> None:
        self._result.pinholes.append((pinhole.inside, pinhole.outside))


def _with_options(segment: Segment, options: bytes) -> bytes:
    """*segment*, which has no data, with other TCP options and wrong checksums, because it never leaves."""
    raw = bytearray(segment.raw[: segment.tcp + 20] + options)
    raw[segment.tcp + 12] = (20 + len(options)) << 2
    struct.pack_into("!H", raw, 2, len(raw))
    return bytes(raw)
