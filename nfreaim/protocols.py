"""The protocols by name: their ports, and the limits that their sections set.

All protocols come from the table ``nfreaim.helpers.HELPERS``; this module names none.
"""

from __future__ import annotations

import re
from argparse import ArgumentParser
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Final

from nfreaim.core.firewall.policy import LowPort, PinholePolicy
from nfreaim.core.helper import HelperSpec
from nfreaim.errors import ConfigError
from nfreaim.helpers import HELPERS
from nfreaim.old_spellings import DEFAULT_PROTOCOL

MOST_PORTS: Final = 15
"""At most as many ports of one protocol, because one multiport match holds no more."""

EVERYBODY: Final = None
"""The hosts of a switch that is on."""

Ports = Mapping[str, tuple[int, ...]]
"""The server ports of each protocol that is read, by its name."""


@dataclass(frozen=True, slots=True)
class Section:
    """One protocol's section of the configuration; a key that is absent has its default.

    ports     of servers; empty: the usual ones
    switches  by key, the inside hosts that may use the services of the switch, or EVERYBODY
    caps      by key, at most as many standing pinholes of one inside host
    low_ports by key, the inside hosts that may have a service at a port below 1024
    """

    ports: tuple[int, ...] = ()
    switches: Mapping[str, frozenset[str] | None] = field(default_factory=dict)
    caps: Mapping[str, int] = field(default_factory=dict)
    low_ports: Mapping[str, frozenset[str]] = field(default_factory=dict)


Sections = Mapping[str, Section]


def known(name: str) -> HelperSpec:
    """The protocol called *name*. Raises ConfigError."""
    for spec in HELPERS:
        if spec.name == name:
            return spec
    names = ", ".join(spec.name for spec in HELPERS)
    raise ConfigError(f"there is no protocol {name!r}; known are {names}")


def known_protocols() -> tuple[HelperSpec, ...]:
    """All protocols that can be read."""
    return HELPERS


def ports_of(name: str, sections: Sections | None = None) -> tuple[int, ...]:
    """The ports of the servers of protocol *name*: its section's, else the usual ones. Raises ConfigError."""
    spec = known(name)
    section = (sections or {}).get(name)
    return section.ports if section and section.ports else spec.ports


def usual_ports() -> dict[str, tuple[int, ...]]:
    """The protocols that are read by default, and their ports."""
    return {DEFAULT_PROTOCOL: ports_of(DEFAULT_PROTOCOL)}


def chosen(options: Iterable[str], sections: Sections | None = None) -> dict[str, tuple[int, ...]]:
    """The protocols that *options* name, each as NAME[:PORT[,PORT...]]. Raises ConfigError."""
    ports: dict[str, tuple[int, ...]] = {}
    for option in options:
        name, colon, text = option.partition(":")
        usual = ports_of(name, sections)
        if name in ports:
            raise ConfigError(f"protocol {name} is given twice; name all its ports at once")
        ports[name] = tuple(_port(name, number) for number in text.split(",")) if colon else usual
    check(ports)
    return ports


def add_options(parser: ArgumentParser, port: Callable[[str], object], usual: str = "as configured") -> None:
    """Add the options that ``of_options`` reads; *port* reads a port, as a type of argparse.

    *usual* says in the help which protocols are read without them.
    """
    parser.add_argument(
        "--protocol",
        action="append",
        default=[],
        metavar="NAME",
        help="a protocol to read, on the usual ports of its servers or on those of NAME:PORT[,PORT...]; "
        f"may be repeated; default: {usual}",
    )
    parser.add_argument(
        "--port",
        action="append",
        default=[],
        type=port,
        metavar="N",
        help=f"older spelling: a port of protocol {DEFAULT_PROTOCOL}; may be repeated; default: none",
    )


def of_options(
    named: Sequence[str], ports: Sequence[int], usual: Ports, sections: Sections | None = None
) -> dict[str, tuple[int, ...]]:
    """The protocols that a command line asks for. Raises ConfigError.

    named  the value of each --protocol, see ``chosen``
    ports  the value of each --port, the older spelling: ports of the default protocol
    usual  the protocols of a command line that names none
    """
    found = chosen(named, sections) if named else dict(usual)
    if ports:
        if named and DEFAULT_PROTOCOL in found:
            raise ConfigError(
                f"--port is the older spelling of --protocol {DEFAULT_PROTOCOL}:PORT[,PORT...]; "
                "both are given, leave --port out"
            )
        found[DEFAULT_PROTOCOL] = tuple(ports)
    check(found)
    return found


def _port(name: str, text: str) -> int:
    if not re.fullmatch("[0-9]{1,5}", text) or not 0 < int(text) < 65536:
        raise ConfigError(
            f"protocol {name}: {text!r} is no port; write {name}:N[,N...], each N from 1 to 65535"
        )
    return int(text)


def written(ports: Ports) -> list[str]:
    """The options that ``chosen`` reads as *ports*."""
    return [f"{name}:{','.join(map(str, numbers))}" for name, numbers in ports.items()]


def check(ports: Ports) -> None:
    """Raise ConfigError unless each protocol is known and each port belongs to one of them."""
    taken: dict[int, str] = {}
    for name, numbers in ports.items():
        known(name)
        if not 1 <= len(numbers) <= MOST_PORTS:
            raise ConfigError(
                f"protocol {name}: {len(numbers)} ports; from 1 to {MOST_PORTS} fit into one rule"
            )
        for port in numbers:
            if taken.setdefault(port, name) != name:
                raise ConfigError(
                    f"port {port} is given to {taken[port]} and to {name}; a port has one protocol"
                )


def by_port(ports: Ports) -> dict[int, HelperSpec]:
    """The protocol of each server port."""
    return {port: known(name) for name, numbers in ports.items() for port in numbers}


def service_name(text: str) -> str:
    """The name of the service that an operator calls *text*, by the protocol that renames it, if any does."""
    names = (spec.service_name(text) for spec in HELPERS)
    return next((name for name in names if name != text.lower()), text.lower())


def services() -> list[str]:
    """The names of all services that protocols list, and of the greetings that prove little."""
    return [name for spec in HELPERS for name in (*spec.services, *spec.unverified)]


def is_service(name: str) -> bool:
    """Whether something may be called *name* that a protocol opens pinholes for."""
    return name in services() or any(re.fullmatch(spec.unlisted, name) for spec in HELPERS)


def limited(policy: PinholePolicy, names: Iterable[str], sections: Sections) -> PinholePolicy:
    """*policy* with the limits of the protocols *names*: caps, switches, services that are off by default."""
    caps: dict[str, tuple[str, int]] = {}
    only_for: dict[str, frozenset[str]] = {}
    low_ports: dict[tuple[str, int], LowPort] = {}
    off: set[str] = set()
    names = [*names]
    for spec in map(known, names):
        section = sections.get(spec.name, Section())
        for service, about in spec.services.items():
            if about.cap is not None:
                caps[service] = about.cap, section.caps.get(about.cap, spec.caps[about.cap])
        off |= {service for service, about in spec.services.items() if not about.default}
        for key, place in spec.low_ports.items():
            low_ports[place] = LowPort(section.low_ports.get(key, frozenset()), f"[{spec.name}] {key}")
        for key, hosts in section.switches.items():
            off -= {*spec.switches[key]}
            if hosts is not EVERYBODY:
                only_for |= dict.fromkeys(spec.switches[key], hosts)
    off -= (policy.allow_services or frozenset()) | policy.also_services
    specs = [known(name) for name in names]
    services = frozenset(service for spec in specs for service in spec.services)
    listed = services if any(spec.closed for spec in specs) else None
    return replace(
        policy, caps=caps, only_for=only_for, low_ports=low_ports, off=frozenset(off), known=listed
    )
