"""InternetGateway: asks a router for mappings by UPnP (Internet Gateway Device), through miniupnpc.

The router is searched for by SSDP, at its own address and by the multicast of the UPnP Device Architecture
(1.1, sections 1.3.2 and 1.3.3). The first works where a firewall on this router lets in answers only: what
comes back from a multicast belongs to no connection that the kernel knows. Descriptions and control addresses
at other hosts than the router are not believed.
"""

from __future__ import annotations

import random
import re
import socket
import sys
import time
from contextlib import suppress
from typing import Any, Final
from urllib.parse import urlsplit

from nfreaim.core.address import Endpoint, is_address
from nfreaim.host.upstream.gateway import LIFETIME_S, Mapped, NoMapping

_GROUP: Final = "239.255.255.250"
_SSDP: Final = 1900
_SEARCH: Final = (
    'M-SEARCH * HTTP/1.1\r\nHOST: {host}:1900\r\nMAN: "ssdp:discover"\r\nMX: 1\r\n'
    "ST: urn:schemas-upnp-org:device:InternetGatewayDevice:1\r\n\r\n"
)
_LOCATION: Final = re.compile(rb"^location:[ \t]*(\S+)", re.IGNORECASE | re.MULTILINE)
ANSWERS_S: Final = 3.0
"""For so long answers to a search are waited for: MX, by which a device delays its own, and some more."""

_TRIES: Final = 4  # ports of the router that others may have
_OTHER_PORTS: Final = range(41000, 60000)
_NAME: Final = "nfreaim"

Library = Any
"""The module miniupnpc, which has no type information."""


def library() -> Library:
    """miniupnpc. Raises NoMapping with the remedy if it is not installed."""
    try:
        import miniupnpc
    except ImportError as error:
        raise NoMapping(
            "UPnP needs the library miniupnpc, which is not installed; remedy:"
            f" {sys.executable} -m pip install miniupnpc"
        ) from error
    return miniupnpc


class InternetGateway:
    """gateway.Gateway for the outside address *own*, which the router at *gateway* is asked for.

    Raises NoMapping if that is none. A description of our mappings says whose they are.
    """

    protocol: Final = "UPnP"
    forgot = False  # UPnP does not tell

    def __init__(self, own: str, gateway: str, miniupnpc: Library) -> None:
        self._own = own
        self._device = miniupnpc.UPnP()
        found = description(own, gateway)
        try:
            control = self._device.selectigd(found)
        except Exception as error:  # the library raises no other type
            raise NoMapping(f"its description cannot be read: {error}") from error
        if urlsplit(str(control)).hostname != gateway:
            raise NoMapping("its description names another device to control")

    def outside(self) -> str:
        address = self._asked("externalipaddress")
        if not isinstance(address, str) or not is_address(address):
            raise NoMapping("it does not know its own outside address")
        return address

    def map(self, port: int, suggested: int) -> Mapped:
        address = self.outside()
        for _ in range(_TRIES):
            try:
                self._asked("addportmapping", suggested, "TCP", self._own, port, _NAME, "", LIFETIME_S)
            except _Taken:
                suggested = random.choice(_OTHER_PORTS)
                continue
            return Mapped(Endpoint(address, suggested), LIFETIME_S)
        raise NoMapping("it says of each port that another host has it")

    def unmap(self, port: int, told: int) -> None:
        if self._is_ours(port, told):
            self._asked("deleteportmapping", told, "TCP", "")

    def _is_ours(self, port: int, told: int) -> bool:
        with suppress(NoMapping):
            found = self._asked("getspecificportmapping", told, "TCP", "")
            return found is not None and (found[0], int(found[1])) == (self._own, port)
        return False

    def _asked(self, action: str, *arguments: object) -> Any:
        """What the router answers. Raises NoMapping."""
        try:
            return getattr(self._device, action)(*arguments)
        except Exception as error:
            if "Conflict" in str(error):  # error 718 of WANIPConnection:1, section 2.4.16
                raise _Taken(str(error)) from error
            if "PermanentLeases" in str(error):  # 725
                raise NoMapping(
                    "it maps for ever only, and would go on without nfreaim; forward ports there by hand"
                ) from error
            raise NoMapping(f"it refuses: {error}") from error


class _Taken(NoMapping):
    """Another host has the port."""


def description(own: str, gateway: str) -> str:
    """The URL of the description of the router at *gateway*, searched for from *own*. Raises NoMapping."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as end:
        try:
            end.bind((own, 0))
            end.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_IF, socket.inet_aton(own))
            end.sendto(_SEARCH.format(host=gateway).encode(), (gateway, _SSDP))
            with suppress(OSError):  # a firewall of this router may allow the other one only
                end.sendto(_SEARCH.format(host=_GROUP).encode(), (_GROUP, _SSDP))
            until = time.monotonic() + ANSWERS_S
            while (left := until - time.monotonic()) > 0:
                end.settimeout(left)
                answer, (sender, _) = end.recvfrom(2048)
                location = _LOCATION.search(answer)
                if sender == gateway and location is not None:
                    url = location[1].decode("ascii", "replace")
                    if urlsplit(url).scheme == "http" and urlsplit(url).hostname == gateway:
                        return url
        except TimeoutError:
            pass
        except (OSError, ValueError) as error:
            raise NoMapping(f"it cannot be searched for from {own}: {error}") from error
    raise NoMapping("it does not answer UPnP")
