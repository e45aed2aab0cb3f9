"""OpenWrt's configuration becomes TOML with the same meaning, or an error that names the line or the key."""

from __future__ import annotations

import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest

from nfreaim import uci
from nfreaim.config import parse
from nfreaim.errors import ConfigError

REPO = Path(__file__).resolve().parents[2]
SHIPPED = REPO / "packaging" / "openwrt" / "nfreaim" / "files" / "nfreaim.config"


NFT = {"firewall": "nft"}


def document(text: str) -> dict[str, Any]:
    """What was written, but for the packet filter, which always is."""
    found = tomllib.loads(uci.toml(text, "nfreaim"))
    assert found.pop("firewall") == "nft"
    return found


@pytest.mark.parametrize(
    ("section", "line", "value"),
    [
        ("nfreaim 'main'", "option workers '1'", 1),
        ("nfreaim", "option mark_mask '0x20000000'", 0x20000000),
        ("nfreaim", "option check_senders '1'", True),
        ("nfreaim", "option isolated_lans 'off'", False),
        ("nfreaim", "list isolated_lans 'br-guest'", ["br-guest"]),
        ("nfreaim", "option isolated_lans 'br-guest br-iot'", ["br-guest", "br-iot"]),
        ("nfreaim", "option outside_address '203.0.113.1'", "203.0.113.1"),
        ("nfreaim", "list home_server_users 'ann'", ["ann"]),
        ("nfreaim", "list native_accept 'inet fw4 forward'", ["inet fw4 forward"]),
        ("nfreaim", 'option state_dir "/tmp/a \\"b\\""', '/tmp/a "b"'),
        ("nfreaim", "option state_dir '/tmp/\N{GRINNING FACE}\x7f'", "/tmp/\N{GRINNING FACE}\x7f"),
        ("pinholes", "option strict '1'", True),
        ("pinholes", "option total '1'", 1),
        ("pinholes", "option lifetime '0.5'", None),
        ("pinholes", "option lifetime '90.5'", 90.5),
        ("pinholes", "option ports '40000-40999'", "40000-40999"),
        ("pinholes", "list ports '4928-4943'", ["4928-4943"]),
        ("pinholes", "list deny_ports '1433'", [1433]),
        ("services", "option deny 'icq-direct tls'", ["icq-direct", "tls"]),
        ("oscar", "option icq_direct 'off'", "off"),
        ("oscar", "list icq_direct '10.0.0.5'", ["10.0.0.5"]),
        ("irc", "list ports '6667'", [6667]),
        ("log", "option level debug", "debug"),
    ],
)
def test_a_text_takes_the_type_that_its_key_has(section: str, line: str, value: Any) -> None:
    text = f"package nfreaim\n\nconfig {section} # a comment\n\t{line}\n"
    if value is None:
        with pytest.raises(ConfigError, match=r"nfreaim: pinholes.lifetime = '0.5': must be a number from 1"):
            document(text)
        return
    found = document(text)
    key, kind = line.split()[1], section.split()[0]
    assert (found if kind == "nfreaim" else found[kind]) == {key: value}
    assert type((found if kind == "nfreaim" else found[kind])[key]) is type(value)


def test_lists_forwards_and_helpers_of_the_kernel() -> None:
    found = document(
        "config nfreaim main\n list protocols oscar\n list protocols irc\n"
        "config forward\n option host 10.0.0.5\n option ports 20000-20009\n"
        "config forward two\n option host '10.0.0.6'\n option ports '21000'\n"
        "config kernel_helpers\n list sip 5060\n list sip '203.0.113.9:5070'\n option ftp 21\n"
    )
    assert found == {
        "protocols": ["oscar", "irc"],
        "forward": [{"host": "10.0.0.5", "ports": "20000-20009"}, {"host": "10.0.0.6", "ports": "21000"}],
        "kernel_helpers": {"sip": [5060, "203.0.113.9:5070"], "ftp": [21]},
    }


@pytest.mark.parametrize(
    ("text", "error"),
    [
        ("config nfreaim\n option protocol irc\n", "nfreaim: unknown key protocol; the top level allows"),
        ("config nfreaim\n option workers many\n", "nfreaim: workers = 'many': must be a whole number"),
        ("config oscars\n option ports 1\n", "nfreaim: unknown key oscars"),
        ("config forward\n option host 10.0.0.5\n", "nfreaim: forward = "),
        ("option workers 1\n", "line 1 is none of: config TYPE"),
        ("config nfreaim\n options workers 1\n", "line 2 is none of"),
        ("config nfreaim\n option server 'a b\n", "line 2: No closing quotation; close the quotes"),
        ("config nfreaim\n option mark_mask 1\n option connmark_mask 15\n", "nfreaim: .*share"),
        (
            "config nfreaim\n option firewall legacy\n",
            "nfreaim: firewall = 'legacy': on OpenWrt it",
        ),
        ("config nfreaim\n option firewall auto\n", "nfreaim: firewall = 'auto': on OpenWrt it"),
    ],
)
def test_an_error_names_the_file_and_what_is_wrong(text: str, error: str) -> None:
    with pytest.raises(ConfigError, match=error):
        uci.toml(text, "nfreaim")


def test_keys_that_are_right_only_together_are_judged_together() -> None:
    found = document("config nfreaim\n option mark_mask 0x1000000\n option connmark_mask 0xf0000000\n")
    assert found == {"mark_mask": 0x1000000, "connmark_mask": 0xF0000000}


@pytest.mark.parametrize(
    "text", ["", "config irc\n list ports '6667'\n", "config nfreaim\n option firewall nft\n"]
)
def test_the_packet_filter_is_nftables_whatever_else_the_system_has(text: str) -> None:
    assert parse(uci.toml(text, "x"), "x").firewall == "nft"
    assert parse("", "x").firewall != "nft"


def test_the_configuration_of_the_package_is_the_default_and_off() -> None:
    text = SHIPPED.read_text()
    assert parse(uci.toml(text, "x"), "x") == parse('firewall = "nft"', "x")
    (main,) = uci.sections(text, "x")
    assert main.values == {"enabled": "0", "lan": ["lan"], "wan": ["wan"], "protocols": ["oscar"]}
    examples = "\n".join(line.removeprefix("#") for line in text.splitlines() if line.startswith("#\t"))
    assert examples
    enabled = text.replace("#config", "config").replace("\n#\t", "\n\t")
    assert parse(uci.toml(enabled, "x"), "x").pinholes.forwards


def test_as_a_program_it_prints_toml_or_the_error_and_status_2(tmp_path: Path) -> None:
    def run(path: Path) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "nfreaim.uci", str(path)]
        return subprocess.run(command, cwd=REPO, capture_output=True, text=True, timeout=60)

    good, bad = tmp_path / "good", tmp_path / "bad"
    good.write_text("config irc\n\tlist ports '6667'\n")
    bad.write_text("config nfreaim\n\toption queue 'x'\n")
    assert (run(good).returncode, tomllib.loads(run(good).stdout)) == (0, NFT | {"irc": {"ports": [6667]}})
    for path, told in ((bad, f"nfreaim: {bad}: queue = 'x': must be"), (tmp_path / "none", "cannot be read")):
        done = run(path)
        assert done.returncode == 2
        assert not done.stdout
        assert told in done.stderr
        assert "Traceback" not in done.stderr
