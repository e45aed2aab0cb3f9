"""`nfreaim metrics`: the status as metrics for Prometheus. The only module that imports prometheus_client.

Names follow https://prometheus.io/docs/practices/naming/.
"""

from __future__ import annotations

import os
import signal
import sys
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from nfreaim.core.counters import meanings
from nfreaim.errors import BackendError
from nfreaim.exit_status import Exit
from nfreaim.helpers import HELPERS
from nfreaim.host.report.status import Document, fetch
from nfreaim.show.optional import missing

try:
    from prometheus_client import CollectorRegistry, generate_latest, start_http_server, write_to_textfile
    from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
except ImportError as error:
    raise missing("metrics", "prometheus-client", "python3-prometheus-client") from error


class StatusCollector:
    """Turns the answer of the daemon at socket *path* into metrics, anew at each ``collect``.

    patient  an answer that cannot be had counts as no answer, and is told once on standard error
    running  whether a daemon answered last
    """

    def __init__(self, path: Path, patient: bool = False) -> None:
        self._path, self._patient = path, patient
        self._said = ""
        self.running = False

    def describe(self) -> list[Metric]:
        """Nothing: the names depend on the protocols, and nobody else registers any."""
        return []

    def collect(self) -> Iterator[Metric]:
        """The metrics; without a daemon nfreaim_up alone. Raises BackendError."""
        document = self._fetched()
        self.running = document is not None
        yield GaugeMetricFamily("nfreaim_up", "Whether the daemon answers.", value=int(self.running))
        if document is not None:
            yield from metrics(document)

    def _fetched(self) -> Document | None:
        try:
            return fetch(self._path)
        except BackendError as error:
            if not self._patient:
                raise
            if str(error) != self._said:
                print(f"nfreaim: {error}", file=sys.stderr, flush=True)
            self._said = str(error)
            return None


def metrics(document: Document) -> Iterator[Metric]:
    """The metrics of a daemon's *document*."""
    yield _gauge("build_info", "The version of the daemon.", ("version",), {(document["version"],): 1})
    yield GaugeMetricFamily("nfreaim_uptime_seconds", "Age of the daemon.", value=document["uptime"])
    yield GaugeMetricFamily(
        "nfreaim_serving",
        "Whether anybody is served; 0: the daemon waits for interfaces.",
        value=int(not document.get("idle")),
    )
    flows = document["flows"]
    yield GaugeMetricFamily("nfreaim_connections", "Control connections known.", value=flows["known"])
    yield GaugeMetricFamily(
        "nfreaim_edited_connections",
        "Control connections of changed length, which depend on a daemon.",
        value=len(flows["edited"]),
    )
    sessions = Counter((one["protocol"], one["state"]) for one in document["sessions"])
    yield _gauge(
        "sessions",
        "Control connections by protocol and state of reading; of many the newest.",
        ("protocol", "state"),
        sessions,
    )
    pinholes = Counter((one["protocol"], one["service"]) for one in document["pinholes"])
    yield _gauge("pinholes", "Pinholes open.", ("protocol", "service"), pinholes)
    active = sum(one.get("active", 0) for one in document["pinholes"])
    yield GaugeMetricFamily(
        "nfreaim_pinhole_connections", "Peer connections now, through pinholes that are open.", value=active
    )
    yield from _carried(document["carried"])
    yield from _queues(document["queues"])
    yield from _workers(document["workers"])
    what = meanings(HELPERS)
    for name, value in document["counters"].items():
        yield CounterMetricFamily(f"nfreaim_{name}", _sentence(what.get(name, name)), value=value)


def write(path: Path, output: Path | None) -> int:
    """Print the metrics, or put them into the file *output*, at once and readable for all."""
    registry, collector = _registry(path)
    if output is None:
        sys.stdout.write(generate_latest(registry).decode())
    else:
        os.umask(0o022)
        try:
            write_to_textfile(str(output), registry)
        except OSError as error:
            raise BackendError(f"{output}: {error}; choose another file, or make its directory") from error
    return Exit.FINE if collector.running else Exit.ABSENT


def serve(path: Path, address: tuple[str, int]) -> int:
    """Answer scrapes at *address* until SIGTERM or Ctrl-C. Raises BackendError."""
    registry, _ = _registry(path, patient=True)
    host, port = address
    ending = {signal.SIGTERM, signal.SIGINT}
    signal.pthread_sigmask(signal.SIG_BLOCK, ending)  # also in the threads that are started now
    try:
        start_http_server(port, addr=host, registry=registry)
    except OSError as error:
        raise BackendError(f"metrics_listen {host}:{port}: {error}; choose another port") from error
    print(f"nfreaim: metrics at http://{host}:{port}/metrics", file=sys.stderr, flush=True)
    signal.sigwait(ending)
    return Exit.FINE


def _registry(path: Path, patient: bool = False) -> tuple[CollectorRegistry, StatusCollector]:
    registry, collector = CollectorRegistry(), StatusCollector(path, patient)
    registry.register(collector)
    return registry, collector


def _carried(carried: Document) -> Iterator[Metric]:
    yield CounterMetricFamily(
        "nfreaim_peer_connections", "Peer connections that have ended.", value=carried["connections"]
    )
    yield CounterMetricFamily(
        "nfreaim_peer_bytes",
        "Bytes that peer connections carried, counted at their end where connection tracking counts.",
        value=carried["bytes"],
    )
    yield CounterMetricFamily(
        "nfreaim_peer_packets",
        "Packets that peer connections carried, counted at their end where connection tracking counts.",
        value=carried["packets"],
    )


def _queues(queues: list[Document]) -> Iterator[Metric]:
    waiting = GaugeMetricFamily("nfreaim_queue_waiting_packets", "Packets that wait.", labels=["queue"])
    seen = CounterMetricFamily("nfreaim_queue_packets", "Packets queued.", labels=["queue"])
    dropped = CounterMetricFamily(
        "nfreaim_queue_dropped_packets",
        "Packets that the kernel dropped: the queue or the socket of its reader was full.",
        labels=["queue", "reason"],
    )
    for one in queues:
        number = str(one["number"])
        waiting.add_metric([number], one["waiting"])
        seen.add_metric([number], one["seen"])
        dropped.add_metric([number, "queue_full"], one["dropped_full"])
        dropped.add_metric([number, "socket_full"], one["dropped_socket"])
    yield from (waiting, seen, dropped)


def _workers(workers: list[Document]) -> Iterator[Metric]:
    if not workers:
        return
    packets = CounterMetricFamily("nfreaim_worker_packets", "Packets read by a worker.", labels=["worker"])
    flows = GaugeMetricFamily("nfreaim_worker_connections", "Control connections.", labels=["worker"])
    for one in workers:
        packets.add_metric([str(one["number"])], one["packets"])
        flows.add_metric([str(one["number"])], one["flows"])
    yield from (packets, flows)


def _gauge(name: str, what: str, labels: Sequence[str], values: Mapping[Any, int]) -> GaugeMetricFamily:
    """A gauge with *labels*; *values* has a number for each tuple of their values."""
    family = GaugeMetricFamily(f"nfreaim_{name}", what, labels=labels)
    for label, value in sorted(values.items()):
        family.add_metric(label, value)
    return family


def _sentence(text: str) -> str:
    return text[0].upper() + text[1:] + "."
