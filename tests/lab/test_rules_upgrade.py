"""The rules of commit 90f2295 under those of today: what is in the kernel goes on, and ends up whole.

There, a server was followed for every client (a set of type hash:ip,port), and no rule named its protocol.
Each test has a router of its own.
"""

from __future__ import annotations

import re
import socket
import struct
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.lab import kernel_sets
from tests.lab.namespace import socket_in
from tests.lab.router import REPO, SCRIPT, SERVER, Router

pytestmark = kernel_sets.legacy_only("earlier versions knew no others")

ARGS = ("--lan", "lan", "--wan", "wan", "--port", "5190", "--port", "443")
CLIENT = "10.0.0.9"
SAVE = "iptables-legacy-save"


@pytest.fixture(scope="module")
def older(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The script of that commit."""
    found = subprocess.run(
        ["git", "show", "90f2295:rules/nfreaim-rules"], cwd=REPO, capture_output=True, timeout=30
    )
    if found.returncode:
        pytest.skip("this clone has no commit 90f2295: git fetch --unshallow")
    script = tmp_path_factory.mktemp("older") / "nfreaim-rules"
    script.write_bytes(found.stdout)
    script.chmod(0o755)
    return str(script)


@pytest.fixture
def router() -> Iterator[Router]:
    with Router() as made:
        yield made


@contextmanager
def session(router: Router, port: int) -> Iterator[socket.socket]:
    """A connection from the client to the server, from port 4000; yields the client's end."""
    with socket_in(router, "server") as listener, socket_in(router, "client") as client:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((SERVER, port))
        listener.listen(1)
        client.bind((CLIENT, 4000))
        client.connect((SERVER, port))
        server, _ = listener.accept()
        with server:
            yield client


def followed(router: Router) -> list[str]:
    return router.shell("ipset save nfreaim_srv | sed -n 's/^add nfreaim_srv //p'").splitlines()


def fresh(options: tuple[str, ...] = ARGS) -> str:
    """What a router has that never had the older rules."""
    with Router() as other:
        other.rules("install", *options)
        return other.state()


def test_older_rules_become_those_of_today(router: Router, older: str) -> None:
    before = router.state()
    router.on("router", older, "install", *ARGS)
    assert router.show()[0] == 3
    assert (
        "not installed: mangle nat nfreaim_srv nfreaim_flow nfreaim_shut nfreaim_local\n" in router.show()[1]
    )
    router.rules("install", *ARGS)
    assert router.state() == fresh()
    assert router.show()[0] == 0
    router.rules("remove")
    assert router.state() == before


def test_older_rules_are_removed_without_a_trace(router: Router, older: str) -> None:
    before = router.state()
    router.on("router", older, "install", *ARGS)
    router.shell(f"ipset add nfreaim_srv {SERVER},tcp:4443")
    router.rules("remove")
    assert router.state() == before


def test_a_followed_server_stays_followed_for_the_client_that_is_connected(
    router: Router, older: str
) -> None:
    router.on("router", older, "install", *ARGS)
    router.shell(
        f"ipset add nfreaim_srv {SERVER},tcp:4443 timeout 5000; ipset add nfreaim_srv {SERVER},tcp:4444"
    )
    with session(router, 4443):
        router.rules("install", *ARGS)
    (entry,) = followed(router)
    place, word, seconds = entry.split()
    assert (place, word) == (f"{SERVER},tcp:4443,{CLIENT}", "timeout")
    assert 4900 < int(seconds) <= 5000


def test_pinholes_and_skewed_flows_are_the_same_afterwards(router: Router, older: str) -> None:
    router.on("router", older, "install", *ARGS)
    router.shell(
        "iptables-legacy -t nat -N NFREAIM_D07; iptables-legacy -t nat -A NFREAIM -j NFREAIM_D07;"
        "ipset add nfreaim_pin 203.0.113.1,tcp:4443,0.0.0.0/1 timeout 0 bytes 77 comment kept;"
        "ipset add nfreaim_skew 203.0.113.9,tcp:4000,10.0.0.9 timeout 0;"
        "ipset add nfreaim_off 10.0.0.9,tcp:4000,203.0.113.9 timeout 0"
    )
    nat = router.chain(SAVE, "nat", "NFREAIM")
    before = router.shell("for set in pin skew off; do ipset save nfreaim_$set; done")
    router.rules("install", *ARGS)
    assert router.shell("for set in pin skew off; do ipset save nfreaim_$set; done") == before
    bits = {"-j CONNMARK --set-xmark 0x200000/0x200000": 0x3000000}
    bits |= {rule: 0x4000000 for rule in nat if rule.endswith("-j CONNMARK --set-xmark 0x400000/0x400000")}
    assert len(bits) == 2
    assert bits.keys() < set(nat)
    today = [re.sub(r"\S+$", f"{bits[one]:#x}/{bits[one]:#x}", one) if one in bits else one for one in nat]
    assert router.chain(SAVE, "nat", "NFREAIM") == today


class Stream(threading.Thread):
    """Segments of one flow, sent by the client as fast as it can."""

    def __init__(self, router: Router, port: int) -> None:
        super().__init__()
        self._socket = socket_in(router, "client", socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_TCP)
        self._segment = struct.pack("!HHIIBBHHH", 4000, port, 7, 9, 0x50, 0x10, 512, 0, 0)
        self._over = threading.Event()
        self.sent = 0

    def run(self) -> None:
        while not self._over.wait(0.0002):
            self._socket.sendto(self._segment, (SERVER, 0))
            self.sent += 1

    def end(self) -> None:
        self._over.set()
        self.join()
        self._socket.close()


def test_a_flow_that_waits_for_the_daemon_waits_while_the_rules_are_replaced(
    router: Router, older: str
) -> None:
    """Without a daemon its packets go nowhere, as long as a rule leads them to the entry that says so."""
    router.on("router", older, "install", *ARGS)
    router.on("server", *"iptables-legacy -A INPUT -p tcp --dport 4443 -j ACCEPT".split())

    def arrived() -> int:
        return int(router.on("server", "iptables-legacy", "-vnxL", "INPUT").stdout.splitlines()[2].split()[0])

    with session(router, 4443):
        stream = Stream(router, 4443)
        try:
            router.shell(f"ipset add nfreaim_srv {SERVER},tcp:4443")
            came = arrived()
            stream.start()
            while stream.sent < 50:
                threading.Event().wait(0.01)
            assert arrived() > came, "nothing arrives anyway: the test proves nothing"
            router.shell(f"ipset add nfreaim_skew {CLIENT},tcp:4000,{SERVER}")
            router.shell("sleep 0.1")
            came, sent = arrived(), stream.sent
            for _ in range(3):
                router.rules("install", *ARGS)
            assert arrived() == came
            assert stream.sent > sent + 100
            assert f"{SERVER},tcp:4443,{CLIENT}" in followed(router)[0]
        finally:
            stream.end()


# --- interrupted ---


def test_older_set_that_another_rule_uses_is_reported_and_replaced_later(router: Router, older: str) -> None:
    router.on("router", older, "install", *ARGS)
    router.shell(f"ipset add nfreaim_srv {SERVER},tcp:4443")
    router.shell("iptables-legacy -A INPUT -m set --match-set nfreaim_srv src,src -j ACCEPT")
    with session(router, 4443):
        assert "the older set nfreaim_srv remains" in router.fails("install", *ARGS)
    assert "nfreaim_srv_new dst,dst,src -j NFREAIM" in "\n".join(router.chain(SAVE, "raw", "PREROUTING"))
    assert router.show()[0] == 3
    router.shell("iptables-legacy -F INPUT")
    router.rules("install", *ARGS)
    assert followed(router)[0].startswith(f"{SERVER},tcp:4443,{CLIENT} ")
    router.shell("ipset flush nfreaim_srv")
    assert router.state() == fresh()


@pytest.mark.parametrize("step", ["destroy nfreaim_srv", "destroy nfreaim_srv_new"])
@pytest.mark.parametrize("next_one", ["install", "remove"])
def test_install_that_is_killed_midway_is_completed_or_removed_by_the_next(
    router: Router, older: str, tmp_path: Path, step: str, next_one: str
) -> None:
    before = router.state()
    router.on("router", older, "install", *ARGS)
    router.shell(f"ipset add nfreaim_srv {SERVER},tcp:4443")
    ipset = tmp_path / "ipset"
    ipset.write_text(
        f'#!/bin/sh\n[ "$*" != "{step}" ] || exec kill -9 "$SCRIPT"\nexec /usr/sbin/ipset "$@"\n'
        if step.endswith("_new")
        else f'#!/bin/sh\n[ "$*" != "{step}" ] || {{ /usr/sbin/ipset "$@"; exec kill -9 "$SCRIPT"; }}\n'
        'exec /usr/sbin/ipset "$@"\n'
    )
    ipset.chmod(0o755)
    command = f"export PATH={tmp_path}:$PATH SCRIPT=$$; exec {SCRIPT} install {' '.join(ARGS)}"
    with session(router, 4443):
        with pytest.raises(subprocess.CalledProcessError) as killed:
            router.on("router", "sh", "-c", command)
        assert killed.value.returncode == -9
        assert "nfreaim_srv_new" in router.state()
        router.rules(*(("install", *ARGS) if next_one == "install" else ("remove",)))
    if next_one == "remove":
        assert router.state() == before
        return
    assert followed(router)[0].startswith(f"{SERVER},tcp:4443,{CLIENT} ")
    router.shell("ipset flush nfreaim_srv")
    assert router.state() == fresh()


def test_a_jump_for_local_destinations_only_counts_as_missing_and_is_replaced(router: Router) -> None:
    """Of versions for which pinholes were at addresses of the router's own interfaces."""
    router.rules("install", *ARGS)
    wanted = router.state()
    jump = "PREROUTING -i wan -p tcp {}-j NFREAIM"
    local = jump.format("-m addrtype --dst-type LOCAL ")
    router.shell(f"iptables-legacy -t nat -D {jump.format('')}; iptables-legacy -t nat -A {local}")
    status, shown = router.show()
    assert (status, shown.splitlines()[-1]) == (3, "not installed: nat")
    router.rules("install", *ARGS)
    assert router.state() == wanted
    assert router.show()[0] == 0
