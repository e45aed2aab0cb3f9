"""Failures: what the engine caught and only wrote to its log."""

from __future__ import annotations

import logging

failures: list[BaseException] = []
"""What the engine caught and only wrote to its log: an error of a helper, or of a fake."""


class _Failures(logging.Handler):
    def emit(self, record: logging.LogRecord) -> None:
        if record.exc_info and record.exc_info[1]:
            failures.append(record.exc_info[1])


def silence() -> None:
    """Log nothing; what comes with an exception is kept in *failures*."""
    log = logging.getLogger("nfreaim")
    if not any(isinstance(handler, _Failures) for handler in log.handlers):
        log.handlers = [_Failures()]
        log.propagate = False
        log.setLevel(logging.ERROR)
