"""Both sides of the router compared, packet by packet, while proposals are rewritten."""

from __future__ import annotations

import contextlib
import time

from tests.lab.capture import Capture, Passed
from tests.lab.net import ADDRESS
from tests.lab.scene import announced, eventually, scene
from tests.lab.standin import Transfer
from tests.oscar import rendezvous as rdv
from tests.oscar.values import complement, ip4

OUTSIDE = "203.0.113.1"

Endpoint = tuple[str, int]


def bare(packet: Passed) -> bytes:
    """Headers without what NAT and a hop change (TTL, addresses, client's port, checksums)."""
    head = bytearray(packet.raw[: packet.start])
    tcp = packet.tcp
    client_port = tcp if packet.ports[1] == 5190 else tcp + 2
    for start, size in ((8, 1), (10, 10), (client_port, 2), (tcp + 16, 2)):
        head[start : start + size] = bytes(size)
    return bytes(head)


def control(packets: list[Passed], leaving: bool, to_server: bool) -> list[Passed]:
    return [p for p in packets if p.leaving == leaving and p.ports[to_server] == 5190]


def rewritten(payload: bytes, before: Endpoint, after: Endpoint) -> bytes:
    """*payload* with the TLVs that name *before*, and their complements, naming *after*."""
    for old, new in (
        (ip4(before[0]), ip4(after[0])),
        (before[1].to_bytes(2), after[1].to_bytes(2)),
    ):
        for value, other in ((old, new), (complement(old), complement(new))):
            length = len(value).to_bytes(2)
            payload = payload.replace(length + value, length + other)
    return payload


def compare(came: list[Passed], left: list[Passed], before: Endpoint, after: Endpoint) -> int:
    """How many places were rewritten; else the same packets with right checksums.

    Order does not count, because a packet without data overtakes one that is held; and a repetition of what
    is held does not leave.
    """
    originals: dict[bytes, list[Passed]] = {}
    for packet in came:
        originals.setdefault(bare(packet), []).append(packet)
    changed = set()
    for packet in left:
        original = originals[bare(packet)].pop()
        assert packet.judged()
        if original.payload != packet.payload:
            assert packet.payload == rewritten(original.payload, before, after)
            changed.add(packet.seq)
    kept_back = {packet.seq for packets in originals.values() for packet in packets}
    assert kept_back <= {packet.seq for packet in left}
    return len(changed)


def test_nothing_but_addresses_ports_and_checksums_differs() -> None:
    with scene() as made, contextlib.ExitStack() as stack:
        server = made.server("aol")
        cables = {
            name: stack.enter_context(Capture(made.lab, "A", name)) for name in ("p-alice", "p-amy", "wan")
        }
        alice, amy, carol = made.clients(
            server, ("alice", "alice"), ("amy", "amy"), ("carol", "carol"), profile="winaim"
        )
        carol.call("policy", delay=0.3)
        transfers = [Transfer(alice, carol, "file")]
        eventually(made.pinholes)  # so amy, who announces the same port, gets another
        transfers += [Transfer(amy, carol, "im"), Transfer(alice, amy, "file")]
        for transfer in transfers:
            assert transfer.outcome().first_attempt
        moved = announced(carol, transfers[1].cookie).number(rdv.PORT)
        assert 40000 <= moved <= 40999
        second = announced(amy, transfers[2].cookie).number(rdv.PORT)
        for client in (alice, amy):
            client.call("sign_off")

        def quiet() -> bool:
            before = [len(cable.packets) for cable in cables.values()]
            time.sleep(0.3)
            return [len(cable.packets) for cable in cables.values()] == before

        eventually(quiet)
        stack.close()
    changed = {}
    for name in ("alice", "amy"):
        near = cables[f"p-{name}"].packets
        ports = {p.ports[0] for p in control(near, leaving=False, to_server=True)}
        assert len(ports) == 2, "one for login, one for BOS"
        far = [p for p in cables["wan"].packets if ports & set(p.ports)]
        here, there = (ADDRESS[name], 5190), (OUTSIDE, 5190 if name == "alice" else moved)
        changed[name, "out"] = compare(control(near, False, True), control(far, True, True), here, there)
        back = (OUTSIDE, second), (ADDRESS["alice"], second)
        changed[name, "in"] = compare(control(far, False, False), control(near, True, False), *back)
    assert changed == {("alice", "out"): 2, ("alice", "in"): 0, ("amy", "out"): 1, ("amy", "in"): 1}
