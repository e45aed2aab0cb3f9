"""Flowtables: what the rules script says of them, and what becomes of verification beside them."""

from __future__ import annotations

import errno
import socket
import struct

import pytest

from nfreaim.core.firewall.policy import LowPort
from nfreaim.core.firewall.ungated import UNVERIFIABLE
from nfreaim.core.helper import Refused
from nfreaim.errors import BackendError
from nfreaim.host.check.flowtables import judged
from nfreaim.host.netfilter import conntrack_helper
from nfreaim.host.netfilter.netlink import KernelRefusedError, attributes
from nfreaim.host.rules import script
from tests.unit.pinhole_table import ALICE, A, B, Table

WEB = {("web", 80): LowPort(frozenset({"10.0.0.5"}), "[protocol] web_hosts")}
LACKING = "possible: the kernel takes no helper of nfreaim's"


@pytest.mark.parametrize(
    ("line", "unguarded", "guarded"),
    [
        ("", "", False),
        ("flowtable       prevented", "", True),
        (f"flowtable       {LACKING}", "the kernel takes no helper of nfreaim's", False),
    ],
)
def test_what_the_script_says(line: str, unguarded: str, guarded: bool) -> None:
    shown = f"iptables-legacy raw -A PREROUTING\n{line}\nnfreaim_pin x\n"
    assert script.unguarded(shown) == unguarded
    assert script.guarded(shown) is guarded


def check(reason: str, guarded: bool, monkeypatch: pytest.MonkeyPatch, lacking: str = "") -> list[str]:
    monkeypatch.setattr(conntrack_helper, "unavailable", lambda: lacking)
    return [str(line) for line in judged(reason, guarded, {"one": (7, 8)}, "INSTALL")]


def test_check_names_the_remedy_that_works_there(monkeypatch: pytest.MonkeyPatch) -> None:
    assert check("", False, monkeypatch) == []
    (line,) = check("", True, monkeypatch)
    assert "flowtables take no connection" in line
    (line,) = check("the kernel has no helper", False, monkeypatch)
    assert "cannot be relied on" in line
    assert line.endswith("-> INSTALL")
    (line,) = check("the kernel has no helper", False, monkeypatch, "it has no nfnetlink_cthelper")
    assert "a kernel with nfnetlink_cthelper" in line
    assert "tcp dport != { 7, 8 } tcp sport != { 7, 8 } flow add @f" in line
    (line,) = check("rules give connections a zone", False, monkeypatch)
    assert "where zones are given" in line


def test_peers_are_not_verified_while_a_flowtable_may_take_them() -> None:
    made = Table()
    assert made.ask().verify
    made.verify(False)
    (open_,) = made
    assert not open_.verify
    assert made.firewall.pinholes == [open_]
    made.consistent()
    assert made.expected(open_.inside) == []
    assert made.ask() == open_, "the same proposal again is the same pinhole"
    assert not made.ask(B, 5191).verify
    made.claimed(open_.outside, "198.51.100.7", 1.0)
    assert [peer for _, peer in made.watcher.claims] == ["198.51.100.7"]
    made.verify(True)
    assert made.ask(b"COOKIE-D", 5192).verify
    made.consistent()


def test_a_port_for_verified_peers_only_is_closed_and_stays_shut() -> None:
    made = Table(low_ports=WEB)
    made.ask(A, 80, service="web")
    made.verify(False)
    assert not list(made)
    assert [reason for _, reason in made.watcher.closes] == [UNVERIFIABLE]
    with pytest.raises(Refused, match="while a flowtable takes connections"):
        made.ask(A, 80, service="web")
    made.consistent()


def test_two_pinholes_that_would_become_one() -> None:
    made = Table()
    verified = made.ask(A)
    other = made.ask(B, greetings=())
    made.verify(False)
    assert list(made) == [other]
    assert [one for one, _ in made.watcher.closes] == [verified]
    made.consistent()


def test_a_pinhole_that_the_firewall_does_not_change_is_closed() -> None:
    made = Table()
    made.ask(flow=ALICE)
    made.firewall.refuse_add = True
    made.verify(False)
    assert not list(made)


class Kernel:
    """Answers one question with an error number."""

    def __init__(self, code: int, monkeypatch: pytest.MonkeyPatch) -> None:
        self.code, self.asked = code, b""
        monkeypatch.setattr(conntrack_helper, "Netlink", lambda: self)

    def ask(self, question: bytearray) -> bytes:
        self.asked = bytes(question)
        return struct.pack("=IHHIIi", 20, 2, 0, 0, 0, -self.code)

    def dump(self, question: bytearray) -> list[bytes]:
        if self.code:
            raise KernelRefusedError(self.code)
        return []

    def close(self) -> None:
        """Nothing is open."""


def test_the_helper_is_declared_so_that_nothing_is_queued(monkeypatch: pytest.MonkeyPatch) -> None:
    kernel = Kernel(0, monkeypatch)
    conntrack_helper.add()
    assert struct.unpack_from("=H", kernel.asked, 4)[0] == 9 << 8
    found = dict(attributes(kernel.asked[20:]))
    assert found[1] == b"nfreaim\0"
    assert found[6] == bytes(4), "status: disabled"
    assert dict(attributes(found[2])) == {1: struct.pack("!H", socket.AF_INET), 2: bytes([6])}
    Kernel(errno.EEXIST, monkeypatch)
    conntrack_helper.add()
    Kernel(errno.EINVAL, monkeypatch)
    with pytest.raises(BackendError, match="it has no nfnetlink_cthelper"):
        conntrack_helper.add()
    assert conntrack_helper.unavailable() == "it has no nfnetlink_cthelper"


@pytest.mark.parametrize(("code", "gone"), [(0, True), (errno.ENOENT, True), (errno.EBUSY, False)])
def test_the_helper_stays_while_rules_of_another_namespace_have_it(
    code: int, gone: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    Kernel(code, monkeypatch)
    assert conntrack_helper.remove() is gone


def test_what_the_kernel_refuses_otherwise_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    Kernel(errno.EPERM, monkeypatch)
    with pytest.raises(BackendError, match="Operation not permitted"):
        conntrack_helper.remove()
    Kernel(0, monkeypatch)
    assert conntrack_helper.unavailable() == ""
