"""The frame of an attack: which checkout it attacks, what it says, and how it ends.

Import it before anything of nfreaim or of the other tests: from then on both come from CHECKOUT.
"""

from __future__ import annotations

import os
import signal
import sys
import time
from pathlib import Path
from typing import NoReturn

_OWN = Path(__file__).resolve().parents[2]
CHECKOUT = Path(sys.argv[1]).resolve() if len(sys.argv) > 1 else _OWN


def _enter() -> None:
    """Go on in CHECKOUT, with its virtual environment where it has one."""
    venv = CHECKOUT / ".venv"
    if venv.exists() and Path(sys.prefix).resolve() != venv.resolve():
        python, script = str(venv / "bin" / "python"), str(Path(sys.argv[0]).resolve())
        os.execv(python, [python, script, str(CHECKOUT), *sys.argv[2:]])
    os.chdir(CHECKOUT)
    sys.path.insert(0, str(CHECKOUT))
    # Whoever ends an attack early gets its network removed, too.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("ended before the verdict"))


def say(text: str) -> None:
    """One line about what was seen."""
    print(f"  {time.strftime('%H:%M:%S')} {text}", flush=True)


def verdict(vulnerable: bool, text: str, control: bool = True) -> NoReturn:
    """The last line and the exit status.

    control  something like the attack, which may succeed, did: else a failed attack shows nothing
    """
    for name in ("nfreaim", "tests.lab.net"):
        place = str(getattr(sys.modules.get(name), "__file__", CHECKOUT))
        assert Path(place).is_relative_to(CHECKOUT), f"{name} is that of {place}"
    if not (vulnerable or control):
        print(f"NOTHING SHOWN: the control failed: {text}", flush=True)
        sys.exit(2)
    print(("VULNERABLE: " if vulnerable else "HOLDS: ") + text, flush=True)
    sys.exit(1 if vulnerable else 0)


_enter()
