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
from nfreaim.core.settings import EngineSettings, HomeServer
from nfreaim.errors import ConfigError
from nfreaim.kernel_helpers import Assignment
from nfreaim.marks import Marks
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
        ('metrics_listen = "127.0.0.1:9919"', Config(metrics_listen=("127.0.0.1", 9919))),
        ('metrics_listen = ""', Config()),
        ("history = false", Config(history=False)),
        ('history_dir = "/a/b"', Config(history_dir=Path("/a/b"))),
        ('[log]\nformat = "json"', Config(log_format="json")),
        ("home_servers = []", Config()),
        (
            'home_servers = ["10.0.0.9", "10.0.0.8:5190"]',
            Config(home_servers=(HomeServer("10.0.0.9"), HomeServer("10.0.0.8", 5190))),
        ),
        ('home_server_users = ["ann", 1001, "1002"]', Config(home_server_users=("ann", "1001", "1002"))),
        (
            'kernel_helpers = { sip = [5060, "203.0.113.9:5070"], ftp = ["21"] }',
            Config(
                kernel_helpers=(
                    Assignment("ftp", "tcp", (21,)),
                    Assignment("sip", "udp", (5060,)),
                    Assignment("sip", "udp", (5070,), "203.0.113.9"),
                )
            ),
        ),
        ("kernel_helpers = {}", Config()),
        ('local_clients = ["root", 1001, "1001"]', Config(local_clients=(0, 1001))),
        (
            'native_accept = ["inet filter forward", "ip my-table into.lan"]',
            Config(native_accept=("inet filter forward", "ip my-table into.lan")),
        ),
        ("mark_mask = 0x40\nconnmark_mask = 0xff00", Config(marks=Marks.of(0x40, 0xF00))),
        ("check_senders = false", Config(check_senders=False)),
        ('check_senders = ["br-lan"]', Config(check_senders=("br-lan",))),
        ('outside_address = "198.51.100.7"', policy(announce="198.51.100.7")),
        ('outside_address = "Home.example."', policy(announce="home.example")),
        ('firewall = "nft"', replace(Config(), firewall="nft")),
        ('upstream = "pcp"', policy(upstream="pcp")),
        ('upstream = "off"\noutside_address = "198.51.100.7"', policy(announce="198.51.100.7")),
        ('[pinholes]\nports = ["4096-4097", "8192-8193"]', policy(ports=(4096, 4097, 8192, 8193))),
        ("[pinholes]\nstrict = true", policy(strict=True)),
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
        ('[services]\ndeny = ["dcc-send", "TLS"]', policy(deny_services=frozenset({"dcc-send", "tls"}))),
        (
            '[services]\ndeny = ["09461323-4C7F-11D1-8222-444553540000", "094613244c7f11d18222444553540000"]',
            policy(deny_services=frozenset({"aim-1323", "aim-1324"})),
        ),
        (
            '[services]\ndeny = ["748F2421628711D18222444553540000", "AIM-1325"]',
            policy(deny_services=frozenset({"748f2421-6287-11d1-8222-444553540000", "aim-1325"})),
        ),
        ('[services]\nalso = ["Nobody-Knows"]', policy(also_services=frozenset({"nobody-knows"}))),
        ('[log]\nlevel = "debug"', Config(log_level="debug")),
        ("[pinholes]\n[services]\n[log]\n", Config()),
    ],
)
def test_value_arrives_where_it_is_used(text: str, expected: Config) -> None:
    assert parse(text, "f") == expected


BAD: list[tuple[str, list[str], str]] = [
    (
        "lan",
        ['"br0"', "[]", "[1]", '["a b"]', '["sixteen-letters."]', '[""]', '["p+p"]'],
        "interface names",
    ),
    (
        "native_accept",
        [
            '"inet t c"',
            "[1]",
            '["forward"]',
            '["t c"]',
            '["bridge t c"]',
            '["inet t c d"]',
            '["inet t {c}"]',
            '["ip filter FORWARD"]',
        ],
        'each with family (inet or ip) and table, such as ["inet filter forward"]',
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
    (
        "outside_address",
        ['"1.2.3"', '"::1"', "16909060", '"router"', '"a b.example"', '"1.2.3.4.5"', '""'],
        "an IPv4 address or the name of a host",
    ),
    ("firewall", ['"nftables"', "true", '""'], 'one of "auto", "legacy", "nft"'),
    ("upstream", ['"on"', "true", '"UPnP"', '""'], 'one of "off", "auto", "upnp", "pcp"'),
    ("server_names", ['"home.example"', "[1]", '["a b"]', '[""]'], "a list of host names"),
    (
        "home_servers",
        [
            '"10.0.0.9"',
            "[1]",
            '["home.example"]',
            '["10.0.0"]',
            '["10.0.0.9:"]',
            '["10.0.0.9:0"]',
            '["10.0.0.9:65536"]',
            '["10.0.0.0/24"]',
            '["10.0.0.09"]',
            '["::1"]',
        ],
        'a list of inside addresses, each with a port or without, such as ["10.0.0.9", "10.0.0.8:5190"]',
    ),
    (
        "kernel_helpers",
        [
            *("[]", "{ sip = 5060 }", "{ sip = [] }", "{ sip = [0] }", '{ sip = ["pc.lan:5060"] }'),
            *('{ sip = ["10.0.0.9:"] }', "{ sip = [true] }", "{ sip-tcp = [5060] }", "{ SIP = [5060] }"),
            "{ sip = " + str([*range(1, 17)]) + " }",
        ],
        "a table of helpers of the kernel",
    ),
    ("home_server_users", ['"ann"', "[true]", "[-1]", '[""]', '["a b"]', "[1.5]"], "a list of users"),
    ("local_clients", ['"root"', "[true]", '["a b"]', "[4294967295]"], "a list of users"),
    ("mark_mask", ["-1", '"0x40"', "true", "0x100000000"], "a mask of bits, such as 0x10000000"),
    ("connmark_mask", ["0", "1.5", "[1]"], "a mask of bits, such as 0xf000000"),
    ("state_dir", ['"run/nfreaim"', "1", '""'], "an absolute path"),
    ("status_socket", ['"status"', "1", '""'], "an absolute path"),
    ("status_group", ["1", '"a b"', '"-adm"', '"adm:x"', '["adm"]'], "the name of a group"),
    ("icq_direct", ['"yes"', "true", "[]", '["home"]', "1"], '"on", "off" or a list of inside addresses'),
    ("forward", ['"10.0.0.5"', "[1]", '[{ host = "10.0.0.5" }]'], "the ports within 1024-65535"),
    (
        "protocols",
        ['"oscar"', "[]", "[1]", '["msnp"]', '["OSCAR"]'],
        'a list of one or more of "oscar", "irc", "msn", "xmpp", "yahoo"',
    ),
    ("oscar.ports", ["5190", "[]", "[0]", f"{[1] * 16}"], "1 to 15 port numbers"),
    ("oscar.icq_direct", ['"yes"', "[]", '["home"]'], '"on", "off" or a list of inside addresses'),
    ("oscar.icq_per_host", ["0", "1025", '"4"'], "a whole number from 1 to 1024"),
    ("yahoo.ports", ["5050", "[]"], "1 to 15 port numbers"),
    ("yahoo.web_hosts", ['"on"', '"10.0.0.5"', '["home"]', "[1]"], "a list of inside addresses"),
    ("irc.ports", ["6667", "[]", "[65536]"], "1 to 15 port numbers"),
    ("msn.ports", ["1863", "[]", "[65536]"], "1 to 15 port numbers"),
    ("xmpp.ports", ["5222", "[]", "[65536]"], "1 to 15 port numbers"),
    ("pinholes.icq_per_host", ["0", "1025", '"4"'], "a whole number from 1 to 1024"),
    ("check_senders", ["1", '"eth0"', "[1]", '["eth0 "]'], "true, false or a list of interface names"),
    ("isolated_lans", ["1", '"eth0"', "[1]", '["eth0 "]'], "true, false or a list of interface names"),
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
            "[]",
            '["4000-4001", "4001-4002"]',
            '["4000-4001", "80-81"]',
        ],
        "a range within 1024-65535",
    ),
    ("pinholes.strict", ["1", '"true"'], "true or false"),
    ("pinholes.per_flow", ["0", "1025", "1.5"], "a whole number from 1 to 1024"),
    ("pinholes.per_host", ["0", "1025"], "a whole number from 1 to 1024"),
    ("pinholes.total", ["0", "16385"], "a whole number from 1 to 16384"),
    ("pinholes.deny_ports", ["5900", "[0]", '["5900"]'], "a list of port numbers"),
    (
        "services.allow",
        ['"send-file"', "[1]", '[""]', '["send file"]', '["nobody-knows"]'],
        "a list of names of services: send-file, ",
    ),
    (
        "services.deny",
        ['"talk"', '["-talk"]', '["send-fil"]', '["aim-13245"]', '["direct-im", "talks"]'],
        "a list of names of services: send-file, ",
    ),
    ("services.also", ['"talk"', '["-talk"]'], "a list of service names"),
    ("log.level", ['"loud"', "1", '["info"]'], "one of debug, info, warning, error"),
    ("log.format", ['"xml"', "1"], "one of text, json"),
    (
        "metrics_listen",
        ['"127.0.0.1"', '":9919"', '"9919"', '"[::1]:9919"', '"127.0.0.1:0"', '"localhost:9919"', "9919"],
        "an address and a port",
    ),
    ("history", ["1", '"off"'], "true or false"),
    ("history_dir", ['"var/lib"', "true"], "an absolute path"),
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


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("kernel_helpers = { irc = [6667] }\nprotocols = ['irc']", "port 6667 of irc is one of protocol irc"),
        ("kernel_helpers = { ftp = [5190] }", "port 5190 of ftp is one of protocol oscar"),
        ("kernel_helpers = { ftp = [21], pptp = [21] }", "tcp port 21 is given to ftp and pptp"),
        ("kernel_helpers = { ftp = ['10.1.1.1:21'], pptp = [21] }", "tcp port 21 is given to ftp and pptp"),
    ],
)
def test_a_port_has_one_reader(text: str, complaint: str) -> None:
    with pytest.raises(ConfigError, match=complaint):
        parse(text, "f")


def test_a_port_of_the_other_transport_is_no_reader() -> None:
    assert parse("kernel_helpers = { sip = [5190] }", "f").kernel_helpers[0].transport == "udp"
    with pytest.raises(ConfigError, match="port 6667 of irc"):
        parse("kernel_helpers = { irc = [6667] }", "f").serving({"irc": (6667,)})


def test_other_protocols_bring_their_own_limits() -> None:
    both = parse('[oscar]\nicq_direct = "off"\n[pinholes]\ntotal = 9', "f")
    without = both.serving({"irc": (6667,)})
    assert (without.ports, without.pinholes.total) == ({"irc": (6667,)}, 9)
    assert (without.pinholes.caps, without.pinholes.only_for) == ({}, {})
    assert without.serving({"oscar": (5190,)}) == both


def test_user_that_this_machine_does_not_have_is_named() -> None:
    with pytest.raises(ConfigError) as caught:
        parse('local_clients = ["root", "no-such-user"]', "f")
    assert str(caught.value) == (
        "f: local_clients: this machine has no user no-such-user; write a name that `getent passwd` shows, or"
        " a number"
    )


def test_a_router_in_front_forwards_everything_or_is_asked_for_ports_not_both() -> None:
    with pytest.raises(ConfigError, match=r"file: outside_address says .*; leave one of them out"):
        parse('outside_address = "198.51.100.7"\nupstream = "auto"', "file")
