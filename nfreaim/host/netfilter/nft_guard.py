"""SkewGuard: drops packets of skewed flows that our table did not see, because somebody else has deleted it.

`flush ruleset`, with which many a firewall's configuration begins, takes our table away, and with it the set
of flows that must not pass untranslated. Each process that translates such flows therefore has a table of its
own, which only its socket can change (flag owner, Linux 5.12): `flush ruleset` of others leaves it, and it
goes with the process. Then the main table still has these flows wait, as without this guard.

How the guard knows that the main table was there: that sets the bit "verified" of the packet mark on a packet
of a skewed flow before it is queued, and takes it off again behind the guard's chains, which stand between.
No packet has the bit outside of these three priorities of a hook. A packet that comes to the main table with
the bit was queued already: the kernel counts hooks, and a chain that is made meanwhile before ours would have
the packet queued, and translated, a second time.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Iterable, Sequence
from typing import Final

from nfreaim.core.address import FlowId
from nfreaim.errors import BackendError
from nfreaim.host.netfilter.kernel_sets import FlowEntry
from nfreaim.host.netfilter.names import (
    GUARD_TABLE,
    LAN_INTERFACES,
    NFT_TABLE,
    OWN_PRIORITY,
    SKEW_SET,
    WAN_INTERFACES,
)
from nfreaim.host.netfilter.netlink import Netlink
from nfreaim.host.netfilter.nft_elements import packed_address, packed_endpoint
from nfreaim.host.netfilter.nft_image import SetImage, Tables
from nfreaim.host.netfilter.nft_messages import (
    ACCEPT,
    DROP,
    JUMP,
    OWNER,
    SUBSYSTEM,
    Hook,
    Kind,
    counted,
    elements,
    flow_in,
    interface_in,
    new_base_chain,
    new_chain,
    new_flow_set,
    new_rule,
    new_table,
    no_entry,
    tcp,
    unlike_priority,
    verdict,
    with_mark,
)
from nfreaim.host.netfilter.nft_sets import FlowSet

log = logging.getLogger("nfreaim")

_RAW, _MANGLE = -300, -150  # NF_IP_PRI_RAW, NF_IP_PRI_MANGLE
_BEHIND: Final = 2  # the main table's chains stand at 1, those that take the bit off at 3
_CHECK: Final = "check"
_INTERFACES: Final = (LAN_INTERFACES, WAN_INTERFACES)
_AT_ONCE: Final = 256  # elements of one transaction


class SkewGuard:
    """The guard of this process, which is made with its first flow. *bit* is that of the packet mark."""

    def __init__(self, bit: int) -> None:
        self._bit = bit
        self._name = f"{GUARD_TABLE}{os.getpid()}"
        self._tables = Tables()
        self._netlink: Netlink | None = None
        self.flows: set[FlowEntry] = set()
        """Those that are guarded."""
        self._interfaces: tuple[SetImage, ...] = ()
        self._impossible = False

    def close(self) -> None:
        """Delete the table."""
        if self._netlink is not None:
            self._netlink.close()
            self._netlink = None
        self._tables.close()

    def add(self, flows: Iterable[FlowEntry]) -> None:
        """From now on drop packets of *flows* that the main table did not see. Raises BackendError."""
        new = [flow for flow in flows if flow not in self.flows]
        if not new or not self._made():
            return
        for start in range(0, len(new), _AT_ONCE):
            some = new[start : start + _AT_ONCE]
            self._change([elements(Kind.NEW_ELEMENTS, self._name, SKEW_SET, map(_key, some))])
            self.flows.update(some)

    def delete(self, flows: Iterable[FlowEntry]) -> None:
        """Undo ``add``; an unknown flow is no error. Raises BackendError."""
        for flow in flows:
            if flow in self.flows:
                self._change([elements(Kind.DELETE_ELEMENTS, self._name, SKEW_SET, [_key(flow)])])
                self.flows.remove(flow)

    def follow(self) -> None:
        """Take over the interfaces of the main table, which may have been installed anew.

        Raises BackendError.
        """
        if self._netlink is None:
            return
        found = self._of_main()
        if found and found != self._interfaces:
            self._change([message for one in found for message in one.again(self._name)])
            self._interfaces = found

    def _of_main(self) -> tuple[SetImage, ...]:
        found = [self._tables.set_image(NFT_TABLE, name) for name in _INTERFACES]
        return tuple(one for one in found if one is not None) if None not in found else ()

    def _made(self) -> bool:
        """Whether there is a guard. Makes it, if it is not there. Raises BackendError."""
        if self._netlink is not None or self._impossible:
            return not self._impossible
        found = self._of_main()
        if not found:
            raise BackendError(f"table {NFT_TABLE} is not there; are the rules installed?")
        self._netlink, self._interfaces = Netlink(), found
        try:
            self._change(
                [
                    new_table(self._name, OWNER),
                    new_flow_set(self._name, SKEW_SET),
                    *(message for one in found for message in one.messages(self._name)),
                    new_chain(self._name, _CHECK),
                    new_base_chain(self._name, "prerouting", Hook.PREROUTING, _RAW + _BEHIND),
                    new_base_chain(self._name, "output", Hook.OUTPUT, _RAW + _BEHIND),
                    new_base_chain(self._name, "postrouting", Hook.POSTROUTING, _MANGLE + _BEHIND),
                    new_base_chain(self._name, "input", Hook.INPUT, _MANGLE + _BEHIND),
                    *self._rules(),
                ]
            )
        except BackendError as error:
            self._netlink.close()
            self._netlink, self._impossible = None, True
            log.warning(
                "while another program reloads nftables, edited connections are not protected: %s; remedy: "
                "Linux 5.12 or later",
                error,
            )
        return not self._impossible

    def _rules(self) -> list[bytearray]:
        def rule(chain: str, *expressions: bytes) -> bytearray:
            return new_rule(self._name, chain, expressions)

        check = verdict(JUMP, _CHECK)
        others = unlike_priority(OWN_PRIORITY)
        lan_in, lan_out = (interface_in(LAN_INTERFACES, hook) for hook in (Hook.PREROUTING, Hook.POSTROUTING))
        wan_in, wan_out = (interface_in(WAN_INTERFACES, hook) for hook in (Hook.INPUT, Hook.OUTPUT))
        return [
            rule(_CHECK, *with_mark(self._bit), verdict(ACCEPT)),
            *(rule(_CHECK, *flow_in(SKEW_SET, side), *counted(), verdict(DROP)) for side in (True, False)),
            rule("prerouting", *tcp(), *lan_in, *no_entry(), check),
            rule("output", *tcp(), *wan_out, *others, check),
            rule("postrouting", *tcp(), *lan_out, *others, check),
            rule("input", *tcp(), *wan_in, check),
        ]

    def _change(self, messages: Sequence[bytearray]) -> None:
        assert self._netlink is not None
        try:
            code = next(filter(None, self._netlink.transact(SUBSYSTEM, messages)), 0)
        except OSError as error:
            raise BackendError(f"table {self._name}: {error}") from error
        if code:
            raise BackendError(f"table {self._name}: {os.strerror(code)}")


class GuardedFlows(FlowSet):
    """The set of skewed flows, each of which is guarded as well.

    bit    of the packet mark
    alone  every flow in the set is this process's, so those that it finds there are guarded, too
    """

    def __init__(self, bit: int, alone: bool) -> None:
        super().__init__(SKEW_SET)
        self._guard = SkewGuard(bit)
        self._alone = alone
        self._found: set[FlowEntry] = set()
        self._looked = False

    def close(self) -> None:
        """Close the sockets, and delete the guard."""
        self._guard.close()
        super().close()

    def flush(self) -> None:
        super().flush()
        self._guard.delete(list(self._guard.flows))

    def add(self, flow: FlowId | FlowEntry) -> None:
        # The guard first: to make it takes milliseconds, and a reload in them would let packets pass unread.
        entry = _entry(flow)
        guarded = entry in self._guard.flows
        self._guard.add([entry])
        try:
            super().add(flow)
        except BackendError:
            if not guarded:
                self._guard.delete([entry])
            raise
        self._found.discard(entry)

    def delete(self, flow: FlowId | FlowEntry) -> None:
        self._guard.delete([_entry(flow)])
        super().delete(flow)

    def has(self, flow: FlowId | FlowEntry) -> bool:
        return _entry(flow) in self._guard.flows or super().has(flow)

    def entries(self) -> list[FlowEntry]:
        """The entries. The guard is brought up to date by that: its interfaces, and which flows it found."""
        there = super().entries()
        if self._alone and not self._looked:
            self._found = set(there)
            self._guard.add(there)
        self._looked = True
        self._guard.follow()
        over = self._found.difference(there)
        self._guard.delete(over)
        self._found -= over
        return there


def _entry(flow: FlowId | FlowEntry) -> FlowEntry:
    client, server = flow
    return FlowEntry(client, server if isinstance(server, str) else server.address)


def _key(flow: FlowEntry) -> bytes:
    return packed_endpoint(flow.client) + packed_address(flow.server)
