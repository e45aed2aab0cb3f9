"""Replay: the outcome of a replay, as text and as JSON."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal

from nfreaim.core.address import Endpoint, FlowId
from nfreaim.core.helper import Report


@dataclass(frozen=True, slots=True)
class Message:
    """A message with an address, and what became of it.

    frame  number of the frame whose arrival completed the message, from 1 as in tshark
    flow   the connection that carried it
    """

    frame: int
    protocol: str
    report: Report
    flow: FlowId

    def as_dict(self) -> dict[str, Any]:
        """The message as ``--json`` prints it."""
        report = self.report
        return {
            "frame": self.frame,
            "protocol": self.protocol,
            "direction": report.direction,
            "service": report.service,
            "stage": report.stage,
            "cookie": report.agreement.hex(),
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


Kind = Literal["expected", "accepted", "ended", "over"]


@dataclass(frozen=True, slots=True)
class Step:
    """What a helper asked of the router about an agreement, as it stands among the messages.

    kind       "expected": a peer, before the message that announces it; "accepted"; "ended"; "over": the flow
               is, and with it all that was agreed in it
    agreement  as the helper names it; empty where the flow is over
    reason     why it ended
    outside    the endpoint of the pinhole that was opened; None: none was
    """

    frame: int
    flow: FlowId
    kind: Kind
    agreement: bytes = b""
    reason: str = ""
    outside: Endpoint | None = None


@dataclass(slots=True)
class Replay:
    """The outcome of a replay.

    packets    number of packets in the capture, of any kind
    changed    number of packets that leave with other bytes
    flows      number of control connections that were read
    messages   the messages with an address that were read, in order
    history    the same, and between them what was asked of the router
    pinholes   the pinholes that were opened, in order: inside, outside
    malformed  number of flows and messages whose bytes contradict the protocol, and are not read
    """

    packets: int = 0
    changed: int = 0
    flows: int = 0
    messages: list[Message] = field(default_factory=list)
    history: list[Message | Step] = field(default_factory=list)
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
