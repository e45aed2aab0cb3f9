"""`make vm-test` as far as it goes without a virtual machine: recipes, verdicts, the table, refusals."""

from __future__ import annotations

import ast
import datetime
import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.documents import PAGES, blocks
from tests.vm import images, machines, run, table
from tests.vm.images import BUILDER, SUITES, Image, ImageError
from tests.vm.rows import INSTALL, ROWS, chosen
from tests.vm.table import FAILED, NOT_RUN, PASSED, Column, Result

REPO = Path(__file__).resolve().parents[2]
HERE = REPO / "tests" / "vm"
OLD, NEW = Column("bookworm", "6.1.0-50-amd64"), Column("trixie", "7.3.4+deb13-amd64")


def name(builder: str = "text", suite: str = "trixie", **changes: str) -> str:
    return images.name_of(SUITES[suite], {**images.recipe(SUITES[suite], {}), **changes}, builder)


def test_an_image_has_another_name_when_its_recipe_changes() -> None:
    assert name() == name()
    others = [name("other"), name(suite="bookworm"), name(PACKAGES="udev"), name(REQUIREMENTS="scapy")]
    assert len({name(), *others}) == 5
    assert name(MIRROR="http://localhost", WHEELS="/wheels") == name(), "the same, from elsewhere"


def test_images_are_kept_outside_of_the_tree() -> None:
    assert images.cache({}) == Path("/var/cache/nfreaim-vm")
    assert images.cache({"XDG_CACHE_HOME": "/home/x/.cache"}) == Path("/home/x/.cache/nfreaim-vm")
    assert images.cache({"VM_CACHE": "/big", "XDG_CACHE_HOME": "/home/x/.cache"}) == Path("/big")
    assert images.cache({"VM_CACHE": ""}) == Path("/var/cache/nfreaim-vm"), "as make exports it"


def test_an_image_holds_what_users_need_and_what_runs_the_tests() -> None:
    project = """
        build-system.requires = ["hatchling>=1"]
        [project]
        dependencies = ["scapy>=2"]
        optional-dependencies.top = ["rich>=13"]
        optional-dependencies.metrics = ["prometheus-client"]
        optional-dependencies.upstream = ["miniupnpc"]
        optional-dependencies.dev = ["nfreaim[top]", "mypy", "pytest>=8", "pytest-timeout"]
    """
    wanted = [
        "scapy>=2",
        "rich>=13",
        "prometheus-client",
        "miniupnpc",
        "pytest>=8",
        "pytest-timeout",
        "hatchling>=1",
    ]
    assert images.requirements(project) == wanted


def test_kernels_are_told_from_other_files_and_ordered_by_their_numbers() -> None:
    names = [
        "vmlinuz-6.12.9-amd64",
        "root.ext4",
        "vmlinuz-7.3.4-amd64",
        "initrd.img-6.2.0-amd64",
        "vmlinuz-6.2.0-amd64",
    ]
    assert images.kernels(names) == ("6.2.0-amd64", "6.12.9-amd64", "7.3.4-amd64")


@pytest.fixture
def builder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """In place of the builder, without what needs root."""
    made = tmp_path / "builder"
    real = subprocess.run

    def without_namespace(words: list[str], **options: object) -> object:
        return real(words[words.index("sh") :], **options)  # type: ignore[call-overload]

    monkeypatch.setattr(images, "BUILDER", made)
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    monkeypatch.setattr(subprocess, "run", without_namespace)
    return made


def test_an_image_is_built_once_and_replaces_those_of_earlier_recipes(builder: Path, tmp_path: Path) -> None:
    place = tmp_path / "cache"
    builder.write_text(
        'echo "$1" >>"$2/../../built"; mkdir -p "$2"; touch "$2/vmlinuz-6.1"\n'.replace(
            "$2/../..", str(tmp_path)
        )
    )
    first = images.ensure(SUITES["bookworm"], place)
    assert first.kernels == ("6.1",)
    assert images.ensure(SUITES["bookworm"], place) == first
    assert (tmp_path / "built").read_text() == "bookworm\n"
    builder.write_text(f"{builder.read_text()}# another recipe\n")
    second = images.ensure(SUITES["bookworm"], place)
    assert second.folder != first.folder
    assert [path for path in place.iterdir() if path.is_dir()] == [second.folder]


def test_a_build_that_fails_leaves_no_image_and_says_what_it_needs(builder: Path, tmp_path: Path) -> None:
    builder.write_text('mkdir -p "$2"; echo "E: Failed getting release file"; exit 1\n')
    with pytest.raises(
        ImageError, match=r"Failed getting release file\nit needs a mirror of Debian \(VM_MIRROR=URL\)"
    ):
        images.ensure(SUITES["bookworm"], tmp_path)
    assert [path for path in tmp_path.iterdir() if path.is_dir()] == []


def test_only_root_builds(builder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    builder.write_text("exit 1\n")
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    with pytest.raises(ImageError, match="only root can build it: sudo make vm-test"):
        images.ensure(SUITES["bookworm"], tmp_path)


def test_without_qemu_it_names_the_remedy(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(
        shutil, "which", lambda program, path: None if "qemu" in program else f"/bin/{program}"
    )
    assert run.main([]) == 2
    assert capsys.readouterr().err == "vm-test needs qemu-system-x86: sudo apt-get install qemu-system-x86\n"


def test_each_way_to_call_it_reaches_its_function(monkeypatch: pytest.MonkeyPatch) -> None:
    called: list[object] = []
    monkeypatch.setattr(images, "missing", list)

    def noted(status: int) -> Callable[..., int]:
        def note(*given: object) -> int:
            called.append(given)
            return status

        return note

    monkeypatch.setattr(run, "everything", noted(3))
    monkeypatch.setattr(run, "lab", noted(0))
    monkeypatch.delenv("VM_JOBS", raising=False)
    assert run.main([]) == 1, "three rows failed"
    assert run.main(["--jobs", "1", "--rows", "flowtables", "VLAN"]) == 1
    assert run.main(["--lab", "--", "tests/lab/test_irc.py", "-k", "chat"]) == 0
    rows = ["flowtables", "VLAN"]
    assert called == [(2, [], run.LIMIT), (1, rows, run.LIMIT), (["tests/lab/test_irc.py", "-k", "chat"],)]


def test_no_machine_is_started_without_an_end(tmp_path: Path) -> None:
    image = Image("bookworm", tmp_path, ("6.1",))
    with pytest.raises(machines.MachineError, match="no time left"):
        machines.Machine(image, "6.1", 0.4, tmp_path / "console").__enter__()


def test_emulation_where_kvm_cannot_be_used(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    image = Image("bookworm", tmp_path, ("6.1",))
    for usable, accelerated in (True, machines.ACCELERATED), (False, machines.EMULATED):
        machines.acceleration.cache_clear()
        monkeypatch.setattr(os, "access", lambda path, mode: True)
        monkeypatch.setattr(machines, "_starts_with_kvm", lambda image, usable=usable: usable)
        monkeypatch.delenv("VM_ACCEL", raising=False)
        assert machines.acceleration(image) == accelerated
    machines.acceleration.cache_clear()
    monkeypatch.setenv("VM_ACCEL", "kvm")
    assert machines.acceleration(image) == machines.ACCELERATED, "as it was told"
    machines.acceleration.cache_clear()


@pytest.mark.parametrize(
    ("status", "said", "word"),
    [
        (0, "=== 3 passed in 12.31s ===", PASSED),
        (0, "3 passed, 11 deselected in 95.03s (0:01:35)", PASSED),
        (0, "=== 1 xfailed in 2.00s ===", FAILED),
        (0, "=== 1 skipped in 2.00s ===", FAILED),
        (0, "=== 2 passed, 1 skipped in 2.00s ===", FAILED),
        (1, "=== 1 failed, 2 passed in 2.00s ===", FAILED),
        (5, "=== no tests ran in 0.10s ===", FAILED),
        (0, "", FAILED),
        (124, "=== 3 passed in 12.31s ===\nno end after 300 s", FAILED),
    ],
)
def test_a_row_passes_only_if_all_of_it_ran_and_passed(status: int, said: str, word: str) -> None:
    assert table.verdict(status, said) == word


def test_the_table_has_a_line_for_each_row_and_a_column_for_each_kernel() -> None:
    results = {
        ("install", OLD): Result(PASSED, 61.4),
        ("install", NEW): Result(FAILED, 300.0),
        ("flowtables", NEW): Result(NOT_RUN),
    }
    cells = table.table(["install", "flowtables"], results)
    assert table.plain(cells) == (
        "            Debian 12, 6.1.0-50-amd64  Debian 13, 7.3.4+deb13-amd64\n"
        "install     passed, 61 s               failed, 300 s\n"
        "flowtables                             not run\n"
    )
    page = table.page(cells, datetime.date(2026, 5, 1), "0.1.0", False, 1500.0)
    assert "Last run: 2026-05-01, nfreaim 0.1.0, emulated" in page
    assert "|  | Debian 12, 6.1.0-50-amd64 | Debian 13, 7.3.4+deb13-amd64 |\n|---|---|---|\n" in page
    assert "| install | passed, 61 s | failed, 300 s |\n| flowtables |  | not run |\n" in page


def test_every_test_of_a_row_exists_and_every_test_has_a_row() -> None:
    named = {test for row in ROWS for test in row.tests}
    known = {
        f"{path.name}::{node.name}"
        for path in HERE.glob("*.py")
        for node in ast.parse(path.read_text()).body
        if isinstance(node, ast.FunctionDef) and node.name.startswith("test_")
    }
    whole = {one for one in named if "::" not in one}
    covered = named | {one for one in known if one.partition("::")[0] in whole}
    assert named - known - whole == set()
    assert known - covered == set()
    assert {one.partition("::")[0] for one in known} >= whole


def test_every_block_for_an_installed_machine_is_run_by_a_row() -> None:
    scenes = {block.scene for page in PAGES for block in blocks(page) if block.mark == "vm"}
    followed = {"build"} | {
        str(argument.value)
        for path in HERE.glob("*.py")
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Call) and ast.unparse(node.func).endswith("follow")
        for argument in node.args
        if isinstance(argument, ast.Constant)
    }
    assert scenes == followed


def test_some_rows_come_with_the_installation_that_they_need() -> None:
    assert chosen([], newest=True) == list(ROWS)
    assert [row.on for row in chosen([], newest=False)] == ["every"] * 5
    assert [row.name for row in chosen(["VLAN"], newest=True)] == [
        INSTALL.name,
        "a VLAN, and PPP that comes and goes",
    ]
    assert [row.name for row in chosen(["flowtables"], newest=True)] == ["flowtables"]
    assert chosen(["flowtables"], newest=False) == []


def test_rows_fit_into_the_time_that_there_is() -> None:
    assert len({row.name for row in ROWS}) == len(ROWS)
    assert all(row.seconds < run.LIMIT for row in ROWS)


def test_the_builder_is_a_script_that_the_shell_understands() -> None:
    assert subprocess.run(["sh", "-n", str(BUILDER)]).returncode == 0


class Fake:
    """In place of a machine: *answers* are pytest's, in order; it does not come back from its first boot."""

    def __init__(self, answers: list[str]) -> None:
        self.answers = answers

    def run(self, command: str, seconds: float) -> subprocess.CompletedProcess[str]:
        said = self.answers.pop(0) if "pytest" in command else ""
        return subprocess.CompletedProcess(command, 1 if "failed" in said else 0, said)

    def reboot(self, seconds: float) -> None:
        raise machines.MachineError("it did not come back")


def test_a_column_has_a_result_for_every_row_whatever_happens(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(run, "LOGS", tmp_path)
    made = run.Run(1000.0)
    machine = Fake(["1 passed in 1.00s", "1 failed in 1.00s", "1 passed in 1.00s", "1 passed in 1.00s"])

    @contextmanager
    def started(*which: object) -> Iterator[object]:
        yield machine

    monkeypatch.setattr(made, "machine", started)
    made.column(Image("trixie", tmp_path, ("7.3",)), "7.3", ROWS[1:8])
    words = [result.word for result in made.results.values()]
    assert words == [PASSED, FAILED, PASSED, FAILED, NOT_RUN, NOT_RUN, NOT_RUN]
    assert len(list(tmp_path.glob("*.log"))) == 3, "each has what was printed"


def test_a_row_that_the_end_of_the_run_cuts_short_was_not_run(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(run, "LOGS", tmp_path)
    machine = Fake(["1 failed in 1.00s"] * 2)
    for seconds, word in (1000.0, FAILED), (0.5, NOT_RUN):
        assert run.Run(seconds).row(machine, NEW, ROWS[2], False).word == word  # type: ignore[arg-type]
