"""The log: an error of ours must be found from it, and nothing that was read may stand in it."""

from __future__ import annotations

import io
import logging
from collections.abc import Callable

import pytest

from nfreaim.host.report.journal import QuietFormatter

SECRET = b"markedtext\xff"


def quote() -> None:
    SECRET.decode()


def wrap() -> None:
    try:
        quote()
    except UnicodeDecodeError as error:
        raise KeyError(error.object) from error


@pytest.mark.parametrize(("fail", "named"), [(quote, "UnicodeDecodeError"), (wrap, "KeyError")])
def test_logged_exception_shows_its_place_and_type_and_no_byte_that_was_read(
    fail: Callable[[], None], named: str
) -> None:
    text = io.StringIO()
    handler = logging.StreamHandler(text)
    handler.setFormatter(QuietFormatter("%(levelname)s %(message)s"))
    log = logging.Logger("test")
    log.addHandler(handler)
    try:
        fail()
    except Exception:
        log.exception("a packet failed")
    said = text.getvalue()
    assert said.startswith("ERROR a packet failed\nTraceback")
    assert said.endswith(f"builtins.{named}\n")
    assert f"in {fail.__name__}" in said
    assert "marked" not in said
