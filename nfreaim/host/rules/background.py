"""Programs that run beside the daemon's loop or start, so that nothing waits for them."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from typing import Final

from nfreaim.errors import BackendError

_END_GRACE_S: Final = 5.0  # for a program to end by itself after its result is no longer needed


class BackgroundProgram:
    """A program without input. Its output is kept in memory, because the disk may be full."""

    def __init__(self, words: Sequence[str], timeout_s: float) -> None:
        """Start the program. Raises BackendError."""
        self.words = list(words)
        self._ends = time.monotonic() + timeout_s
        self._files: list[int] = []
        try:
            self._files = [os.memfd_create("output"), os.memfd_create("errors")]
            self._process = subprocess.Popen(
                self.words,
                stdin=subprocess.DEVNULL,
                stdout=self._files[0],
                stderr=self._files[1],
                start_new_session=True,
            )
        except OSError as error:
            self._close()
            raise BackendError(f"{self.words[0]} did not start: {error}") from error

    def result(self) -> subprocess.CompletedProcess[str] | None:
        """Status and output, once; None while the program runs. Raises BackendError after the time-out."""
        status = self._process.poll()
        if status is None:
            if time.monotonic() > self._ends:
                raise self._late()
            return None
        return self._completed(status)

    def wait(self) -> subprocess.CompletedProcess[str]:
        """Status and output, once, when the program has ended. Raises BackendError after the time-out."""
        try:
            status = self._process.wait(max(0.0, self._ends - time.monotonic()))
        except subprocess.TimeoutExpired:
            raise self._late() from None
        return self._completed(status)

    def end(self) -> None:
        """Wait for the program to end, and kill it after a few seconds.

        It is not killed at once, because it may be changing the rules under the lock of iptables.
        """
        try:
            self._process.wait(_END_GRACE_S)
        except subprocess.TimeoutExpired:
            self._kill()
        self._close()

    def _completed(self, status: int) -> subprocess.CompletedProcess[str]:
        output, errors = (
            os.pread(file, os.fstat(file).st_size, 0).decode(errors="replace") for file in self._files
        )
        self._close()
        return subprocess.CompletedProcess(self.words, status, output, errors)

    def _late(self) -> BackendError:
        self._kill()
        return BackendError(f"{' '.join(self.words)}: took too long and was ended")

    def _kill(self) -> None:
        with suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()
        self._close()

    def _close(self) -> None:
        for file in self._files:
            os.close(file)
        self._files = []


class BackgroundPrograms:
    """Several that run at once; true as long as one of them was not read to its end."""

    def __init__(self) -> None:
        self._running: list[BackgroundProgram] = []

    def __bool__(self) -> bool:
        return bool(self._running)

    def start(self, programs: Iterable[Sequence[str]], timeout_s: float) -> None:
        """Start those of *programs* that this machine has. Raises BackendError; then none of them runs."""
        try:
            for words in programs:
                if shutil.which(words[0]) is not None:
                    self._running.append(BackgroundProgram(words, timeout_s))
        except BackendError:
            self.end()
            raise

    def ended(self, wait: bool = False) -> Iterator[subprocess.CompletedProcess[str]]:
        """Status and output of each that has ended, once, in the order in which they were started.

        wait  wait for those that still run

        Raises BackendError for one that took too long, which is left out; the others go on.
        """
        while self._running:
            program = self._running[0]
            try:
                done = program.wait() if wait else program.result()
            except BackendError:
                self._running.pop(0)
                raise
            if done is None:
                return
            self._running.pop(0)
            yield done

    def end(self) -> None:
        """Wait for all of them, as BackgroundProgram.end does."""
        for program in self._running:
            program.end()
        self._running = []
