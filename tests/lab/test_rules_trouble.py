"""The static rules where something is missing, comes late or belongs to somebody else.

Each test has a router of its own.
"""

import re
import shutil
import subprocess
from collections.abc import Iterator
from fnmatch import fnmatch
from pathlib import Path

import pytest

from tests.lab import kernel_sets
from tests.lab.router import SCRIPT, Router

ARGS = ("--lan", "lan", "--wan", "wan")
LEGACY = ("--firewall", "legacy")


def path_without(folder: Path, *absent: str) -> str:
    """A PATH with the system's programs except those whose names match one of the patterns `absent`."""
    for source in ("/usr/bin", "/bin", "/usr/sbin", "/sbin"):
        for program in Path(source).iterdir():
            link = folder / program.name
            if not any(fnmatch(program.name, pattern) for pattern in absent) and not link.exists():
                link.symlink_to(program)
    return str(folder)


@pytest.fixture
def router() -> Iterator[Router]:
    with Router() as made:
        yield made


@pytest.fixture
def script_with_path(tmp_path: Path) -> Path:
    """The script without its own additions to PATH, so that a test decides what is installed; beside it, what
    it asks for the usual ports."""
    text = SCRIPT.read_text()
    added = "PATH=${PATH:-}:/usr/local/sbin:/usr/sbin:/sbin:/usr/bin:/bin"
    assert added in text
    copy = tmp_path / "nfreaim-rules"
    copy.write_text(text.replace(added, "PATH=${PATH:-}"))
    copy.chmod(0o755)
    beside = tmp_path / "nfreaim"
    beside.write_text("#!/bin/sh\n[ \"$*\" = 'protocols --default' ] && echo oscar:5190\n")
    beside.chmod(0o755)
    return copy


@pytest.mark.parametrize(
    ("absent", "remedy"),
    [
        (("ipset",), "apt install ipset"),
        (("iptables*",), "apt install iptables"),
        (("ip",), "apt install iproute2"),
    ],
)
def test_missing_program_is_named_with_its_package(
    router: Router, tmp_path: Path, script_with_path: Path, absent: tuple[str, ...], remedy: str
) -> None:
    folder = tmp_path / "bin"
    folder.mkdir()
    env = {"PATH": path_without(folder, *absent)}
    before = router.state()
    with pytest.raises(subprocess.CalledProcessError) as caught:
        router.on("router", "/bin/sh", str(script_with_path), "install", *ARGS, *LEGACY, env=env)
    assert remedy in caught.value.stderr
    assert router.state() == before


@pytest.mark.parametrize("absent", [("iptables-legacy*",), ("iptables-nft*",), ("ipset",), ("ip*",)])
def test_remove_works_with_the_programs_that_are_there(
    router: Router, tmp_path: Path, script_with_path: Path, absent: tuple[str, ...]
) -> None:
    folder = tmp_path / "bin"
    folder.mkdir()
    router.on(
        "router", "/bin/sh", str(script_with_path), "remove", env={"PATH": path_without(folder, *absent)}
    )


def test_iptables_that_is_legacy_under_its_plain_name_is_used(
    router: Router, tmp_path: Path, script_with_path: Path
) -> None:
    folder = tmp_path / "bin"
    folder.mkdir()
    env = {"PATH": path_without(folder, "iptables*")}
    for name in ("iptables", "iptables-save", "iptables-restore"):
        legacy = shutil.which(name.replace("iptables", "iptables-legacy"))
        assert legacy is not None
        (folder / name).symlink_to(Path(legacy).resolve())
    before = router.state()
    router.on("router", "/bin/sh", str(script_with_path), "install", *ARGS, *LEGACY, env=env)
    assert "NFQUEUE" in router.state()
    router.on("router", "/bin/sh", str(script_with_path), "remove", env=env)
    assert router.state() == before


def test_interface_that_comes_later_is_a_warning(router: Router) -> None:
    said = router.rules("install", "--lan", "lan", "--lan", "late0", "--wan", "wan")
    assert said.count("warning") == 1
    assert "late0 does not exist (yet)" in said
    assert " late0 " in router.show()[1]


@kernel_sets.legacy_only("rules of others can use sets of ipset, and not those of our table")
def test_set_that_another_rule_uses_is_reported_not_forced(router: Router) -> None:
    router.rules("install", *ARGS)
    router.shell("iptables-legacy -A INPUT -m set --match-set nfreaim_lan src -j ACCEPT")
    said = router.fails("remove")
    assert "set nfreaim_lan remains" in said
    assert router.chain("iptables-legacy-save", "filter", "INPUT") == [
        "-m set --match-set nfreaim_lan src -j ACCEPT"
    ]
    router.shell("iptables-legacy -F INPUT")
    router.rules("remove")


@kernel_sets.legacy_only("rules of others can use sets of ipset, and not those of our table")
def test_foreign_set_of_our_name_is_an_error_that_leaves_no_rule(router: Router) -> None:
    router.shell("ipset create nfreaim_lan hash:ip")
    before = router.chain("iptables-legacy-save", "raw", "PREROUTING")
    assert "ipset refused the sets" in router.fails("install", *ARGS)
    assert router.chain("iptables-legacy-save", "raw", "PREROUTING") == before


def test_first_install_that_the_kernel_refuses_is_undone(
    router: Router, tmp_path: Path, script_with_path: Path
) -> None:
    folder = tmp_path / "bin"
    folder.mkdir()
    env = {"PATH": path_without(folder, "iptables-nft-restore")}
    refusing = folder / "iptables-nft-restore"
    refusing.write_text("#!/bin/sh\necho 'RULE_APPEND failed (No such file or directory)' >&2\nexit 4\n")
    refusing.chmod(0o755)
    router.load("legacy", "nft")
    before = router.state()
    with pytest.raises(subprocess.CalledProcessError) as caught:
        router.on("router", "/bin/sh", str(script_with_path), "install", *ARGS, *LEGACY, env=env)
    assert "iptables-nft refused the accept rule: RULE_APPEND failed" in caught.value.stderr
    assert router.state() == before


# --- traffic ---


def queued(router: Router, table: str) -> int:
    """Packets that came to queue rules with bypass: in this table, or in that of nftables."""
    shown = router.show()[1]
    rules = rf" {table}.*\[(\d+):\d+\] -A NFREAIM .*-j NFQUEUE .*--queue-bypass$"
    if kernel_sets.NFT:
        rules = r"^nft +(?:queue_known|meet) +counter packets (\d+) "
    return sum(map(int, re.findall(rules, shown, re.MULTILINE)))


def test_without_a_daemon_connections_pass_the_queue_rule(router: Router) -> None:
    router.load("legacy")
    assert router.connect() == b"hello"
    router.rules("install", *ARGS)
    assert router.connect() == b"hello"
    for place in ("raw ", "mangle "):
        assert queued(router, place) > 0, f"no packet reached a queue rule of {place}"


def test_other_ports_never_see_the_chains(router: Router) -> None:
    router.rules("install", *ARGS)
    assert router.connect(port=8080) == b"hello"
    assert queued(router, "raw ") == 0
