"""What tests/lab/test_kernel.py lets happen on a router: the host modules one by one on the real kernel.

``python -m tests.lab.on_router NAME [ARGUMENT ...]`` runs one of the functions below in the router's
namespace; an exception fails the test. The static rules are installed unless a function says otherwise.
"""

from __future__ import annotations

import fcntl
import math
import re
import select
import socket
import subprocess
import sys
import tempfile
import time
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

from nfreaim.core.address import Endpoint, FlowId, key_of
from nfreaim.core.backend import Followed
from nfreaim.core.engine import Engine
from nfreaim.core.firewall.pinhole import Pinhole
from nfreaim.core.firewall.policy import Forward
from nfreaim.errors import BackendError
from nfreaim.host.linux_backend import LinuxBackend
from nfreaim.host.netfilter import queue_stats
from nfreaim.host.netfilter.conntrack import ENDING, ESTABLISHED, LinuxConntrack
from nfreaim.host.netfilter.conntrack_events import PinholeEvents
from nfreaim.host.netfilter.firewall_kind import FirewallKind, KernelSets, firewall_kind
from nfreaim.host.netfilter.iptables import NatTable
from nfreaim.host.netfilter.names import LAN_SET, OFFLOAD_SET, SKEW_SET
from nfreaim.host.netfilter.packet_queue import PacketQueue
from nfreaim.host.netfilter.queue_control import LinuxQueueControl
from nfreaim.host.pinholes.chosen_firewall import kernel_firewall
from nfreaim.host.pinholes.ipset_firewall import IpsetFirewall
from nfreaim.host.state.state_files import StateDirectory
from nfreaim.marks import DEFAULT

FLOW = FlowId(Endpoint("10.0.0.5", 40123), Endpoint("203.0.113.9", 5190))
OUTSIDE = "203.0.113.1"


def shell(text: str) -> str:
    """Output of shell lines; the first that fails ends them."""
    return subprocess.run(["sh", "-ec", text], capture_output=True, text=True, check=True, timeout=30).stdout


def refused(work: Any, *arguments: Any) -> str:
    """The text of the BackendError that *work* must raise."""
    try:
        work(*arguments)
    except BackendError as error:
        return str(error)
    raise AssertionError(f"{work} was not refused")


def now() -> float:
    return time.clock_gettime(time.CLOCK_BOOTTIME)


def pins() -> IpsetFirewall:
    return IpsetFirewall(now)


def pinhole(port: int, *peers: str, to: str = "10.0.0.5", lasting: float = 600.0) -> Pinhole:
    inside, outside = Endpoint(to, port), Endpoint(OUTSIDE, port)
    deadline = round(now() + lasting, 3)
    return Pinhole(inside, outside, FLOW, b"1234567\0", "send-file", deadline, peers, 12.5, protocol="one")


def nothing_works_without_the_rules() -> None:
    """On a router without them."""
    assert "are the rules installed?" in refused(KernelSets().flows(OFFLOAD_SET).add, FLOW)
    firewall = kernel_firewall(now)
    assert "are the rules installed?" in refused(firewall.list)
    nft = firewall_kind() is FirewallKind.NFT
    missing = "are the rules installed?" if nft else "chain NFREAIM is missing in the legacy nat table"
    assert missing in refused(firewall.open, pinhole(5190), None)
    assert missing in refused(firewall.set_forwards, [Forward("10.0.0.5", range(6000, 6001))])
    assert "nfreaim" not in shell("iptables-legacy-save; nft list ruleset").lower()


def chains() -> list[str]:
    """What the nat table has of ours, one rule or chain a line."""
    return [line for line in shell("iptables-legacy -t nat -S").splitlines() if "NFREAIM" in line]


def by_port(pinholes: list[Pinhole]) -> list[Pinhole]:
    return sorted(pinholes, key=lambda pinhole: pinhole.inside.port)


def members() -> int:
    return shell("ipset save nfreaim_pin").count("add ")


def pinholes_read_back_as_written() -> None:
    firewall, untouched = pins(), chains()
    shell('ipset add nfreaim_pin 203.0.113.1,tcp:7,1.2.3.4 comment "nfreaim or not"')
    everybody, one, two = pinhole(5190), pinhole(5191, "203.0.113.20"), pinhole(5192, "1.2.3.4", "5.6.7.8")
    service, agreement, far = "f" * 32, b"12345678", Endpoint("255.255.255.255", 65535)
    longest = replace(
        pinhole(5193),
        service=service,
        agreement=agreement,
        flow=FlowId(far, far),
        verify=True,
        deadline=math.inf,
    )
    moved = replace(pinhole(5194), outside=Endpoint(OUTSIDE, 40000))
    pinholes = [everybody, one, two, longest, moved]
    for each in pinholes:
        firewall.open(each, None)
    assert by_port(firewall.list()) == by_port(pinholes)
    assert by_port(pins().list()) == by_port(pinholes)
    assert len(re.findall("timeout 2[0-5] packets 1 ", shell("ipset save nfreaim_pin"))) == 2
    narrow = replace(everybody, peers=("9.9.9.9",))
    firewall.open(narrow, everybody)
    wide = replace(one, peers=())
    firewall.open(wide, one)
    pinholes = [narrow, wide, two, longest, moved]
    assert by_port(firewall.list()) == by_port(pinholes)
    assert members() == 1 + 1 + 2 + 2 + 2 + 2
    for each in [*pinholes, narrow]:  # one of them is gone already
        firewall.close(each)
    assert firewall.list() == []
    assert members() == 1
    assert len(chains()) == len(untouched) + 4, "bucket, jump, and a rule for each of two destinations"
    firewall.clear()
    assert chains() == untouched


def destinations_are_made_ahead_and_repaired() -> None:
    firewall = pins()
    for number in range(70):
        firewall.prepare(f"10.0.1.{number}")
    assert not [line for line in chains() if "_D" in line]
    firewall.upkeep()
    jumps = [line.split()[-1] for line in chains() if line.startswith("-A NFREAIM ") and "--bytes-lt" in line]
    assert jumps == ["NFREAIM_D00", "NFREAIM_D01", "NFREAIM_D02"]
    assert sum("DNAT" in line for line in chains()) == 70
    before = chains()
    with open("/run/xtables.lock", "a") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        firewall.open(pinhole(6000, to="10.0.1.69"), None)  # nothing but an entry of the set
    assert chains() == before
    # Another daemon takes over what is in use, though somebody emptied a bucket and renewed a jump meanwhile.
    shell("iptables-legacy -t nat -F NFREAIM_D02; iptables-legacy -t nat -A NFREAIM -j NFREAIM_D00")
    other = pins()
    assert len(other.list()) == 1
    other.upkeep()
    assert sum("DNAT" in line for line in chains()) == 1
    assert sum("to=10.0.1.69:0" in line for line in chains()) == 1
    other.open(pinhole(6001), None)
    shell("iptables-legacy -t nat -F NFREAIM_D02")
    other.open(pinhole(6002), None)
    assert {line.split()[-1] for line in chains() if "DNAT" in line} == {"10.0.1.69", "10.0.0.5"}
    other.clear()
    assert not [line for line in chains() if "_D" in line]


def changes_of_others_at_the_same_time_are_not_lost() -> None:
    firewall = pins()
    add = (
        "for n in $(seq 40); do iptables-legacy -w 5 -t nat -A POSTROUTING -p udp --dport $n -j ACCEPT; done"
    )
    other = subprocess.Popen(["sh", "-ec", add])
    done = 0
    while other.poll() is None or not done:
        time.sleep(0.002)  # the lock is not fair
        try:
            firewall.open(pinhole(6000 + done, to=f"10.0.{done // 250}.{done % 250}"), None)
            done += 1
        except BackendError as error:
            if "holds /run/xtables.lock" not in str(error):  # on a busy machine: it may wait no longer
                raise
    assert other.returncode == 0
    assert len(firewall.list()) == done
    assert len(NatTable().destinations()) == done
    assert shell("iptables-legacy -t nat -S POSTROUTING").count("--dport") == 40


def lock_held_by_another_program_refuses_and_changes_nothing() -> None:
    firewall = pins()
    before = shell("iptables-legacy-save -t nat | grep -v '^[#:]'")
    with open("/run/xtables.lock", "a") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        assert "another program holds" in refused(firewall.open, pinhole(5190), None)
    assert shell("iptables-legacy-save -t nat | grep -v '^[#:]'") == before
    assert members() == 0
    firewall.open(pinhole(5190), None)


def taken_ports_are_seen() -> None:
    firewall = kernel_firewall(now)
    shell(
        "iptables-legacy -t nat -I PREROUTING -p tcp -m multiport --dports 80,7000:7010 -j DNAT --to 10.0.0.6"
    )
    shell("iptables-nft -t nat -I PREROUTING -i wan -p tcp --dport 8000 -j REDIRECT --to-ports 80")
    shell("nft 'table ip own { chain pre { type nat hook prerouting priority -100; }; }'")
    shell("nft add rule ip own pre tcp dport '{ 9000, 9100-9200 }' dnat to 10.0.0.6")
    firewall.open(pinhole(5190), None)
    firewall.foreign.refresh()
    for port in (80, 7000, 7005, 7010, 8000, 9000, 9150):
        assert firewall.busy(Endpoint(OUTSIDE, port)), port
    for port in (5190, 81, 7011, 8001, 9001):
        assert not firewall.busy(Endpoint(OUTSIDE, port)), port
    sockets = [
        (socket.AF_INET, "0.0.0.0", True),
        (socket.AF_INET, OUTSIDE, True),
        (socket.AF_INET, "127.0.0.1", False),
    ]
    for family, address, taken in [*sockets, (socket.AF_INET6, "::", True), (socket.AF_INET6, "::1", False)]:
        with socket.socket(family) as listener:
            listener.bind((address, 5555))
            listener.listen()
            assert firewall.busy(Endpoint(OUTSIDE, 5555)) == taken, address
        assert not firewall.busy(Endpoint(OUTSIDE, 5555)), address


def connections_are_known_until_they_end(port: str) -> None:
    """Of alice, from *port*, to bob; it is established."""
    flow = FlowId(Endpoint("10.0.0.5", int(port)), Endpoint("203.0.113.20", 5190))
    inside = KernelSets().networks(LAN_SET)
    conntrack = LinuxConntrack(inside, {})
    assert conntrack.state(flow) == ESTABLISHED
    assert conntrack.outside_address(flow) == OUTSIDE
    stranger = FlowId(Endpoint("10.0.0.6", int(port)), flow.server)
    assert conntrack.state(stranger) is None
    assert conntrack.outside_address(stranger) == OUTSIDE, "as if its entry had been flushed"
    foreign = FlowId(Endpoint("198.51.100.6", int(port)), flow.server)
    assert "does not know 198.51.100.6" in refused(conntrack.outside_address, foreign)
    assert "does not know 10.0.0.6" in refused(conntrack.reached, stranger)
    assert not conntrack.by_pinhole(flow)
    assert not conntrack.by_pinhole(stranger)
    shell(f"conntrack -U -p tcp -s 10.0.0.5 --sport {port} --mark {DEFAULT.pinhole | 1:#x}")
    assert conntrack.by_pinhole(flow)
    assert conntrack.by_pinhole(FlowId(flow.server, flow.client))
    shell(f"conntrack -U -p tcp -s 10.0.0.5 --sport {port} --state CLOSE")
    assert conntrack.state(flow) in ENDING
    shell(f"conntrack -D -p tcp -s 10.0.0.5 --sport {port}")
    assert conntrack.state(flow) is None
    assert not conntrack.ended(flow)
    began = time.monotonic()
    for _ in range(500):
        conntrack.state(flow)
    print(f"{(time.monotonic() - began) / 500 * 1e6:.0f} microseconds per look-up")
    conntrack.close()
    inside.close()


def end_before_the_start_is_known_as_one_when_its_entry_expires() -> None:
    """Of an edited connection to a server inside: it must not be taken for one that was flushed."""
    flow = FlowId(Endpoint("198.51.100.7", 40000), Endpoint("10.0.0.9", 5190))
    ends = "-p tcp -s 198.51.100.7 --sport 40000 -d 10.0.0.9 --dport 5190"
    reply = "-r 10.0.0.9 -q 198.51.100.7 --reply-port-src 5190 --reply-port-dst 40000"
    shell(f"conntrack -I {ends} {reply} --state TIME_WAIT --timeout 60")
    KernelSets().flows(SKEW_SET).add(flow)
    stream: dict[str, object] = {"base": 1, "next": 0, "scale": None, "before": 0, "edits": []}
    key = key_of(flow)
    record = {"key": key.hex(), "server_inside": True, "streams": [stream, stream]}
    with tempfile.TemporaryDirectory() as folder, ExitStack() as stack:
        state = StateDirectory(Path(folder))
        state.save(key, record)
        backend = LinuxBackend(state, stack)
        backend.prepare()
        kept = backend.store.load(backend.conntrack)
        assert [*kept] == [key]
        assert kept[key]["protocol"] == "oscar", "the record is of a version that knew no other"
        shell(f"conntrack -D {ends}")
        assert not backend.conntrack.alive(flow)
        assert backend.conntrack.ended(flow)


def followed_servers_are_taken_over_with_client_and_protocol() -> None:
    server, other = Endpoint("203.0.113.9", 4443), Endpoint("203.0.113.9", 443)
    first, second = Followed(server, "10.0.0.5", "one"), Followed(server, "10.0.0.6", "two")
    control = LinuxQueueControl(now, KernelSets())
    control.queue_server(first)
    control.queue_server(second)
    # Of a version whose entries name no protocol, and of another program.
    shell("ipset add nfreaim_srv 203.0.113.9,tcp:443,10.0.0.5 timeout 5000")
    unnamed = Followed(other, "10.0.0.5", "oscar")
    again = LinuxQueueControl(now, KernelSets())
    left = dict(again.load())
    assert left.keys() == {first, second, unnamed}
    assert all(170 < seconds <= 180 for seconds in left.values()), "of none longer than ours"
    assert "tcp:443,10.0.0.5 timeout 1" in shell("ipset save nfreaim_srv")
    shell("ipset del nfreaim_srv 203.0.113.9,tcp:4443,10.0.0.6")
    assert again.put_back() == [second]
    assert again.put_back() == []
    members = shell("ipset save nfreaim_srv")
    assert "add nfreaim_srv 203.0.113.9,tcp:4443,10.0.0.6 timeout 1" in members
    assert 'comment "nfreaim two"' in members
    again.unqueue_server(second)
    again.unqueue_server(second)
    assert "10.0.0.6" not in shell("ipset save nfreaim_srv")
    assert again.put_back() == []
    for each in (control, again):
        each.close()


def pinholes_of_a_version_that_knew_one_protocol_are_its() -> None:
    shell(
        "ipset add nfreaim_pin 203.0.113.1,tcp:5190,203.0.113.20 timeout 500 packets 1 "
        'comment "nfreaim in=10.0.0.5:5190 flow=10.0.0.5:40123>203.0.113.9:5190 for=send-file '
        'cookie=3132333435363700 until=12345.678 since=12.500"'
    )
    (found,) = pins().list()
    assert (found.protocol, found.service, found.agreement) == ("oscar", "send-file", b"1234567\0")
    assert (found.flow, found.peers, found.verify) == (FLOW, ("203.0.113.20",), True)
    assert (found.deadline, found.since) == (12345.678, 12.5)


def only_completed_connections_through_pinholes_are_events() -> None:
    """The router itself answers, at four ports with different marks; one answer never arrives."""
    events = PinholeEvents(DEFAULT.pinhole, DEFAULT.unverified)
    for port, mark in ((5555, 0x2000001), (5556, 0x1000000), (5557, 0x6000000), (5558, 0x2000000)):
        shell(f"iptables-legacy -t mangle -A OUTPUT -p tcp --dport {port} -j CONNMARK --set-xmark {mark:#x}")
    shell("iptables-legacy -I INPUT -p tcp --sport 5558 -j DROP")  # its answers never arrive
    with socket.create_server(("127.0.0.1", 5558)), socket.socket() as half_open:
        half_open.setblocking(False)
        half_open.connect_ex(("127.0.0.1", 5558))
        for port in (5556, 5557, 5555):
            with socket.create_server(("127.0.0.1", port)), socket.create_connection(("127.0.0.1", port)):
                pass
        assert select.select([events], [], [], 5)[0]
        time.sleep(0.2)
        found = list(events.ends())
        assert {one.outside for one in found} == {Endpoint("127.0.0.1", 5555)}
        assert len(found) <= 2, "one when it was established, one at its end; no state in between"
    # Verified: the mark goes, and the connection counts.
    with socket.create_server(("127.0.0.1", 5557)), socket.create_connection(("127.0.0.1", 5557)) as one:
        assert list(events.ends()) == []
        shell("iptables-legacy -t mangle -A OUTPUT -p tcp --dport 5557 -j CONNMARK --set-xmark 0/0x4000000")
        one.send(b"what was expected")
        assert select.select([events], [], [], 5)[0]
        assert {one.outside for one in events.ends()} == {Endpoint("127.0.0.1", 5557)}
    events.close()


class _Broken:
    """An engine that raises for every packet."""

    seen = 0

    def passes(self, raw: bytes, from_inside: bool, now: float) -> bool:
        return False

    def process_slow(self, raw: bytes, token: Any, from_inside: bool, now: float, skewed: bool) -> Any:
        self.seen += 1
        raise RuntimeError(f"packet of {len(raw)} bytes")


def broken_engine_still_answers_every_packet() -> None:
    """Until stdin closes."""
    engine = _Broken()
    queues = [PacketQueue(number, cast(Engine, engine), time.monotonic) for number in (5190, 5222)]
    for queue in queues:
        queue.open()
    print("ready", flush=True)
    while sys.stdin not in (ready := select.select([*queues, sys.stdin], [], [])[0]):
        for queue in queues:
            if queue in ready:
                queue.serve()
    assert [(it.dropped_full, it.dropped_socket) for it in queue_stats.queues()] == [(0, 0)] * 2
    for queue in queues:
        queue.close()
    print(engine.seen, flush=True)


if __name__ == "__main__":
    globals()[sys.argv[1]](*sys.argv[2:])
