"""What `nfreaim-rules show` says of flowtables where the rules are a table of nftables."""

from __future__ import annotations

import pytest

from nfreaim.host.netfilter import conntrack_helper
from nfreaim.host.rules import nft_command


class _Table:
    """A table that is whole, with the rules for flowtables or without."""

    has = False

    def shown(self) -> tuple[list[str], list[str]]:
        return ["nft             settings"], []

    def guarded(self) -> bool:
        return self.has


@pytest.mark.parametrize(
    ("has", "unavailable", "said"),
    [
        (True, "", "flowtable       prevented"),
        (False, "no module", "flowtable       possible: the kernel takes no helper"),
        (False, "", "missing chain flowtables"),
    ],
)
def test_a_flowtable_that_comes_behind_the_rules_makes_them_incomplete_where_it_can_be_mended(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    has: bool,
    unavailable: str,
    said: str,
) -> None:
    monkeypatch.setattr(_Table, "has", has)
    monkeypatch.setattr(nft_command, "NftTable", _Table)
    monkeypatch.setattr(conntrack_helper, "unavailable", lambda: unavailable)
    assert nft_command.main("show", ["--guard", "yes"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 2
    assert lines[1].startswith(said)
    assert nft_command.main("show", []) == 0
    assert capsys.readouterr().out.splitlines() == lines[:1]
