"""Configuration: reads a TOML file into frozen dataclasses. An unknown key or a bad value is an error.

rules/nfreaim.toml describes the file. Each protocol has a section of its own, whose keys follow from its
HelperSpec.
"""

from __future__ import annotations

import json
import pwd
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Final

from nfreaim import config_values as values
from nfreaim import kernel_helpers, protocols
from nfreaim.core.firewall.policy import Forward, PinholePolicy
from nfreaim.core.helper import HelperSpec
from nfreaim.core.settings import EngineSettings, HomeServer
from nfreaim.errors import ConfigError
from nfreaim.helpers import HELPERS
from nfreaim.marks import CONNMARK_MASK, DEFAULT, MARK_MASK, MOST, Marks
from nfreaim.old_spellings import DEFAULT_PROTOCOL, DEFAULT_QUEUE, Key, move_keys
from nfreaim.protocols import MOST_PORTS, Ports, Section

DEFAULT_PATH: Final = Path("/etc/nfreaim/nfreaim.toml")
MOST_WORKERS: Final = 16
LAST_QUEUE: Final = 65535
NEWCOMERS: Final = 32
"""The number of a queue of newcomers is so much higher than that of the control connections' queue."""
GATE_QUEUE: Final = 64
"""The number of the peer gate's queue is so much higher than ``Config.queue``."""


MASKS: Final = {"mark_mask": MARK_MASK, "connmark_mask": CONNMARK_MASK}
"""The keys of the two masks, and their defaults."""


def _usual_policy() -> PinholePolicy:
    return protocols.limited(PinholePolicy(), protocols.usual_ports(), {})


@dataclass(frozen=True, slots=True)
class Config:
    """All settings.

    lan, wan      interface names
    ports         the protocols to read, by name, and the TCP ports of their servers
    queue         the NFQUEUE number of control connections; those of newcomers and gate follow from it
    firewall      the back end of the rules, one of ``config_values.FIREWALLS``
    workers       number of processes that read control connections; each of several has a queue behind
                  *queue*
    state_dir     directory of the flows that go on after a restart
    status_socket the socket that `nfreaim status` asks
    status_group  the group that may ask, besides root; "" for none
    metrics_listen  where `nfreaim metrics --serve` answers; None: nowhere
    history       whether a daemon that has a directory for it keeps a history
    history_dir   that directory; None: the one that systemd gives to the daemon
    home_servers  the servers on the inside that the operator names
    kernel_helpers  the kernel's own helpers that the rules assign, see ``nfreaim.kernel_helpers``
    home_server_users  users, by name or number, whose servers on the router are the operator's
    local_clients numbers of the users whose clients on this router are served
    native_accept chains of native nftables rulesets that the rules put our accept into: family, table, chain
    marks         the bits of packet mark and connmark that rules and daemon use
    file          the file that has these settings, or that may have them
    check_senders on which interfaces senders' hardware addresses are compared: all, none, or those named
    isolated_lans on which inside interfaces hosts may not meet those on others: all, none, or those named
    pinholes      the limits on pinholes, with those of the protocols in *ports*
    sections      the section of each protocol in the file, also of those that are not read
    notices       for each older spelling in the file, a line that says what to write instead
    """

    lan: tuple[str, ...] = ()
    wan: tuple[str, ...] = ()
    ports: Ports = field(default_factory=protocols.usual_ports)
    queue: int = DEFAULT_QUEUE
    workers: int = 1
    firewall: str = values.AUTO
    state_dir: Path = Path("/run/nfreaim/flows")
    status_socket: Path = Path("/run/nfreaim/status")
    status_group: str = ""
    log_level: str = "info"
    log_format: str = "text"
    metrics_listen: tuple[str, int] | None = None
    history: bool = True
    history_dir: Path | None = None
    home_servers: tuple[HomeServer, ...] = ()
    home_server_users: tuple[str, ...] = ()
    kernel_helpers: kernel_helpers.Assignments = ()
    local_clients: tuple[int, ...] = ()
    native_accept: tuple[str, ...] = ()
    marks: Marks = DEFAULT
    file: str = field(default=str(DEFAULT_PATH), compare=False)
    check_senders: bool | tuple[str, ...] = True
    isolated_lans: bool | tuple[str, ...] = False
    engine: EngineSettings = field(default_factory=EngineSettings)
    pinholes: PinholePolicy = field(default_factory=_usual_policy)
    sections: protocols.Sections = field(default_factory=dict, compare=False)
    notices: tuple[str, ...] = field(default=(), compare=False)

    @property
    def reading(self) -> tuple[int, ...]:
        """The queues of control connections, see ``reading_queues``."""
        return reading_queues(self.queue, self.workers)

    @property
    def queues(self) -> tuple[int, ...]:
        """All queues, see ``all_queues``."""
        return all_queues(self.queue, self.workers)

    def helpers(self) -> dict[int, HelperSpec]:
        """The protocol that is read on each server port."""
        return protocols.by_port(self.ports)

    def serving(self, ports: Ports) -> Config:
        """These settings with the protocols and ports *ports*, and the limits of these protocols' sections.

        Raises ConfigError if a protocol is unknown, or two claim one port, or one is a kernel helper's.
        """
        protocols.check(ports)
        kernel_helpers.check(self.kernel_helpers, ports)
        pinholes = protocols.limited(self.pinholes, ports, self.sections)
        return replace(self, ports=ports, pinholes=pinholes)


def reading_queues(queue: int, workers: int) -> tuple[int, ...]:
    """The numbers of the queues of control connections, one for each worker."""
    return (queue,) if workers == 1 else tuple(range(queue + 1, queue + 1 + workers))


def all_queues(queue: int, workers: int) -> tuple[int, ...]:
    """The numbers of all queues: of control connections, of newcomers, and of the gate, which is the last."""
    reading = reading_queues(queue, workers)
    return (*reading, *(number + NEWCOMERS for number in reading), queue + GATE_QUEUE)


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
    masks = [settings.pop(key, usual) for key, usual in MASKS.items()]
    engine = EngineSettings(home_names=settings.pop("server_names", frozenset()))
    if "hold_ms" in settings:
        engine = replace(engine, hold=settings.pop("hold_ms") / 1000)
    policy = {_POLICY[key]: value for key, value in values.items() if key in _POLICY}
    _check_forwards(policy.get("forwards", ()), name)
    if policy.get("announce") is not None and policy.get("upstream", "off") != "off":
        raise ConfigError(
            f"{name}: outside_address says that the router in front forwards every port here, and upstream"
            " has it asked for ports; leave one of them out"
        )
    notices = tuple(f"{name}: {old} is an older spelling; write {_told(new)}" for new, old in moved.items())
    config = Config(
        engine=engine, pinholes=PinholePolicy(**policy), sections=sections, file=name, notices=notices
    )
    try:
        ports = {one: protocols.ports_of(one, sections) for one in enabled}
        settings["local_clients"] = _users("local_clients", settings.get("local_clients", ()))
        return replace(config, **settings, marks=Marks.of(*masks)).serving(ports)
    except (ConfigError, ValueError) as error:
        raise ConfigError(f"{name}: {error}") from error


def user_number(name: str) -> int:
    """The number of a user, given by name or number. Raises KeyError, with a name that is unknown."""
    if name.isdecimal():
        return int(name)
    try:
        return pwd.getpwnam(name).pw_uid
    except KeyError:
        raise KeyError(name) from None


def _users(key: str, named: tuple[str, ...]) -> tuple[int, ...]:
    """The numbers of the users *named* by the value of *key*. Raises ConfigError if one is unknown."""
    try:
        return tuple(sorted({user_number(name) for name in named}))
    except KeyError as error:
        raise ConfigError(
            f"{key}: this machine has no user {error.args[0]}; write a name that `getent passwd` shows, or a"
            " number"
        ) from error


def accepts(section: str, key: str, value: Any) -> bool:
    """Whether *value* is one that *key* may have by itself; *section* is "" for the top level."""
    if Key(section, key) not in _KEYS:
        return False
    try:
        _KEYS[Key(section, key)][0](value)
    except ValueError:
        return False
    return True


def _told(key: Key) -> str:
    return f"{key.name} in the section [{key.section}]"


def _section(spec: HelperSpec, values: dict[Key, Any]) -> Section:
    """The settings of one protocol, which are taken out of *values*."""
    found = {key.name: values.pop(key) for key in list(values) if key.section == spec.name}
    return Section(
        ports=found.get("ports", ()),
        switches={key: found[key] for key in spec.switches if key in found},
        caps={key: found[key] for key in spec.caps if key in found},
        low_ports={key: frozenset(found[key]) for key in spec.low_ports if key in found},
    )


def _check_forwards(forwards: tuple[Forward, ...], name: str) -> None:
    for index, one in enumerate(forwards):
        for other in forwards[:index]:
            if one.ports.start < other.ports.stop and other.ports.start < one.ports.stop:
                raise ConfigError(
                    f"{name}: the forwards {other} and {one} overlap; a port can lead to one host only"
                )


def _names() -> str:
    return ", ".join(f'"{spec.name}"' for spec in HELPERS)


def _examples(count: int) -> str:
    services = [service for spec in HELPERS for service in spec.services]
    return json.dumps(services[:count])


_INTERFACES: Final = values.list_of(values.interface, 'a list of interface names, such as ["eth0"]', low=1)
_PORT: Final = values.number(1, 65535)[0]
_PORTS: Final = values.list_of(_PORT, f"a list of 1 to {MOST_PORTS} port numbers", low=1, high=MOST_PORTS)
_SWITCH: Final = values.hosts, '"on", "off" or a list of inside addresses, such as ["10.0.0.5"]'
_HOSTS: Final = values.list_of(values.address, 'a list of inside addresses, such as ["10.0.0.5"]')
_COUNT: Final = values.number(1, 1024)
_AT_HOME: Final = json.dumps(["10.0.0.9", f"10.0.0.8:{HELPERS[0].ports[0]}"])
_SERVERS_ALLOWED: Final = f"a list of inside addresses, each with a port or without, such as {_AT_HOME}"
_KNOWN_SERVICES: Final = values.list_of(
    values.known_service,
    f"a list of names of services: {', '.join(protocols.services())}, or a capability",
)
_SERVICES: Final = values.list_of(values.service, "a list of service names, such as " + _examples(2))


def _of_protocols() -> Iterator[tuple[Key, tuple[values.Check, str]]]:
    """The keys of the protocols' own sections."""
    for spec in HELPERS:
        yield Key(spec.name, "ports"), _PORTS
        yield from ((Key(spec.name, key), _SWITCH) for key in spec.switches)
        yield from ((Key(spec.name, key), _COUNT) for key in spec.caps)
        yield from ((Key(spec.name, key), _HOSTS) for key in spec.low_ports)


# The keys that the file may have: the check of each, and the allowed values in words for the error.
_KEYS: Final[dict[Key, tuple[values.Check, str]]] = {
    Key("", "lan"): _INTERFACES,
    Key("", "wan"): _INTERFACES,
    Key("", "protocols"): values.list_of(values.protocol, f"a list of one or more of {_names()}", low=1),
    Key("", "queue"): values.number(0, 65535),
    Key("", "workers"): values.number(1, MOST_WORKERS),
    Key("", "firewall"): (values.firewall, "one of " + ", ".join(map(json.dumps, values.FIREWALLS))),
    Key("", "hold_ms"): values.number(0, 1000),
    Key("", "server_names"): values.list_of(
        values.host_name, 'a list of host names, such as ["home.example"]'
    ),
    Key("", "home_servers"): values.list_of(HomeServer.parse, _SERVERS_ALLOWED),
    Key("", "home_server_users"): values.list_of(
        values.user, 'a list of users, by name or number, such as ["ann", 1001]'
    ),
    Key("", "local_clients"): values.list_of(
        values.user, 'a list of users, by name or number, such as ["ann", 1001]'
    ),
    Key("", "kernel_helpers"): (kernel_helpers.assignments, kernel_helpers.ALLOWED),
    Key("", "native_accept"): values.list_of(
        values.native_chain,
        'a list of chains, each with family (inet or ip) and table, such as ["inet filter forward"];'
        " iptables' own (ip filter FORWARD) is none, because it has the accept anyway",
        high=16,
    ),
    **{
        Key("", key): (values.number(1, MOST)[0], f"a mask of bits, such as {usual:#x}")
        for key, usual in MASKS.items()
    },
    Key("", "state_dir"): (values.absolute, 'an absolute path, such as "/run/nfreaim/flows"'),
    Key("", "status_socket"): (values.absolute, 'an absolute path, such as "/run/nfreaim/status"'),
    **dict.fromkeys(
        (Key("", "check_senders"), Key("", "isolated_lans")),
        (values.interfaces, 'true, false or a list of interface names, such as ["eth0"]'),
    ),
    Key("", "status_group"): (values.group, 'the name of a group, such as "adm"'),
    Key("", "outside_address"): (
        values.outside_address,
        'an IPv4 address or the name of a host, such as "198.51.100.7" or "home.example"',
    ),
    Key("", "upstream"): (values.upstream, "one of " + ", ".join(map(json.dumps, values.UPSTREAM))),
    Key("", "forward"): values.list_of(
        values.forward,
        'sections [[forward]] with host = "10.0.0.5" and ports = "20000-20009", the ports within 1024-65535',
    ),
    Key("pinholes", "lifetime"): values.number(1, 86400, whole=False),
    Key("pinholes", "claim_grace"): values.number(0, 3600, whole=False),
    Key("pinholes", "accept_grace"): values.number(0, 3600, whole=False),
    Key("pinholes", "ports"): (
        values.ports,
        'a range within 1024-65535, such as "40000-40999", or a list of ranges that do not overlap',
    ),
    Key("pinholes", "strict"): (values.switch, "true or false"),
    Key("pinholes", "per_flow"): values.number(1, 1024),
    Key("pinholes", "per_host"): values.number(1, 1024),
    Key("pinholes", "total"): values.number(1, 16384),
    Key("pinholes", "rate_per_host"): values.number(1, 100000),
    Key("pinholes", "rate_total"): values.number(1, 1000000),
    Key("pinholes", "deny_ports"): values.list_of(_PORT, "a list of port numbers"),
    Key("pinholes", "verify_peers"): (values.switch, "true or false"),
    Key("services", "allow"): _KNOWN_SERVICES,
    Key("services", "deny"): _KNOWN_SERVICES,
    Key("services", "also"): _SERVICES,
    Key("log", "level"): (values.level, "one of " + ", ".join(values.LOG_LEVELS)),
    Key("log", "format"): (values.log_format, "one of " + ", ".join(values.LOG_FORMATS)),
    Key("", "metrics_listen"): (values.listening, 'an address and a port, such as "127.0.0.1:9919", or ""'),
    Key("", "history"): (values.switch, "true or false"),
    Key("", "history_dir"): (values.absolute_or_none, 'an absolute path, such as "/var/lib/nfreaim", or ""'),
    **dict(_of_protocols()),
}

# Keys that set the pinhole policy, and the names of its fields.
_POLICY: Final = {
    Key("", "outside_address"): "announce",
    Key("", "upstream"): "upstream",
    Key("", "forward"): "forwards",
    **{key: key.name for key in _KEYS if key.section == "pinholes"},
    Key("services", "allow"): "allow_services",
    Key("services", "deny"): "deny_services",
    Key("services", "also"): "also_services",
}
# Other keys have the name of the field in Config or EngineSettings, except these.
_SETTINGS: Final = {Key("log", "level"): "log_level", Key("log", "format"): "log_format"}
_FROZEN: Final = {
    Key("services", "deny"),
    Key("services", "also"),
    Key("pinholes", "deny_ports"),
    Key("", "server_names"),
}


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


def allowed_values() -> dict[Key, str]:
    """Each key that the file may have, and the values that it may have, in words."""
    return {key: allowed for key, (_, allowed) in _KEYS.items()}
