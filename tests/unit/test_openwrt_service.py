"""The init script of the OpenWrt package, run with a stand-in for procd and for OpenWrt's shell functions."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

REPO = Path(__file__).resolve().parents[2]
FILES = REPO / "packaging" / "openwrt" / "nfreaim" / "files"
STUB = Path(__file__).with_name("openwrt_stub.sh")
SHELLS = [
    pytest.param(["/bin/sh"], id="sh"),
    pytest.param(
        ["busybox", "ash"],
        id="busybox",
        marks=pytest.mark.skipif(shutil.which("busybox") is None, reason="apt install busybox"),
    ),
]
WRITTEN = {"firewall": "nft", "protocols": ["oscar"]}
RUN = "nfreaim run --config {root}/var/etc/nfreaim.toml --lan br-lan --wan pppoe-wan"
REMOVE = "nfreaim rules remove --reset --config {root}/var/etc/nfreaim.toml"


class Router:
    """A directory that looks like an OpenWrt router to the init script."""

    def __init__(self, root: Path, shell: list[str]) -> None:
        self.root, self.shell = root, shell
        for name in ("bin", "lib/functions", "etc/config", "var/run", "run", "networks"):
            (root / name).mkdir(parents=True)
        text = (FILES / "nfreaim.init").read_text()
        for place in ("/var/", "/etc/config/", "/lib/functions/", "/run/nfreaim"):
            text = text.replace(f"={place}", f"={root}{place}").replace(f" {place}", f" {root}{place}")
        self.script = root / "nfreaim.init"
        self.script.write_text(text)
        (root / "lib/functions/network.sh").write_text(
            "network_flush_cache() { :; }\n"
            'network_get_device() { eval "$1=$(cat "$ROOT/networks/$2" 2>/dev/null)"; }\n'
        )
        self.program("nfreaim", 'echo "nfreaim $*" >>"$ROOT/procd"')
        self.program("nfreaim-rules", 'echo "nfreaim-rules $*" >>"$ROOT/procd"')
        self.program("logger", 'shift 4; echo "$*" >>"$ROOT/log"')
        self.program("python3", f'cd {REPO} && exec {sys.executable} "$@"')
        self.configure((FILES / "nfreaim.config").read_text().replace("enabled '0'", "enabled '1'"))
        self.up(lan="br-lan", wan="pppoe-wan")

    def program(self, name: str, text: str) -> None:
        path = self.root / "bin" / name
        path.write_text(f"#!/bin/sh\n{text}\n")
        path.chmod(0o755)

    def configure(self, text: str) -> None:
        (self.root / "etc/config/nfreaim").write_text(text)

    def up(self, **networks: str) -> None:
        for name, device in networks.items():
            (self.root / "networks" / name).write_text(device)

    def down(self, network: str) -> None:
        (self.root / "networks" / network).unlink()

    def call(self, action: str) -> list[str]:
        """What procd was told, and which programs ran."""
        (self.root / "procd").write_text("")
        environment = os.environ | {"ROOT": str(self.root), "PATH": f"{self.root}/bin:{os.environ['PATH']}"}
        command = [*self.shell, str(STUB), str(self.script), action]
        done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60)
        assert "not found" not in done.stderr, done.stderr
        return (self.root / "procd").read_text().splitlines()

    def log(self) -> str:
        path = self.root / "log"
        return path.read_text() if path.exists() else ""


@pytest.fixture(params=SHELLS)
def router(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Router]:
    router = Router(tmp_path, request.param)
    try:
        yield router
    finally:
        with suppress(OSError, ValueError):
            os.kill(int((tmp_path / "var/run/nfreaim.pid").read_text()), 15)


def test_a_package_that_was_just_installed_does_nothing(router: Router) -> None:
    router.configure((FILES / "nfreaim.config").read_text())
    told = router.call("start")
    assert "instance" not in told
    assert not [line for line in told if line.startswith("nfreaim")]
    assert "trigger config nfreaim" in told, "a change of the configuration has to be noticed"


def test_start_installs_the_rules_and_then_hands_the_daemon_to_procd(router: Router) -> None:
    told = router.call("start")
    run = RUN.format(root=router.root)
    rules = run.replace(" run ", " rules install ")
    assert told.index(rules) < told.index("instance") < told.index(f"command {run}")
    for line in (
        f"pidfile {router.root}/var/run/nfreaim.pid",
        "limits core=0",
        "no_new_privs 1",
        "stderr 1",
        "instance closed",
        "trigger config nfreaim",
        "trigger interface lan",
        "trigger interface wan",
    ):
        assert line in told
    assert tomllib.loads((router.root / "var/etc/nfreaim.toml").read_text()) == WRITTEN


def test_without_an_outside_network_it_waits_for_one(router: Router) -> None:
    router.down("wan")
    told = router.call("start")
    assert "instance" not in told
    assert "trigger interface wan" in told
    assert "waiting for an inside and an outside network; not up: wan" in router.log()
    router.up(wan="pppoe-wan")
    assert f"command {RUN.format(root=router.root)}" in router.call("reload")


def test_a_network_that_comes_and_goes_under_its_name_disturbs_nothing(router: Router) -> None:
    router.call("start")
    router.down("wan")
    assert router.call("reload") == []
    router.up(wan="pppoe-wan")
    assert router.call("reload") == []


def test_one_of_two_outside_networks_that_goes_does_not_end_the_daemon(router: Router) -> None:
    text = (router.root / "etc/config/nfreaim").read_text()
    router.configure(text.replace("list wan 'wan'", "list wan 'wan'\n\tlist wan 'lte'"))
    router.up(lte="wwan0")
    assert [line for line in router.call("start") if line.endswith("--wan pppoe-wan --wan wwan0")]
    router.down("lte")
    assert router.call("reload") == []


def test_another_device_or_setting_starts_the_daemon_again_and_keeps_the_rules(router: Router) -> None:
    router.call("start")
    router.up(wan="eth1")
    told = router.call("reload")
    (new,) = (line for line in told if line.startswith("command "))
    assert new.endswith("--lan br-lan --wan eth1")
    assert told.index("daemon ended") < told.index(
        new.replace("command ", "").replace(" run ", " rules install ")
    )
    assert REMOVE.format(root=router.root) not in told
    text = (router.root / "etc/config/nfreaim").read_text()
    router.configure(text + "\nconfig irc\n\tlist ports '6667'\n")
    assert "kill nfreaim" in router.call("reload")
    assert router.call("reload") == []


def test_a_wrong_setting_is_told_and_the_running_daemon_keeps_its_own(router: Router) -> None:
    router.call("start")
    text = (router.root / "etc/config/nfreaim").read_text()
    router.configure(text + "\nconfig pinholes\n\toption total 'many'\n")
    for action in ("reload", "restart"):
        assert router.call(action) == []
        assert "pinholes.total = 'many': must be a whole number" in router.log()
    assert tomllib.loads((router.root / "var/etc/nfreaim.toml").read_text()) == WRITTEN


def test_stop_removes_the_rules_after_the_daemon_has_ended(router: Router) -> None:
    router.call("start")
    told = router.call("stop")
    assert (
        told.index("kill nfreaim") < told.index("daemon ended") < told.index(REMOVE.format(root=router.root))
    )


def test_restart_keeps_the_rules(router: Router) -> None:
    router.call("start")
    told = router.call("restart")
    assert REMOVE.format(root=router.root) not in told
    assert told.index("daemon ended") < told.index(f"command {RUN.format(root=router.root)}")


def test_switched_off_in_the_configuration_it_stops_and_leaves_nothing(router: Router) -> None:
    router.call("start")
    router.configure((FILES / "nfreaim.config").read_text())
    told = router.call("reload")
    assert told.index("daemon ended") < told.index(REMOVE.format(root=router.root))
    assert "instance" not in told


def test_a_start_that_is_refused_is_in_the_log(router: Router) -> None:
    router.program("nfreaim", "echo 'nfreaim: the kernel refused' >&2; exit 1")
    assert "instance" not in router.call("start")
    assert router.log().splitlines()[-1] == "the kernel refused"


def test_rules_that_nfreaim_cannot_remove_the_script_does_or_says_why(router: Router) -> None:
    router.call("start")
    router.program("nfreaim", "exit 1")
    assert "nfreaim-rules remove" in router.call("stop")
    router.program("nfreaim-rules", "echo 'nfreaim-rules: connections wait' >&2; exit 1")
    router.call("stop")
    assert router.log().splitlines()[-1] == "connections wait"


@pytest.mark.skipif(shutil.which("shellcheck") is None, reason="shellcheck is absent; apt install shellcheck")
def test_init_script_is_free_of_what_shellcheck_finds() -> None:
    for path in (FILES / "nfreaim.init", STUB):
        command = ["shellcheck", "-s", "dash", "-e", "SC1090", str(path)]
        done = subprocess.run(command, capture_output=True, text=True, timeout=60)
        assert done.stdout == ""
