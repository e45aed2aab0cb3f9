"""Thrift: what libraries do when they are imported and nobody here needs: 20 MiB, and most of a second.

Knows of these libraries only how they begin. Nothing they are used for works in another way afterwards.
"""

from __future__ import annotations

import os
import sys
import sysconfig
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec, module_from_spec
from pathlib import Path
from types import ModuleType
from typing import Final

_DIRECTORY: Final = "XTABLES_LIBDIR"
_LIBRARIES: Final = (f"/usr/lib/{sysconfig.get_config_var('MULTIARCH')}", "/usr/lib64", "/usr/lib", "/lib")


def stub_scapy_databases() -> None:
    """Have scapy without the makers of network cards and radios: 55,000 names that no message mentions.

    Its cache (XDG_CACHE_HOME) has to be switched off: there it would keep for others that there are none.
    """
    for name, nothing in (("manuf", ""), ("bluetoothids", {})):
        empty = ModuleType(f"scapy.libs.{name}")
        vars(empty)["DATA"] = nothing
        sys.modules.setdefault(empty.__name__, empty)
    from scapy import data

    data.MANUFDB.d.clear()  # some systems have a file of the makers, too


@contextmanager
def without_package_init(package: str) -> Iterator[None]:
    """While a module of *package* is imported: without whatever else the package gathers for its users.

    What was imported belongs to the importer alone: who imports the package afterwards gets all of it, anew.
    """
    spec = None if package in sys.modules else find_spec(package)
    if spec is None:
        yield
        return
    sys.modules[package] = module_from_spec(spec)
    try:
        yield
    finally:
        for name in [name for name in sys.modules if name == package or name.startswith(f"{package}.")]:
            del sys.modules[name]


@contextmanager
def fast_iptc_import() -> Iterator[None]:
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
