"""ICQ's frames as real clients and servers sent them: ../shared/pcaps/icq-dcinfo.hex, where it exists."""

from pathlib import Path

import pytest

from pcaps.scenes import Scene
from tests.replay.played import SHARED, play
from tests.tcp.captures import read_frames, streams, write_pcap

FRAMES = SHARED / "icq-dcinfo.hex"
HOST, OUTSIDE = "10.10.10.8", "203.0.113.1"
pytestmark = pytest.mark.skipif(not FRAMES.is_file(), reason=f"{FRAMES} is absent")


def frames() -> dict[str, tuple[str, bytes]]:
    """Direction and bytes of each frame, by name."""
    lines = [line.split("\t") for line in FRAMES.read_text().splitlines() if line and line[0] != "#"]
    return {name: (way, bytes.fromhex(data)) for name, way, _, _, data in lines}


def left(name: str, folder: Path) -> tuple[bytes, bytes, list[dict[str, object]]]:
    """The bytes of that frame, behind a sign-on, before and after; and what was reported."""
    way, data = frames()[name]
    scene = Scene(expected=False)
    client = scene.sign_on(HOST, 49000)
    client.say(data) if way == "c2s" else client.hear(data)
    client.close()
    source, target = folder / "in.pcap", folder / "out.pcap"
    write_pcap(source, scene.frames)
    result = play(source, target, f"{HOST}/32", OUTSIDE)
    # The frame is the last thing its side says. Its sequence number is the scene's.
    port = 5190 if way == "s2c" else 49000
    before, after = (
        next(data for key, data in streams(read_frames(path)).items() if key[1] == port)[-len(data) :]
        for path in (source, target)
    )
    assert before[4:] == data[4:]
    return before, after, result.as_dict()["messages"]


@pytest.mark.parametrize(
    ("name", "at", "port"), [("self-status-dc-1", 34, 9772), ("self-status-dc-2", 28, 20260)]
)
def test_the_two_that_publish_an_endpoint(name: str, at: int, port: int, tmp_path: Path) -> None:
    before, after, messages = left(name, tmp_path)
    assert before[at : at + 8] == bytes((10, 10, 10, 8)) + port.to_bytes(4)
    assert after == before[:at] + bytes((203, 0, 113, 1)) + before[at + 4 :]
    (message,) = messages
    assert message["service"] == "icq-direct"
    assert (message["before"], message["after"]) == (f"{HOST}:{port}", f"{OUTSIDE}:{port}")


@pytest.mark.parametrize(
    "name", ["self-status-no-dc", "buddy-online-dc", "buddy-online-dc-hidden-1", "buddy-online-dc-hidden-2"]
)
def test_the_others_stay(name: str, tmp_path: Path) -> None:
    before, after, messages = left(name, tmp_path)
    assert (after, messages) == (before, [])
