"""`nfreaim check`: one line per prerequisite, with the remedy where one is missing.

The check changes nothing on the machine. Rules that have to be tried are tried in a network namespace of
their own, which ends with the attempt. This module imports no third-party library, because one of the checks
is whether the libraries work.
"""

from __future__ import annotations

import shlex
from collections.abc import Callable
from functools import partial

from nfreaim.config import reading_queues
from nfreaim.host.check import kernel_features, networks, packet_filter, software
from nfreaim.host.check.answer import Check, Checks
from nfreaim.host.rules.script import Settings


def main(settings: Settings) -> int:
    """Print one line per prerequisite; return 0 if nothing failed, else 1. Warnings do not count."""
    results = run_checks(settings)
    for result in results:
        print(result)
    return int(any(result.status == "FAIL" for result in results))


def run_checks(settings: Settings) -> list[Check]:
    """Check everything that a daemon with these settings needs in this network namespace.

    Raises nothing: an exception in a probe is reported as a failure.
    """
    reinstall = f"nfreaim rules install {shlex.join(settings.words())}"
    queues = sorted({settings.queue, *reading_queues(settings.queue, settings.workers)})
    probes: list[tuple[str, Callable[[], Checks]]] = [
        ("privileges", software.privileges),
        ("programs", software.programs),
        ("Python libraries", software.libraries),
        ("kernel features", kernel_features.features),
        ("conntrack", kernel_features.conntrack),
        ("forwarding", kernel_features.forwarding),
        ("interfaces", lambda: networks.interfaces(settings.lan, settings.wan)),
        ("rules", lambda: packet_filter.our_rules(settings, reinstall)),
        ("legacy tables", lambda: packet_filter.legacy_neighbours(reinstall)),
        ("nftables", lambda: packet_filter.native_rules(settings.wan)),
    ]
    probes += [("queue", partial(kernel_features.queue, number)) for number in queues]
    found: list[Check] = []
    for name, probe in probes:
        try:
            found += probe()
        except Exception as error:  # a probe that breaks must not end the check
            found.append(
                Check("FAIL", f"{name}: could not be looked at: {error}", "run nfreaim check as root")
            )
    return found
