"""What the configuration says about ICQ: who may have direct connections, and which ports are forwarded."""

from __future__ import annotations

import pytest

from nfreaim.config import parse
from nfreaim.core.firewall.policy import Forward
from nfreaim.errors import ConfigError

EVERY_KIND = ("icq-direct", "icq-reverse", "icq-relay")


@pytest.mark.parametrize(
    ("text", "allowed"),
    [
        ("", {"10.0.0.5": True, "10.0.0.6": True}),
        ('icq_direct = "on"', {"10.0.0.5": True, "10.0.0.6": True}),
        ('[oscar]\nicq_direct = "on"', {"10.0.0.5": True, "10.0.0.6": True}),
        ('[oscar]\nicq_direct = "off"', {"10.0.0.5": False, "10.0.0.6": False}),
        ('[oscar]\nicq_direct = ["10.0.0.5"]', {"10.0.0.5": True, "10.0.0.6": False}),
        ('icq_direct = "off"', {"10.0.0.5": False, "10.0.0.6": False}),
        ('icq_direct = ["10.0.0.5"]', {"10.0.0.5": True, "10.0.0.6": False}),
        ('[services]\ndeny = ["icq-direct", "icq-reverse", "icq-relay"]', {"10.0.0.5": False}),
    ],
)
def test_who_may_have_direct_connections(text: str, allowed: dict[str, bool]) -> None:
    policy = parse(text, "file").pinholes
    for host, may in allowed.items():
        assert [policy.refuses(kind, host) is None for kind in EVERY_KIND] == [may] * 3
        assert (policy.refuses("send-file", host)) is None


@pytest.mark.parametrize("value", ['"yes"', "true", "[]", '["home"]', '["::1"]', "1", '[["10.0.0.5"]]'])
def test_neither_on_nor_off_nor_hosts(value: str) -> None:
    with pytest.raises(ConfigError, match=r'file: icq_direct = .*: must be "on", "off" or a list'):
        parse(f"icq_direct = {value}", "file")


def test_cap() -> None:
    for section in ("pinholes", "oscar"):
        policy = parse(f"[{section}]\nicq_per_host = 1", "file").pinholes
        assert policy.caps == dict.fromkeys(EVERY_KIND, ("icq_per_host", 1))
    assert parse("", "file").pinholes.caps == dict.fromkeys(EVERY_KIND, ("icq_per_host", 4))
    with pytest.raises(ConfigError, match=r"pinholes\.icq_per_host = 0"):
        parse("[pinholes]\nicq_per_host = 0", "file")


def forward(host: str, ports: str) -> str:
    return f"[[forward]]\nhost = {host}\nports = {ports}\n"


def test_forwards() -> None:
    text = (
        forward('"10.0.0.5"', '"20000-20009"')
        + forward('"10.0.0.6"', "20010")
        + forward('"10.0.0.6"', '"20011"')
        + "[log]\nlevel = 'info'"
    )
    assert parse(text, "file").pinholes.forwards == (
        Forward("10.0.0.5", range(20000, 20010)),
        Forward("10.0.0.6", range(20010, 20011)),
        Forward("10.0.0.6", range(20011, 20012)),
    )


@pytest.mark.parametrize(
    "text",
    [
        forward('"10.0.0.5"', '"1023-2000"'),
        forward('"10.0.0.5"', "80"),
        forward('"10.0.0.5"', '"2000-1999"'),
        forward('"10.0.0.5"', '"2000-65536"'),
        forward('"10.0.0.5"', "true"),
        forward('"home"', "2000"),
        '[[forward]]\nhost = "10.0.0.5"',
        forward('"10.0.0.5"', "2000") + "to = 5",
        'forward = "10.0.0.5"',
        '[forward]\nhost = "10.0.0.5"\nports = 2000',
    ],
)
def test_forwards_that_make_no_sense(text: str) -> None:
    with pytest.raises(ConfigError, match=r"file: forward = .*within 1024-65535"):
        parse(text, "file")


@pytest.mark.parametrize("other", ['"10.0.0.5"', '"10.0.0.6"'])
def test_forwards_that_overlap(other: str) -> None:
    text = forward('"10.0.0.5"', '"20000-20009"') + forward(other, '"20009-20012"')
    with pytest.raises(ConfigError, match=r"file: the forwards 20000-20009 -> .* and .* overlap"):
        parse(text, "file")
