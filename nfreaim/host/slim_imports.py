"""Imports scapy, pyroute2 and python-iptables without their expensive side effects.

That saves 20 MiB and most of a second. The parts of the libraries that are used here work as usual.
"""

from __future__ import annotations

import os
import sys
import sysconfig
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from importlib.util import find_spec, module_from_spec
from pathlib import Path
from types import ModuleType
from typing import Final

_DIRECTORY: Final = "XTABLES_LIBDIR"
_DISTUTILS: Final = ("distutils", "distutils.sysconfig")
_LIBRARIES: Final = (f"/usr/lib/{sysconfig.get_config_var('MULTIARCH')}", "/usr/lib64", "/usr/lib", "/lib")


def stub_scapy_databases() -> None:
    """Keep scapy from loading the makers of network cards and radios: 55,000 names that no layer here uses.

    scapy's cache (XDG_CACHE_HOME) has to be off, because the empty tables would be cached for other programs.
    """
    for name, nothing in (("manuf", ""), ("bluetoothids", {})):
        empty = ModuleType(f"scapy.libs.{name}")
        vars(empty)["DATA"] = nothing
        sys.modules.setdefault(empty.__name__, empty)
    from scapy import data

    data.MANUFDB.d.clear()  # on some systems scapy has read a file of the makers as well


@contextmanager
def without_package_init(package: str) -> Iterator[None]:
    """Import a module of *package* without running the package's __init__, which loads all its modules.

    The package's modules imported meanwhile are removed from sys.modules, so a later import of the package
    loads it whole. ssl is not imported meanwhile, because asyncio, which pyroute2 imports, does without it.
    """
    spec = None if package in sys.modules else find_spec(package)
    if spec is None:
        yield
        return
    sys.modules[package] = module_from_spec(spec)
    without_ssl = "ssl" not in sys.modules
    if without_ssl:
        sys.modules["ssl"] = None  # type: ignore[assignment]
    try:
        yield
    finally:
        if without_ssl:
            del sys.modules["ssl"]
        for name in [name for name in sys.modules if name == package or name.startswith(f"{package}.")]:
            del sys.modules[name]


@contextmanager
def fast_iptc_import() -> Iterator[None]:
    """Import python-iptables without the compiler, linker and ldconfig that it runs to find its libraries.

    The library tries many names by ctypes, which runs a compiler and a linker for each, and finds Python's
    directory through distutils, which setuptools provides, or nobody. With an empty PATH ctypes is left with
    the linker's cache, which knows the libraries. XTABLES_LIBDIR names the directory of their extensions; if
    it is unset and no usual directory exists, the library searches as before.
    """
    found = {name: os.environ.get(name) for name in ("PATH", _DIRECTORY)}
    distutils = {name: sys.modules.get(name) for name in _DISTUTILS}
    os.environ["PATH"] = os.devnull
    known = [directory for library in _LIBRARIES if (directory := Path(library, "xtables")).is_dir()]
    if known:
        os.environ.setdefault(_DIRECTORY, str(known[0]))
    for name in _DISTUTILS:
        sys.modules[name] = ModuleType(name)
    # The one function that the library takes from it.
    vars(sys.modules[_DISTUTILS[-1]])["get_python_lib"] = partial(sysconfig.get_path, "purelib")
    try:
        yield
    finally:
        for name, module in distutils.items():
            del sys.modules[name]
            if module is not None:
                sys.modules[name] = module
        for name, value in found.items():
            os.environ.pop(name, None)
            if value is not None:
                os.environ[name] = value
