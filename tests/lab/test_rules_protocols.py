"""Rules of several protocols: each has its own, which name it; ports that nobody named are asked for.

Each test has a router of its own.
"""

import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from nfreaim.host.rules import script
from tests.lab import kernel_sets
from tests.lab.router import SCRIPT, Router

ARGS = ("--lan", "lan", "--wan", "wan")
TEXT = "it reads iptables' text; test_nft_rules.py has the table of nftables"
SAVE = "iptables-legacy-save"
FOLLOW = """
from nfreaim.core.address import Endpoint
from nfreaim.core.backend import Followed
from nfreaim.host.netfilter.ipset import FollowedSet
from nfreaim.host.netfilter.names import SERVER_SET
servers = FollowedSet(SERVER_SET)
server = Endpoint("203.0.113.9", 4443)
wanted = [Followed(server, "10.0.0.8", "one"), Followed(server, "10.0.0.9", "two")]
for entry in (wanted[0], wanted[1]._replace(protocol="one"), wanted[1]):
    servers.add(entry, 180)
assert sorted(entry for entry, _ in servers.entries()) == wanted
"""
SHELLS = (("sh",), ("bash", "--posix"), ("busybox", "sh"))


@pytest.fixture
def router() -> Iterator[Router]:
    with Router() as made:
        yield made


def beside(folder: Path, program: str) -> Path:
    """A copy of the script, and beside it this program called nfreaim."""
    script = folder / "nfreaim-rules"
    shutil.copy(SCRIPT, script)
    (folder / "nfreaim").write_text(f"#!/bin/sh\n{program}\n")
    (folder / "nfreaim").chmod(0o755)
    return script


@kernel_sets.legacy_only(TEXT)
def test_each_protocol_has_rules_of_its_own_that_name_it(router: Router) -> None:
    before = router.state()
    router.rules("install", *ARGS, "--protocol", "one:5190,443", "--protocol", "two:6667", "--port", "1863")
    one, two = (f'-m comment --comment "nfreaim {name}" -m multiport' for name in ("one", "two"))
    assert router.chain(SAVE, "raw", "PREROUTING") == [
        f"-i lan -p tcp {one} --dports 5190,443 -j NFREAIM",
        f"-i lan -p tcp {two} --dports 6667 -j NFREAIM",
        "-i lan -p tcp -m multiport --dports 1863 -j NFREAIM",
        "-i lan -p tcp -m set --match-set nfreaim_srv dst,dst,src -j NFREAIM",
        f"-i lan -p tcp {one} --sports 5190,443 -j NFREAIM_SERVER",
        f"-i lan -p tcp {two} --sports 6667 -j NFREAIM_SERVER",
        "-i lan -p tcp -m multiport --sports 1863 -j NFREAIM_SERVER",
    ]
    for table, chain, count in (("raw", "OUTPUT", 1), ("mangle", "POSTROUTING", 2), ("mangle", "INPUT", 1)):
        found = router.chain(SAVE, table, chain)
        named = [re.findall(r"--comment \"nfreaim (\S+)\"", rule) for rule in found if "multiport" in rule]
        assert named == [["one"], ["two"], []] * count
    assert router.show()[0] == 0
    whole = router.state()
    router.rules("install", *ARGS, "--protocol", "one:5190,443", "--protocol", "two:6667", "--port", "1863")
    assert router.state() == whole
    router.rules("install", *ARGS, "--protocol", "two:6667")
    assert '"nfreaim one"' not in router.state()
    router.rules("remove")
    assert router.state() == before


@kernel_sets.legacy_only(TEXT)
def test_each_protocol_may_have_as_many_ports_as_fit_into_one_rule(router: Router) -> None:
    several = [",".join(str(first + number) for number in range(15)) for first in (6660, 7000)]
    router.rules("install", *ARGS, "--protocol", f"one:{several[0]}", "--protocol", f"two:{several[1]}")
    saved = "\n".join(router.chain(SAVE, "raw", "PREROUTING"))
    assert all(f"--dports {ports} " in saved for ports in several)


@kernel_sets.legacy_only(TEXT)
def test_a_followed_server_is_followed_for_its_client_only(router: Router) -> None:
    router.rules("install", *ARGS, "--protocol", "one:5190")
    router.shell('ipset add nfreaim_srv 203.0.113.9,tcp:4443,10.0.0.9 comment "nfreaim one"')
    router.shell("ipset add nfreaim_srv 203.0.113.9,tcp:8080,10.0.0.8")
    router.connect(port=8080)
    queued = r"(?m)^\S+ +{} +\[(\d+):\d+\] -A NFREAIM .*-j NFQUEUE .*--queue-bypass$"
    for table in ("raw", "mangle"):
        assert {*re.findall(queued.format(table), router.show()[1])} == {"0"}
    router.connect(port=4443)
    for table in ("raw", "mangle"):
        assert {*re.findall(queued.format(table), router.show()[1])} != {"0"}, table
    assert "nfreaim_srv 203.0.113.9,tcp:4443,10.0.0.9 timeout " in router.show()[1]


@kernel_sets.legacy_only("it is about ipset; test_firewalls.py compares the two")
def test_the_daemon_fills_the_set_of_followed_servers_and_reads_it_back(router: Router) -> None:
    router.rules("install", *ARGS, "--protocol", "one:5190")
    router.on("router", sys.executable, "-c", FOLLOW)
    kept = router.shell("ipset save nfreaim_srv | sed -n 's/ timeout [0-9]*//; s/^add //p' | sort")
    assert kept.splitlines() == [
        'nfreaim_srv 203.0.113.9,tcp:4443,10.0.0.8 comment "nfreaim one"',
        'nfreaim_srv 203.0.113.9,tcp:4443,10.0.0.9 comment "nfreaim two"',
    ]


def test_what_the_rules_show_is_understood_by_protocol(router: Router) -> None:
    router.rules("install", *ARGS, "--lan", "lan2", "--protocol", "one:5190,443", "--port", "1863")
    found = script.settings(router.show()[1])
    assert found is not None
    assert found.ports == {"one": (443, 5190), "oscar": (1863,)}


# --- ports that nobody named ---


@kernel_sets.legacy_only("the program that stands in for the daemon's loads no table")
@pytest.mark.parametrize("shell", [words for words in SHELLS if shutil.which(words[0])])
def test_usual_ports_are_asked_of_the_daemons_program(
    router: Router, tmp_path: Path, shell: tuple[str, ...]
) -> None:
    said = tmp_path / "said"
    script = beside(tmp_path, f'echo "$*" >>{said}; echo two:6667,6697; echo one:5190; echo Warning')
    router.on("router", *shell, str(script), "install", *ARGS, "--protocol", "one", "--protocol", "two")
    found = re.findall(
        r'"nfreaim (\S+)" .*--dports (\S+)', "\n".join(router.chain(SAVE, "raw", "PREROUTING"))
    )
    assert found == [("one", "5190"), ("two", "6667,6697")]
    router.on("router", *shell, str(script), "install", *ARGS, "--protocol", "one:443", "--protocol", "two")
    found = re.findall(
        r'"nfreaim (\S+)" .*--dports (\S+)', "\n".join(router.chain(SAVE, "raw", "PREROUTING"))
    )
    assert found == [("one", "443"), ("two", "6667,6697")]
    router.on("router", *shell, str(script), "install", *ARGS)
    router.on("router", *shell, str(script), "install", *ARGS, "--port", "443")
    assert said.read_text().splitlines() == ["protocols one two", "protocols two", "protocols --default"]
    assert '"nfreaim' not in router.state(), "a port that was named by itself is not given a protocol"


@pytest.mark.parametrize(
    ("program", "options"),
    [
        *((program, ()) for program in ("exit 2", "echo one:", "echo one")),
        *(
            (program, ("--protocol", "one"))
            for program in ("exit 2", "echo one:", "echo one", "echo other:1")
        ),
    ],
)
def test_ports_that_nobody_knows_are_an_error_that_names_the_remedy(
    router: Router, tmp_path: Path, program: str, options: tuple[str, ...]
) -> None:
    before = router.state()
    with pytest.raises(subprocess.CalledProcessError) as caught:
        router.on("router", "/bin/sh", str(beside(tmp_path, program)), "install", *ARGS, *options)
    assert "remedy: name them, --protocol NAME:PORT[,PORT...]" in caught.value.stderr
    assert router.state() == before
