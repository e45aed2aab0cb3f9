"""What tests/lab/test_kernel.py lets happen on a router: the host modules one by one on the real kernel.

``python -m tests.lab.on_router NAME [ARGUMENT ...]`` runs one of the functions below in the router's
namespace; an exception fails the test. The static rules are installed unless a function says otherwise.
"""

from __future__ import annotations

import fcntl
import select
import socket
import subprocess
import sys
import time
from typing import Any, cast

from nfreaim.core.engine import Engine
from nfreaim.core.flow import Endpoint, Owner
from nfreaim.core.pinhole import Pinhole
from nfreaim.errors import BackendError
from nfreaim.host.conntrack import ENDING, ESTABLISHED, Conntrack, PinholeEvents
from nfreaim.host.forwards import Forwards
from nfreaim.host.ipset import OFFLOAD_SET, FlowSet
from nfreaim.host.iptables import PINHOLE_MARK, Iptables
from nfreaim.host.queue import PacketQueue

OWNER = Owner(Endpoint("10.0.0.5", 40123), Endpoint("203.0.113.9", 5190))
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


def hole(port: int, peer: str | None = None) -> Pinhole:
    inside, outside = Endpoint("10.0.0.5", port), Endpoint(OUTSIDE, port)
    return Pinhole(inside, outside, OWNER, b"1234567\0", "send-file", 1234.567, peer)


def offloaded_flows_come_and_go() -> None:
    flows = FlowSet(OFFLOAD_SET)
    members = "ipset save nfreaim_off | grep ^add || true"
    for _ in range(2):
        flows.add(OWNER)
        assert "10.0.0.5,tcp:40123,203.0.113.9 timeout 3" in shell(members)
    for _ in range(2):
        flows.delete(OWNER)
        assert shell(members) == ""
    for port in range(2000):
        flows.add(Owner(Endpoint("10.0.0.5", 1024 + port), OWNER.server))
    flows.flush()
    assert shell(members) == ""
    flows.close()


def nothing_works_without_the_rules() -> None:
    """On a router without them."""
    assert "are the rules installed?" in refused(FlowSet(OFFLOAD_SET).add, OWNER)
    firewall = Iptables(Forwards())
    for call in (firewall.list, lambda: firewall.commit([hole(5190)], [])):
        assert "chain NFREAIM is missing in the legacy nat table" in refused(call)
    assert "NFREAIM" not in shell("iptables-legacy-save")


def pinholes_read_back_as_written() -> None:
    firewall = Iptables(Forwards())
    shell(
        "iptables-legacy -t nat -A NFREAIM -p tcp --dport 7 -m comment --comment 'nfreaim or not' -j RETURN"
    )
    holes = [hole(5190), hole(5191, "203.0.113.20")]
    firewall.commit(holes, [])
    assert firewall.list() == holes
    changed = hole(5191)
    firewall.commit([changed], [holes[1]])
    assert firewall.list() == [holes[0], changed]
    firewall.commit([], [holes[0], changed])
    firewall.commit([], [holes[0]])  # it is gone already
    firewall.commit([], [])
    assert firewall.list() == []
    assert shell("iptables-legacy -t nat -S NFREAIM").count("\n") == 2


def changes_of_others_at_the_same_time_are_not_lost() -> None:
    firewall = Iptables(Forwards())
    add = (
        "for n in $(seq 40); do iptables-legacy -w 5 -t nat -A POSTROUTING -p udp --dport $n -j ACCEPT; done"
    )
    other = subprocess.Popen(["sh", "-ec", add])
    done = 0
    while other.poll() is None or not done:
        time.sleep(0.002)  # the lock is not fair
        try:
            firewall.commit([hole(6000 + done)], [])
            done += 1
        except BackendError as error:
            if "holds /run/xtables.lock" not in str(error):  # on a busy machine: it may wait no longer
                raise
    assert other.returncode == 0
    assert len(firewall.list()) == done
    assert shell("iptables-legacy -t nat -S POSTROUTING").count("--dport") == 40


def lock_held_by_another_program_refuses_and_changes_nothing() -> None:
    firewall = Iptables(Forwards())
    before = shell("iptables-legacy-save -t nat | grep -v '^[#:]'")
    with open("/run/xtables.lock", "a") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        assert "another program holds" in refused(firewall.commit, [hole(5190)], [])
    assert shell("iptables-legacy-save -t nat | grep -v '^[#:]'") == before
    firewall.commit([hole(5190)], [])


def taken_ports_are_seen() -> None:
    forwards = Forwards()
    firewall = Iptables(forwards)
    shell(
        "iptables-legacy -t nat -I PREROUTING -p tcp -m multiport --dports 80,7000:7010 -j DNAT --to 10.0.0.6"
    )
    shell("iptables-nft -t nat -I PREROUTING -i wan -p tcp --dport 8000 -j REDIRECT --to-ports 80")
    shell("nft 'table ip own { chain pre { type nat hook prerouting priority -100; }; }'")
    shell("nft add rule ip own pre tcp dport '{ 9000, 9100-9200 }' dnat to 10.0.0.6")
    firewall.commit([hole(5190)], [])
    forwards.refresh()
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
    owner = Owner(Endpoint("10.0.0.5", int(port)), Endpoint("203.0.113.20", 5190))
    conntrack = Conntrack()
    assert conntrack.state(owner) == ESTABLISHED
    assert conntrack.outside_address(owner) == OUTSIDE
    stranger = Owner(Endpoint("10.0.0.6", int(port)), owner.server)
    assert conntrack.state(stranger) is None
    assert "does not know 10.0.0.6" in refused(conntrack.outside_address, stranger)
    shell(f"conntrack -U -p tcp -s 10.0.0.5 --sport {port} --state CLOSE")
    assert conntrack.state(owner) in ENDING
    shell(f"conntrack -D -p tcp -s 10.0.0.5 --sport {port}")
    assert conntrack.state(owner) is None
    assert not conntrack.holds(owner)
    began = time.monotonic()
    for _ in range(500):
        conntrack.state(owner)
    print(f"{(time.monotonic() - began) / 500 * 1e6:.0f} microseconds per look-up")
    conntrack.close()


def only_connections_through_pinholes_are_events() -> None:
    """Both ports are answered at once by the router itself; one carries the mark of a pinhole."""
    events = PinholeEvents(PINHOLE_MARK)
    shell(f"iptables-legacy -t mangle -A OUTPUT -p tcp --dport 5555 -j CONNMARK --set-xmark {0x200001:#x}")
    shell("iptables-legacy -t mangle -A OUTPUT -p tcp --dport 5556 -j CONNMARK --set-xmark 0x100000")
    for port in (5556, 5555, 5557):
        with socket.create_server(("127.0.0.1", port)), socket.create_connection(("127.0.0.1", port)):
            pass
    assert select.select([events], [], [], 5)[0]
    assert list(events.read()) == [(Endpoint("127.0.0.1", 5555), "127.0.0.1")]
    assert list(events.read()) == []
    events.close()


class _Broken:
    """An engine that raises for every packet."""

    seen = 0

    def process(self, raw: bytes, token: Any, from_inside: bool, now: float, skewed: bool) -> Any:
        self.seen += 1
        raise RuntimeError(f"packet of {len(raw)} bytes")


def broken_engine_still_answers_every_packet() -> None:
    """Until stdin closes."""
    engine = _Broken()
    queue = PacketQueue(5190, cast(Engine, engine), time.monotonic)
    queue.open()
    print("ready", flush=True)
    while sys.stdin not in (ready := select.select([queue, sys.stdin], [], [])[0]):
        if queue in ready:
            queue.serve()
    assert queue.dropped() == (0, 0)
    queue.close()
    print(engine.seen, flush=True)


if __name__ == "__main__":
    globals()[sys.argv[1]](*sys.argv[2:])
