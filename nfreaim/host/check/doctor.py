"""The findings of `nfreaim check`, by group; each with the remedy where something is missing.

The checks change nothing on the machine. Rules that have to be tried are tried in a network namespace of
their own, which ends with the attempt. This module imports no third-party library, because one of the checks
is whether the libraries work.
"""

from __future__ import annotations

import shlex
from collections.abc import Callable
from dataclasses import replace
from functools import cache, partial
from typing import NamedTuple

from nfreaim.config import Config
from nfreaim.config_values import LEGACY, NFT
from nfreaim.host.check import (
    assigned_helpers,
    compared_senders,
    flowtables,
    kernel_features,
    link_settings,
    marks_of_others,
    networks,
    nft_features,
    other_programs,
    packet_filter,
    reachable,
    servers_at_home,
    software,
    taken_ports,
    unnamed_bridges,
    unread_protocols,
)
from nfreaim.host.check.answer import GROUPS, Check, Checks, Group
from nfreaim.host.rules.script import Settings
from nfreaim.marks import DEFAULT


class Probe(NamedTuple):
    """A look at one thing.

    failing  whether the daemon cannot do without what it looks at
    """

    group: Group
    name: str
    look: Callable[[], Checks]
    failing: bool = True


def reinstall(settings: Settings) -> str:
    """The command that installs the rules with these settings."""
    given = replace(settings, helpers=(), native=())  # only the file names these
    return f"nfreaim rules install {shlex.join(given.words())}"


def run_checks(config: Config) -> list[Check]:
    """Look at everything that a daemon with these settings needs or may meet in this network namespace.

    Raises nothing: an exception in a probe is reported. The checks of a group stand together.
    """
    found = [check for probe in _probes(config) for check in _looked(probe)]
    return sorted(found, key=lambda check: GROUPS.index(check.group))


def _looked(probe: Probe) -> list[Check]:
    found: list[Check] = []
    try:
        found += probe.look()
    except Exception as error:  # a probe that breaks must not end the check
        text = f"{probe.name}: could not be looked at: {error}"
        found.append(Check("FAIL" if probe.failing else "warn", text, "run nfreaim check as root"))
    return [replace(check, group=probe.group) for check in found]


def _probes(config: Config) -> list[Probe]:
    settings, policy = Settings.of(config), config.pinholes
    again = reinstall(settings)
    by_file = reinstall(replace(settings, marks=DEFAULT))  # masks of the file need no options
    firewall = cache(lambda: packet_filter.firewall_of(settings))

    def features() -> Checks:
        return {LEGACY: kernel_features.features, NFT: nft_features.features}[firewall()]()

    def neighbours(look: Callable[[], Checks]) -> Checks:
        """What is so of legacy tables alone: there a queue ends the table for its packets."""
        return look() if firewall() == LEGACY else iter(())

    queues = [Probe("machine", "queue", partial(kernel_features.queue, number)) for number in config.queues]
    return [
        Probe("machine", "privileges", software.privileges),
        Probe("machine", "programs", lambda: software.programs(firewall())),
        Probe("machine", "Python libraries", lambda: software.libraries(firewall())),
        Probe("machine", "kernel features", features),
        Probe("machine", "conntrack", kernel_features.conntrack),
        *queues,
        Probe("network", "forwarding", kernel_features.forwarding),
        Probe("network", "interfaces", lambda: networks.interfaces(config.lan, config.wan)),
        Probe("network", "outside addresses", lambda: reachable.outside(config.wan, policy)),
        Probe("network", "reverse path", lambda: link_settings.reverse_path(config.wan), False),
        Probe("network", "sizes", lambda: link_settings.sizes([*config.lan, *config.wan]), False),
        Probe("network", "offloading", lambda: link_settings.joined([*config.lan, *config.wan]), False),
        Probe("network", "inside interfaces", lambda: networks.isolation(config), False),
        Probe("network", "bridges", lambda: unnamed_bridges.bridges(config), False),
        Probe("network", "senders", lambda: compared_senders.senders(config), False),
        Probe("firewall", "rules", lambda: packet_filter.our_rules(settings, again)),
        Probe("firewall", "saved rules", lambda: packet_filter.saved_rules(firewall=firewall())),
        Probe(
            "firewall", "legacy tables", lambda: neighbours(lambda: packet_filter.legacy_neighbours(again))
        ),
        Probe("firewall", "nftables", lambda: packet_filter.native_rules(settings, firewall())),
        Probe("firewall", "flowtables", lambda: flowtables.flowtables(settings.ports, again)),
        Probe("firewall", "ports", lambda: taken_ports.ports(policy, config.lan, config.file), False),
        Probe(
            "firewall", "forwards", lambda: taken_ports.hosts(policy.forwards, config.lan, config.file), False
        ),
        Probe("protocols", "kernel helpers", lambda: assigned_helpers.helpers(settings, firewall())),
        Probe("protocols", "servers at home", lambda: servers_at_home.servers(config), False),
        Probe("protocols", "connections", lambda: unread_protocols.hints(config), False),
        Probe("neighbours", "marks", lambda: marks_of_others.marks_of_others(settings.marks, by_file)),
        Probe(
            "neighbours", "queues", lambda: neighbours(lambda: other_programs.queues(config.queues)), False
        ),
        Probe("neighbours", "firewall programs", other_programs.programs, False),
    ]
