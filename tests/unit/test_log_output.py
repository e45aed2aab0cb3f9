"""Where the log goes: the journal's fields, JSON lines, and what happens if journald is not there."""

from __future__ import annotations

import io
import json
import logging
import os
import re
import socket
import struct
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from nfreaim.core.address import Endpoint, FlowId
from nfreaim.core.firewall.pinhole import Pinhole
from nfreaim.core.helper import Report
from nfreaim.host import events
from nfreaim.host.report.journal import Journal
from nfreaim.host.report.log_output import JournaldHandler, JsonFormatter, QuietFormatter, handler

REPO = Path(__file__).resolve().parents[2]
ALICE = FlowId(Endpoint("10.0.0.5", 40123), Endpoint("203.0.113.9", 7777))
PINHOLE = Pinhole(
    Endpoint("10.0.0.5", 5000), Endpoint("203.0.113.1", 40000), ALICE, b"agreed", "chat", 9.0, protocol="one"
)
LEFT = Report("out", "chat", 1, b"agreed", PINHOLE.inside, PINHOLE.inside, "left", "too many")


def fields(datagram: bytes) -> dict[str, str]:
    """The fields of an entry, as journald reads them (systemd.io/JOURNAL_NATIVE_PROTOCOL)."""
    found, rest = {}, datagram
    while rest:
        line, _, behind = rest.partition(b"\n")
        key, has_value, value = line.partition(b"=")
        if not has_value:
            (size,) = struct.unpack_from("<Q", behind)
            value, behind = behind[8 : 8 + size], behind[8 + size + 1 :]
        found[key.decode()] = value.decode()
        rest = behind
    return found


@pytest.fixture
def journald(tmp_path: Path) -> Iterator[socket.socket]:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listening:
        listening.bind(str(tmp_path / "journal"))
        listening.settimeout(5)
        yield listening


@pytest.fixture
def log() -> Iterator[logging.Logger]:
    """The logger of the product, with handlers of the test's own."""
    found = logging.getLogger("nfreaim")
    level, propagates = found.level, found.propagate
    found.setLevel(logging.INFO)
    found.propagate = False
    before = list(found.handlers)
    yield found
    for one in set(found.handlers) - set(before):
        found.removeHandler(one)
        one.close()
    found.setLevel(level)
    found.propagate = propagates


def lines(text: io.StringIO) -> logging.Handler:
    made = logging.StreamHandler(text)
    made.setFormatter(QuietFormatter("%(levelname)s %(message)s"))
    return made


def test_a_pinholes_life_arrives_with_a_field_for_each_value(
    journald: socket.socket, log: logging.Logger
) -> None:
    text = io.StringIO()
    log.addHandler(JournaldHandler(lines(text), Path(journald.getsockname())))
    journal = Journal()
    journal.opened(replace(PINHOLE, peers=("198.51.100.7",)))
    journal.claimed(PINHOLE, "198.51.100.7")
    journal.closed(PINHOLE, "done")
    journal.reported(ALICE, "one", LEFT)
    opened, claimed, closed, left = (fields(journald.recv(65536)) for _ in range(4))
    assert opened["PRIORITY"] == "6"
    assert opened["SYSLOG_IDENTIFIER"] == "nfreaim"
    assert opened["MESSAGE"].startswith("one: pinhole opened: 203.0.113.1:40000 -> 10.0.0.5:5000 for chat")
    assert opened["NFREAIM_EVENT"] == "pinhole-opened"
    assert (opened["NFREAIM_INSIDE"], opened["NFREAIM_OUTSIDE"]) == ("10.0.0.5:5000", "203.0.113.1:40000")
    assert (opened["NFREAIM_CLIENT"], opened["NFREAIM_SERVER"]) == ("10.0.0.5:40123", "203.0.113.9:7777")
    assert (opened["NFREAIM_PROTOCOL"], opened["NFREAIM_SERVICE"]) == ("one", "chat")
    assert opened["NFREAIM_PEERS"] == claimed["NFREAIM_PEER"] == "198.51.100.7"
    assert closed["NFREAIM_REASON"] == "done"
    assert (left["NFREAIM_ANNOUNCED"], left["NFREAIM_REASON"]) == ("10.0.0.5:5000", "too many")
    ids = [one["MESSAGE_ID"] for one in (opened, claimed, closed, left)]
    assert ids == [kind.message_id for kind in (events.OPENED, events.CLAIMED, events.CLOSED, events.LEFT)]
    assert text.getvalue() == ""
    assert "agreed" not in str((opened, claimed, closed, left))


def test_each_kind_of_event_has_a_message_id_of_its_own() -> None:
    ids = [kind.message_id for kind in events.KINDS]
    assert len(set(ids)) == len(ids) == 11
    assert all(re.fullmatch("[0-9a-f]{32}", one) for one in ids)


def quote() -> None:
    b"secret\xff".decode()


def test_what_has_several_lines_is_one_entry(journald: socket.socket) -> None:
    sending = JournaldHandler(lines(io.StringIO()), Path(journald.getsockname()))
    sending.setFormatter(QuietFormatter("%(message)s"))
    log = logging.Logger("test")
    log.addHandler(sending)
    try:
        quote()
    except ValueError:
        log.exception("a part failed")
    found = fields(journald.recv(65536))
    assert found["PRIORITY"] == "3"
    assert found["MESSAGE"].startswith("a part failed\nTraceback")
    assert found["CODE_LINE"].isdecimal()
    assert found["MESSAGE"].endswith("\nbuiltins.UnicodeDecodeError")
    sending.close()


def test_a_line_that_journald_does_not_take_is_written_to_standard_error(
    journald: socket.socket, log: logging.Logger
) -> None:
    text = io.StringIO()
    sending = JournaldHandler(lines(text), Path(journald.getsockname()))
    log.addHandler(sending)
    written = 0
    while not text.getvalue():  # nobody reads, so some datagrams fill the socket
        log.info("line %d", written)
        written += 1
        assert written < 100_000
    assert text.getvalue() == f"INFO line {written - 1}\n"
    os.unlink(journald.getsockname())
    log.info("nobody is there")
    assert text.getvalue().endswith("INFO nobody is there\n")


def test_a_json_line_has_level_text_event_and_values() -> None:
    record = logging.LogRecord("nfreaim", logging.INFO, "f.py", 1, "hello %s", ("you",), None)
    record.__dict__ |= events.noted(events.CLOSED, {"reason": "done"})
    document = json.loads(JsonFormatter("%(message)s").format(record))
    assert document.pop("time") == round(record.created, 3)
    assert document == {"level": "info", "message": "hello you", "event": "pinhole-closed", "reason": "done"}


@pytest.mark.parametrize(("theirs", "native"), [(False, False), (True, True)])
def test_the_journal_is_used_only_if_standard_error_leads_there(
    theirs: bool, native: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = os.fstat(2)
    stream = f"{found.st_dev}:{found.st_ino + (not theirs)}"
    monkeypatch.setattr(sys, "stderr", open(os.dup(2), "w"))  # noqa: SIM115, closed with the process
    monkeypatch.setenv("JOURNAL_STREAM", stream)
    made = handler("text", "")
    assert isinstance(made, JournaldHandler) is native
    assert not isinstance(handler("json", ""), JournaldHandler)
    made.close()


def test_the_format_is_an_option_of_the_daemon() -> None:
    words = ("run", "--lan", "lo", "--wan", "lo", "--log-format", "xml")
    done = subprocess.run(
        [sys.executable, "-m", "nfreaim", *words], cwd=REPO, capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 2
    assert "text, json" in done.stderr.replace("'", "")
