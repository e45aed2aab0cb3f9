"""What holds for every test."""

from __future__ import annotations

import logging
from collections.abc import Iterator

import pytest


@pytest.fixture(autouse=True)
def logging_as_found() -> Iterator[None]:
    """The fuzz targets log nothing, in a process that runs other tests, too."""
    log = logging.getLogger("nfreaim")
    found = (log.handlers, log.propagate, log.level)
    yield
    log.handlers, log.propagate, log.level = found
