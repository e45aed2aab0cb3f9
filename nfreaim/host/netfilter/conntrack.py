"""LinuxConntrack: reads the connection tracking entries of flows. The only module that imports pyroute2.

It never changes an entry. pyroute2 makes the question once, and decodes of each answer the attributes that
are read. The socket is a ``Netlink``, because pyroute2's takes five times as long and a packet waits
meanwhile. The outside address is looked up for each expectation, because it belongs to the flow and not to an
interface: several uplinks and changing addresses need no configuration.
"""

from __future__ import annotations

import errno
import os
import socket
import struct
import time
from collections.abc import Callable, Iterable, MutableMapping
from typing import Any, Final

from nfreaim.core.address import Endpoint, FlowId, key_of
from nfreaim.errors import BackendError
from nfreaim.host.netfilter.accounting import Traffic, traffic_of
from nfreaim.host.netfilter.interfaces import is_own
from nfreaim.host.netfilter.kernel_sets import NetworkSet
from nfreaim.host.netfilter.lans import Lans
from nfreaim.host.netfilter.netlink import (
    HEADERS_SIZE,
    REQUEST,
    Netlink,
    attribute,
    attributes,
    error_of,
)
from nfreaim.host.netfilter.zones import Zones
from nfreaim.host.slim_imports import without_package_init
from nfreaim.marks import DEFAULT, Marks

with without_package_init("pyroute2"):
    from pyroute2.netlink.nfnetlink.nfctsocket import NFCTAttrTuple, nfct_msg

# TCP states, nf_conntrack_tcp.h. Only an established connection can carry a message that asks for a pinhole;
# one in SYN_SENT2 and the like cannot.
SYN_RECEIVED: Final = 2
ESTABLISHED: Final = 3
ENDING: Final = (6, 7, 8)
"""LAST_ACK, TIME_WAIT, CLOSE: both ends have finished."""

_ASSURED: Final = 4  # IPS_ASSURED: both ends have sent. For an entry met midstream two packets are enough.
_LIBERAL: Final = 0x08  # IP_CT_TCP_FLAG_BE_LIBERAL: set for both ends of an entry that was met midstream

_CTA_MARK: Final = 8
_CTA_STATUS, _CTA_PROTOINFO, _CTA_TCP, _CTA_TCP_STATE = 3, 4, 1, 1
_CTA_TCP_FLAGS: Final = (4, 5)  # of the original and the reply direction
_CTA_ZONE: Final = 18
_GET: Final = 0x0101  # IPCTNL_MSG_CT_GET of the subsystem of connection tracking
# Ends whose bytes occur once in the question, so that each flow's own ends can be put in their place.
_ENDS: Final = FlowId(Endpoint("1.2.3.4", 0x5152), Endpoint("5.6.7.8", 0x5354))


class LinuxConntrack:
    """core.backend.Conntrack.

    inside     the set of inside networks
    protected  the skewed flows, by key, which need translation to their very end. The value is written here:
               whether both ends had finished when connection tracking was asked last
    lans       which inside hosts may meet; None: all
    marks      of our rules
    """

    def __init__(
        self,
        inside: NetworkSet,
        protected: MutableMapping[bytes, bool],
        lans: Lans | None = None,
        marks: Marks = DEFAULT,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._inside = inside
        self._lans = lans
        self._pinhole_mark = marks.pinhole
        self._protected = protected
        self._netlink = Netlink()
        self._zones = Zones(clock)
        self._question = bytearray(_question(_ENDS))
        self._offsets = [self._question.index(part) for part in _parts(_ENDS)]

    def close(self) -> None:
        """Close the sockets."""
        self._netlink.close()
        self._zones.close()

    # --- core.backend.Conntrack ---

    def outside_address(self, flow: FlowId) -> str:
        entry = self._find(flow)
        if entry is not None:
            return _destination(entry, "CTA_TUPLE_REPLY", flow).address
        if not (self.is_inside_host(flow.client.address) or is_own(flow.client.address)):
            raise _unknown(flow)
        # The entry was flushed. The packet at hand makes it anew and leaves with the source address that the
        # router's own packets have.
        return source_towards(flow.server)

    def reached(self, flow: FlowId) -> Endpoint:
        entry = self._find(flow)
        if entry is None:
            raise _unknown(flow)
        asked = _destination(entry, "CTA_TUPLE_ORIG", flow)
        # If the server's packet made the entry anew after a flush, the original tuple is the server's and the
        # reply tuple has the outside endpoint.
        return _destination(entry, "CTA_TUPLE_REPLY", flow) if asked == flow.client else asked

    def is_inside_host(self, address: str) -> bool:
        inside = self._inside
        return inside.covers(address) and not is_own(address) and not inside.is_edge(address)

    def may_meet(self, one: str, other: str) -> bool:
        return self._lans is None or self._lans.may_meet(one, other)

    def handshake_seen(self, flow: FlowId) -> bool:
        # Of several zones that have such a connection it is not known which is this one.
        found = self._answers(flow)
        return bool(found) and all(map(_is_whole, found))

    def alive(self, flow: FlowId) -> bool:
        # A protected flow lives until its entry expires: after one end has finished, the other may go on
        # sending and needs translation.
        state = self.state(flow)
        key = key_of(flow)
        if key not in self._protected:
            # A forged SYN and its answer make it SYN_RECEIVED; after a true one comes an ACK, which decides.
            return state in (SYN_RECEIVED, ESTABLISHED)
        if state is not None:
            self._protected[key] = state in ENDING
        return state is not None

    def ended(self, flow: FlowId) -> bool:
        return self._protected.get(key_of(flow), False) or bool(self._answers(flow, most=1))

    def by_pinhole(self, flow: FlowId) -> bool:
        found = [dict(attributes(entry[HEADERS_SIZE:])).get(_CTA_MARK, b"") for entry in self._answers(flow)]
        return any(int.from_bytes(mark, "big") & self._pinhole_mark for mark in found)

    # --- questions of the host's own ---

    def state(self, flow: FlowId) -> int | None:
        """The flow's TCP state (nf_conntrack_tcp.h), or None without an entry. Raises BackendError."""
        found = self._answers(flow, most=1)
        return _state_of(found[0]) if found else None

    def traffic(self, flow: FlowId) -> Traffic | None:
        """What the flow has carried so far. None: without an entry, or without accounting. Raises
        BackendError."""
        found = self._answers(flow, most=1)
        return traffic_of(found[0]) if found else None

    def carries(self, flow: FlowId, server_inside: bool) -> bool:
        """Whether the flow is established and its inside end is the server or the client, as *server_inside*
        says. Raises BackendError.

        A FlowId holds the endpoints that the inside network sees. If the client is inside they are the
        original tuple, which is untranslated at the inside end; if the server is, the reply tuple.
        """
        answers = self._answers(flow, most=1)
        if not answers or _state_of(answers[0]) != ESTABLISHED:
            return False
        entry = decoded(answers[0])
        which = "CTA_TUPLE_REPLY" if server_inside else "CTA_TUPLE_ORIG"
        ends = (flow.server, flow.client) if server_inside else (flow.client, flow.server)
        found = [
            (
                entry.get_nested(which, "CTA_TUPLE_IP", f"CTA_IP_V4_{end}"),
                entry.get_nested(which, "CTA_TUPLE_PROTO", f"CTA_PROTO_{end}_PORT"),
            )
            for end in ("SRC", "DST")
        ]
        return found == list(ends)

    def _find(self, flow: FlowId) -> Any | None:
        """The flow's entry, or None. Raises BackendError.

        Packets from the inside end match one of its tuples before translation: client to server if the client
        is inside, server to client if the server is. Hence two questions.
        """
        found = self._answers(flow, most=1)
        return decoded(found[0]) if found else None

    def _answers(self, flow: FlowId, most: int = 64) -> list[bytes]:
        """The messages of the flow's entries, one for each zone that has one. Raises BackendError."""
        found = self._asked(flow, self._zones.known, most)
        if not found and (new := self._zones.search()):
            return self._asked(flow, new, most)
        return found

    def _asked(self, flow: FlowId, zones: Iterable[int], most: int) -> list[bytes]:
        found: list[bytes] = []
        for zone in zones:
            answer = self._answer(flow, zone) or self._answer(FlowId(flow.server, flow.client), zone)
            if answer is not None:
                found.append(answer)
                if len(found) == most:
                    break
        return found

    def _answer(self, flow: FlowId, zone: int) -> bytes | None:
        """The message of the entry in *zone* one of whose tuples is *flow*, or None. Raises BackendError."""
        question = self._question
        for at, part in zip(self._offsets, _parts(flow), strict=True):
            question[at : at + len(part)] = part
        if zone:  # a kernel that has no zones refuses the attribute
            question = question + attribute(_CTA_ZONE, zone.to_bytes(2, "big"))
            struct.pack_into("=I", question, 0, len(question))
        try:
            answer = self._netlink.ask(question)
        except OSError as error:
            raise BackendError(f"connection tracking: {error}") from error
        code = error_of(answer)
        if code is None:
            return answer
        if code == errno.ENOENT:
            return None
        raise BackendError(f"connection tracking: {os.strerror(code)}")


def decoded(message: bytes) -> Any:
    """*message* of connection tracking, decoded so that its attributes can be read by name."""
    entry = nfct_msg(message)
    entry.decode()
    return entry


def source_towards(server: Endpoint) -> str:
    """The source address of this machine's own connections to *server*. Raises BackendError."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect(server)
        except OSError as error:
            raise BackendError(f"no route to {server}: {error}") from error
        return str(probe.getsockname()[0])


def _unknown(flow: FlowId) -> BackendError:
    """The error for a flow without an entry."""
    return BackendError(f"connection tracking does not know {flow}")


def _destination(entry: Any, which: str, flow: FlowId) -> Endpoint:
    """The destination in one of the two tuples of the flow's entry. Raises BackendError."""
    address = entry.get_nested(which, "CTA_TUPLE_IP", "CTA_IP_V4_DST")
    port = entry.get_nested(which, "CTA_TUPLE_PROTO", "CTA_PROTO_DST_PORT")
    if not isinstance(address, str) or not isinstance(port, int):
        raise BackendError(f"connection tracking names no address of {flow}")
    return Endpoint(address, port)


def _parts(flow: FlowId) -> tuple[bytes, bytes, bytes, bytes]:
    """The bytes that name the flow's ends in a question: addresses, then ports."""
    client, server = flow
    return (
        socket.inet_aton(client.address),
        socket.inet_aton(server.address),
        client.port.to_bytes(2, "big"),
        server.port.to_bytes(2, "big"),
    )


def _question(flow: FlowId) -> bytes:
    client, server = flow
    ends = NFCTAttrTuple(
        saddr=client.address,
        daddr=server.address,
        proto=socket.IPPROTO_TCP,
        sport=client.port,
        dport=server.port,
    )
    message = nfct_msg.create_from(tuple_orig=ends)
    message["nfgen_family"] = socket.AF_INET
    message["header"]["type"] = _GET
    message["header"]["flags"] = REQUEST
    message.encode()
    return bytes(message.data)


def _tcp_of(found: dict[int, bytes]) -> dict[int, bytes]:
    """What an entry with the attributes *found* says of TCP."""
    return dict(attributes(dict(attributes(found.get(_CTA_PROTOINFO, b""))).get(_CTA_TCP, b"")))


def _state_of(entry: bytes) -> int:
    """The TCP state of *entry*, a message; 0 if it names none. Read by its layout: pyroute2 takes ten times
    as long, and a packet waits."""
    found = dict(attributes(entry[HEADERS_SIZE:]))
    return int.from_bytes(_tcp_of(found).get(_CTA_TCP_STATE, b""), "big")


def _is_whole(entry: bytes) -> bool:
    """Whether *entry*, a message, is of an established connection whose handshake connection tracking saw."""
    found = dict(attributes(entry[HEADERS_SIZE:]))
    tcp = _tcp_of(found)
    status = int.from_bytes(found.get(_CTA_STATUS, b""), "big")
    flags = [tcp.get(kind, b"") for kind in _CTA_TCP_FLAGS]
    if tcp.get(_CTA_TCP_STATE) != bytes((ESTABLISHED,)) or not status & _ASSURED:
        return False
    return all(one and not one[0] & _LIBERAL for one in flags)
