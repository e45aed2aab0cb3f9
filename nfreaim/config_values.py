"""Values of the configuration file: each function checks one, and returns it in the form that is used.

All of them raise ValueError if the value is none of that kind.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from ipaddress import IPv4Address
from pathlib import Path
from typing import Any, Final

from nfreaim import protocols
from nfreaim.core.firewall.policy import Forward
from nfreaim.errors import ConfigError
from nfreaim.protocols import EVERYBODY

UPSTREAM: Final = ("off", "auto", "upnp", "pcp")
AUTO, LEGACY, NFT = FIREWALLS = ("auto", "legacy", "nft")
"""The back ends of the rules: "legacy" for iptables and ipset, "nft" for nftables, "auto" for what suits the
machine."""

LOG_LEVELS: Final = ("debug", "info", "warning", "error")
LOG_FORMATS: Final = ("text", "json")

_LAST_USER: Final = 0xFFFFFFFE  # the number behind it means that there is none

Check = Callable[[Any], Any]
"""Returns a value in the form that is used. Raises ValueError."""


def number(low: float, high: float, whole: bool = True) -> tuple[Check, str]:
    """A number from *low* to *high*: the check, and in words what is allowed."""

    def check(value: Any) -> Any:
        kinds = (int,) if whole else (int, float)
        if isinstance(value, bool) or not isinstance(value, kinds) or not low <= value <= high:
            raise ValueError
        return value

    return check, f"a{' whole' if whole else ''} number from {low} to {high}"


def list_of(item: Check, allowed: str, low: int = 0, high: int = 1000) -> tuple[Check, str]:
    """A list of *low* to *high* values that *item* checks: the check, and in words what is allowed."""

    def check(value: Any) -> Any:
        if not isinstance(value, list) or not low <= len(value) <= high:
            raise ValueError
        return tuple(item(element) for element in value)

    return check, allowed


def interface(value: Any) -> str:
    """The name of a network interface, or its beginning and "+"."""
    if not isinstance(value, str) or not re.fullmatch(r"(?!.{16})[A-Za-z0-9._:@-]+\+?", value):
        raise ValueError
    return value


def host_name(value: Any) -> str:
    """A host name, in lower case and without the dot at its end."""
    label = "[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?"
    if not isinstance(value, str) or len(value) > 253:
        raise ValueError
    text = value.lower().removesuffix(".")
    if not re.fullmatch(rf"({label}\.)*{label}", text) or re.fullmatch(r"[0-9.]*", text):
        raise ValueError
    return text


def absolute(value: Any) -> Path:
    """An absolute path."""
    if not isinstance(value, str) or not value.startswith("/") or "\0" in value:
        raise ValueError
    return Path(value)


def absolute_or_none(value: Any) -> Path | None:
    """An absolute path; None for ""."""
    return absolute(value) if value != "" else None


def group(value: Any) -> str:
    """The name of a group, or ""."""
    if not isinstance(value, str) or not re.fullmatch(r"|[A-Za-z_][A-Za-z0-9_.-]{0,31}\$?", value):
        raise ValueError
    return value


def service(value: Any) -> str:
    """The name of a service."""
    if not isinstance(value, str) or not re.fullmatch(r"[a-z0-9][a-z0-9-]*", value.lower()):
        raise ValueError
    return protocols.service_name(value)


def known_service(value: Any) -> str:
    """The name of a service that some protocol has."""
    name = service(value)
    if not protocols.is_service(name):
        raise ValueError
    return name


def protocol(value: Any) -> str:
    """The name of a protocol."""
    if not isinstance(value, str):
        raise ValueError
    try:
        return protocols.known(value).name
    except ConfigError as error:
        raise ValueError from error


def address(value: Any) -> str:
    """An IPv4 address."""
    if not isinstance(value, str):
        raise ValueError
    return str(IPv4Address(value))


def user(value: Any) -> str:
    """A user, by name or number."""
    text = str(value) if type(value) is int else value
    if not isinstance(text, str) or not re.fullmatch(r"[0-9]{1,10}|[A-Za-z_][A-Za-z0-9_.-]{0,31}\$?", text):
        raise ValueError
    if text.isdecimal() and int(text) > _LAST_USER:
        raise ValueError
    return text


def port_range(value: Any) -> range:
    """Ports from 1024 up, written LOW-HIGH."""
    found = re.fullmatch(r"(\d{1,5})-(\d{1,5})", value) if isinstance(value, str) else None
    if found is None or not 1024 <= int(found[1]) <= int(found[2]) <= 65535:
        raise ValueError
    return range(int(found[1]), int(found[2]) + 1)


def ports(value: Any) -> Sequence[int]:
    """Ports from 1024 up: one range LOW-HIGH, or a list of ranges that do not overlap."""
    if not isinstance(value, list):
        return port_range(value)
    found = tuple(port for one in value for port in port_range(one))
    if not found or len(set(found)) < len(found):
        raise ValueError
    return found


def outside_address(value: Any) -> str:
    """An IPv4 address, or the name of a host, which has a dot in it."""
    try:
        return address(value)
    except ValueError:
        if not isinstance(value, str) or "." not in value.removesuffix("."):
            raise
        return host_name(value)


def hosts(value: Any) -> frozenset[str] | None:
    """The hosts that may use the services of a switch: EVERYBODY, none, or those in a list."""
    if value == "on":
        return EVERYBODY
    hosts = [] if value == "off" else value
    if not isinstance(hosts, list) or not (hosts or value == "off"):
        raise ValueError
    return frozenset(address(host) for host in hosts)


def forward(value: Any) -> Forward:
    """A host and its ports."""
    if not isinstance(value, dict) or value.keys() != {"host", "ports"}:
        raise ValueError
    named = value["ports"]
    if type(named) is int or (isinstance(named, str) and named.isdecimal()):
        named = f"{named}-{named}"
    return Forward(address(value["host"]), port_range(named))


def switch(value: Any) -> bool:
    """True or false."""
    if not isinstance(value, bool):
        raise ValueError
    return value


def interfaces(value: Any) -> bool | tuple[str, ...]:
    """All, none, or those in a list."""
    if isinstance(value, bool):
        return value
    if not isinstance(value, list):
        raise ValueError
    return tuple(interface(name) for name in value)


def native_chain(value: Any) -> str:
    """A chain of nftables: family, table and chain. Not one of iptables-nft, which reads no others' rules."""
    name = "[A-Za-z][A-Za-z0-9_./-]*"
    if not isinstance(value, str) or not re.fullmatch(rf"(ip|inet) {name} {name}", value):
        raise ValueError
    if value == "ip filter FORWARD":
        raise ValueError
    return value


def upstream(value: Any) -> str:
    """One of UPSTREAM."""
    if value not in UPSTREAM:
        raise ValueError
    return str(value)


def firewall(value: Any) -> str:
    """One of FIREWALLS."""
    if value not in FIREWALLS:
        raise ValueError
    return str(value)


def log_format(value: Any) -> str:
    """One of LOG_FORMATS."""
    if value not in LOG_FORMATS:
        raise ValueError
    return str(value)


def listening(value: Any) -> tuple[str, int] | None:
    """An IPv4 address and a port to listen on; None for ""."""
    if not isinstance(value, str):
        raise ValueError
    if not value:
        return None
    host, _, port = value.partition(":")
    if not re.fullmatch(r"[0-9]{1,5}", port) or not 0 < int(port) <= 65535:
        raise ValueError
    return address(host), int(port)


def level(value: Any) -> str:
    """One of LOG_LEVELS."""
    if value not in LOG_LEVELS:
        raise ValueError
    return str(value)
