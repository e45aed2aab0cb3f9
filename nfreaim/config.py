"""Configuration: TOML to frozen dataclasses. An unknown key or a bad value is an error, never ignored.

The file is described in rules/nfreaim.toml. This module decides nothing and reads nothing but that file.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from ipaddress import IPv4Address
from pathlib import Path
from typing import Any, Final

from nfreaim.core.firewall.policy import Forward, PinholePolicy
from nfreaim.core.settings import EngineSettings
from nfreaim.errors import ConfigError

DEFAULT_PATH: Final = Path("/etc/nfreaim/nfreaim.toml")
LOG_LEVELS: Final = ("debug", "info", "warning", "error")
MOST_PORTS: Final = 15  # as many as fit into one multiport match
MOST_WORKERS: Final = 16
LAST_QUEUE: Final = 65535
ICQ_SERVICES: Final = ("icq-direct", "icq-reverse", "icq-relay")


@dataclass(frozen=True, slots=True)
class Config:
    """All settings.

    lan, wan      interface names
    ports         TCP ports of servers
    queue         the NFQUEUE number
    workers       processes that read control connections; from two on each has a queue behind *queue*
    state_dir     where it is kept which connections go on after a restart
    status_socket, status_group  where `nfreaim status` asks, and who may besides root ("": nobody)
    """

    lan: tuple[str, ...] = ()
    wan: tuple[str, ...] = ()
    ports: tuple[int, ...] = (5190,)
    queue: int = 5190
    workers: int = 1
    state_dir: Path = Path("/run/nfreaim/flows")
    status_socket: Path = Path("/run/nfreaim/status")
    status_group: str = ""
    log_level: str = "info"
    engine: EngineSettings = field(default_factory=EngineSettings)
    pinholes: PinholePolicy = field(default_factory=PinholePolicy)

    @property
    def reading(self) -> tuple[int, ...]:
        """See ``reading_queues``."""
        return reading_queues(self.queue, self.workers)


def reading_queues(queue: int, workers: int) -> tuple[int, ...]:
    """The numbers of the queues that control connections come by, one for each worker."""
    return (queue,) if workers == 1 else tuple(range(queue + 1, queue + 1 + workers))


def load(path: Path | None) -> Config:
    """The settings in *path*; without one those of the default file, or the defaults where that is absent.

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
    values = _read(document, name)
    engine = EngineSettings(home_names=values.pop("server_names", frozenset()))
    if "hold_ms" in values:
        engine = replace(engine, hold=values.pop("hold_ms") / 1000)
    policy = {_POLICY[key]: values.pop(key) for key in list(values) if key in _POLICY}
    if "forwards" in policy:
        _check_forwards(policy["forwards"], name)
    return replace(Config(), engine=engine, pinholes=PinholePolicy(**policy), **values)


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
    text = value.lower()
    return (
        text.replace("-", "") if re.fullmatch(r"[0-9a-f]{8}(-?[0-9a-f]{4}){3}-?[0-9a-f]{12}", text) else text
    )


def _address(value: Any) -> str:
    if not isinstance(value, str):
        raise ValueError
    return str(IPv4Address(value))


def _port_range(value: Any) -> range:
    found = re.fullmatch(r"(\d{1,5})-(\d{1,5})", value) if isinstance(value, str) else None
    if found is None or not 1024 <= int(found[1]) <= int(found[2]) <= 65535:
        raise ValueError
    return range(int(found[1]), int(found[2]) + 1)


def _icq_direct(value: Any) -> dict[str, frozenset[str]]:
    """PinholePolicy.only_for: ICQ's three kinds for everybody, for nobody, or for these hosts."""
    if value == "on":
        return {}
    hosts = [] if value == "off" else value
    if not isinstance(hosts, list) or not (hosts or value == "off"):
        raise ValueError
    return dict.fromkeys(ICQ_SERVICES, frozenset(_address(host) for host in hosts))


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


_PORT = _number(1, 65535)[0]
_INTERFACES = _list(_name, 'a list of interface names, such as ["eth0"]', low=1)
_SERVICES = 'a list of service names, such as ["send-file", "direct-im"], or capability UUIDs'

# Section and key as in the file: check, and what the operator is told if it fails.
_KEYS: Final[dict[tuple[str, str], tuple[Check, str]]] = {
    ("", "lan"): _INTERFACES,
    ("", "wan"): _INTERFACES,
    ("", "ports"): _list(_PORT, f"a list of 1 to {MOST_PORTS} port numbers", low=1, high=MOST_PORTS),
    ("", "queue"): _number(0, 65535),
    ("", "workers"): _number(1, MOST_WORKERS),
    ("", "hold_ms"): _number(0, 1000),
    ("", "server_names"): _list(_host_name, 'a list of host names, such as ["home.example"]'),
    ("", "state_dir"): (_absolute, 'an absolute path, such as "/run/nfreaim/flows"'),
    ("", "status_socket"): (_absolute, 'an absolute path, such as "/run/nfreaim/status"'),
    ("", "status_group"): (_group, 'the name of a group, such as "adm"'),
    ("", "outside_address"): (_address, 'an IPv4 address, such as "198.51.100.7"'),
    ("", "icq_direct"): (_icq_direct, '"on", "off" or a list of inside addresses, such as ["10.0.0.5"]'),
    ("", "forward"): _list(
        _forward,
        'sections [[forward]] with host = "10.0.0.5" and ports = "20000-20009", the ports within 1024-65535',
    ),
    ("pinholes", "lifetime"): _number(1, 86400, whole=False),
    ("pinholes", "claim_grace"): _number(0, 3600, whole=False),
    ("pinholes", "accept_grace"): _number(0, 3600, whole=False),
    ("pinholes", "ports"): (_port_range, 'a range within 1024-65535, such as "40000-40999"'),
    ("pinholes", "per_flow"): _number(1, 1024),
    ("pinholes", "per_host"): _number(1, 1024),
    ("pinholes", "total"): _number(1, 16384),
    ("pinholes", "icq_per_host"): _number(1, 1024),
    ("pinholes", "rate_per_host"): _number(1, 100000),
    ("pinholes", "rate_total"): _number(1, 1000000),
    ("pinholes", "deny_ports"): _list(_PORT, "a list of port numbers"),
    ("pinholes", "verify_peers"): (_switch, "true or false"),
    ("services", "allow"): _list(_service, _SERVICES),
    ("services", "deny"): _list(_service, _SERVICES),
    ("log", "level"): (_level, "one of " + ", ".join(LOG_LEVELS)),
}

# What the file calls a setting of the pinhole policy, by section and key joined with a dot.
_POLICY: Final = {
    "outside_address": "announce",
    "icq_direct": "only_for",
    "forward": "forwards",
    "pinholes.lifetime": "lifetime",
    "pinholes.claim_grace": "claim_grace",
    "pinholes.accept_grace": "accept_grace",
    "pinholes.ports": "ports",
    "pinholes.per_flow": "per_flow",
    "pinholes.per_host": "per_host",
    "pinholes.total": "total",
    "pinholes.icq_per_host": "sessions_per_host",
    "pinholes.rate_per_host": "rate_per_host",
    "pinholes.rate_total": "rate_total",
    "pinholes.deny_ports": "deny_ports",
    "pinholes.verify_peers": "verify_peers",
    "services.allow": "allow_services",
    "services.deny": "deny_services",
}


def _read(document: dict[str, Any], name: str) -> dict[str, Any]:
    """The checked values, by "section.key" where they belong to the policy, else by field of Config."""
    sections = {section for section, _ in _KEYS if section}
    flat = {("", key): value for key, value in document.items() if key not in sections}
    for section in sections & document.keys():
        if not isinstance(document[section], dict):
            raise ConfigError(f"{name}: {section} is a section: write [{section}]")
        flat |= {(section, key): value for key, value in document[section].items()}
    values: dict[str, Any] = {}
    for (section, key), value in flat.items():
        label = f"{section}.{key}" if section else key
        if (section, key) not in _KEYS:
            known = ", ".join(other for where, other in _KEYS if where == section)
            place = f"section [{section}]" if section else "the top level"
            raise ConfigError(f"{name}: unknown key {label}; {place} allows {known}")
        check, allowed = _KEYS[section, key]
        try:
            checked = check(value)
        except ValueError as error:
            raise ConfigError(f"{name}: {label} = {value!r}: must be {allowed}") from error
        if label in ("services.deny", "pinholes.deny_ports", "server_names"):
            checked = frozenset(checked)
        elif label == "services.allow":
            checked = frozenset(checked) or None
        values["log_level" if label == "log.level" else label] = checked
    return values
