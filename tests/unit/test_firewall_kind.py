"""Which packet filter has the rules: who decides, and what is imported for it."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from nfreaim.errors import BackendError, ConfigError
from nfreaim.host.netfilter import firewall_kind as module
from nfreaim.host.netfilter.firewall_kind import VARIABLE, FirewallKind, KernelSets, firewall_kind, settle

NETFILTER = "nfreaim.host.netfilter"
LEGACY, NFT = FirewallKind.LEGACY, FirewallKind.NFT


class Presence:
    """Sets are there for these kinds; where the kernel has none of a kind it refuses."""

    def __init__(self, installed: bool) -> None:
        self.installed = installed

    def of(self, name: str) -> bool:
        if not self.installed:
            raise BackendError("no such thing")
        return True

    def close(self) -> None:
        pass


@pytest.fixture
def installed(monkeypatch: pytest.MonkeyPatch) -> set[FirewallKind]:
    found: set[FirewallKind] = set()

    class Sets:
        def __init__(self, kind: FirewallKind) -> None:
            self.presence = lambda: Presence(kind in found)

    monkeypatch.setattr(module, "KernelSets", Sets)
    monkeypatch.setenv(VARIABLE, "")
    return found


@pytest.mark.parametrize(
    ("there", "asked", "kind", "settled"),
    [
        ((), "", LEGACY, LEGACY),
        ((), "auto", LEGACY, LEGACY),
        ((), "nft", NFT, NFT),
        ((LEGACY,), "", LEGACY, LEGACY),
        ((NFT,), "", NFT, NFT),
        ((NFT,), "auto", NFT, NFT),
        ((NFT,), "legacy", LEGACY, NFT),
        ((LEGACY,), "nft", NFT, LEGACY),
    ],
)
def test_the_environment_decides_and_a_daemon_goes_by_what_is_there(
    installed: set[FirewallKind],
    monkeypatch: pytest.MonkeyPatch,
    there: tuple[FirewallKind, ...],
    asked: str,
    kind: FirewallKind,
    settled: FirewallKind,
) -> None:
    installed.update(there)
    monkeypatch.setenv(VARIABLE, asked)
    assert firewall_kind() is kind
    assert settle() is settled
    assert os.environ[VARIABLE] == settled
    installed.clear()
    assert firewall_kind() is settled, "whatever another program removes"


def test_a_kind_that_is_none_is_refused(
    installed: set[FirewallKind], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(VARIABLE, "iptables")
    with pytest.raises(ConfigError, match="must be auto, legacy or nft"):
        firewall_kind()


@pytest.mark.parametrize(
    ("kind", "foreign"),
    [("nft", {"iptc", f"{NETFILTER}.iptables"}), ("legacy", {f"{NETFILTER}.nft_maps"})],
)
def test_no_module_of_the_other_kind_is_imported(kind: str, foreign: set[str]) -> None:
    """On a kernel without legacy tables the library for them does not even load."""
    script = (
        "import sys; import nfreaim.host.control, nfreaim.host.workers.worker, nfreaim.host.report.status;"
        "from nfreaim.host.pinholes.chosen_firewall import kernel_firewall;"
        "from nfreaim.host.netfilter.firewall_kind import KernelSets;"
        "KernelSets(); kernel_firewall(lambda: 0.0);"
        "print(*sys.modules)"
    )
    found = subprocess.run(
        [sys.executable, "-c", script],
        env={**os.environ, VARIABLE: kind},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert found.returncode == 0, found.stderr
    assert foreign & set(found.stdout.split()) == set()


WITHOUT_IPTC = """
import sys
sys.modules["iptc"] = None
from nfreaim.host.netfilter import firewall_kind
firewall_kind._has_sets = lambda kind: False
from nfreaim.host.pinholes import chosen_firewall
asked = sys.argv[1]
kind = firewall_kind.firewall_kind() if asked == "auto" else firewall_kind.FirewallKind(asked)
chosen_firewall.maker(kind)
"""


@pytest.mark.parametrize(("setting", "works"), [("nft", True), ("legacy", False), ("auto", False)])
def test_before_any_rules_are_there_the_setting_decides_what_is_loaded(setting: str, works: bool) -> None:
    """A system whose packet filter is nftables alone need not have the library for the other one."""
    done = subprocess.run(
        [sys.executable, "-c", WITHOUT_IPTC, setting],
        env={**os.environ, VARIABLE: ""},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert (done.returncode == 0) is works, done.stderr
    if not works:
        assert "BackendError: no rules in nftables are installed" in done.stderr
        assert "python-iptables, is missing; remedy: " in done.stderr


def test_sets_are_of_the_kind_that_was_asked_for() -> None:
    for kind, name in ((LEGACY, "ipset"), (NFT, "nft_sets")):
        made = KernelSets(kind).flows
        assert made.__module__.rpartition(".")[2] == name
