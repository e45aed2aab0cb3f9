"""One LAN program fills the log: a line for each proposal that gets nothing.

amy's own server (bob) need do nothing. Ten seconds of proposals must not make a thousand lines.
"""

from __future__ import annotations

import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2]))
from tests.attacks.kit import say, verdict

# isort: split
from tests.attacks import network, wire
from tests.lab.scene import scene

SECONDS = 10


def main() -> None:
    with scene() as made:
        lab = made.lab
        network.serve(network.listen(lab, "bob"), network.sink)
        end = network.sign_on(lab, "amy", "bob")
        before = made.daemon.log.stat().st_size
        start, number, sent = time.monotonic(), 2, 0
        while time.monotonic() - start < SECONDS:
            frame = wire.proposal("10.0.0.77", 6000, number & 0xFFFF)
            end.sendall(frame)
            sent += len(frame)
            number += 1
        took = time.monotonic() - start
        time.sleep(1)
        size = (made.daemon.log.stat().st_size - before) / 1e3
        lines = made.daemon.log_text().count("left alone")
        say(f"{sent / 1e3 / took:.0f} KB/s sent; log: {lines} lines, {size:.0f} KB in {took + 1:.0f} s")
        say(made.daemon.log_text().splitlines()[-1])
        end.close()
    each, rate = lines / (took + 1), size / (took + 1)
    text = f"{each:.0f} lines and {rate:.0f} KB a second: {rate * 86400 / 1e6:.1f} GB a day"
    verdict(lines > 1000, text, control=lines > 0)


if __name__ == "__main__":
    main()
