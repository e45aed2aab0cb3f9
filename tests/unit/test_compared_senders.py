"""`nfreaim check`: what it says of check_senders. The kernel's tables are made up; the lab has real ones."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import pytest

from nfreaim.config import Config
from nfreaim.core.backend import Sender
from nfreaim.host.check import compared_senders

ALICE, AMY = "02:00:00:00:00:05", "02:00:00:00:00:06"


class Machine:
    """A router whose inside interfaces are br-lan, guest and wg0; the latter has no hardware addresses."""

    def __init__(self) -> None:
        self.neighbours = {"br-lan": {"10.0.0.5": ALICE, "10.0.0.6": AMY}}
        self.routes: dict[str, list[dict[str, Any]]] = {}
        self.out: dict[str, str] = {}  # interface by host, where it is not the one on which it is known
        self.document: dict[str, Any] | None = None  # of the daemon's status
        self.believed: Callable[[str], Sender] = lambda host: (
            Sender.STRANGER if host in self.out else Sender.HOST
        )

    def json_from(self, words: Sequence[str]) -> list[dict[str, Any]]:
        what, last = words[3] + words[4], words[-1]
        if what == "neighshow":
            chosen = self.neighbours.get(last, {}) if "dev" in words else self.neighbours["br-lan"]
            found = [{"dst": host, "lladdr": mac, "state": ["STALE"]} for host, mac in chosen.items()]
            return [*found, {"dst": "10.0.0.99", "state": ["FAILED"]}]
        if what == "addressshow":
            return [{"addr_info": [{"local": "10.0.0.1", "prefixlen": 24}]}] if last == "br-lan" else []
        if what == "routeshow":
            return self.routes.get(last, [])
        return [{"dst": last, "dev": self.out.get(last, "br-lan")}]

    def sent(self, host: str, hardware: bytes) -> Sender:
        return self.believed(host)

    def close(self) -> None:
        pass


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch) -> Machine:
    made = Machine()
    monkeypatch.setattr(compared_senders, "json_from", made.json_from)
    there = {"br-lan", "guest", "wg0", "eth1"}
    monkeypatch.setattr(compared_senders, "interface_exists", there.__contains__)
    monkeypatch.setattr(compared_senders, "existing", lambda written: filter(there.__contains__, written))
    monkeypatch.setattr(compared_senders, "has_addresses", lambda name: name != "wg0")
    monkeypatch.setattr(compared_senders, "Neighbours", lambda clock: made)
    monkeypatch.setattr(compared_senders, "fetch", lambda path: made.document)
    return made


def said(lan: tuple[str, ...] = ("br-lan",), check: bool | tuple[str, ...] = True) -> list[str]:
    return [str(found) for found in compared_senders.senders(Config(lan=lan, check_senders=check, file="F"))]


def test_lan_in_order_has_one_line(machine: Machine) -> None:
    assert said() == ["ok   senders are compared on br-lan: 2 hosts are known there"]


def test_switched_off_is_a_warning(machine: Machine) -> None:
    (line,) = said(check=False)
    assert line.startswith("warn senders are compared on no interface")
    assert line.endswith("-> write check_senders = true in F")


def test_each_interface_says_whether_it_is_compared(machine: Machine) -> None:
    lines = said(("br-lan", "guest", "wg0"), ("br-lan", "wg0"))
    assert len(lines) == 3
    assert any(line.startswith("ok   senders are compared on br-lan") for line in lines)
    assert any("not compared on guest" in line and 'add "guest" to check_senders' in line for line in lines)
    assert any("cannot be compared on wg0" in line and "conf.wg0.rp_filter=1" in line for line in lines)


def test_names_that_are_no_inside_interfaces(machine: Machine) -> None:
    lines = said(check=("br-lan", "eth1", "nosuch0"))
    assert lines[0] == (
        "warn check_senders names eth1, which is no inside interface -> write one of ['br-lan'] instead in F"
    )
    assert lines[1].startswith("warn check_senders names nosuch0, which does not exist")


def test_hosts_to_whom_the_router_answers_another_way_are_refused(machine: Machine) -> None:
    machine.out = {"10.0.0.6": "guest"}
    (line,) = [line for line in said(("br-lan", "guest")) if line.startswith("warn")]
    assert "packets of 10.0.0.6 that come in by br-lan are taken for forged" in line
    assert "answers go out by guest" in line
    assert line.endswith('write check_senders = ["guest"] in F')


def test_network_that_is_routed_elsewhere_is_seen_before_any_host_of_it_speaks(machine: Machine) -> None:
    machine.neighbours = {"br-lan": {}}
    machine.out = {"10.0.0.2": "tun0"}
    (line,) = [line for line in said() if line.startswith("warn")]
    assert "10.0.0.2 that come in by br-lan" in line
    assert line.endswith("write check_senders = false in F")


def test_one_hardware_address_for_several_hosts_tells_nobody_apart(machine: Machine) -> None:
    machine.neighbours["br-lan"] = dict.fromkeys([f"10.0.0.{n}" for n in range(5, 10)], ALICE)
    (line,) = [line for line in said() if line.startswith("warn")]
    assert "10.0.0.5, 10.0.0.6, 10.0.0.7 and 2 more have one hardware address on br-lan" in line
    assert " -> " in line


@pytest.mark.parametrize(
    ("hardware", "text"), [(AMY, "they are not told apart"), ("00:00:5e:00:01:07", "that routers share")]
)
def test_hosts_behind_another_router(machine: Machine, hardware: str, text: str) -> None:
    machine.neighbours["br-lan"]["10.0.0.6"] = hardware
    machine.routes["br-lan"] = [{"dst": "10.0.0.0/24"}, {"dst": "10.8.0.0/16", "gateway": "10.0.0.6"}]
    (line,) = [line for line in said() if line.startswith("warn")]
    assert "10.8.0.0/16" in line
    assert "10.0.0.6" in line
    assert text in line
    assert line.endswith("write check_senders = false in F")


def test_full_table_of_neighbours(machine: Machine, monkeypatch: pytest.MonkeyPatch, tmp_path: Any) -> None:
    monkeypatch.setattr(compared_senders, "_LIMIT", tmp_path / "limit")
    (tmp_path / "limit").write_text("4\n")
    assert not any(line.startswith("warn") for line in said())
    (tmp_path / "limit").write_text("3\n")
    (line,) = [line for line in said() if line.startswith("warn")]
    assert line.endswith("gc_thresh3=12")


def test_strangers_that_a_running_daemon_has_met(machine: Machine) -> None:
    machine.document = {"counters": {"strange_senders": 0}}
    assert not any(line.startswith("warn") for line in said())
    machine.document = {"counters": {"strange_senders": 3}}
    (line,) = [line for line in said() if line.startswith("warn")]
    assert line.startswith("warn 3 times since the daemon's start")
