"""Draws the pictures of docs/pictures: the live screen, and the page of `nfreaim report` in a browser.

``python -m scripts.pictures``, as root: both show a daemon on a virtual network, with transfers that happen.
"""

from __future__ import annotations

import io
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any, Final

from rich.console import Console

from nfreaim.show.top import screen
from tests.lab.net import Lab
from tests.lab.scene import Scene, opened, scene
from tests.lab.standin import Transfer

PICTURES: Final = Path(__file__).resolve().parents[1] / "docs" / "pictures"
_WRITTEN_S: Final = 11.0
_WIDTH, _HEIGHT = 132, 40  # characters of the screen
_PAGE: Final = "1240,1560"  # pixels of the browser's window


def main() -> int:
    """Draw both."""
    PICTURES.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory() as place:
        config = Path(place, "nfreaim.toml")
        config.write_text(f'history_dir = "{place}/state"\n')
        with scene(settings=config.read_text()) as made:
            _let_things_happen(made)
            _screen(json.loads(_run(made.lab, config, "status", "--json")))
            page = Path(place, "report.html")
            _run(made.lab, config, "report", "--html", str(page))
            _photograph(page)
    return 0


def _let_things_happen(made: Scene) -> None:
    """Transfers that succeed, that nobody answers, and that are cancelled; then a firewall that drops."""
    made.lab.run("A", "sh", "-c", "echo 1 >/proc/sys/net/netfilter/nf_conntrack_acct")
    bob, carol, alice, al, amy, ann = made.clients(
        made.server(),
        ("bob", "bob"),
        ("carol", "carol"),
        ("alice", "alice", 5200),
        ("alice", "al", 5300),
        ("amy", "amy", 5400),
        ("alice", "ann", 5500),
    )
    for proposer, receiver, kind in ((alice, bob, "file"), (amy, carol, "file"), (al, bob, "im")):
        more = {"size": 2_500_000, "seed": 5} if kind == "file" else {}
        if not Transfer(proposer, receiver, kind, **more).outcome().ok:
            raise SystemExit(f"the {kind} did not arrive")
    bob.call("policy", action="ignore")
    made.lab.run("A", *"conntrack -D -p tcp --orig-port-dst 5400".split())
    cancelled = opened(made, ann, bob, 5500)
    ann.call("cancel", cookie=cancelled.cookie)
    Transfer(ann, bob, "file")
    made.lab.run(
        "A", "nft", "table inet own { chain pass { type filter hook forward priority 0; policy drop; }; }"
    )
    time.sleep(_WRITTEN_S)  # what connections carried is written after a while


def _run(lab: Lab, config: Path, *words: str) -> str:
    command = (sys.executable, "-m", "nfreaim", *words, "--config", str(config))
    return lab.run("A", *command).stdout


def _screen(document: dict[str, Any]) -> None:
    console = Console(record=True, width=_WIDTH, height=_HEIGHT, file=io.StringIO(), force_terminal=True)
    console.print(screen(document, _HEIGHT))
    console.save_svg(str(PICTURES / "top.svg"), title="nfreaim top", unique_id="top")


def _photograph(page: Path) -> None:
    browser = ("chromium", "--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars")
    shot = (f"--window-size={_PAGE}", f"--screenshot={PICTURES / 'report.png'}", page.as_uri())
    subprocess.run([*browser, *shot], check=True, capture_output=True, timeout=120)


if __name__ == "__main__":
    sys.exit(main())
