"""``python -m tests.attacks.run [CHECKOUT] [short] [long] [flood]``: plays attacks in turn, as root.

Ends with a table of the verdicts; status 1 unless all of them hold.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

from tests.attacks.catalogue import ATTACKS, Attack

HERE = Path(__file__).resolve().parent


def play(attack: Attack, checkout: Path, show: bool = False) -> tuple[int, str]:
    """Status of the script, and the last line that it wrote."""
    command = [sys.executable, str(HERE / f"{attack.name}.py"), str(checkout), *attack.words]
    environment = {**os.environ, **attack.environment}
    last = ""
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=environment
    ) as process:
        assert process.stdout is not None
        try:
            for line in process.stdout:
                last = line.rstrip()
                if show:
                    print(last, flush=True)
        except BaseException:
            process.terminate()  # it removes its network, and is waited for
            raise
    return process.returncode, last


def main() -> None:
    kinds = {attack.kind for attack in ATTACKS}
    words = sys.argv[1:]
    folders = [word for word in words if word not in kinds]
    if len(folders) > 1:
        sys.exit(__doc__)
    checkout = Path(*folders).resolve() if folders else HERE.parents[1]
    wanted = [attack for attack in ATTACKS if attack.kind in (set(words) & kinds or kinds)]
    rows, held = [], True
    for attack in wanted:
        print(f"== {attack}", flush=True)
        began = time.monotonic()
        status, last = play(attack, checkout, show=True)
        held = held and status == 0 and last.startswith("HOLDS")
        rows.append(f"{attack!s:32} {time.monotonic() - began:5.0f} s  {last}")
    print("\n".join(["", *rows]))
    sys.exit(0 if held else 1)


if __name__ == "__main__":
    main()
