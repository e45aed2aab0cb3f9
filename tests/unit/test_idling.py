"""A daemon that waits for interfaces: how it begins, what it says meanwhile, and what a reload does."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from nfreaim.config import Config
from nfreaim.errors import BackendError, ConfigError
from nfreaim.exit_status import Exit
from nfreaim.host import reload_command
from nfreaim.host.auto import idling
from nfreaim.host.auto.auto_interfaces import Interfaces, Unclear
from nfreaim.host.loop import clock
from nfreaim.host.report import status
from nfreaim.host.service_manager import ServiceManager
from tests.unit.router_stage import Seen, Stage


@pytest.fixture
def stage(monkeypatch: pytest.MonkeyPatch) -> Stage:
    monkeypatch.setattr(idling, "_LOOK_EVERY_S", 0.02)
    return Stage(monkeypatch)


@pytest.fixture
def config(tmp_path: Path) -> Config:
    return Config(status_socket=tmp_path / "status", file="F")


def test_the_daemon_waits_until_there_are_interfaces(
    stage: Stage, config: Config, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    told: list[str] = []
    monkeypatch.setattr(ServiceManager, "_tell", lambda _, line: told.append(line))
    seen: list[Seen] = [Unclear("first")] * 5
    looks = iter([*seen, BackendError("second"), Interfaces(("br-lan",), "eth0")])
    files: Iterator[Config | ConfigError] = iter([config, ConfigError("third"), ConfigError("third")])

    def settings() -> Config:
        stage.found = next(looks)
        found = next(files, config)
        if isinstance(found, ConfigError):
            raise found
        return found

    caplog.set_level("INFO")
    found = idling.until_named(settings, ServiceManager({}))
    assert found is not None
    assert (found.lan, found.wan) == (("br-lan",), ("eth0",))
    said = [record.getMessage() for record in caplog.records]
    assert [text for text in said if "first" in text] == said[:1], "said once"
    assert said[1] == "third"
    assert "none were found: second; " in said[2]
    assert said[3:] == ["interfaces: br-lan towards clients, eth0 towards the Internet"]
    assert told[0].startswith("STATUS=Idle: nobody is served")
    assert "READY=1" in told
    assert not config.status_socket.exists()


def test_settings_that_are_wrong_from_the_start_are_not_waited_for(stage: Stage) -> None:
    def wrong() -> Config:
        raise ConfigError("wrong")

    with pytest.raises(ConfigError):
        idling.until_named(wrong, ServiceManager({}))


def test_what_is_there_at_once_needs_no_socket(stage: Stage, config: Config) -> None:
    stage.found = Interfaces(("br-lan",), "eth0")
    config.status_socket.write_text("of somebody else")  # the socket would be refused
    assert idling.until_named(lambda: config, ServiceManager({})) is not None
    stage.found = Unclear("it is none")
    with pytest.raises(BackendError, match="exists and is no socket"):
        idling.until_named(lambda: config, ServiceManager({}))


def beside(config: Config, ask: Callable[[], object]) -> list[object]:
    """What *ask* returns beside a daemon that waits, which SIGTERM ends afterwards."""
    answers: list[object] = []

    def work() -> None:
        while not config.status_socket.exists() or status.fetch(config.status_socket) is None:
            pass
        try:
            answers.append(ask())
        except (ConfigError, BackendError) as error:
            answers.append(error)
        os.kill(os.getpid(), signal.SIGTERM)

    asking = threading.Thread(target=work)
    asking.start()
    assert idling.until_named(lambda: config, ServiceManager({})) is None
    asking.join()
    assert not config.status_socket.exists()
    return answers


def test_the_status_has_the_usual_keys_and_says_why_nobody_is_served(stage: Stage, config: Config) -> None:
    stage.found = Unclear("it forwards nothing", ("br-lan",), "")
    (document,) = beside(config, lambda: status.fetch(config.status_socket))
    assert isinstance(document, dict)
    assert document["running"] is True
    assert document["idle"] == {
        "why": "it forwards nothing",
        "file": "F",
        "lan": ["br-lan"],
        "wan": ["eth0"],
    }
    assert document["carried"] == {"connections": 0, "packets": 0, "bytes": 0}
    assert document["interfaces"] == {"lan": [], "wan": [], "changed": ""}


def test_a_reload_says_what_it_waits_for(
    stage: Stage, config: Config, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(idling, "_LOOK_EVERY_S", 3600.0)  # so that the reload alone has it look

    def ask() -> int:
        stage.found = Unclear("another reason")
        return reload_command.main(config.status_socket)

    assert beside(config, ask) == [Exit.FINE]
    assert (
        "nobody is served yet: another reason; if this is a router, write into F:" in capsys.readouterr().out
    )


class Daemon:
    """Its answers to `reload`, one for each time that it is asked; and the signals that it was sent."""

    def __init__(
        self, monkeypatch: pytest.MonkeyPatch, *answers: status.Document | BackendError | None
    ) -> None:
        self.signals: list[int] = []
        self.lives = True
        self._answers = list(answers)
        monkeypatch.setattr(reload_command, "_process", lambda path: 7)
        monkeypatch.setattr(reload_command, "_ASK_EVERY_S", 0.0)
        monkeypatch.setattr(status, "fetch", self._fetch)
        monkeypatch.setattr(os, "kill", self._kill)

    def _fetch(self, path: Path) -> status.Document | None:
        found = self._answers.pop(0) if len(self._answers) > 1 else self._answers[0]
        if isinstance(found, BackendError):
            raise found
        if found is not None and found["reload"]["at"] == "now":
            return {**found, "reload": {**found["reload"], "at": clock()}}
        return found

    def _kill(self, process: int, number: int) -> None:
        assert process == 7
        if number:
            self.signals.append(number)
        elif not self.lives:
            raise ProcessLookupError


def told(idle: bool, at: str | None, restart: list[str] | None = None) -> status.Document:
    waits = {"why": "x", "file": "F", "lan": ["a"], "wan": ["b"]} if idle else None
    reload = {"at": at, "error": "", "restart": restart or []}
    return {"idle": waits, "reload": reload, "interfaces": {"lan": ["br-lan"], "wan": ["eth0"]}}


def test_one_that_begins_to_serve_is_asked_again_because_it_may_have_read_an_older_file(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    gone = (None, BackendError("the daemon stopped in mid-answer"), None)
    serves = told(False, None)
    daemon = Daemon(monkeypatch, told(True, None), *gone, serves, serves, told(False, "now", ["queue"]))
    assert reload_command.main(Path("x")) == Exit.FINE
    assert daemon.signals == [signal.SIGHUP] * 2
    assert capsys.readouterr().out == (
        "the daemon serves now: br-lan towards clients, eth0 towards the Internet\n"
        "queue: in force only after a restart (systemctl restart nfreaim)\n"
    )


def test_one_that_ends_instead_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    Daemon(monkeypatch, told(True, None), None).lives = False
    with pytest.raises(BackendError, match="ended; its log says why"):
        reload_command.main(Path("x"))


def test_only_the_metrics_have_a_unit_of_their_own() -> None:
    assert reload_command.unit_of("metrics_listen") == "nfreaim-metrics"
    assert reload_command.unit_of("upstream") == "nfreaim"
