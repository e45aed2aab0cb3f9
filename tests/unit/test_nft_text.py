"""The text of our table of nftables, and what is read back from it."""

from __future__ import annotations

import ctypes
import re
import struct
from typing import Any

import pytest

from nfreaim.errors import BackendError
from nfreaim.host.netfilter import compat_queue
from nfreaim.host.netfilter.compat_queue import QueueRule
from nfreaim.host.netfilter.libnftables import Nftables
from nfreaim.host.rules import nft_text, script
from nfreaim.host.rules.nft_table import source
from nfreaim.host.rules.rule_settings import Settings
from nfreaim.kernel_helpers import Assignment
from nfreaim.marks import Marks

FTP, SIP = Assignment("ftp", "tcp", (21,)), Assignment("sip", "udp", (5060, 5070), "203.0.113.9")
PLAIN = Settings(("lan",), ("wan",), {"oscar": (5190,)}, 5190, firewall="nft")
FULL = Settings(
    ("br-+", "lan"),
    ("ppp+",),
    {"oscar": (443, 5190), "irc": tuple(range(6660, 6675))},
    *(7, 3, (FTP, SIP), Marks.of(0x40, 0xFF00), (1000, 1001)),
    firewall="nft",
)


def text(settings: Settings, native: bool = True, guarded: bool = False) -> str:
    return nft_text.text(source(), settings, settings.helpers, guarded, native)


@pytest.mark.parametrize("settings", [PLAIN, FULL])
def test_the_settings_are_read_back_from_comments_that_nft_takes(settings: Settings) -> None:
    made = text(settings)
    assert nft_text.settings_in(made) == settings
    assert all(len(comment) <= 128 for comment in re.findall(r'comment "([^"]*)"', made))
    assert Settings.of_words(settings.words()) == settings


def test_every_name_is_defined_and_every_definition_used() -> None:
    made = text(FULL)
    defined = set(re.findall(r"^define (\w+) =", made, re.MULTILINE))
    assert set(re.findall(r"\$(\w+)", re.sub(r"#.*", "", made))) == defined


def test_chains_that_are_led_to_exist_and_are_led_to() -> None:
    for settings in (PLAIN, FULL):
        made = text(settings, guarded=True)
        led = set(re.findall(r"(?:jump|goto) (\w+)", re.sub(r"#.*", "", made)))
        chains = set(nft_text.rules_of(made))
        based = set(re.findall(r"chain (\w+) \{\n\s+type ", made))
        assert led <= chains
        assert chains - based - led == {nft_text.SETTINGS_CHAIN}


def test_without_local_clients_their_rules_are_left_out() -> None:
    assert "skuid" not in text(PLAIN)
    assert "skuid" in text(FULL)


def test_without_the_expression_the_chains_pass_or_drop_until_they_have_their_rules() -> None:
    made = text(FULL, native=False)
    assert "queue num" not in made
    rules = dict(pair for pair in nft_text.rules_in(made) if pair[1])
    found = {rule.chain: rules[rule.chain] for rule in nft_text.queue_rules(FULL)}
    assert found == {
        "queue_known": "accept",
        "meet": "accept",
        "read_gate": "accept",
        "queue_skewed": "drop",
    }
    assert nft_text.queue_rules(FULL) == [
        QueueRule("queue_known", 8, 3),
        QueueRule("meet", 40, 3),
        QueueRule("read_gate", 71),
        QueueRule("queue_skewed", 8, 3, bypass=False),
    ]


def test_helpers_are_declared_once_and_given_to_their_servers() -> None:
    made = text(FULL)
    assert made.count('type "sip" protocol udp') == 1
    assert 'ip daddr 203.0.113.9 udp dport { 5060, 5070 } counter ct helper set "sip-udp"' in made
    assert "ct helper set" not in text(PLAIN)
    assert 'ct helper set "nfreaim"' in text(PLAIN, guarded=True)


def test_rules_are_counted_alike_in_what_is_loaded_and_in_what_is_listed() -> None:
    listed = (
        "table ip nfreaim {\n\tchain meet {\n\t\tcounter packets 3 bytes 180 queue num 5222 bypass\n\t}\n\n"
        "\tchain gate {\n\t}\n\n\tchain forward {\n"
        "\t\ttype filter hook forward priority -149; policy accept;\n"
        "\t\tct mark 1 goto gate\n\t}\n}\n"
    )
    assert nft_text.rules_of(listed) == {"meet": 1, "gate": 0, "forward": 1}
    assert nft_text.rules_of(text(PLAIN))["meet"] == 1


# --- what the script shows ---


def shown(settings: Settings) -> str:
    return f"nft             settings {' '.join(settings.all_words())}\nnft             meet    accept\n"


def test_what_is_shown_of_a_table_is_understood() -> None:
    native = "nft             native  accept in inet filter forward\n"
    found = script.settings(shown(FULL) + native)
    assert found is not None
    assert found.native == ("inet filter forward",)
    assert (found.ports, found.queue, found.workers, found.marks) == (
        *(FULL.ports, 7, 3, Marks.of(0x40, 0xFF00)),
    )
    assert script.helpers_differ(shown(FULL), PLAIN) != ""
    assert script.locals_differ(shown(FULL), FULL) == ""
    assert script.firewall(shown(FULL)) == "nft"
    assert script.firewall("not installed: raw\n") == ""


@pytest.mark.parametrize(
    ("wanted", "said"),
    [
        (PLAIN, ""),
        (Settings(("x",), ("y",), {"oscar": (5190,)}, 5190, firewall="auto"), ""),
        (Settings(("x",), ("y",), {"oscar": (5190,)}, 5190), "firewall = nft, not legacy"),
        (Settings(("x",), ("y",), {"oscar": (5190,)}, 77, firewall="nft"), "queue 5190, not 77"),
        (Settings(("x",), ("y",), {"oscar": (5190,)}, 5190, 2, firewall="nft"), "workers = 1, not 2"),
        (Settings(("x",), ("y",), {"irc": (6667,)}, 5190, firewall="nft"), "oscar, not irc"),
    ],
)
def test_differences_are_named(wanted: Settings, said: str) -> None:
    assert said in script.difference(shown(PLAIN), wanted)
    assert (said == "") == (script.difference(shown(PLAIN), wanted) == "")


def test_a_table_that_does_not_tell_its_settings_is_there_all_the_same() -> None:
    told = "nft             settings \n"
    assert script.firewall(told) == "nft"
    assert script.settings(told) is None


# --- the library, and the rule for kernels without the expression ---


def test_a_missing_library_is_named_with_its_package(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(name: str) -> None:
        raise OSError(f"{name}: cannot open shared object file")

    monkeypatch.setattr(ctypes, "CDLL", missing)
    with pytest.raises(BackendError, match=r"libnftables\.so\.1: .*; remedy: apt install nftables"):
        Nftables()


def test_a_queue_rule_is_a_target_of_iptables(monkeypatch: pytest.MonkeyPatch) -> None:
    sent: list[bytes] = []

    class Socket:
        def transact(self, subsystem: int, questions: list[Any]) -> list[int]:
            assert subsystem == 10
            sent.extend(map(bytes, questions))
            return [0] * len(questions)

        def close(self) -> None:
            pass

    monkeypatch.setattr(compat_queue, "Netlink", Socket)
    compat_queue.replace([QueueRule("meet", 40, 3), QueueRule("queue_skewed", 8, 3, bypass=False)])
    deleting, adding, _, skewed = sent
    assert b"meet\0" in deleting
    assert b"target\0" in adding
    assert b"NFQUEUE\0" in adding
    assert struct.pack("=HHH", 40, 3, 1) in adding
    assert struct.pack("=HHH", 8, 3, 0) in skewed
