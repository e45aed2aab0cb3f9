"""What `nfreaim-rules` refuses before it touches anything, and how its caller reports it. No root."""

import os
import re
import shutil
import subprocess
import tomllib
from pathlib import Path

import pytest

from nfreaim.errors import BackendError, ConfigError
from nfreaim.exit_status import Exit
from nfreaim.host.rules import script
from nfreaim.host.rules.script import Settings
from nfreaim.kernel_helpers import Assignment

REPO = Path(__file__).resolve().parents[2]
RULES = REPO / "rules"
BOTH = ["--lan", "lan0", "--wan", "wan0"]


def refuse(*words: str) -> str:
    """Run the script where no program that could change anything is found; return its complaint."""
    shell = shutil.which("dash") or "/bin/sh"
    result = subprocess.run([shell, str(script.path()), *words], capture_output=True, text=True, timeout=30)
    assert result.returncode == Exit.MISUSED
    assert result.stdout == ""
    return result.stderr


@pytest.mark.parametrize(
    ("words", "complaint"),
    [
        (["install", "--wan", "wan0"], "needs --lan IF"),
        (["install", "--lan", "lan0"], "needs --wan IF"),
        (["install", "--lan", "same", "--wan", "same"], "same cannot be --lan and --wan at once"),
        (["install", "--lan", "br-+", "--wan", "br-wan"], "br-+ cannot be --lan and --wan at once"),
        (["install", "--lan", "br-lan", "--wan", "br+"], "br-lan cannot be --lan and --wan at once"),
        (["install", "--lan", "br-+", "--wan", "br+"], "br-+ cannot be --lan and --wan at once"),
        (["install", "--lan", "a,br-lan", "--wan", "c,br+"], "br-lan cannot be --lan and --wan at once"),
        (["install", "--lan", "a,,b", "--wan", "wan0"], "'' is not the name of a network interface"),
        (["install", "--lan", "+", "--wan", "wan0"], "'+' is not the name of a network interface"),
        (["install", "--lan", "l+n", "--wan", "wan0"], "'l+n' is not the name of a network interface"),
        (["install", *BOTH, "--port", "0"], "--port must be from 1 to 65535, not 0"),
        (["install", *BOTH, "--port", "65536"], "--port must be from 1 to 65535, not 65536"),
        (["install", *BOTH, "--port", "5190,443"], "not '5190,443'"),
        (["install", *BOTH, "--port", "999999999999999999999"], "must be a number from 1 to 65535"),
        (["install", *BOTH, "--queue", "-1"], "--queue must be a number from 0 to 65535, not '-1'"),
        (["install", *BOTH, "--queue"], "--queue needs a value"),
        (["install", *BOTH, "--workers", "0"], "--workers must be from 1 to 16, not 0"),
        (["install", *BOTH, "--workers", "17"], "--workers must be from 1 to 16, not 17"),
        (["install", *BOTH, "--queue", "65533", "--workers", "3"], "the last one is 65535"),
        (["install", *BOTH, "--colour", "red"], "unknown option --colour"),
        (["install", *BOTH, *(w for n in range(16) for w in ("--port", str(5190 + n)))], "at most 15 ports"),
        (["install", *BOTH, "--protocol", ""], "'' is not a protocol with its ports"),
        (["install", *BOTH, "--protocol", "Irc:1"], "'Irc:1' is not a protocol with its ports"),
        (["install", *BOTH, "--protocol", "irc,6667"], "it is written NAME:PORT[,PORT...]"),
        (["install", *BOTH, "--protocol", "irc;reboot"], "is not a protocol with its ports"),
        (["install", *BOTH, "--protocol", "irc:"], "a port of --protocol irc must be a number"),
        (["install", *BOTH, "--protocol", "irc:6667,,6697"], "a port of --protocol irc must be a number"),
        (
            ["install", *BOTH, "--protocol", "irc:6667,65536"],
            "a port of --protocol irc must be from 1 to 65535",
        ),
        (["install", *BOTH, "--protocol", "irc:1", "--protocol", "irc"], "--protocol irc is given twice"),
        (["install", *BOTH, "--protocol", "irc:1", "--port", "1"], "port 1 is given to two protocols"),
        (["install", *BOTH, "--protocol", f"irc:{','.join(map(str, range(1, 17)))}"], "irc has more"),
        (["install", *BOTH, "--kernel-helper", "sip:5060"], "is no helper of the kernel with its ports"),
        (["install", *BOTH, "--kernel-helper", "sip:udp:"], "a port of --kernel-helper sip must be a number"),
        (["install", *BOTH, "--kernel-helper", "sip:sctp:5060"], "it is written NAME:tcp|udp:PORT"),
        (["install", *BOTH, "--kernel-helper", "sip;x:udp:5060"], "is no helper of the kernel"),
        (["install", *BOTH, "--kernel-helper", "sip:udp:5060@pc"], "is no helper of the kernel"),
        (["install", *BOTH, "--kernel-helper", "sip:udp:5060@10.0.0"], "'10.0.0' in --kernel-helper is not"),
        (["install", *BOTH, "--kernel-helper", "sip:tcp:5060"], "sip is for udp only"),
        (
            ["install", *BOTH, "--port", "21", "--kernel-helper", "ftp:tcp:21"],
            "port 21 of --kernel-helper ftp",
        ),
        (
            ["install", *BOTH, "--kernel-helper", f"sip:udp:{','.join(map(str, range(1, 17)))}"],
            "--kernel-helper sip has more",
        ),
        (["install", *BOTH, "--local-client", "ann"], "--local-client must be a number from 0 to 4294967294"),
        (["install", *BOTH, "--local-client", "4294967295"], "must be from 0 to 4294967294"),
        (["names", "all"], "names takes no arguments"),
        (["remove", "now"], "remove takes no arguments but --force"),
        (["remove", "--force", "now"], "remove takes no arguments but --force"),
        (["show", "me"], "show takes no argument but --native-accept"),
        (["show", "--native-accept"], "--native-accept needs a value"),
        (["install", *BOTH, "--native-accept", "forward"], "'forward' is no chain of nftables"),
        (["install", *BOTH, "--native-accept", "bridge:t:c"], "'bridge:t:c' is no chain of nftables"),
        (["install", *BOTH, "--native-accept", "inet:t:c:d"], "'inet:t:c:d' is no chain of nftables"),
        (["install", *BOTH, "--native-accept", "inet:t:c{}"], "'inet:t:c{}' is no chain of nftables"),
        (["install", *BOTH, "--native-accept", "ip:filter:FORWARD"], "FORWARD belongs to iptables"),
        (["enable"], "usage:"),
        ([], "usage:"),
    ],
)
def test_bad_arguments_are_refused_by_name(words: list[str], complaint: str) -> None:
    assert complaint in refuse(*words)


@pytest.mark.parametrize(
    "name",
    ["", "-j", "eth0;reboot", "a b", "p+p", "+", "fifteen-letters+", "sixteen-letters.", "x\ny", "eth/0"],
)
def test_interface_name_that_could_be_anything_else_is_refused(name: str) -> None:
    assert "is not the name of a network interface" in refuse("install", "--lan", name, "--wan", "wan0")


@pytest.mark.parametrize("words", [["install", *BOTH], ["remove"], ["show"]])
def test_without_root_it_says_so(words: list[str]) -> None:
    nobody = 65534 if os.geteuid() == 0 else None
    # Through stdin: nobody may not be allowed to read the checkout.
    result = subprocess.run(
        ["/bin/sh", "-s", "--", *words],
        input=script.path().read_text(),
        user=nobody,
        capture_output=True,
        text=True,
        timeout=30,
        cwd="/",
    )
    assert result.returncode == 1
    assert "must be root" in result.stderr


def test_help_names_every_option() -> None:
    result = subprocess.run(
        ["/bin/sh", str(script.path()), "--help"], capture_output=True, text=True, timeout=30
    )
    assert result.returncode == 0
    assert set(re.findall(r"--[a-z]+(?:-[a-z]+)?", result.stdout)) - {"--helper"} == {
        *("--lan", "--wan", "--protocol", "--port", "--kernel-helper", "--local-client", "--queue"),
        *("--workers", "--force", "--mark-mask", "--connmark-mask", "--native-accept", "--firewall"),
        "--if-saved",
    }


def test_names_are_the_ones_of_the_packets_on_the_wire_and_of_older_installations() -> None:
    """The daemon has to agree with what `names` prints; a running kernel holds it from the last version."""
    result = subprocess.run(
        ["/bin/sh", str(script.path()), "names"], capture_output=True, text=True, timeout=30
    )
    told = dict(line.split("=", 1) for line in result.stdout.splitlines())
    assert (told["MARK_MASK"], told["CONNMARK_MASK"]) == ("0x10000000", "0xf000000")
    assert [
        told[f"{kind}_TIMEOUT"] for kind in ("OFF", "SKEW", "SRV", "PIN")
    ] == "3600 432000 180 600".split()
    assert (told["QUEUE"], told["MOST_WORKERS"], told["MOST_PORTS"]) == ("5190", "16", "15")


def test_rules_and_units_know_no_protocol() -> None:
    """The number of the queue is all that is left of one: rules of older installations have it."""
    for path in (RULES / "nfreaim-rules", *RULES.glob("*.service")):
        text = re.sub(r"(?m)^QUEUE=5190 .*$", "", path.read_text())
        assert not re.findall(r"(?i)5190|oscar|icq|flap|\baim\b|\birc\b", text), path.name


@pytest.mark.skipif(shutil.which("shellcheck") is None, reason="shellcheck is absent; apt install shellcheck")
@pytest.mark.parametrize(
    "name",
    [
        *("rules/nfreaim-rules", "rules/nfreaim.initd", "tests/vm/image", "tests/vm/inside"),
        *("scripts/install", "scripts/installation.sh", "scripts/uninstall"),
    ],
)
def test_scripts_are_free_of_what_shellcheck_finds(name: str) -> None:
    command = ["shellcheck", "-s", "sh", str(REPO / name)]
    assert subprocess.run(command, capture_output=True, text=True, timeout=60).stdout == ""


def test_caller_gets_the_reason_as_an_exception() -> None:
    with pytest.raises(ConfigError, match=r"^lan0 cannot be --lan and --wan at once$"):
        script.install(Settings(("lan0",), ("lan0",), {"oscar": (5190,)}, 5190))


def test_arguments_reach_the_script_in_its_own_form() -> None:
    words = Settings(("br0", "br1"), ("ppp0",), {"one": (5190, 443), "two": (6667,)}, 7).words()
    expected = "--lan br0 --lan br1 --wan ppp0 --protocol one:443,5190 --protocol two:6667 --queue 7"
    assert words == expected.split()
    assert Settings(("br0",), ("ppp0",), {"one": (5190,)}, 7, 3).words()[-2:] == ["--workers", "3"]
    helpers = (Assignment("sip", "udp", (5060, 5062)), Assignment("ftp", "tcp", (21,), "203.0.113.9"))
    assert Settings(("br0",), ("ppp0",), {"one": (5190,)}, 7, 1, helpers).words()[-4:] == [
        *("--kernel-helper", "ftp:tcp:21@203.0.113.9", "--kernel-helper", "sip:udp:5060,5062")
    ]
    assert Settings(("br0",), ("ppp0",), {"one": (5190,)}, 7, locals=(1002, 0, 1002)).words()[-4:] == [
        *("--local-client", "0", "--local-client", "1002")
    ]


def test_installed_package_would_find_its_own_copy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    inside = tmp_path / "site-packages" / "nfreaim" / "rules"
    inside.mkdir(parents=True)
    monkeypatch.setattr(script, "_PACKAGE", inside.parent)
    with pytest.raises(BackendError, match="install nfreaim again"):
        script.path()
    shutil.copy(RULES / "nfreaim-rules", inside)
    assert script.path() == inside / "nfreaim-rules"


def test_default_configuration_sets_nothing_and_parses_when_uncommented() -> None:
    text = (RULES / "nfreaim.toml").read_text()
    assert all(not table for table in tomllib.loads(text).values())
    settings = tomllib.loads(re.sub(r"(?m)^#(?=[a-z_]+ = )", "", text))
    assert settings["pinholes"]["lifetime"] == 600
    assert settings["queue"] == 5190


def test_units_grant_two_capabilities_and_outlive_the_daemon() -> None:
    daemon = (RULES / "nfreaim.service").read_text()
    assert "CapabilityBoundingSet=CAP_NET_ADMIN CAP_NET_RAW\n" in daemon
    assert "nfreaim-rules remove" not in daemon
    assert "RuntimeDirectoryPreserve=yes\n" in daemon  # state of connections that wait for the next daemon
    assert "PartOf=" not in (RULES / "nfreaim-rules.service").read_text()
