"""Removes the rules when no daemon will come back, with what still needs one: edited connections are reset.

Their packets wait for a daemon as long as the rules are there, and would deliver wrong bytes without them. A
reset ends a connection only with the number that its receiver expects next (RFC 5961 section 3.2). So for a
while the queues are served, and whatever an end of such a connection sends is answered by a reset with the
right number. Most ends die of the numbers that an earlier daemon wrote down; one that is silent is asked.
"""

from __future__ import annotations

import logging
import os
import select
import shutil
from collections.abc import Sequence
from contextlib import ExitStack, suppress
from dataclasses import replace
from typing import Any, Final

from nfreaim import same_program
from nfreaim.config import NEWCOMERS, Config
from nfreaim.core.address import FlowId, key_of, reverse
from nfreaim.core.backend import Record
from nfreaim.core.engine import Engine
from nfreaim.core.firewall.table import PinholeTable
from nfreaim.core.null import NullFirewall, NullHomeServers, NullWatcher
from nfreaim.core.tcp.segment import ACK, Segment
from nfreaim.core.verdict import ACCEPT, DROP, Verdicts
from nfreaim.errors import BackendError
from nfreaim.host.check import capabilities
from nfreaim.host.linux_backend import LinuxBackend
from nfreaim.host.loop import clock
from nfreaim.host.netfilter import queue_stats
from nfreaim.host.netfilter.conntrack import ENDING
from nfreaim.host.netfilter.firewall_kind import KernelSets
from nfreaim.host.netfilter.listed_connections import connections_of
from nfreaim.host.netfilter.names import OWN_GROUP, SKEW_SET
from nfreaim.host.netfilter.packet_queue import PacketQueue, SkewedFlows
from nfreaim.host.netfilter.tcp_reset import ResetSender
from nfreaim.host.rules import script
from nfreaim.host.state.state_files import StateDirectory, part

log = logging.getLogger("nfreaim")

_WHILE_S: Final = 10.0  # at most, for ends to answer
_ASK_EVERY_S: Final = 0.6  # a host answers such a question twice a second at most
_CAPABILITIES: Final = "-all,+net_admin,+net_raw"


def remove(config: Config) -> None:
    """Reset both ends of every edited connection and remove the rules.

    config  of the daemon that ran; what the rules say of queues and protocols counts more

    Raises BackendError, also if a connection goes on; then the rules stay.
    """
    capabilities.require()
    config = _as_installed(config)
    if config.queues[-1] in {queue.number for queue in queue_stats.queues()}:
        raise BackendError(
            "the daemon runs, and would put the rules back; stop it first (systemctl stop nfreaim)"
        )
    with ExitStack() as stack:
        sets = KernelSets()
        presence, edited = sets.presence(), sets.flows(SKEW_SET)
        stack.callback(presence.close)
        stack.callback(edited.close)
        waiting = list(connections_of(edited.entries())) if presence.of(SKEW_SET) else []
    if waiting:
        _reset_all(config, waiting)
    script.remove(force=True)


def as_the_daemons_user(config: Config, words: Sequence[str]) -> None:
    """Begin anew as the user who owns the state directory, if that is another: only he believes its files.

    words  the command line
    """
    try:
        owner = config.state_dir.stat()
    except OSError:
        return
    setpriv = shutil.which("setpriv")
    if os.geteuid() != 0 or owner.st_uid == 0 or setpriv is None:
        return
    bounds = [f"--{kind}={_CAPABILITIES}" for kind in ("inh-caps", "ambient-caps", "bounding-set")]
    user = [f"--reuid={owner.st_uid}", f"--regid={owner.st_gid}", f"--groups=0,{OWN_GROUP}"]
    os.execve(
        setpriv,
        [setpriv, *user, *bounds, "--no-new-privs", *same_program.command(*words)],
        same_program.environment(),
    )


def _as_installed(config: Config) -> Config:
    found = script.settings(script.run(["show"]).stdout)
    if found is None:
        return config
    return replace(config.serving(found.ports), queue=found.queue, workers=found.workers, marks=found.marks)


class _Resetting:
    """In place of an engine: knows no flow, so each packet of an edited one is answered by a reset.

    Each end's last packet is remembered: its own end is silent from then on, and what its answer makes the
    other end say may be lost, or be withheld because that end has said it just before.
    """

    def __init__(self, resets: ResetSender) -> None:
        self._resets = resets
        self._answered: dict[bytes, Segment] = {}

    def answer_again(self) -> None:
        """Answer each end's last packet once more."""
        for segment in self._answered.values():
            self._resets.answer(segment)

    def passes(self, raw: bytes, from_inside: bool, now: float) -> bool:
        return False

    def process_slow(self, raw: bytes, token: Any, from_inside: bool, now: float, skewed: bool) -> Verdicts:
        segment = Segment.parse(raw) if skewed else None
        if segment is None:
            return [(token, DROP if skewed else ACCEPT)]
        self._answered[segment.key] = segment
        self._resets.answer(segment)
        return [(token, DROP)]


def _reset_all(config: Config, waiting: Sequence[FlowId]) -> None:
    """Raises BackendError if a connection goes on."""
    with ExitStack() as stack:
        parts = [StateDirectory(config.state_dir)]
        if config.workers > 1:
            parts = [
                part(config.state_dir, number, config.workers) for number in range(1, config.workers + 1)
            ]
        backends = [LinuxBackend(one, stack, alone=False, marks=config.marks) for one in parts]
        first = backends[0]
        serving = _Resetting(first.resets)
        skewed = SkewedFlows(first.store.is_skewed, ())
        queues = [
            PacketQueue(number, serving, clock, skewed=skewed)
            for reading in config.reading
            for number in (reading, reading + NEWCOMERS)
        ]
        for queue in queues:
            queue.open()
            stack.callback(queue.close)
        known = [reset for backend in backends for reset in _known_resets(config, backend)]
        _serve(queues, serving, first, known, waiting)
        if going_on := _going_on(first, waiting):
            raise BackendError(
                f"{len(going_on)} edited connections could not be reset, such as {going_on[0]}, and would"
                " deliver wrong bytes without the rules; remedy: end them at their clients, or use --force"
            )
        log.info("edited connections were reset: %d", len(waiting))
        for backend in backends:
            with suppress(BackendError):
                backend.store.forget_records()


def _going_on(backend: LinuxBackend, waiting: Sequence[FlowId]) -> list[FlowId]:
    return [flow for flow in waiting if backend.conntrack.state(flow) not in (None, *ENDING)]


def _known_resets(config: Config, backend: LinuxBackend) -> list[tuple[bytes, int, int]]:
    """The numbers of resets for the flows that an earlier daemon wrote down; none without its files."""
    pinholes = PinholeTable(config.pinholes, NullFirewall(), NullWatcher())
    engine = Engine(config.helpers(), pinholes, backend.for_engine(NullHomeServers()), NullWatcher())
    records: dict[bytes, Record] = {}
    with suppress(BackendError):
        records = backend.store.load(backend.conntrack)
    for record in records.values():
        try:
            engine.restore(record, clock())
        except (ValueError, KeyError, TypeError):  # then its ends are asked
            log.debug("a record is damaged")
    return [reset for _, resets in engine.flows.resets() for reset in resets]


def _serve(
    queues: Sequence[PacketQueue],
    serving: _Resetting,
    backend: LinuxBackend,
    known: Sequence[tuple[bytes, int, int]],
    waiting: Sequence[FlowId],
) -> None:
    """Answer what comes, and have ends answer that are silent, until no connection waits or time is up."""
    poll = select.poll()
    by_number = {queue.fileno(): queue for queue in queues}
    for number in by_number:
        poll.register(number, select.POLLIN)
    until, ask_at = clock() + _WHILE_S, 0.0
    while (now := clock()) < until:
        if now >= ask_at:
            if ask_at and not _going_on(backend, waiting):
                return
            ask_at = now + _ASK_EVERY_S
            for key, seq, ack in known:
                backend.resets.send(key, seq, ack)
            serving.answer_again()
            for flow in waiting:
                _ask(backend, flow)
        for number, _ in poll.poll(max(0.0, min(ask_at, until) - now) * 1000):
            by_number[number].serve()


def _ask(backend: LinuxBackend, flow: FlowId) -> None:
    """Have the inside end say its numbers: it answers an acknowledgement far from what it expects by its own
    (RFC 9293 section 3.10.7.4). Ours towards the outside would not get through connection tracking."""
    key = key_of(flow)
    towards = reverse(key) if backend.conntrack.is_inside_host(flow.client.address) else key
    backend.resets.send(towards, 0, 0, ACK)
