"""This program again, in another process: the same files in the same Python, wherever they are.

A package has them in a folder of its own, and a checkout in its root, which Python does not know by itself.
The working directory is left out, because it may hold another package of our name.
"""

from __future__ import annotations

import os
import sys
from typing import Final

PYTHON_PATH: Final = "PYTHONPATH"


def command(*words: str, module: str = "nfreaim") -> list[str]:
    """The command line that runs *module* with the arguments *words*, in ``environment``."""
    return [sys.executable, "-P", "-m", module, *words]


def python_path() -> str:
    """The value of PYTHONPATH by which that Python finds what this one does."""
    return os.pathsep.join(path for path in sys.path if path)


def environment() -> dict[str, str]:
    """The environment that the command needs: this process' own, with that value."""
    return {**os.environ, PYTHON_PATH: python_path()}
