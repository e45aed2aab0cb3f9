"""`nfreaim record` on a running router: what it writes tells the story, and holds no secret."""

from __future__ import annotations

import random
import stat
import subprocess
import sys

import pytest

from tests.lab.net import lab_available
from tests.lab.scene import eventually, scene
from tests.lab.server import PASSWORD
from tests.lab.standin import Transfer

pytestmark = [
    pytest.mark.lab,
    pytest.mark.skipif(lab_available() is not None, reason=lab_available() or ""),
]

TEXT = "a text that is nobody else's business"


def test_recording_of_a_transfer_tells_how_it_went_and_holds_no_secret() -> None:
    with scene() as made:
        path, log = made.lab.dir / "transfer.pcapng", made.lab.log_file("record")
        words = (sys.executable, "-m", "nfreaim", "record", str(path), "--lan", "lan", "--wan", "wan")
        recorder = made.lab.spawn("A", *words, log=log)
        eventually(lambda: "end it with Ctrl-C" in log.read_text())
        alice, bob = made.clients(made.server(), ("alice", "Wonder Girl", 5200), ("bob", "Bobby Tables"))
        # As a user does who is asked first. The recorder gets a peer's packets once it has read the offer.
        bob.call("policy", action="accept", delay=0.5)
        size, seed = 40_000, 7
        assert Transfer(alice, bob, "file", size=size, seed=seed).outcome().first_attempt
        assert Transfer(alice, bob, "im", text=TEXT).outcome().ok
        recorder.terminate()
        assert recorder.wait(15) == 0, log.read_text()
        assert "lost" not in log.read_text()
        raw = path.read_bytes()
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
        content = random.Random(seed).randbytes(size)
        secrets = [TEXT, PASSWORD, "Wonder", "Girl", "Bobby", "Tables"]
        secrets += [text.lower() for text in secrets] + [text.replace(" ", "").lower() for text in secrets]
        for secret in {*secrets, alice.name, bob.name}:
            for coding in ("utf-8", "utf-16-be", "utf-16-le"):
                assert secret.encode(coding) not in raw, (secret, coding)
        for start in range(0, size, 500):
            assert content[start : start + 8] not in raw
        assert b"OFT2" in raw, "the greeting of the peer's connection stays"
        told = subprocess.run(
            [sys.executable, "-m", "nfreaim", "explain", str(path), "--width", "200"],
            capture_output=True,
            text=True,
            timeout=60,
        )
    assert told.returncode == 0, told.stderr
    assert "Both sides of the router: inside 10.0.0.0/24, outside address 203.0.113.1." in told.stdout
    assert "becomes 203.0.113.1:5200" in told.stdout
    met = "203.0.113.20 connected to 203.0.113.1:5200, which the router led to 10.0.0.5:5200"
    assert told.stdout.count(met) == 2, told.stdout
    assert "✗" not in told.stdout, told.stdout
