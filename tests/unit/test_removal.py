"""Removal for good: when it refuses, as whom it runs, and which connections entries of a set stand for."""

from __future__ import annotations

import os
import shutil
import socket
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

pytest.importorskip("netfilterqueue")

from nfreaim.config import Config
from nfreaim.core.address import Endpoint, FlowId, key_of
from nfreaim.core.tcp.segment import ACK, bare_packet
from nfreaim.core.verdict import ACCEPT, DROP
from nfreaim.errors import BackendError
from nfreaim.host import removal
from nfreaim.host.check import capabilities
from nfreaim.host.netfilter import listed_connections, queue_stats
from nfreaim.host.netfilter.kernel_sets import FlowEntry
from nfreaim.host.netfilter.names import OWN_GROUP
from nfreaim.host.netfilter.netlink import attribute, nest
from nfreaim.host.rules import script

CLIENT, SERVER, OUTSIDE = (
    Endpoint("10.0.0.5", 4000),
    Endpoint("203.0.113.9", 5190),
    Endpoint("203.0.113.1", 4000),
)
FLOW = FlowId(CLIENT, SERVER)


def tuple_of(kind: int, source: Endpoint, destination: Endpoint, protocol: int = socket.IPPROTO_TCP) -> bytes:
    """CTA_TUPLE_ORIG or CTA_TUPLE_REPLY, linux/netfilter/nfnetlink_conntrack.h."""
    ends = (source, destination)
    ip = b"".join(attribute(1 + i, socket.inet_aton(end.address)) for i, end in enumerate(ends))
    ports = b"".join(attribute(2 + i, end.port.to_bytes(2, "big")) for i, end in enumerate(ends))
    return nest(kind, nest(1, ip) + nest(2, attribute(1, bytes((protocol,))) + ports))


class Kernel:
    """Lists *entries*."""

    def __init__(self, entries: list[bytes]) -> None:
        self.entries = entries

    def dump(self, question: bytearray) -> Iterator[bytes]:
        yield from self.entries

    def close(self) -> None:
        pass


def listed(monkeypatch: pytest.MonkeyPatch, entries: list[bytes], *wanted: FlowEntry) -> list[FlowId]:
    monkeypatch.setattr(listed_connections, "Netlink", lambda: Kernel(entries))
    return list(listed_connections.connections_of(wanted))


def test_an_entry_is_the_connection_whose_ends_it_names(monkeypatch: pytest.MonkeyPatch) -> None:
    outward = tuple_of(1, CLIENT, SERVER) + tuple_of(2, SERVER, OUTSIDE)
    made_anew = tuple_of(1, SERVER, OUTSIDE) + tuple_of(2, CLIENT, SERVER)
    home = Endpoint("10.0.0.9", 5190)
    inward = tuple_of(1, SERVER, Endpoint("203.0.113.1", 5190)) + tuple_of(2, home, SERVER)
    other = tuple_of(1, CLIENT, SERVER, socket.IPPROTO_UDP) + tuple_of(2, SERVER, OUTSIDE, socket.IPPROTO_UDP)
    entry = FlowEntry(CLIENT, SERVER.address)
    assert listed(monkeypatch, [outward, other, b""], entry) == [FLOW]
    assert listed(monkeypatch, [made_anew], entry) == [FLOW]
    assert listed(monkeypatch, [outward, inward], FlowEntry(SERVER, home.address)) == [FlowId(SERVER, home)]
    assert listed(monkeypatch, [inward], entry) == []
    assert listed(monkeypatch, [outward]) == []


class Resets:
    """Notes whose packets are answered."""

    def __init__(self) -> None:
        self.answered: list[bytes] = []

    def answer(self, segment: Any) -> None:
        self.answered.append(segment.key)


def test_each_packet_of_an_edited_connection_is_answered_and_no_other_one_touched() -> None:
    resets = Resets()
    serving = removal._Resetting(resets)  # type: ignore[arg-type]
    raw = bare_packet(key_of(FLOW), 1, 2, ACK)
    assert not serving.passes(raw, True, 0.0)
    assert serving.process_slow(raw, "p", True, 0.0, False) == [("p", ACCEPT)]
    assert serving.process_slow(b"?", "p", True, 0.0, True) == [("p", DROP)]
    assert resets.answered == []
    assert serving.process_slow(raw, "p", True, 0.0, True) == [("p", DROP)]
    serving.answer_again()
    assert resets.answered == [key_of(FLOW)] * 2


def test_it_refuses_while_a_daemon_serves(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(capabilities, "require", lambda: None)
    monkeypatch.setattr(script, "run", lambda words: SimpleNamespace(stdout=""))
    gate = SimpleNamespace(number=Config().queues[-1])
    monkeypatch.setattr(queue_stats, "queues", lambda: [gate])
    with pytest.raises(BackendError, match="the daemon runs, and would put the rules back"):
        removal.remove(Config())


def test_it_runs_as_who_owns_the_state(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    began: list[list[str]] = []
    monkeypatch.setattr(os, "execve", lambda program, words, environment: began.append(words))
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    monkeypatch.setattr(shutil, "which", lambda name: f"/usr/bin/{name}")
    config = Config(state_dir=tmp_path / "flows")
    removal.as_the_daemons_user(config, ["rules"])
    assert began == [], "there is none"
    owner = SimpleNamespace(st_uid=997, st_gid=996)
    monkeypatch.setattr(Path, "stat", lambda path: owner)
    removal.as_the_daemons_user(config, ["rules", "remove"])
    ((program, *words),) = began
    assert program == "/usr/bin/setpriv"
    assert words[:3] == ["--reuid=997", "--regid=996", f"--groups=0,{OWN_GROUP}"]
    assert "--bounding-set=-all,+net_admin,+net_raw" in words
    assert words[-2:] == ["rules", "remove"]
    owner.st_uid = 0
    removal.as_the_daemons_user(config, ["rules"])
    assert len(began) == 1
