"""The golden stories: captures, and what `nfreaim explain` has to tell and draw of them.

    python -m tests.replay.stories            write all of them anew; then look at each

The pictures stand in docs/explain/, where the documentation shows them; the texts in golden/explain/.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from nfreaim.explain.ladder_svg import picture
from tests.replay.told import lines, story

REPO = Path(__file__).resolve().parents[2]
PCAPS = REPO / "pcaps"
TEXTS = Path(__file__).parent / "golden" / "explain"
PICTURES = REPO / "docs" / "explain"


@dataclass(frozen=True)
class Golden:
    """*captures*: below pcaps/; *outside*: the router's address, if the capture does not show it."""

    name: str
    captures: tuple[str, ...]
    outside: str | None = None
    width: int = 100

    @property
    def text(self) -> Path:
        return TEXTS / f"{self.name}.txt"

    @property
    def picture(self) -> Path:
        return PICTURES / f"{self.name}.svg"

    def told(self) -> tuple[str, str]:
        """The text and the picture as they are now."""
        found = story(*(PCAPS / name for name in self.captures), outside=self.outside)
        return "\n".join(lines(found, self.width)) + "\n", picture(found.ladders)


GOLDEN = (
    Golden("both-sides", ("irc/weechat-alice-bob.ra-lan.in.pcap", "irc/weechat-alice-bob.ra-wan.pcap")),
    Golden("lan-alone", ("oscar/libpurple-send-alice-bob.in.pcap",)),
    Golden("no-alg-at-the-peer", ("oscar/libpurple-send-alice-carol.ra-lan.in.pcap",), "203.0.113.1"),
    Golden("at-the-peers-router", ("oscar/libpurple-send-alice-carol.rb-lan.in.pcap",), "203.0.113.2"),
    Golden("peer-listens", ("oscar/libpurple-send-bob-alice.in.pcap",), width=70),
    Golden("one-lan", ("oscar/same-lan-oos.in.pcap",), "203.0.113.1"),
    Golden("declined", ("oscar/cancel.in.pcap",), "203.0.113.1"),
    Golden("icq", ("oscar/icq-direct.in.pcap",), "203.0.113.1"),
    Golden("msn", ("msn/libpurple-bob-alice.ra-lan.in.pcap",), "203.0.113.1"),
    Golden("xmpp", ("xmpp/s5b-alice-carol.ra-lan.in.pcap",), "203.0.113.1", 60),
    Golden("xmpp-at-home", ("xmpp/home.in.pcap",), "203.0.113.1"),
    Golden("yahoo", ("yahoo/same-lan.in.pcap",), "203.0.113.1"),
)


def write() -> None:
    """Write all of them anew."""
    for folder in (TEXTS, PICTURES):
        folder.mkdir(exist_ok=True)
    for golden in GOLDEN:
        text, drawing = golden.told()
        golden.text.write_text(text)
        golden.picture.write_text(drawing)


if __name__ == "__main__":
    write()
