"""Programs that run beside the daemon."""

from __future__ import annotations

import pytest

from nfreaim.errors import BackendError
from nfreaim.host.rules.background import BackgroundProgram


def test_who_waits_gets_status_and_output() -> None:
    result = BackgroundProgram(["sh", "-c", "echo out; echo err >&2; exit 3"], 30.0).wait()
    assert (result.returncode, result.stdout, result.stderr) == (3, "out\n", "err\n")


def test_who_waits_for_a_program_that_hangs_is_told_and_the_program_has_ended() -> None:
    program = BackgroundProgram(["sleep", "60"], 0.1)
    with pytest.raises(BackendError, match="sleep 60: took too long and was ended"):
        program.wait()
    assert program._process.returncode is not None
    program.end()
