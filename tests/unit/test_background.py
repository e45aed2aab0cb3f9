"""Programs that run beside the daemon."""

from __future__ import annotations

import pytest

from nfreaim.errors import BackendError
from nfreaim.host.rules.background import BackgroundProgram, BackgroundPrograms


def test_who_waits_gets_status_and_output() -> None:
    result = BackgroundProgram(["sh", "-c", "echo out; echo err >&2; exit 3"], 30.0).wait()
    assert (result.returncode, result.stdout, result.stderr) == (3, "out\n", "err\n")


def test_who_waits_for_a_program_that_hangs_is_told_and_the_program_has_ended() -> None:
    program = BackgroundProgram(["sleep", "60"], 0.1)
    with pytest.raises(BackendError, match="sleep 60: took too long and was ended"):
        program.wait()
    assert program._process.returncode is not None
    program.end()


def test_one_of_several_that_takes_too_long_is_left_out_and_the_others_go_on() -> None:
    programs = BackgroundPrograms()
    programs.start([["no-such-program"], ["sleep", "60"], ["echo", "done"]], 0.5)
    with pytest.raises(BackendError, match="sleep 60: took too long"):
        list(programs.ended(wait=True))
    assert programs
    assert [done.stdout for done in programs.ended(wait=True)] == ["done\n"]
    assert not programs


def test_of_several_those_that_were_started_last_wait_for_the_first() -> None:
    programs = BackgroundPrograms()
    programs.start([["sleep", "60"], ["echo", "done"]], 60.0)
    assert list(programs.ended()) == []
    assert programs
    programs._running[0]._kill()
    programs.end()
    assert not programs
