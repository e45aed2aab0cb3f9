"""The bits of marks: which of two masks are taken, and what the masks must not be."""

from __future__ import annotations

import subprocess

import pytest

from nfreaim import marks
from nfreaim.config import Config, parse
from nfreaim.errors import ConfigError
from nfreaim.host.rules import script
from nfreaim.marks import DEFAULT, Marks, bits

USED_BY_OTHERS = 0xFFFF | 0xFF0000 | 0xC0000000
"""Plain numbers, mwan3 and Kubernetes; OpenWrt's pbr and Tailscale; routers of Asus."""


def test_the_bits_of_a_mask_are_given_out_from_the_lowest_on() -> None:
    assert list(bits(0x9D0000)) == [0x10000, 0x40000, 0x80000, 0x100000, 0x800000]
    assert list(bits(0)) == []
    assert Marks.of(0xC0, 0x1F00) == Marks(0x40, 0x100, 0x200, 0x400, 0x800)


def test_the_defaults_are_bits_of_their_own_and_nobody_elses() -> None:
    assert not marks.MARK_MASK & marks.CONNMARK_MASK
    assert not (DEFAULT.packet | DEFAULT.connection) & USED_BY_OTHERS
    assert (DEFAULT.packet, DEFAULT.connection) == (marks.MARK_MASK, marks.CONNMARK_MASK)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("mark_mask = 0", "mark_mask = 0: must be a"),
        ("mark_mask = 0x100000000", "must be a mask of bits"),
        ('connmark_mask = "0xf"', "must be a mask of bits, such as 0xf000000"),
        ("connmark_mask = 0x7000000", "connmark_mask needs 4 bits"),
        ("mark_mask = 0x8000000", "share 0x8000000"),
    ],
)
def test_masks_that_cannot_be_used_are_refused(text: str, said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        parse(text, "file")


def test_the_rules_are_installed_with_the_masks_of_the_configuration() -> None:
    config = parse('lan = ["l"]\nwan = ["w"]\nmark_mask = 0x40\nconnmark_mask = 0xf00\n', "file")
    assert config.marks == Marks(0x40, 0x100, 0x200, 0x400, 0x800)
    words = script.Settings.of(config).install()
    assert words[1:3] == ["--native-accept", "none"], "or accepts that an earlier configuration named stay"
    assert words[-4:] == ["--mark-mask", "0x40", "--connmark-mask", "0xf00"]
    usual = script.Settings.of(Config(lan=("l",), wan=("w",)))
    assert usual.install()[-1] == "0xf000000", "or the script would ask the file for them"
    assert "--mark-mask" not in usual.words()


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("--mark-mask 0", "--mark-mask needs a bit"),
        ("--mark-mask 0x123456789", "must be a mask of 32 bits"),
        ("--mark-mask 4294967296", "must be a mask of 32 bits"),
        ("--mark-mask 017", "must be a mask of 32 bits"),
        ("--connmark-mask 7", "needs four bits"),
        ("--mark-mask 0x1 --connmark-mask 0xf", "share bits"),
    ],
)
def test_the_script_refuses_them_too(words: str, said: str) -> None:
    done = subprocess.run(
        ["/bin/sh", str(script.path()), *"install --lan l --wan w".split(), *words.split()],
        capture_output=True,
        text=True,
        timeout=30,
        env={"PATH": "/nowhere"},
    )
    assert done.returncode == 2
    assert said in done.stderr


SHOWN = """\
iptables-legacy mangle  [0:0] -A PREROUTING -i wan -p tcp -m connmark --mark 0x200/0xa00 -j NFREAIM_ENTRY
iptables-legacy mangle  [0:0] -A FORWARD -p tcp -m connmark --mark 0x600/0x600 -j NFREAIM_GATE
iptables-legacy mangle  [0:0] -A POSTROUTING -p tcp -m mark --mark 0x40/0x40 -m connmark --mark 0x600/0x600\
 -j NFREAIM_VERIFIED
iptables-legacy nat     [0:0] -A NFREAIM -j CONNMARK --set-xmark 0x300/0x300
"""


def test_rules_with_other_masks_are_an_error_with_its_remedy() -> None:
    wanted = script.Settings(("l",), ("w",), {}, 0)
    shown = SHOWN + "iptables-legacy mangle  [0:0] -A NFREAIM_GATE -j NFQUEUE --queue-num 64 --queue-bypass\n"
    said = script.difference(shown, wanted)
    assert "mark_mask = 0x40 and connmark_mask = 0xf00, not mark_mask = 0x10000000" in said
    assert "install them again with the same settings" in said
    agreed = script.Settings(("l",), ("w",), {}, 0, marks=Marks.of(0x40, 0xF00))
    assert script.difference(shown, agreed) == ""
