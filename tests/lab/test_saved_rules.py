"""An operator saves the rules while ours are among them, and loads them at the next boot."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.lab import kernel_sets
from tests.lab.net import Lab
from tests.lab.router import SCRIPT, Router
from tests.lab.scene import INSTALL, Scene, opened
from tests.lab.standin import Transfer

pytestmark = kernel_sets.legacy_only("no others name sets that have to be there before they are loaded")

ARGS = ("--lan", "lan", "--wan", "wan")
OWN = "iptables-legacy -A INPUT -p tcp --dport 22 -m comment --comment operators -j ACCEPT"
BOOT = """
for table in raw mangle nat filter; do iptables-legacy -t $table -F; iptables-legacy -t $table -X; done
iptables-legacy -P INPUT ACCEPT; iptables-legacy -P FORWARD ACCEPT
ipset destroy
"""
"""What is left in the kernel after a boot: nothing."""


@pytest.fixture
def router() -> Iterator[Router]:
    with Router() as made:
        yield made


def test_saved_rules_are_loaded_after_a_boot_and_an_install_leaves_one_copy_of_ours(
    router: Router, tmp_path: Path
) -> None:
    file = tmp_path / "rules.v4"
    router.load("legacy")
    router.shell(OWN)
    router.rules("install", *ARGS)
    whole = router.state()
    router.shell(
        "iptables-legacy -t nat -N NFREAIM_D07; iptables-legacy -t nat -A NFREAIM -j NFREAIM_D07;"
        f"iptables-legacy-save > {file}; iptables-legacy -t nat -F NFREAIM_D07;"
        "iptables-legacy -t nat -D NFREAIM -j NFREAIM_D07; iptables-legacy -t nat -X NFREAIM_D07"
    )
    router.shell(BOOT)
    assert "NFREAIM" not in router.state()
    failed = router.shell(f"iptables-legacy-restore < {file} 2>&1 || echo failed")
    assert "doesn't exist" in failed
    assert "operators" not in router.state(), "this is what happens without our sets"
    router.rules("sets")
    router.shell(f"iptables-legacy-restore < {file}")
    assert "operators" in router.state()
    router.rules("install", *ARGS)
    left = [line for line in router.state().splitlines() if "NFREAIM_D07" not in line]
    assert left == whole.splitlines()
    assert router.show()[0] == 0
    router.rules("sets")
    assert router.show()[0] == 0, "what exists stays as it is, the inside networks included"
    router.rules("remove")
    assert "NFREAIM" not in router.state()
    assert "nfreaim" not in router.state()


def test_a_daemon_of_the_next_boot_works_with_what_was_saved_of_an_earlier_one(tmp_path: Path) -> None:
    file = tmp_path / "rules.v4"
    with Lab() as lab:
        made = Scene(lab)
        lab.run("A", *INSTALL)
        made.restart(settings='[[forward]]\nhost = "10.0.0.6"\nports = 20000\n')
        server = made.server("aol", write="whole")
        alice, bob = made.clients(server, ("alice", "alice", 5200), ("bob", "bob"))
        bob.call("policy", action="ignore")
        opened(made, alice, bob, 5200)
        lab.run("A", "sh", "-c", f"iptables-legacy-save > {file}")
        made.daemon.kill()
        lab.run("A", "sh", "-c", BOOT + "rm -r /run/nfreaim")
        lab.run("A", "sh", "-ec", f"{SCRIPT} sets; iptables-legacy-restore < {file}; {' '.join(INSTALL)}")
        assert made.pinholes() == set()
        made.restart()
        saved = lab.run("A", "iptables-legacy-save", "-t", "nat").stdout
        assert "forward=20000" not in saved, "the configuration has no forward any more"
        amy, carol = made.clients(server, ("amy", "amy"), ("carol", "carol"))
        assert Transfer(amy, carol, "file").outcome().first_attempt


def test_what_was_saved_is_named_with_the_line_that_takes_ours_out(router: Router, tmp_path: Path) -> None:
    """Without our unit, which systemd would have to know."""
    router.load("legacy")
    router.shell(OWN)
    router.rules("install", *ARGS)
    file = tmp_path / "rules.v4"
    router.shell(f"iptables-legacy-save > {file}")
    script = tmp_path / "nfreaim-rules"
    named = SCRIPT.read_text().replace("/etc/iptables/rules.v4", str(file))
    script.write_text(named)
    script.chmod(0o755)
    assert router.on("router", str(script), "saved").stdout.split() == [str(file)]
    said = router.on("router", str(script), "install", *ARGS, "--port", "5190").stderr
    assert said.count("\n") == 1
    assert f"{file} holds rules of ours" in said
    remedy = said.rpartition("or: ")[2].strip()
    assert remedy == f"sed -i /NFREAIM/d {file}"
    router.shell(remedy)
    assert router.on("router", str(script), "saved").stdout == ""
    router.shell(BOOT + f"iptables-legacy-restore < {file}")
    assert "operators" in router.state()
    assert "NFREAIM" not in router.state()
