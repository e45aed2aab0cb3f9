"""What the kernel writes down: listening sockets and their users, UPnP, routes, neighbours and bridges."""

from __future__ import annotations

import os
import socket
from pathlib import Path

import pytest

from nfreaim.core.address import Endpoint, FlowId
from nfreaim.host.home import local_sockets
from nfreaim.host.home.local_sockets import accepted_by, listeners, serves_on_request
from nfreaim.host.home.sight import Sight

HEAD = "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode\n"


def row(local: str, remote: str, state: str, user: int, inode: int = 77) -> str:
    queues = "00000000:00000000 00:00000000 00000000"
    return f"   0: {local} {remote} {state} {queues} {user:5d}        0 {inode} 1\n"


NOBODY_YET = "00000000:0000"


def proc(folder: Path, **files: str) -> Path:
    for name, rows in files.items():
        (folder / name).write_text(HEAD + rows)
    return folder


# --- sockets ---

US = os.getuid()


def listening(address: str) -> socket.socket:
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    made = socket.socket(family)
    made.bind((address, 0))
    made.listen()
    return made


@pytest.mark.parametrize(
    ("address", "gets"),
    [
        ("127.0.0.1", {"127.0.0.1"}),
        ("0.0.0.0", {"127.0.0.1", "127.0.0.2"}),
        ("::", {"127.0.0.1", "127.0.0.2"}),
        ("::ffff:127.0.0.1", {"127.0.0.1"}),
        ("::ffff:0.0.0.0", {"127.0.0.1", "127.0.0.2"}),
        ("::1", set()),
    ],
)
def test_all_listeners_that_may_get_the_connection_are_found(address: str, gets: set[str]) -> None:
    with listening(address) as listener:
        port = listener.getsockname()[1]
        for asked in ("127.0.0.1", "127.0.0.2"):
            assert listeners(port, asked) == ({US} if asked in gets else set()), asked
        assert listeners(port) == {US}
    assert listeners(port) == set()


@pytest.mark.parametrize("address", ["127.0.0.1", "::", "::ffff:127.0.0.1"])
def test_who_accepted_a_connection(address: str) -> None:
    with listening(address) as listener:
        port = listener.getsockname()[1]
        client = socket.create_connection(("127.0.0.1", port))
        flow = FlowId(Endpoint(*client.getsockname()), Endpoint("127.0.0.1", port))
        assert accepted_by(flow) is None, "nobody yet"
        accepted, _ = listener.accept()
        assert accepted_by(flow) == US
        assert accepted_by(flow._replace(client=Endpoint("127.0.0.1", 1))) is None, (
            "the listener is no answer"
        )
    assert accepted_by(flow) == US, "the listener has gone"
    client.shutdown(socket.SHUT_WR)
    assert accepted.recv(1) == b""
    assert accepted_by(flow) == US, "it may still speak"
    accepted.close()
    assert accepted_by(flow) is None
    client.close()


def test_a_kernel_that_cannot_list_sockets_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(local_sockets, "_BY_FAMILY", 99)
    with pytest.raises(OSError, match="sockets cannot be listed"):
        listeners(1)


def test_upnp_and_pcp_are_noticed(tmp_path: Path) -> None:
    proc(tmp_path, udp=row("00000000:0035", NOBODY_YET, "07", 0))
    assert serves_on_request(tmp_path) is None
    proc(tmp_path, udp6=row(f"{'0' * 32}:14E7", NOBODY_YET, "07", 0))
    assert serves_on_request(tmp_path) == 5351
    proc(tmp_path, udp=row("FAFFFFEF:076C", NOBODY_YET, "07", 1001))
    assert serves_on_request(tmp_path) == 1900


# --- sight ---

ROUTES = """Iface\tDestination\tGateway \tFlags\tRefCnt\tUse\tMetric\tMask\t\tMTU\tWindow\tIRTT
wan\t00000000\tFE7100CB\t0003\t0\t0\t0\t00000000\t0\t0\t0
lan\t0000000A\t00000000\t0001\t0\t0\t0\t00FFFFFF\t0\t0\t0
lan\t0002000A\t0600000A\t0003\t0\t0\t0\t00FFFFFF\t0\t0\t0
vlan\t0001000A\t00000000\t0001\t0\t0\t0\t00FFFFFF\t0\t0\t0
down\t0900000A\t00000000\t0000\t0\t0\t0\tFFFFFFFF\t0\t0\t0
slow\t0001000A\t00000000\t0001\t0\t0\t9\t00FFFFFF\t0\t0\t0
"""
ARP = """IP address       HW type     Flags       HW address            Mask     Device
10.0.0.5         0x1         0x2         02:00:00:00:00:05     *        lan
10.0.0.6         0x1         0x2         02:00:00:00:00:06     *        lan
10.0.0.7         0x1         0x0         00:00:00:00:00:00     *        lan
10.0.0.9         0x1         0x2         02:00:00:00:00:09     *        lan
"""


def entry(host: int, port: int) -> bytes:
    return bytes([2, 0, 0, 0, 0, host, port & 255, 0, 1, 0, 0, 0, port >> 8, 0, 0, 0])


@pytest.fixture
def machine(tmp_path: Path) -> Path:
    """.5 and .9 are behind one port of the bridge, .6 behind another."""
    files = {
        "proc/net/route": ROUTES,
        "proc/net/arp": ARP,
        "proc/sys/net/bridge/bridge-nf-call-iptables": "1\n",
        "sys/class/net/lan/bridge/nf_call_iptables": "0\n",
        "proc/sys/net/ipv4/conf/all/rp_filter": "0\n",
        "proc/sys/net/ipv4/conf/lan/rp_filter": "1\n",
    }
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    forwarding = entry(5, 257) + entry(9, 257) + entry(6, 1) + b"rest"
    (tmp_path / "sys/class/net/lan/brforward").write_bytes(forwarding)
    return tmp_path


def test_what_passes_this_router(machine: Path) -> None:
    sight = Sight(machine)
    assert sight.passes("10.0.1.5", "10.0.0.9"), "another network"
    assert sight.passes("10.0.0.6", "10.0.0.9"), "across the bridge"
    assert not sight.passes("10.0.0.5", "10.0.0.9"), "a switch joins them"
    for silent in ("10.0.0.7", "10.0.0.8", "10.0.2.5"):
        assert sight.passes(silent, "10.0.0.9")
    (machine / "proc/sys/net/bridge/bridge-nf-call-iptables").write_text("0\n")
    for host in ("10.0.0.6", "10.0.0.7", "10.0.2.5"):
        assert not sight.passes(host, "10.0.0.9")
    assert sight.passes("10.0.1.5", "10.0.0.9")
    (machine / "sys/class/net/lan/bridge/nf_call_iptables").write_text("1\n")
    assert sight.passes("10.0.0.6", "10.0.0.9"), "switched on for this bridge"
    for name in ("brforward", "bridge/nf_call_iptables"):
        (machine / "sys/class/net/lan" / name).unlink()
    (machine / "sys/class/net/lan/bridge").rmdir()
    assert not sight.passes("10.0.0.6", "10.0.0.9"), "no bridge: a switch joins them"


def test_who_can_speak_in_a_hosts_name(machine: Path) -> None:
    sight = Sight(machine)
    assert sight.cannot_imitate("10.0.1.5", "10.0.0.9")
    assert not sight.cannot_imitate("10.0.0.5", "10.0.0.9"), "one network"
    assert not sight.cannot_imitate("10.0.2.5", "10.0.0.9"), "its router is in the server's network"
    assert not sight.cannot_imitate("10.0.0.5", "10.0.1.9"), "nobody checks the way back"
    for strict in ("proc/sys/net/ipv4/conf/all", "proc/sys/net/ipv4/conf/lan"):
        (machine / strict / "rp_filter").write_text("2\n")
        assert not sight.cannot_imitate("10.0.1.5", "10.0.0.9"), "loosely"
