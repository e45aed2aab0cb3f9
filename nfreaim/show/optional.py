"""Optional libraries: what to do where one is missing."""

from __future__ import annotations

import sys

from nfreaim.errors import BackendError


def missing(command: str, library: str, package: str, otherwise: str = "") -> BackendError:
    """The error of *command*, which needs the Python *library* that Debian has as *package*."""
    # A virtual environment does not see the system's packages.
    in_environment = sys.prefix != sys.base_prefix
    remedy = f"{sys.executable} -m pip install {library}" if in_environment else f"apt install {package}"
    return BackendError(f"nfreaim {command} needs the Python library {library}: {remedy}{otherwise}")
