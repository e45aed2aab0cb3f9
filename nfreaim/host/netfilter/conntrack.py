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
from collections.abc import MutableMapping
from typing import Any, Final

from nfreaim.core.address import Endpoint, FlowId, key_of
from nfreaim.errors import BackendError
from nfreaim.host.netfilter.ipset import NetworkSet
from nfreaim.host.netfilter.netlink import REQUEST, Netlink, error_of
from nfreaim.host.slim_imports import without_package_init

with without_package_init("pyroute2"):
    from pyroute2.netlink.nfnetlink.nfctsocket import NFCTAttrTuple, nfct_msg

# TCP states, nf_conntrack_tcp.h. Only an established connection can carry a message that asks for a pinhole;
# one in SYN_SENT2 and the like cannot.
ESTABLISHED: Final = 3
ENDING: Final = (6, 7, 8)
"""LAST_ACK, TIME_WAIT, CLOSE: both ends have finished."""

_GET: Final = 0x0101  # IPCTNL_MSG_CT_GET of the subsystem of connection tracking
# Ends whose bytes occur once in the question, so that each flow's own ends can be put in their place.
_ENDS: Final = FlowId(Endpoint("1.2.3.4", 0x5152), Endpoint("5.6.7.8", 0x5354))


class LinuxConntrack:
    """core.backend.Conntrack.

    inside     the set of inside networks
    protected  the skewed flows, by key, which need translation to their very end. The value is written here:
               whether both ends had finished when connection tracking was asked last
    """

    def __init__(self, inside: NetworkSet, protected: MutableMapping[bytes, bool]) -> None:
        self._inside = inside
        self._protected = protected
        self._netlink = Netlink()
        self._question = bytearray(_question(_ENDS))
        self._offsets = [self._question.index(part) for part in _parts(_ENDS)]

    def close(self) -> None:
        """Close the socket."""
        self._netlink.close()

    # --- core.backend.Conntrack ---

    def outside_address(self, flow: FlowId) -> str:
        entry = self._find(flow)
        if entry is not None:
            return _destination(entry, "CTA_TUPLE_REPLY", flow).address
        if not self.is_inside_host(flow.client.address):
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
        return self._inside.covers(address) and not is_own(address)

    def alive(self, flow: FlowId) -> bool:
        # A protected flow lives until its entry expires: after one end has finished, the other may go on
        # sending and needs translation.
        state = self.state(flow)
        key = key_of(flow)
        if key not in self._protected:
            return state == ESTABLISHED
        if state is not None:
            self._protected[key] = state in ENDING
        return state is not None

    def ended(self, flow: FlowId) -> bool:
        return self._protected.get(key_of(flow), False) or self._find(flow) is not None

    # --- questions of the host's own ---

    def state(self, flow: FlowId) -> int | None:
        """The flow's TCP state (nf_conntrack_tcp.h), or None without an entry. Raises BackendError."""
        entry = self._find(flow)
        return None if entry is None else _state_of(entry)

    def carries(self, flow: FlowId, server_inside: bool) -> bool:
        """Whether the flow is established and its inside end is the server or the client, as *server_inside*
        says. Raises BackendError.

        A FlowId holds the endpoints that the inside network sees. If the client is inside they are the
        original tuple, which is untranslated at the inside end; if the server is, the reply tuple.
        """
        entry = self._find(flow)
        if entry is None or _state_of(entry) != ESTABLISHED:
            return False
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
        return self._get(flow) or self._get(FlowId(flow.server, flow.client))

    def _get(self, flow: FlowId) -> Any | None:
        question = self._question
        for at, part in zip(self._offsets, _parts(flow), strict=True):
            question[at : at + len(part)] = part
        try:
            answer = self._netlink.ask(question)
        except OSError as error:
            raise BackendError(f"connection tracking: {error}") from error
        code = error_of(answer)
        if code is None:
            return decoded(answer)
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


def is_own(address: str) -> bool:
    """Whether IPv4 *address* is one of this machine's own."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.bind((address, 0))
        except OSError:
            return False
    return True


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


def _state_of(entry: Any) -> int:
    state = entry.get_nested("CTA_PROTOINFO", "CTA_PROTOINFO_TCP", "CTA_PROTOINFO_TCP_STATE")
    return state if isinstance(state, int) else 0
