"""InsideSenders: whether the inside end of a flow speaks for itself, or another machine in its name.

Packets from the LAN arrive before any check of the kernel, with whatever address their sender wrote. Two
things tell who sent them: the hardware address of their frames, and the host that has the address, which
answers to a connection that is not its own with a reset.
"""

from __future__ import annotations

import logging
from typing import Any, Final

from nfreaim.core.backend import Sender, Senders
from nfreaim.core.counters import Counters
from nfreaim.core.flow import Flow
from nfreaim.core.helper import Refused
from nfreaim.core.tcp.segment import Segment
from nfreaim.core.tcp.stream import Stream

log = logging.getLogger(__name__)

DISOWNED: Final = "its host answers with resets: the connection is not its own"
_REMEDY: Final = "if that is as it should be there, name only the other interfaces in check_senders"
_FORGED: Final = (
    "packets with the address of {} came from {}, which is not where the router sends packets for that "
    "address (another machine, or a second network card or router); " + _REMEDY
)
_UNKNOWN: Final = "the router's neighbour table does not say which machine has the address {}; " + _REMEDY
_MOST_SAID: Final = 64  # addresses that were warned about; more are made up


class InsideSenders:
    """Compares the senders of one engine's packets, by *senders*; counts strangers."""

    def __init__(self, senders: Senders, counters: Counters) -> None:
        self.hardware = senders.hardware
        self._senders = senders
        self._counters = counters
        self._said: set[str] = set()

    def sent(self, address: str, hardware: bytes | None) -> Sender:
        """Whether a packet from *hardware* comes from the inside host *address*. Strangers are told."""
        found = self._senders.sent(address, hardware)
        if found is Sender.STRANGER:
            self._tell(address, hardware)
        return found

    def begins(self, flow: Flow, hardware: bytes | None, same: bool) -> None:
        """*flow* begins, and its inside end sent from *hardware*; *same*: all it has sent so far."""
        flow.sender = hardware
        found = self._senders.sent(flow.inside_host, hardware)
        flow.vouched = found is Sender.HOST
        if found is not Sender.UNCHECKED and (found is Sender.STRANGER or not same):
            self._bar(flow, hardware)

    def may_be_own(self, stream: Stream[Flow], token: Any) -> bool:
        """Whether *token*, a packet of *stream*, may be its sender's own; not if that is not known."""
        if not stream.from_inside:
            return True
        found = self.sent(stream.flow.inside_host, self._senders.hardware(token))
        return found in (Sender.HOST, Sender.UNCHECKED)

    def reads(self, stream: Stream[Flow], token: Any) -> bool:
        """New bytes of *stream*, in the packet *token*, are about to be read.

        From inside each has to be the host's own, because a message may have bytes of two senders. Returns
        whether the flow is barred because of these.
        """
        if not stream.from_inside:
            return False
        flow = stream.flow
        hardware = self._senders.hardware(token)
        if hardware == flow.sender or flow.barred:
            return False
        found = self._senders.sent(flow.inside_host, hardware)
        if found is Sender.UNCHECKED:
            flow.sender = hardware
        elif found is Sender.HOST and (flow.vouched or flow.sender is None):
            flow.sender, flow.vouched = hardware, True  # the host has moved, or a daemon has begun
        else:
            self._bar(flow, hardware)
            return True
        return False

    def vouch(self, flow: Flow) -> None:
        """Something is to be opened for *flow*. Raises Refused unless its inside end speaks for itself."""
        if flow.barred:
            raise Refused(flow.barred)
        host = flow.inside_host
        found = self.sent(host, flow.sender)
        if found is Sender.STRANGER:
            raise Refused(_FORGED.format(host, _text(flow.sender)))
        if found is Sender.UNKNOWN and not flow.vouched:
            raise Refused(_UNKNOWN.format(host))
        flow.vouched |= found is Sender.HOST

    def disowned(self, stream: Stream[Flow], segment: Segment, token: Any) -> bool:
        """A reset of *stream*, which comes from inside: whether it certainly is its host's own.

        If it may be, the handshake is not proved any more: connection tracking is asked again before anything
        is opened.
        """
        flow, hardware = stream.flow, self._senders.hardware(token)
        found = self._senders.sent(flow.inside_host, hardware)
        if found is Sender.STRANGER:
            return False
        flow.proved = False
        # A reset that answers a packet stands where that packet acknowledges; one that answers a SYN, at 0.
        # Nobody can guess the number of the answer to a SYN/ACK.
        answers = segment.seq == stream.base or (segment.seq == 0 and segment.ack == stream.other.base)
        in_place = 0 <= stream.offset(segment.seq) <= stream.next + 1
        if answers or (found is Sender.HOST and in_place):
            flow.barred = flow.barred or DISOWNED
            return True
        return False

    def _bar(self, flow: Flow, hardware: bytes | None) -> None:
        flow.barred = _FORGED.format(flow.inside_host, _text(hardware))
        self._tell(flow.inside_host, hardware)

    def _tell(self, address: str, hardware: bytes | None) -> None:
        self._counters.strange_senders += 1
        level = logging.DEBUG
        if address not in self._said and len(self._said) < _MOST_SAID:
            self._said.add(address)
            level = logging.WARNING
        log.log(level, "nothing is opened: %s", _FORGED.format(address, _text(hardware)))


def _text(hardware: bytes | None) -> str:
    return "a link without hardware addresses" if hardware is None else hardware.hex(":")
