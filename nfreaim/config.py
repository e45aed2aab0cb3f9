"""Configuration: reads a TOML file into frozen dataclasses. An unknown key or a bad value is an error.

rules/nfreaim.toml describes the file. Each protocol has a section of its own, whose keys follow from its
HelperSpec.
"""

from __future__ import annotations

import json
import re
import tomllib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from ipaddress import IPv4Address
from pathlib import Path
from typing import Any, Final

from nfreaim import protocols
from nfreaim.core.firewall.policy import Forward, PinholePolicy
from nfreaim.core.helper import HelperSpec
from nfreaim.core.settings import EngineSettings
from nfreaim.errors import ConfigError
from nfreaim.helpers import HELPERS
from nfreaim.old_spellings import DEFAULT_PROTOCOL, DEFAULT_QUEUE, Key, move_keys
from nfreaim.protocols import EVERYBODY, MOST_PORTS, Ports, Section

DEFAULT_PATH: Final = Path("/etc/nfreaim/nfreaim.toml")
LOG_LEVELS: Final = ("debug", "info", "warning", "error")
MOST_WORKERS: Final = 16
LAST_QUEUE: Final = 65535


def _usual_policy() -> PinholePolicy:
    return protocols.limited(PinholePolicy(), protocols.usual_ports(), {})


@dataclass(frozen=True, slots=True)
class Config:
    """All settings.

    lan, wan      interface names
    ports         the protocols to read, by name, and the TCP ports of their servers
    queue         the NFQUEUE number
    workers       number of processes that read control connections; each of several has a queue behind
                  *queue*
    state_dir     directory of the flows that go on after a restart
    status_socket the socket that `nfreaim status` asks
    status_group  the group that may ask, besides root; "" for none
    pinholes      the limits on pinholes, with those of the protocols in *ports*
    sections      the section of each protocol in the file, also of those that are not read
    notices       for each older spelling in the file, a line that says what to write instead
    """

    lan: tuple[str, ...] = ()
    wan: tuple[str, ...] = ()
    ports: Ports = field(default_factory=protocols.usual_ports)
    queue: int = DEFAULT_QUEUE
    workers: int = 1
    state_dir: Path = Path("/run/nfreaim/flows")
    status_socket: Path = Path("/run/nfreaim/status")
    status_group: str = ""
    log_level: str = "info"
    engine: EngineSettings = field(default_factory=EngineSettings)
    pinholes: PinholePolicy = field(default_factory=_usual_policy)
    sections: protocols.Sections = field(default_factory=dict, compare=False)
    notices: tuple[str, ...] = field(default=(), compare=False)

    @property
    def reading(self) -> tuple[int, ...]:
        """The queues of control connections, see ``reading_queues``."""
        return reading_queues(self.queue, self.workers)

    def helpers(self) -> dict[int, HelperSpec]:
        """The protocol that is read on each server port."""
        return protocols.by_port(self.ports)

    def serving(self, ports: Ports) -> Config:
        """These settings with the protocols and ports *ports*, and the limits of these protocols' sections.

        Raises ConfigError if a protocol is unknown, or two claim one port.
        """
        protocols.check(ports)
        pinholes = protocols.limited(self.pinholes, ports, self.sections)
        return replace(self, ports=ports, pinholes=pinholes)


def reading_queues(queue: int, workers: int) -> tuple[int, ...]:
    """The numbers of the queues of control connections, one for each worker."""
    return (queue,) if workers == 1 else tuple(range(queue + 1, queue + 1 + workers))


def load(path: Path | None) -> Config:
    """The settings in *path*. None: those of the default file, or the defaults if that file is absent.

    Raises ConfigError, whose text names file, key and allowed values.
    """
    try:
        text = (path or DEFAULT_PATH).read_text(encoding="utf-8")
    except FileNotFoundError as error:
        if path is None:
            return Config()
        raise ConfigError(f"{path}: no such file; leave --config out or name a file that exists") from error
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path or DEFAULT_PATH}: cannot be read: {error}") from error
    return parse(text, str(path or DEFAULT_PATH))


def parse(text: str, name: str) -> Config:
    """The settings in the TOML *text* of the file called *name*. Raises ConfigError."""
    try:
        document = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(f"{name}: not TOML: {error}") from error
    moved = move_keys(document, name)
    values = _read(document, name, moved)
    sections = {spec.name: _section(spec, values) for spec in HELPERS}
    enabled = values.pop(Key("", "protocols"), (DEFAULT_PROTOCOL,))
    settings = {_SETTINGS.get(key, key.name): value for key, value in values.items() if key not in _POLICY}
    engine = EngineSettings(home_names=settings.pop("server_names", frozenset()))
    if "hold_ms" in settings:
        engine = replace(engine, hold=settings.pop("hold_ms") / 1000)
    policy = {_POLICY[key]: value for key, value in values.items() if key in _POLICY}
    _check_forwards(policy.get("forwards", ()), name)
    notices = tuple(f"{name}: {old} is an older spelling; write {_told(new)}" for new, old in moved.items())
    config = Config(engine=engine, pinholes=PinholePolicy(**policy), sections=sections, notices=notices)
    try:
        ports = {one: protocols.ports_of(one, sections) for one in enabled}
        return replace(config.serving(ports), **settings)
    except ConfigError as error:
        raise ConfigError(f"{name}: {error}") from error


def _told(key: Key) -> str:
    return f"{key.name} in the section [{key.section}]"


def _section(spec: HelperSpec, values: dict[Key, Any]) -> Section:
    """The settings of one protocol, which are taken out of *values*."""
    found = {key.name: values.pop(key) for key in list(values) if key.section == spec.name}
    return Section(
        ports=found.get("ports", ()),
        switches={key: found[key] for key in spec.switches if key in found},
        caps={key: found[key] for key in spec.caps if key in found},
    )


Check = Callable[[Any], Any]


def _number(low: float, high: float, whole: bool = True) -> tuple[Check, str]:
    def check(value: Any) -> Any:
        kinds = (int,) if whole else (int, float)
        if isinstance(value, bool) or not isinstance(value, kinds) or not low <= value <= high:
            raise ValueError
        return value

    return check, f"a{' whole' if whole else ''} number from {low} to {high}"


def _list(item: Check, allowed: str, low: int = 0, high: int = 1000) -> tuple[Check, str]:
    def check(value: Any) -> Any:
        if not isinstance(value, list) or not low <= len(value) <= high:
            raise ValueError
        return tuple(item(element) for element in value)

    return check, allowed


def _name(value: Any) -> str:
    if not isinstance(value, str) or not re.fullmatch(r"[A-Za-z0-9._:@-]{1,15}", value):
        raise ValueError
    return value


def _host_name(value: Any) -> str:
    label = "[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?"
    if not isinstance(value, str) or len(value) > 253:
        raise ValueError
    text = value.lower().removesuffix(".")
    if not re.fullmatch(rf"({label}\.)*{label}", text) or re.fullmatch(r"[0-9.]*", text):
        raise ValueError
    return text


def _absolute(value: Any) -> Path:
    if not isinstance(value, str) or not value.startswith("/") or "\0" in value:
        raise ValueError
    return Path(value)


def _group(value: Any) -> str:
    if not isinstance(value, str) or not re.fullmatch(r"|[A-Za-z_][A-Za-z0-9_.-]{0,31}\$?", value):
        raise ValueError
    return value


def _service(value: Any) -> str:
    if not isinstance(value, str) or not re.fullmatch(r"[a-z0-9][a-z0-9-]*", value.lower()):
        raise ValueError
    return protocols.service_name(value)


def _protocol(value: Any) -> str:
    if not isinstance(value, str):
        raise ValueError
    try:
        return protocols.known(value).name
    except ConfigError as error:
        raise ValueError from error


def _address(value: Any) -> str:
    if not isinstance(value, str):
        raise ValueError
    return str(IPv4Address(value))


def _port_range(value: Any) -> range:
    found = re.fullmatch(r"(\d{1,5})-(\d{1,5})", value) if isinstance(value, str) else None
    if found is None or not 1024 <= int(found[1]) <= int(found[2]) <= 65535:
        raise ValueError
    return range(int(found[1]), int(found[2]) + 1)


def _hosts(value: Any) -> frozenset[str] | None:
    """The hosts that may use the services of a switch: EVERYBODY, none, or those in a list."""
    if value == "on":
        return EVERYBODY
    hosts = [] if value == "off" else value
    if not isinstance(hosts, list) or not (hosts or value == "off"):
        raise ValueError
    return frozenset(_address(host) for host in hosts)


def _forward(value: Any) -> Forward:
    if not isinstance(value, dict) or value.keys() != {"host", "ports"}:
        raise ValueError
    ports = value["ports"]
    if type(ports) is int or (isinstance(ports, str) and ports.isdecimal()):
        ports = f"{ports}-{ports}"
    return Forward(_address(value["host"]), _port_range(ports))


def _check_forwards(forwards: tuple[Forward, ...], name: str) -> None:
    for index, one in enumerate(forwards):
        for other in forwards[:index]:
            if one.ports.start < other.ports.stop and other.ports.start < one.ports.stop:
                raise ConfigError(
                    f"{name}: the forwards {other} and {one} overlap; a port can lead to one host only"
                )


def _switch(value: Any) -> bool:
    if not isinstance(value, bool):
        raise ValueError
    return value


def _level(value: Any) -> str:
    if value not in LOG_LEVELS:
        raise ValueError
    return str(value)


def _names() -> str:
    return ", ".join(f'"{spec.name}"' for spec in HELPERS)


def _examples(count: int) -> str:
    services = [service for spec in HELPERS for service in spec.services]
    return json.dumps(services[:count])


_INTERFACES: Final = _list(_name, 'a list of interface names, such as ["eth0"]', low=1)
_PORT: Final = _number(1, 65535)[0]
_PORTS: Final = _list(_PORT, f"a list of 1 to {MOST_PORTS} port numbers", low=1, high=MOST_PORTS)
_SWITCH: Final = _hosts, '"on", "off" or a list of inside addresses, such as ["10.0.0.5"]'
_COUNT: Final = _number(1, 1024)
_SERVICES: Final = _list(_service, "a list of service names, such as " + _examples(2))


def _of_protocols() -> Iterator[tuple[Key, tuple[Check, str]]]:
    """The keys of the protocols' own sections."""
    for spec in HELPERS:
        yield Key(spec.name, "ports"), _PORTS
        yield from ((Key(spec.name, key), _SWITCH) for key in spec.switches)
        yield from ((Key(spec.name, key), _COUNT) for key in spec.caps)


# The keys that the file may have: the check of each, and the allowed values in words for the error.
_KEYS: Final[dict[Key, tuple[Check, str]]] = {
    Key("", "lan"): _INTERFACES,
    Key("", "wan"): _INTERFACES,
    Key("", "protocols"): _list(_protocol, f"a list of one or more of {_names()}", low=1),
    Key("", "queue"): _number(0, 65535),
    Key("", "workers"): _number(1, MOST_WORKERS),
    Key("", "hold_ms"): _number(0, 1000),
    Key("", "server_names"): _list(_host_name, 'a list of host names, such as ["home.example"]'),
    Key("", "state_dir"): (_absolute, 'an absolute path, such as "/run/nfreaim/flows"'),
    Key("", "status_socket"): (_absolute, 'an absolute path, such as "/run/nfreaim/status"'),
    Key("", "status_group"): (_group, 'the name of a group, such as "adm"'),
    Key("", "outside_address"): (_address, 'an IPv4 address, such as "198.51.100.7"'),
    Key("", "forward"): _list(
        _forward,
        'sections [[forward]] with host = "10.0.0.5" and ports = "20000-20009", the ports within 1024-65535',
    ),
    Key("pinholes", "lifetime"): _number(1, 86400, whole=False),
    Key("pinholes", "claim_grace"): _number(0, 3600, whole=False),
    Key("pinholes", "accept_grace"): _number(0, 3600, whole=False),
    Key("pinholes", "ports"): (_port_range, 'a range within 1024-65535, such as "40000-40999"'),
    Key("pinholes", "per_flow"): _number(1, 1024),
    Key("pinholes", "per_host"): _number(1, 1024),
    Key("pinholes", "total"): _number(1, 16384),
    Key("pinholes", "rate_per_host"): _number(1, 100000),
    Key("pinholes", "rate_total"): _number(1, 1000000),
    Key("pinholes", "deny_ports"): _list(_PORT, "a list of port numbers"),
    Key("pinholes", "verify_peers"): (_switch, "true or false"),
    Key("services", "allow"): _SERVICES,
    Key("services", "deny"): _SERVICES,
    Key("log", "level"): (_level, "one of " + ", ".join(LOG_LEVELS)),
    **dict(_of_protocols()),
}

# Keys that set the pinhole policy, and the names of its fields.
_POLICY: Final = {
    Key("", "outside_address"): "announce",
    Key("", "forward"): "forwards",
    **{key: key.name for key in _KEYS if key.section == "pinholes"},
    Key("services", "allow"): "allow_services",
    Key("services", "deny"): "deny_services",
}
# Other keys have the name of the field in Config or EngineSettings, except these.
_SETTINGS: Final = {Key("log", "level"): "log_level"}
_FROZEN: Final = {Key("services", "deny"), Key("pinholes", "deny_ports"), Key("", "server_names")}


def _read(document: dict[str, Any], name: str, moved: dict[Key, Key]) -> dict[Key, Any]:
    """The checked values. *moved* has the old key of each new one: errors name the key that the file has."""
    sections = {key.section for key in _KEYS if key.section}
    flat = {Key("", key): value for key, value in document.items() if key not in sections}
    for section in sections & document.keys():
        if not isinstance(document[section], dict):
            raise ConfigError(f"{name}: {section} is a section: write [{section}]")
        flat |= {Key(section, key): value for key, value in document[section].items()}
    values: dict[Key, Any] = {}
    for key, value in flat.items():
        if key not in _KEYS:
            others = ", ".join(other.name for other in _KEYS if other.section == key.section)
            where = f"section [{key.section}]" if key.section else "the top level"
            raise ConfigError(f"{name}: unknown key {key}; {where} allows {others}")
        check, allowed = _KEYS[key]
        try:
            checked = check(value)
        except ValueError as error:
            raise ConfigError(f"{name}: {moved.get(key, key)} = {value!r}: must be {allowed}") from error
        if key in _FROZEN:
            checked = frozenset(checked)
        elif key == Key("services", "allow"):
            checked = frozenset(checked) or None
        values[key] = checked
    return values
