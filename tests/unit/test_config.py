"""The configuration: each key, and what is said about a value that cannot be used."""

from __future__ import annotations

import re
import tomllib
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from nfreaim import config
from nfreaim.cli import main
from nfreaim.config import Config, load, parse
from nfreaim.core.firewall.policy import DENIED_PORTS
from nfreaim.core.settings import EngineSettings
from nfreaim.errors import ConfigError
from nfreaim.old_spellings import MOVED, Key

SHIPPED = Path(__file__).resolve().parents[2] / "rules" / "nfreaim.toml"
WITHOUT_DEFAULT = {"lan", "wan", "outside_address"}


def policy(**settings: Any) -> Config:
    return Config(pinholes=replace(Config().pinholes, **settings))


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", Config()),
        ('lan = ["br-lan", "eth0.7"]', Config(lan=("br-lan", "eth0.7"))),
        ('wan = ["ppp0"]', Config(wan=("ppp0",))),
        ("ports = [443, 5190]", Config(ports={"oscar": (443, 5190)})),
        (f"ports = {list(range(1, 16))}", Config(ports={"oscar": tuple(range(1, 16))})),
        ("[oscar]\nports = [443, 5190]", Config(ports={"oscar": (443, 5190)})),
        ("queue = 0", Config(queue=0)),
        ("workers = 4", Config(workers=4)),
        ("hold_ms = 250", Config(engine=EngineSettings(hold=0.25))),
        ("hold_ms = 0", Config(engine=EngineSettings(hold=0.0))),
        ('status_socket = "/run/a/b"', Config(status_socket=Path("/run/a/b"))),
        ('status_group = "adm"', Config(status_group="adm")),
        ('outside_address = "198.51.100.7"', policy(announce="198.51.100.7")),
        ("[pinholes]\nlifetime = 1", policy(lifetime=1)),
        ("[pinholes]\nlifetime = 1.5", policy(lifetime=1.5)),
        ("[pinholes]\nclaim_grace = 0", policy(claim_grace=0)),
        ("[pinholes]\naccept_grace = 3600", policy(accept_grace=3600)),
        ('[pinholes]\nports = "50000-50000"', policy(ports=range(50000, 50001))),
        ("[pinholes]\nper_flow = 1\nper_host = 2\ntotal = 3", policy(per_flow=1, per_host=2, total=3)),
        ("[pinholes]\ndeny_ports = []", policy(deny_ports=frozenset())),
        ("[pinholes]\ndeny_ports = [5190, 5190]", policy(deny_ports=frozenset({5190}))),
        ('[services]\nallow = ["Send-File"]', policy(allow_services=frozenset({"send-file"}))),
        ("[services]\nallow = []", policy()),
        ('[services]\ndeny = ["talk"]', policy(deny_services=frozenset({"talk"}))),
        (
            '[services]\ndeny = ["09461343-4C7F-11D1-8222-444553540000"]',
            policy(deny_services=frozenset({"094613434c7f11d18222444553540000"})),
        ),
        ('[log]\nlevel = "debug"', Config(log_level="debug")),
        ("[pinholes]\n[services]\n[log]\n", Config()),
    ],
)
def test_value_arrives_where_it_is_used(text: str, expected: Config) -> None:
    assert parse(text, "f") == expected


BAD: list[tuple[str, list[str], str]] = [
    (
        "lan",
        ['"br0"', "[]", "[1]", '["a b"]', '["sixteen-letters."]', '[""]', '["ppp+"]'],
        "interface names",
    ),
    ("wan", ['"eth0"', "[]", '["eth0", 1]', '["a/b"]'], "interface names"),
    (
        "ports",
        ["5190", "[]", "[0]", "[65536]", '["5190"]', "[true]", f"{[1] * 16}"],
        "1 to 15 port numbers",
    ),
    ("queue", ["-1", "65536", '"1"', "1.0", "true"], "a whole number from 0 to 65535"),
    ("workers", ["0", "17", '"2"', "1.0", "true"], "a whole number from 1 to 16"),
    ("hold_ms", ["-1", "1001", "0.5", '"30"', "false"], "a whole number from 0 to 1000"),
    ("outside_address", ['"1.2.3"', '"::1"', "16909060", '"host.example"', '""'], "an IPv4 address"),
    ("server_names", ['"home.example"', "[1]", '["a b"]', '[""]'], "a list of host names"),
    ("state_dir", ['"run/nfreaim"', "1", '""'], "an absolute path"),
    ("status_socket", ['"status"', "1", '""'], "an absolute path"),
    ("status_group", ["1", '"a b"', '"-adm"', '"adm:x"', '["adm"]'], "the name of a group"),
    ("icq_direct", ['"yes"', "true", "[]", '["home"]', "1"], '"on", "off" or a list of inside addresses'),
    ("forward", ['"10.0.0.5"', "[1]", '[{ host = "10.0.0.5" }]'], "the ports within 1024-65535"),
    (
        "protocols",
        ['"oscar"', "[]", "[1]", '["msnp"]', '["OSCAR"]'],
        'a list of one or more of "oscar", "irc"',
    ),
    ("oscar.ports", ["5190", "[]", "[0]", f"{[1] * 16}"], "1 to 15 port numbers"),
    ("oscar.icq_direct", ['"yes"', "[]", '["home"]'], '"on", "off" or a list of inside addresses'),
    ("oscar.icq_per_host", ["0", "1025", '"4"'], "a whole number from 1 to 1024"),
    ("irc.ports", ["6667", "[]", "[65536]"], "1 to 15 port numbers"),
    ("pinholes.icq_per_host", ["0", "1025", '"4"'], "a whole number from 1 to 1024"),
    ("pinholes.verify_peers", ["0", '"true"', "[true]"], "true or false"),
    ("pinholes.rate_per_host", ["0", "100001", "1.5"], "a whole number from 1 to 100000"),
    ("pinholes.rate_total", ["0", "1000001", "1.5"], "a whole number from 1 to 1000000"),
    ("pinholes.lifetime", ["0", "86401", "nan", "inf", '"600"', "true"], "a number from 1 to 86400"),
    ("pinholes.claim_grace", ["-1", "3601", "nan"], "a number from 0 to 3600"),
    ("pinholes.accept_grace", ["-0.1", "3601"], "a number from 0 to 3600"),
    (
        "pinholes.ports",
        [
            "40000",
            '"40000"',
            '"1023-2000"',
            '"2000-1999"',
            '"60000-65536"',
            '"1-2-3"',
            '" 4000-5000"',
            "[4000, 5000]",
        ],
        "a range within 1024-65535",
    ),
    ("pinholes.per_flow", ["0", "1025", "1.5"], "a whole number from 1 to 1024"),
    ("pinholes.per_host", ["0", "1025"], "a whole number from 1 to 1024"),
    ("pinholes.total", ["0", "16385"], "a whole number from 1 to 16384"),
    ("pinholes.deny_ports", ["5900", "[0]", '["5900"]'], "a list of port numbers"),
    ("services.allow", ['"send-file"', "[1]", '[""]', '["send file"]'], "a list of service names"),
    ("services.deny", ['"talk"', '["-talk"]'], "a list of service names"),
    ("log.level", ['"loud"', "1", '["info"]'], "one of debug, info, warning, error"),
]


@pytest.mark.parametrize(("key", "values", "allowed"), BAD)
def test_bad_value_is_refused_by_file_key_and_what_is_allowed(
    key: str, values: list[str], allowed: str
) -> None:
    section, _, name = key.rpartition(".")
    for value in values:
        text = f"[{section}]\n{name} = {value}" if section else f"{name} = {value}"
        with pytest.raises(ConfigError) as caught:
            parse(text, "/etc/x.toml")
        said = str(caught.value)
        assert said.startswith(f"/etc/x.toml: {key} = "), said
        assert allowed in said
        assert "\n" not in said


def test_no_key_is_left_out_of_these_tests() -> None:
    assert {key for key, _, _ in BAD} == {str(key) for key in [*config._KEYS, *MOVED]}


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("port = 5190", "unknown key port; the top level allows lan, wan, protocols, queue"),
        ("lifetime = 60", "unknown key lifetime; the top level allows"),
        ("[pinholes]\nlevel = 'info'", "unknown key pinholes.level; section [pinholes] allows lifetime"),
        ("[pinholes]\nqueue = 1", "unknown key pinholes.queue"),
        ("[services]\nallowed = []", "unknown key services.allowed; section [services] allows allow, deny"),
        ("[logging]\nlevel = 'info'", "unknown key logging; the top level allows"),
        ("[oscar]\nport = 443", "unknown key oscar.port; section [oscar] allows ports, icq_direct"),
        ("[irc]\nicq_direct = 'on'", "unknown key irc.icq_direct; section [irc] allows ports"),
        ("oscar = 5190", "oscar is a section: write [oscar]"),
        ("ports = [443]\noscar = 5190", "oscar is a section: write [oscar]"),
        ("log = 'debug'", "log is a section: write [log]"),
        ("pinholes = 5", "pinholes is a section: write [pinholes]"),
        ("[[services]]\nallow = []", "services is a section: write [services]"),
        ("lan = [", "not TOML"),
        ("queue = 1\nqueue = 2", "not TOML"),
        ("lan: br0", "not TOML"),
    ],
)
def test_what_is_no_setting_is_an_error(text: str, said: str) -> None:
    with pytest.raises(ConfigError, match=re.escape(f"f.toml: {said}")):
        parse(text, "f.toml")


def test_file_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"gone\.toml: no such file"):
        load(tmp_path / "gone.toml")
    with pytest.raises(ConfigError, match="cannot be read"):
        load(tmp_path)
    (tmp_path / "latin.toml").write_bytes(b"# caf\xe9\n")
    with pytest.raises(ConfigError, match=r"latin.toml: cannot be read"):
        load(tmp_path / "latin.toml")


def test_default_file_may_be_absent_but_not_wrong(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(config, "DEFAULT_PATH", tmp_path / "nfreaim.toml")
    assert load(None) == Config()
    (tmp_path / "nfreaim.toml").write_text("queue = 7")
    assert load(None) == Config(queue=7)
    (tmp_path / "nfreaim.toml").write_text("queue = 'x'")
    with pytest.raises(ConfigError, match=r"nfreaim.toml: queue = 'x'"):
        load(None)


def test_shipped_file_describes_every_key_with_its_default() -> None:
    text = SHIPPED.read_text()
    assert parse(text, str(SHIPPED)) == Config()
    uncommented = re.sub(r"(?m)^#(?=[a-z_]+ = )", "", text)
    found = parse(uncommented, str(SHIPPED))
    pinholes = replace(found.pinholes, announce=None)
    assert replace(found, lan=(), wan=(), pinholes=pinholes) == Config()
    assert found.notices == ()
    assert found.pinholes.deny_ports == DENIED_PORTS
    document = tomllib.loads(uncommented)
    described = {Key("", key) for key in document} | {
        Key(section, key) for section, value in document.items() if isinstance(value, dict) for key in value
    }
    assert set(config._KEYS) <= described
    assert set(document) > WITHOUT_DEFAULT


def test_queues_behind_the_last_one_are_refused(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["rules", "install", "--queue", "65534", "--workers", "2", "--lan", "a", "--wan", "b"]) == 2
    assert "the last one is 65535" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("text", "ports"),
    [
        ('protocols = ["irc"]', {"irc": (6667,)}),
        ('protocols = ["irc", "oscar"]\n[irc]\nports = [6697]', {"irc": (6697,), "oscar": (5190,)}),
        ("[irc]\nports = [5190]", {"oscar": (5190,)}),
        ("protocols = ['irc']\n[oscar]\nports = [6667]", {"irc": (6667,)}),
    ],
)
def test_only_protocols_that_are_named_are_read(text: str, ports: dict[str, tuple[int, ...]]) -> None:
    found = parse(text, "f")
    assert found.ports == ports
    assert {port: spec.name for port, spec in found.helpers().items()} == {
        port: name for name, numbers in ports.items() for port in numbers
    }


def test_two_protocols_on_one_port_are_refused_by_name() -> None:
    with pytest.raises(ConfigError, match=r"f: port 5190 is given to oscar and to irc"):
        parse('protocols = ["oscar", "irc"]\n[irc]\nports = [6667, 5190]', "f")


def test_other_protocols_bring_their_own_limits() -> None:
    both = parse('[oscar]\nicq_direct = "off"\n[pinholes]\ntotal = 9', "f")
    without = both.serving({"irc": (6667,)})
    assert (without.ports, without.pinholes.total) == ({"irc": (6667,)}, 9)
    assert (without.pinholes.caps, without.pinholes.only_for) == ({}, {})
    assert without.serving({"oscar": (5190,)}) == both
