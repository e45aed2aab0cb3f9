"""libnftables: rulesets as text, changed in one transaction. The only module that loads the library.

The program nft is made of this library, so it is there where nft is. It is called directly: Debian's binding
(python3-nftables) belongs to the system's Python, and a virtual environment does not see it. Functions and
flags: nftables/libnftables.h, libnftables(3).
"""

from __future__ import annotations

import ctypes
import json
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Final

from nfreaim.errors import BackendError

_LIBRARY: Final = "libnftables.so.1"
_REMEDY: Final = "apt install nftables"
_JSON, _TERSE = 1 << 4, 1 << 11  # NFT_CTX_OUTPUT_JSON, NFT_CTX_OUTPUT_TERSE


class Nftables:
    """The nft rules of this network namespace. Raises BackendError if the library is missing."""

    def __init__(self) -> None:
        try:
            self._library = ctypes.CDLL(_LIBRARY)
        except OSError as error:
            raise BackendError(
                f"the library of nftables cannot be loaded: {error}; remedy: {_REMEDY}"
            ) from error
        self._library.nft_ctx_new.restype = ctypes.c_void_p
        for name in ("nft_ctx_get_output_buffer", "nft_ctx_get_error_buffer"):
            getattr(self._library, name).restype = ctypes.c_char_p

    def run(self, text: str, trial: bool = False) -> None:
        """Make the changes of *text*, all or none. *trial*: only look whether they are possible.

        Raises BackendError with the library's words.
        """
        status, _, errors = self._ask(text, trial=trial)
        if status:
            raise BackendError(f"nftables refused: {_first(errors)}")

    def listed(self, what: str) -> list[dict[str, Any]]:
        """The objects that ``nft -j list *what*`` prints, without the elements of sets; [] if there is none.

        Raises BackendError if the output cannot be read.
        """
        status, output, _ = self._ask(f"list {what}", _JSON | _TERSE)
        try:
            return [] if status else list(json.loads(output)["nftables"])
        except (ValueError, KeyError) as error:
            raise BackendError(f"libnftables: no list of {what}: {error}") from error

    def text(self, what: str) -> str:
        """What ``nft list *what*`` prints, with counters and elements; "" if there is none."""
        status, output, _ = self._ask(f"list {what}")
        return "" if status else output

    def _ask(self, text: str, flags: int = 0, trial: bool = False) -> tuple[int, str, str]:
        """Status, output and errors. Each text has a context of its own, which keeps its definitions."""
        with self._context() as context:
            self._library.nft_ctx_output_set_flags(context, flags)
            self._library.nft_ctx_set_dry_run(context, ctypes.c_bool(trial))
            status = self._library.nft_run_cmd_from_buffer(context, text.encode())
            output = self._library.nft_ctx_get_output_buffer(context)
            errors = self._library.nft_ctx_get_error_buffer(context)
            return status, output.decode(errors="replace"), errors.decode(errors="replace")

    @contextmanager
    def _context(self) -> Iterator[ctypes.c_void_p]:
        context = ctypes.c_void_p(self._library.nft_ctx_new(0))
        try:
            self._library.nft_ctx_buffer_output(context)
            self._library.nft_ctx_buffer_error(context)
            yield context
        finally:
            self._library.nft_ctx_free(context)


def _first(errors: str) -> str:
    """The first complaint in *errors*, and the line that it points to."""
    lines = errors.strip().splitlines()
    return " ".join(" ".join(lines[:2]).split()) or "no reason given"
