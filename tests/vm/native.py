"""A router whose firewall is nftables' own, drops by default, and is loaded again while somebody talks."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator

import pytest

from tests.lab.net import Lab
from tests.lab.scene import eventually
from tests.vm import installation
from tests.vm.router import MASQUERADE, SLOW, Router, conversation, load, offers

pytestmark = pytest.mark.timeout(6 * SLOW)
DROPS = MASQUERADE.replace(
    "    chain postrouting",
    """    chain forward {
        type filter hook forward priority filter; policy drop;
        ct state established,related accept
        iifname "br-lan" accept
    }
    chain postrouting""",
)
CHAIN = "inet router forward"


def accepted() -> bool:
    words = ("nft", "-s", "list", "chain", *CHAIN.split())
    return "nfreaim native_accept" in subprocess.run(words, stdout=subprocess.PIPE, text=True).stdout


def restart() -> None:
    """As `make install` says it."""
    installation.run("systemctl", "reload-or-restart", "nfreaim-rules")
    installation.run("systemctl", "restart", "nfreaim")


@pytest.fixture
def router() -> Iterator[Lab]:
    """With such a firewall, and nfreaim told of its chain."""
    settings = installation.CONF.read_text()
    with Router() as made:
        load(DROPS)
        installation.run("systemctl", "reload", "nftables")
        installation.CONF.write_text(f'native_accept = ["{CHAIN}"]\n{settings}')
        try:
            restart()
            yield made
        finally:
            installation.CONF.write_text(settings)
            load(MASQUERADE)
            installation.run("systemctl", "reload", "nftables")
            restart()


def test_pinholes_are_let_in_also_after_the_firewall_was_loaded_again(router: Lab) -> None:
    assert accepted()
    with conversation(router) as (alice, bob):
        offers(alice, bob)
        installation.run("systemctl", "reload", "nftables")
        eventually(accepted, SLOW)
        offers(alice, bob)
