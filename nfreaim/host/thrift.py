"""Thrift: what libraries do when they are imported and nobody here needs: 20 MiB, and most of a second.

Knows of these libraries only how they begin. Nothing they are used for works in another way afterwards.
"""

from __future__ import annotations

import os
import sys
import sysconfig
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

_DIRECTORY: Final = "XTABLES_LIBDIR"
_LIBRARIES: Final = (f"/usr/lib/{sysconfig.get_config_var('MULTIARCH')}", "/usr/lib64", "/usr/lib", "/lib")


def forget_names() -> None:
    """Have scapy without the makers of network cards and radios: 55,000 names that no message mentions."""
    from scapy import data

    data.MANUFDB.d.clear()
    data.BLUETOOTH_CORE_COMPANY_IDENTIFIERS.clear()


@contextmanager
def quick_search() -> Iterator[None]:
    """While python-iptables is imported: it looks for its libraries by ctypes, which asks a compiler and a
    linker for each name it tries, for their directory by ldconfig, and for Python's by way of setuptools.

    The linker's cache, which comes first, knows the libraries; their directory is where it always is, or
    named by XTABLES_LIBDIR, or is asked for as ever.
    """
    found = {name: os.environ.get(name) for name in ("PATH", _DIRECTORY)}
    distutils = sys.modules.get("distutils")
    os.environ["PATH"] = os.devnull
    known = [place for library in _LIBRARIES if (place := Path(library, "xtables")).is_dir()]
    if known:
        os.environ.setdefault(_DIRECTORY, str(known[0]))
    sys.modules["distutils"] = None  # type: ignore[assignment]  # "there is none": sysconfig is asked then
    try:
        yield
    finally:
        del sys.modules["distutils"]
        if distutils is not None:
            sys.modules["distutils"] = distutils
        for name, value in found.items():
            os.environ.pop(name, None)
            if value is not None:
                os.environ[name] = value
