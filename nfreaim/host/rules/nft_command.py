"""The part of nfreaim-rules that needs libnftables: installing and showing our table."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import Final

from nfreaim.config_values import NFT
from nfreaim.exit_status import Exit
from nfreaim.host.netfilter import conntrack_helper
from nfreaim.host.netfilter.names import FLOWTABLE_HELPER
from nfreaim.host.rules.nft_table import NftTable
from nfreaim.host.rules.nft_text import FLOWTABLE_CHAIN
from nfreaim.host.rules.rule_settings import Settings

_GUARD: Final = "--guard"
_NETWORK: Final = "--network"
_UNGUARDED: Final = "possible: the kernel takes no helper of nfreaim's (module nfnetlink_cthelper)"


def main(action: str, words: Sequence[str]) -> int:
    """Install or show the table; returns the exit status. Raises BackendError.

    words  options: those of `nfreaim-rules install`, --network for each network inside, and --guard where
           there is a flowtable
    """
    table = NftTable()
    pairs = list(zip(words[::2], words[1::2], strict=True))
    guard = any(option == _GUARD for option, _ in pairs)
    if action == "show":
        return _show(table, guard)
    networks = [value for option, value in pairs if option == _NETWORK]
    rest = [word for pair in pairs if pair[0] not in (_GUARD, _NETWORK) for word in pair]
    return _install(table, Settings.of_words([*rest, "--firewall", NFT]), networks, guard)


def _install(table: NftTable, settings: Settings, networks: Sequence[str], guard: bool) -> int:
    guarded = guard and table.takes_helper(FLOWTABLE_HELPER)
    for helper in table.load(settings, networks, guarded):
        print(
            f"nfreaim: the kernel refused its helper {helper.name} for {str(helper).partition(':')[2]}, so "
            "nothing reads these connections; remedy: load its modules, nf_conntrack_* and nf_nat_*, and "
            "install again",
            file=sys.stderr,
        )
    if guard:
        _tell_of_flowtables(guarded)
    return Exit.FINE


def _show(table: NftTable, guard: bool) -> int:
    lines, missing = table.shown()
    guarded = table.guarded()
    # A flowtable that came behind the rules: the next installation keeps connections out of it.
    if late := guard and not guarded and not conntrack_helper.unavailable():
        missing = [*missing, f"chain {FLOWTABLE_CHAIN}"]
    print("\n".join([*lines, *(f"missing {name}" for name in missing)]))
    if guard and not late:
        _tell_of_flowtables(guarded)
    return Exit.FINE


def _tell_of_flowtables(guarded: bool) -> None:
    print(f"{'flowtable':<15} {'prevented' if guarded else _UNGUARDED}")
