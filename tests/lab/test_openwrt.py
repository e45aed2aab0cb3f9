"""A router as the OpenWrt package finds it: BusyBox, a firewall in fw4's form, and no python-iptables."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.lab.checking import PROGRAM, check
from tests.lab.net import Lab
from tests.lab.router import Router
from tests.lab.scene import start
from tests.lab.standin import Client, Server, Transfer

REPO = Path(__file__).resolve().parents[2]
LINE = REPO / "packaging" / "openwrt" / "nfreaim" / "files" / "10-nfreaim.nft"
INSTALL = ("install", "--firewall", "nft", "--lan", "lan", "--wan", "wan")
# Of those that OpenWrt's BusyBox has (package/utils/busybox/Config-defaults.in of its tree).
APPLETS = ("awk", "cat", "grep", "head", "id", "ls", "mkdir", "mv", "sed", "sort", "tr")
# What the package brings besides.
BROUGHT = ("flock", "ip", "nft")
# `nfreaim check` where no program of iptables is, nor another one that its look at helpers could start.
BARE = (
    "from nfreaim.host.check import assigned_helpers\n"
    "from nfreaim.kernel_helpers import Assignment\n"
    "assigned_helpers.run = assigned_helpers.which = lambda words: None\n"
    + PROGRAM.replace(
        "wan=('wan',)", "wan=('wan',), firewall='nft', kernel_helpers=(Assignment('sip', 'udp', (5060,)),)"
    )
)
# In the form in which fw4 writes its table: what it takes in stands before its own rules of the chain, and a
# reload replaces this table alone.
FW4 = """
table inet fw4
flush table inet fw4
table inet fw4 {
    chain input {
        type filter hook input priority filter; policy drop;
        iifname "lo" accept
        ct state established,related accept
        iifname "lan" accept
    }
    chain forward {
        type filter hook forward priority filter; policy drop;
        %s
        ct state established,related accept
        iifname "lan" accept
        iifname "wan" jump forward_wan
    }
    chain forward_wan {
        meta l4proto tcp reject with tcp reset
    }
    chain dstnat {
        type nat hook prerouting priority dstnat; policy accept;
    }
    chain srcnat {
        type nat hook postrouting priority srcnat; policy accept;
        oifname "wan" meta nfproto ipv4 masquerade
    }
}
"""


class BusyBox:
    """nfreaim-rules in BusyBox's shell, where only its programs are and those that the package brings."""

    def __init__(self, directory: Path, router: Router) -> None:
        self.directory, self.router = directory, router
        busybox = shutil.which("busybox")
        assert busybox is not None
        for name in APPLETS:
            (directory / name).symlink_to(busybox)
        for name in BROUGHT:
            found = shutil.which(name)
            assert found is not None
            (directory / name).symlink_to(found)
        script = (REPO / "rules" / "nfreaim-rules").read_text()
        more = ":/usr/local/sbin:/usr/sbin:/sbin:/usr/bin:/bin"
        assert script.count(more) == 1
        (directory / "nfreaim-rules").write_text(script.replace(more, ""))
        (directory / "nfreaim").write_text(f'#!/bin/sh\nexec {sys.executable} -m nfreaim "$@"\n')
        (directory / "nfreaim").chmod(0o755)
        self.command = [busybox, "ash", str(directory / "nfreaim-rules")]

    def rules(self, *words: str) -> str:
        """What it prints; nothing may be missing."""
        record = str(self.directory / "decided" / "firewall")
        paths = {"PATH": str(self.directory), "PYTHONPATH": str(REPO), "NFREAIM_FIREWALL_RECORD": record}
        done = self.router.on("router", *self.command, *words, env=paths)
        assert done.stderr == ""
        return done.stdout


@pytest.mark.skipif(shutil.which("busybox") is None, reason="busybox is absent; apt install busybox")
def test_the_rules_need_no_program_but_busybox_and_what_the_package_brings(tmp_path: Path) -> None:
    with Router() as router:
        busybox, before = BusyBox(tmp_path, router), router.state()
        router.rules(*INSTALL)
        usual, (status, shown) = router.state(), router.show()
        assert status == 0
        router.rules("remove")
        assert router.state() == before
        assert busybox.rules("firewall", "--firewall", "nft") == "nft\n"
        busybox.rules(*INSTALL)
        assert (tmp_path / "decided" / "firewall").read_text() == "nft\n"
        assert router.state() == usual
        assert busybox.rules("show") == shown
        busybox.rules("self-test", "add", "5190")
        assert "table ip nfrtest" in router.on("router", "nft", "list", "tables").stdout
        busybox.rules("self-test", "remove")
        busybox.rules("close")
        busybox.rules(*INSTALL)
        assert router.state() == usual
        busybox.rules("remove")
        assert router.state() == before


def test_the_kernels_helpers_are_found_without_iptables() -> None:
    with Router() as router:
        router.rules(*INSTALL, "--kernel-helper", "sip:udp:5060")
        _, lines = check(router, BARE)
        there, accepted = (line for line in lines if "kernel's helper" in line)
        assert there.startswith("ok   the kernel's helper sip (udp 5060) is there; ")
        assert accepted.startswith("ok   the firewall accepts what the kernel's helpers expect")


@pytest.mark.parametrize("workers", [1, 2])
def test_beside_fw4_pinholes_need_its_line_and_nothing_needs_python_iptables(
    workers: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "iptc.py").write_text("raise ModuleNotFoundError(\"No module named 'iptc'\", name='iptc')\n")
    monkeypatch.setenv("PYTHONPATH", f"{tmp_path}:{REPO}")
    monkeypatch.delenv("NFREAIM_FIREWALL", raising=False)
    monkeypatch.delenv("NFREAIM_WORKERS", raising=False)
    with pytest.raises(subprocess.CalledProcessError):
        subprocess.run([sys.executable, "-c", "import iptc"], check=True, capture_output=True, timeout=60)
    with Lab("native-nft") as lab:
        lab.run("A", "nft", "flush", "ruleset")
        lab.run("A", "nft", "-f", "-", stdin=FW4 % "")
        before = lab.firewall_rules("A")
        daemon = start(lab, "A", f'firewall = "nft"\nworkers = {workers}\n')
        server, alice, bob = Server(lab), Client(lab, "alice", "alice1"), Client(lab, "bob", "bob1")
        for end in (server, alice, bob):
            end.wait_ready()
        for client in (alice, bob):
            client.sign_on(server)
        assert not Transfer(alice, bob, "file").outcome().first_attempt
        lab.run("A", "nft", "-f", "-", stdin=FW4 % f'include "{LINE}"')
        outcome = Transfer(alice, bob, "file").outcome()
        assert outcome.first_attempt, outcome.reason
        for process in _family(daemon.pid):
            maps = Path(f"/proc/{process}/maps").read_text()
            assert "libnfnetlink" in maps
            assert "libip4tc" not in maps
            assert "libxtables" not in maps
        lab.run("A", "nft", "-f", "-", stdin=FW4 % "")
        assert daemon.stop() == 0
        assert lab.firewall_rules("A") == before


def _family(process: int) -> list[int]:
    """The process and its children."""
    children = Path(f"/proc/{process}/task/{process}/children").read_text().split()
    return [process, *(int(child) for child in children if os.path.exists(f"/proc/{child}/maps"))]
