"""Which packet filter the rules' script takes where somebody has named one, in which order. No root."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from nfreaim.config import Config, load
from nfreaim.exit_status import Exit
from nfreaim.host.rules import script
from nfreaim.host.rules.script import Settings
from tests.reachable import REPO

SHELLS = [["/bin/sh"], *([found] for name in ("dash",) if (found := shutil.which(name)))]
SHELLS += [[found, "sh"] for name in ("busybox",) if (found := shutil.which(name))]


@pytest.fixture
def settings(tmp_path: Path) -> Path:
    """The path of a configuration, which a test may write; it is not the usual one."""
    return tmp_path / "nfreaim.toml"


def asked(
    settings: Path, *words: str, environment: str | None = None, shell: list[str] = SHELLS[0]
) -> subprocess.CompletedProcess[str]:
    variables = {name: value for name, value in os.environ.items() if name != "NFREAIM_FIREWALL"}
    variables |= {"NFREAIM_SETTINGS": str(settings), "NFREAIM_PYTHON": sys.executable}
    if environment is not None:
        variables["NFREAIM_FIREWALL"] = environment
    command = [*shell, str(script.path()), "firewall", *words]
    return subprocess.run(command, env=variables, capture_output=True, text=True, timeout=30)


def taken(settings: Path, *words: str, environment: str | None = None) -> str:
    done = asked(settings, *words, environment=environment)
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout.strip()


@pytest.mark.parametrize("shell", SHELLS, ids=" ".join)
@pytest.mark.parametrize(
    "text",
    [
        "NFREAIM_FIREWALL=nft\n",
        'NFREAIM_FIREWALL="nft"\n',
        "NFREAIM_FIREWALL='nft'\n",
        " NFREAIM_FIREWALL = nft \n",
        "NFREAIM_FIREWALL=nft",
        "NFREAIM_FIREWALL=nft\r\n",
        'NFREAIM_ARGS="--lan br-lan --wan eth0"\nNFREAIM_FIREWALL=nft\nOTHER=1\n',
        "NFREAIM_FIREWALL=legacy\nNFREAIM_FIREWALL=nft\n# NFREAIM_FIREWALL=legacy\n",
        "#NFREAIM_FIREWALL=legacy\n;NFREAIM_FIREWALL=legacy\nNFREAIM_FIREWALL=nft\n",
    ],
)
def test_what_an_installation_has_written_counts_without_any_environment(
    settings: Path, text: str, shell: list[str]
) -> None:
    """Units have the file in their environment; whoever runs a command in a shell has not."""
    settings.with_name("rules.env").write_text(text)
    done = asked(settings, shell=shell)
    assert (done.returncode, done.stdout, done.stderr) == (0, "nft\n", "")


def test_each_place_comes_before_the_next(settings: Path) -> None:
    settings.with_name("rules.env").write_text("NFREAIM_FIREWALL=nft\n")
    assert taken(settings) == "nft"
    assert taken(settings, environment="") == "nft"
    assert taken(settings, environment="legacy") == "legacy"
    settings.write_text('firewall = "nft"\n')
    assert taken(settings, environment="legacy") == "nft"
    assert taken(settings, "--firewall", "auto", environment="legacy") == "nft"
    assert taken(settings, "--firewall", "legacy", environment="nft") == "legacy"
    settings.write_text('firewall = "auto"\n')
    assert taken(settings, environment="legacy") == "legacy"


@pytest.mark.parametrize("environment", [None, "iptables"])
def test_a_name_that_is_none_is_refused_with_the_place_where_it_stands(
    settings: Path, environment: str | None
) -> None:
    file = settings.with_name("rules.env")
    file.write_text("NFREAIM_FIREWALL=iptables\n")
    done = asked(settings, environment=environment)
    place = f"NFREAIM_FIREWALL in {file}" if environment is None else "NFREAIM_FIREWALL"
    assert (done.returncode, done.stdout) == (Exit.MISUSED, "")
    assert done.stderr == f"nfreaim-rules: {place} is auto, legacy or nft, not 'iptables'\n"


def test_the_program_lets_the_script_look_beside_its_own_configuration(
    settings: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("NFREAIM_FIREWALL", raising=False)
    settings.write_text('lan = ["lan0"]\nwan = ["wan0"]\n')
    settings.with_name("rules.env").write_text("NFREAIM_FIREWALL=nft\n")
    found = Settings.of(load(settings))
    assert script.chosen(found) == "nft"
    assert found == Settings.of(Config(lan=("lan0",), wan=("wan0",))), "the same rules, whatever names them"
    settings.write_text('firewall = "legacy"\n')
    assert script.chosen(Settings.of(load(settings))) == "legacy"
    other = Settings(("a",), ("b",), {"one": (5190,)}, 7, firewall="auto")
    assert script.chosen(other.completed(Settings.of(Config(file=str(settings))))) == "legacy"


@pytest.mark.parametrize("private", [False, True], ids=["checkout", "private folder"])
def test_the_program_is_the_one_that_asks(settings: Path, tmp_path: Path, private: bool) -> None:
    """Its Python does not know nfreaim by itself: a package's is in a folder of its own."""
    python = Path(sys.base_prefix, "bin", "python3")
    found = subprocess.run([python, "-P", "-c", "import nfreaim"], capture_output=True, timeout=30)
    assert found.returncode != 0, "nfreaim is not installed beside this Python"
    place = REPO
    if private:
        place = tmp_path / "lib"
        shutil.copytree(REPO / "nfreaim", place / "nfreaim")
        shutil.copytree(REPO / "rules", place / "nfreaim" / "rules")
    settings.write_text('firewall = "nft"\n')
    asking = (
        f"import sys; sys.path.insert(0, {str(place)!r}); from nfreaim.host.rules import script;"
        f" done = script.run(['firewall'], {str(settings)!r}); print(done.stdout + done.stderr, end='')"
    )
    done = subprocess.run([python, "-I", "-c", asking], capture_output=True, text=True, timeout=60, cwd="/")
    assert (done.stdout, done.stderr) == ("nft\n", "")
