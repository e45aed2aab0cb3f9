"""The page for somebody who helps: complete, alone, harmless, and without addresses if so asked."""

from __future__ import annotations

import re
import stat
import subprocess
from html.parser import HTMLParser
from pathlib import Path

import pytest

from nfreaim.config import Config
from nfreaim.host.rules import script
from nfreaim.show import history, report_page
from nfreaim.show.masking import Mask
from nfreaim.show.report_page import Finding
from tests.unit.shown import answering, document, idle

PLACE = dict.fromkeys(("protocol", "service"), "chat") | {
    "inside": "10.0.0.5:5000",
    "outside": "203.0.113.1:40000",
    "client": "10.0.0.5:40123",
    "server": "203.0.113.9:7777",
}
FOUND = [
    Finding("ok", "interface lan: 10.0.0.0/24", ""),
    Finding("FAIL", "the rules <b>are</b> not installed", "nfreaim rules install --lan lan"),
]
OPENING = history.Opening(PLACE, 1e9, 1e9 + 5, "done", {"198.51.100.7": history.Peer()})


def made(mask: Mask | type[str] = str) -> str:
    return report_page.page(document(), list(FOUND), [OPENING], "", mask)


class Reader(HTMLParser):
    """The elements that are still open, all that occurred, and what they load."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.seen: set[str] = set()
        self.loads: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.seen.add(tag)
        self.loads += [f"{tag} {name}" for name, _ in attrs if name in ("src", "href", "style")]
        if tag not in ("meta", "br"):
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def test_the_page_is_well_formed_and_loads_nothing() -> None:
    reader = Reader()
    text = made()
    reader.feed(text)
    assert (reader.open, reader.loads) == ([], [])
    assert reader.seen.isdisjoint({"script", "link", "img", "iframe", "b"})
    assert "url(" not in text
    assert "@import" not in text


def test_the_page_has_state_findings_history_counters_and_queues() -> None:
    text = made()
    for part in (
        "running for 2 h 3 min",
        "the rules &lt;b&gt;are&lt;/b&gt; not installed",
        "<code>nfreaim rules install --lan lan</code>",
        "sessions (1)",
        "pinholes (2)",
        "pinholes of the last day",
        "10.0.0.5:40123 at 203.0.113.9:7777",
        "messages that announced an address",
        "queues",
        "pinhole claimed",
    ):
        assert part in text
    assert text.index("not installed") < text.index("interface lan"), "what is amiss comes first"


def test_a_masked_page_names_no_address_and_the_same_one_alike() -> None:
    text = made(Mask())
    assert re.findall(r"\d+\.\d+\.\d+\.\d+", text) == []
    host = re.search(r"interface lan: (private-\d+)/24", text)
    assert host
    (outside,) = set(re.findall(r"<td>(public-\d+):5200</td>", text))
    assert f"{outside}:40000" in text
    assert "nfreaim 0.1.0" in text


@pytest.mark.parametrize(
    ("text", "masked"),
    [
        ("10.0.0.5:80 10.0.0.6 10.0.0.5/24", "private-1:80 private-2 private-1/24"),
        ("100.64.3.4 8.8.8.8 203.0.113.1", "carrier-1 public-1 public-2"),
        ("127.0.0.1 0.0.0.0/0 version 1.2.3 1.2.3.4.5", "127.0.0.1 0.0.0.0/0 version 1.2.3 1.2.3.4.5"),
        ("02:00:00:00:00:01 at 12:34:56", "hardware-1 at 12:34:56"),
        ("fe80::1 2001:db8::5 ::1 (::)", "ipv6-1 ipv6-2 ::1 (::)"),
        ("home.example and xhome.example, HOME.example", "name-1 and xhome.example, HOME.example"),
        ("10.0.0.5. And 10.0.0.5, (10.0.0.5)", "private-1. And private-1, (private-1)"),
    ],
)
def test_masking(text: str, masked: str) -> None:
    assert Mask(["home.example"])(text) == masked


def test_the_file_is_for_its_owner_and_a_name_in_the_settings_is_masked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(
        report_page, "findings", lambda config: [Finding("ok", "reached as home.example", "")]
    )
    config = Config(status_socket=tmp_path / "status", history_dir=tmp_path)
    config = Config(
        status_socket=tmp_path / "status",
        history_dir=tmp_path,
        pinholes=config.pinholes.__class__(announce="home.example"),
    )
    with answering(tmp_path / "status", document()):
        assert report_page.main(config, tmp_path / "r.html", mask=True) == 0
        assert capsys.readouterr().out == f"wrote {tmp_path / 'r.html'}\n"
        assert "reached as name-1" in (tmp_path / "r.html").read_text()
        assert report_page.main(config, tmp_path / "r.html", mask=False) == 0
        assert "--mask replaces them" in capsys.readouterr().out
    assert stat.S_IMODE((tmp_path / "r.html").stat().st_mode) == 0o600
    assert "no history in" in (tmp_path / "r.html").read_text()


def test_a_daemon_that_waits_says_so_at_the_top() -> None:
    text = report_page.page(idle(), [], [], "", str)
    for told in ("nobody is served: IPv4 forwarding is off", "lan = [&quot;br-lan&quot;]"):
        assert text.index(told) < text.index("<section>")


def test_without_a_daemon_the_page_says_so() -> None:
    text = report_page.page({"version": "0.1.0", "running": False}, list(FOUND), [], "", str)
    assert "nfreaim 0.1.0, no daemon" in text
    assert "sessions" not in text


def test_a_check_that_ends_early_is_a_finding(monkeypatch: pytest.MonkeyPatch) -> None:
    early = subprocess.CompletedProcess[str]([], 2, "", "nfreaim: F: unknown key\n")
    monkeypatch.setattr(script, "run", lambda _: subprocess.CompletedProcess[str]([], 3, "", ""))
    monkeypatch.setattr(subprocess, "run", lambda *_, **__: early)
    (found,) = report_page.findings(Config())
    assert found == Finding("FAIL", "nfreaim check: nfreaim: F: unknown key", "")
    early.stdout = (
        '{"failed": true, "findings": [{"group": "g", "status": "warn", "text": "t", "remedy": "r"}]}'
    )
    assert report_page.findings(Config()) == [Finding("warn", "g: t", "r")]
