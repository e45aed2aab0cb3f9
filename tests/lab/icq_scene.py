"""The ICQ users of the lab's hosts, with their ways to log in, and what the router says about pinholes."""

from __future__ import annotations

import json
import sys

from tests.lab.net import Lab

UINS = {
    "alice": ("100003", "xor"),
    "amy": ("100006", "md5"),
    "bob": ("100020", "md5"),
    "carol": ("100007", "xor"),
}


def status(lab: Lab, router: str = "A") -> list[str]:
    """What ``nfreaim status`` says of pinholes and forwards, a line each."""
    asked = lab.run(router, sys.executable, "-m", "nfreaim", "status", "--json", check=False)
    document = json.loads(asked.stdout)
    pinholes = [
        f"pinhole {one['outside']} -> {one['inside']} for {one['service']} of {one['flow']['client']}, "
        f"{'while connected' if one['left'] is None else 'for a time'}, {one['protocol']}"
        for one in document["pinholes"]
    ]
    return pinholes + [f"forward {forward}" for forward in document["forwards"]]
