"""The metrics: as promtool wants them, in a file that others may read, and at a port."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import socket
import stat
import subprocess
import sys
import time
import urllib.request
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("prometheus_client")

from prometheus_client import CollectorRegistry, generate_latest

from nfreaim.show.exposition import StatusCollector, write
from tests.unit.shown import answering, document, idle

REPO = Path(__file__).resolve().parents[2]
DASHBOARD = REPO / "packaging" / "grafana" / "nfreaim.json"
WORKERS = [{"number": 1, "queue": 5191, "pid": 77, "flows": 3, "packets": 12}]


def exposed(tmp_path: Path, **changes: Any) -> str:
    registry = CollectorRegistry()
    registry.register(StatusCollector(tmp_path / "status"))
    with answering(tmp_path / "status", document(**changes)):
        return generate_latest(registry).decode()


def test_the_numbers_of_the_status_are_there(tmp_path: Path) -> None:
    text = exposed(tmp_path, workers=WORKERS)
    for line in (
        "nfreaim_up 1.0",
        'nfreaim_build_info{version="0.1.0"} 1.0',
        "nfreaim_uptime_seconds 7384.2",
        'nfreaim_sessions{protocol="oscar",state="established"} 1.0',
        'nfreaim_pinholes{protocol="oscar",service="send-file"} 2.0',
        "nfreaim_pinhole_connections 1.0",
        "nfreaim_peer_bytes_total 900.0",
        'nfreaim_queue_dropped_packets_total{queue="5190",reason="queue_full"} 0.0',
        'nfreaim_worker_packets_total{worker="1"} 12.0',
        "nfreaim_proposals_total 2.0",
        "nfreaim_redirects_left_total 1.0",
        "# HELP nfreaim_proposals_total Messages that announced an address for a peer connection.",
    ):
        assert line in text.splitlines()


def test_a_daemon_that_waits_answers_and_serves_nobody(tmp_path: Path) -> None:
    assert "nfreaim_serving 1.0" in exposed(tmp_path)
    (tmp_path / "status").unlink()
    waits = exposed(tmp_path, **idle())
    assert "nfreaim_up 1.0" in waits
    assert "nfreaim_serving 0.0" in waits


@pytest.mark.skipif(shutil.which("promtool") is None, reason="promtool is absent; apt install prometheus")
def test_promtool_finds_nothing_to_say(tmp_path: Path) -> None:
    text = exposed(tmp_path, workers=WORKERS)
    done = subprocess.run(
        ["promtool", "check", "metrics"], input=text, capture_output=True, text=True, timeout=60
    )
    assert (done.returncode, done.stdout + done.stderr) == (0, "")


def test_the_file_for_the_textfile_collector_is_whole_and_for_all_to_read(tmp_path: Path) -> None:
    file = tmp_path / "nfreaim.prom"
    with answering(tmp_path / "status", document()):
        mask = os.umask(0o077)
        try:
            assert write(tmp_path / "status", file) == 0
        finally:
            os.umask(mask)
    assert stat.S_IMODE(file.stat().st_mode) == 0o644
    assert "nfreaim_up 1.0" in file.read_text()
    (tmp_path / "status").unlink()
    assert write(tmp_path / "status", file) == 3
    assert "nfreaim_up 0.0" in file.read_text()
    assert "nfreaim_packets_total" not in file.read_text()
    assert os.listdir(tmp_path) == ["nfreaim.prom"]


def test_scrapes_are_answered_at_the_port_also_while_no_daemon_is_there(tmp_path: Path) -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    config = tmp_path / "c.toml"
    config.write_text(f'status_socket = "{tmp_path / "status"}"\nmetrics_listen = "127.0.0.1:{port}"\n')
    command = [sys.executable, "-m", "nfreaim", "metrics", "--serve", "--config", str(config)]
    process = subprocess.Popen(command, cwd=REPO, stderr=subprocess.PIPE, text=True)
    try:
        assert process.stderr is not None
        assert f"http://127.0.0.1:{port}/metrics" in process.stderr.readline()
        assert "nfreaim_up 0.0" in scraped(port)
        with answering(tmp_path / "status", document()):
            assert "nfreaim_up 1.0" in scraped(port)
        process.send_signal(signal.SIGTERM)
        assert process.wait(20) == 0
    finally:
        process.kill()
        process.wait()


def scraped(port: int) -> str:
    deadline = time.monotonic() + 20
    while True:
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=10) as answer:
                return str(answer.read().decode())
        except OSError:
            if time.monotonic() > deadline:
                raise


def test_serving_is_off_unless_an_address_is_set(tmp_path: Path) -> None:
    config = tmp_path / "c.toml"
    config.write_text("")
    command = [sys.executable, "-m", "nfreaim", "metrics", "--serve", "--config", str(config)]
    done = subprocess.run(command, cwd=REPO, capture_output=True, text=True, timeout=60)
    assert done.returncode == 2
    assert f"{config}: metrics_listen is not set" in done.stderr


def test_the_dashboard_asks_for_metrics_that_exist(tmp_path: Path) -> None:
    queue = {"number": 1, "waiting": 0, "dropped_full": 0, "dropped_socket": 0, "seen": 0}
    text = exposed(tmp_path, workers=WORKERS, queues=[queue])
    there = set(re.findall(r"^(nfreaim_\w+)", text, re.MULTILINE))
    panels = json.loads(DASHBOARD.read_text())["panels"]
    asked = {name for panel in panels for one in panel["targets"] for name in named(one["expr"])}
    assert len(asked) > 8
    assert asked <= there


def named(expression: str) -> list[str]:
    return re.findall(r"nfreaim_\w+", expression)
