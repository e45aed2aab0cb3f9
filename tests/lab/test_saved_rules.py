"""An operator saves the rules while ours are among them, and loads them at the next boot."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.lab import kernel_sets
from tests.lab.confine import confined, passable
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


def looking_at(file: Path) -> Path:
    """A copy of the script, beside *file*, for which that is a file of saved rules."""
    copy = file.with_name("nfreaim-rules")
    named = SCRIPT.read_text()
    assert "/etc/iptables/rules.v4 " in named
    copy.write_text(named.replace("/etc/iptables/rules.v4 ", f"{file} "))
    copy.chmod(0o755)
    return copy


def test_at_a_boot_sets_are_made_only_where_a_file_of_saved_rules_names_them(
    router: Router, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A look at legacy tables makes them, and Debian's iptables warns of them from then on."""
    file = tmp_path / "rules.v4"
    script = looking_at(file)
    tables = "cat /proc/net/ip_tables_names; ipset list -n"
    for text in (None, "*filter\n-A INPUT -m comment --comment operators -j ACCEPT\nCOMMIT\n"):
        if text is not None:
            file.write_text(text)
        router.on("router", str(script), "sets", "--if-saved")
        assert router.shell(tables) == ""
    file.write_text("*filter\n-A FORWARD -m set --match-set nfreaim_lan src -j ACCEPT\nCOMMIT\n")
    monkeypatch.setenv("NFREAIM_FIREWALL", "nft")
    router.on("router", str(script), "sets", "--if-saved")
    assert router.shell(tables) == "", "no rule of ours names them"
    monkeypatch.delenv("NFREAIM_FIREWALL")
    router.on("router", str(script), "sets", "--if-saved")
    router.shell(f"iptables-legacy-restore < {file}")


def test_the_unit_makes_them_within_its_bounds_also_for_a_file_that_it_cannot_read(tmp_path: Path) -> None:
    """Distributions keep saved rules readable for root alone; the unit has another user."""
    file = tmp_path / "rules.v4"
    script = looking_at(file)
    file.write_text("*raw\n:NFREAIM - [0:0]\n-A PREROUTING -j NFREAIM\nCOMMIT\n")
    passable(tmp_path)
    with Lab() as lab:
        for mode in (0o644, 0o600):
            file.chmod(mode)
            lab.run("A", *confined(str(script), "sets", "--if-saved"))
            assert "nfreaim_pin" in lab.run("A", "ipset", "list", "-n").stdout
            lab.run("A", "ipset", "destroy")


def test_where_the_rules_are_nftables_a_saved_file_is_named_whatever_units_there_are(
    router: Router, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No set is made for it then."""
    monkeypatch.setenv("NFREAIM_PYTHON", sys.executable)
    file = tmp_path / "rules.v4"
    script = looking_at(file)
    script.write_text(script.read_text().replace("systemctl --quiet is-enabled nfreaim-sets.service", "true"))
    file.write_text("*raw\n:NFREAIM - [0:0]\n-A PREROUTING -j NFREAIM\nCOMMIT\n")
    assert router.on("router", str(script), "install", *ARGS, "--port", "5190").stderr == ""
    said = router.on("router", str(script), "install", *ARGS, "--port", "5190", "--firewall", "nft").stderr
    assert said.count("\n") == 1
    assert said.endswith(f"where our sets do not exist; remedy: sed -i /NFREAIM/d {file}\n")
    assert router.on("router", str(script), "saved").stdout.split() == [str(file)]


def test_what_was_saved_is_named_with_the_line_that_takes_ours_out(router: Router, tmp_path: Path) -> None:
    """Without our unit, which systemd would have to know."""
    router.load("legacy")
    router.shell(OWN)
    router.rules("install", *ARGS)
    file = tmp_path / "rules.v4"
    router.shell(f"iptables-legacy-save > {file}")
    script = looking_at(file)
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
