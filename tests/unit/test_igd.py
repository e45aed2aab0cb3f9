"""UPnP: which answers to a search are believed, and what is made of what the router says."""

from __future__ import annotations

import builtins
import socket
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from nfreaim.core.address import Endpoint
from nfreaim.host.upstream import igd
from nfreaim.host.upstream.gateway import NoMapping

OWN, GATEWAY = "127.0.0.1", "127.53.60.1"
OK = "HTTP/1.1 200 OK\r\nST: x\r\nLocation: {}\r\n\r\n"


class Searched:
    """A device that hears a search sent to it, on a port of its own; *location*: what it answers."""

    def __init__(self, location: str, monkeypatch: pytest.MonkeyPatch) -> None:
        self.heard: list[bytes] = []
        self.location = location
        self.socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.socket.bind((GATEWAY, 0))
        monkeypatch.setattr(igd, "_SSDP", self.socket.getsockname()[1])
        monkeypatch.setattr(igd, "ANSWERS_S", 0.3)
        self.thread = threading.Thread(target=self._serve)
        self.thread.start()

    def _serve(self) -> None:
        data, sender = self.socket.recvfrom(2000)
        self.heard.append(data)
        for text in ("junk", OK.format(self.location)):
            self.socket.sendto(text.encode(), sender)

    def close(self) -> None:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as end:
            end.sendto(b"end", self.socket.getsockname())
        self.thread.join()
        self.socket.close()


Search = Callable[[str], Searched]


@pytest.fixture
def search(monkeypatch: pytest.MonkeyPatch) -> Iterator[Search]:
    made: list[Searched] = []

    def begin(location: str) -> Searched:
        made.append(Searched(location, monkeypatch))
        return made[-1]

    yield begin
    for one in made:
        one.close()


def test_the_router_is_searched_for_at_its_own_address(search: Search) -> None:
    device = search(f"http://{GATEWAY}:5431/rootDesc.xml")
    assert igd.description(OWN, GATEWAY) == f"http://{GATEWAY}:5431/rootDesc.xml"
    assert device.heard[0].startswith(b"M-SEARCH * HTTP/1.1\r\nHOST: 127.53.60.1:1900\r\n")


@pytest.mark.parametrize("location", ["http://10.0.0.9/x.xml", "file:///etc/passwd", "ftp://127.53.60.1/x"])
def test_a_description_elsewhere_is_not_fetched(search: Search, location: str) -> None:
    search(location)
    with pytest.raises(NoMapping, match="does not answer UPnP"):
        igd.description(OWN, GATEWAY)


class Library:
    """In the place of miniupnpc: the device and its answers; *errors* of its next calls, in order."""

    def __init__(self) -> None:
        self.control = f"http://{GATEWAY}:5431/ctl"
        self.address: object = "8.8.4.1"
        self.errors: list[str] = []
        self.mapped: dict[int, tuple[str, int]] = {}
        self.leases: list[int] = []

    def UPnP(self) -> Library:
        return self

    def selectigd(self, url: str) -> str:
        return self.control

    def externalipaddress(self) -> object:
        return self.address

    def addportmapping(self, port: int, protocol: str, host: str, own: int, *more: Any) -> bool:
        assert protocol == "TCP"
        if self.errors:
            raise Exception(self.errors.pop(0))
        self.mapped[port] = (host, own)
        self.leases.append(more[-1])
        return True

    def getspecificportmapping(self, port: int, protocol: str, remote: str) -> object:
        found = self.mapped.get(port)
        return None if found is None else (*found, "nfreaim", True, 600)

    def deleteportmapping(self, port: int, protocol: str, remote: str) -> bool:
        del self.mapped[port]
        return True


@pytest.fixture
def library(monkeypatch: pytest.MonkeyPatch) -> Library:
    monkeypatch.setattr(igd, "description", lambda own, gateway: f"http://{gateway}/x.xml")
    return Library()


def test_a_mapping_has_an_end_and_is_given_back(library: Library) -> None:
    device = igd.InternetGateway(OWN, GATEWAY, library)
    assert device.map(40000, 40000) == (Endpoint("8.8.4.1", 40000), 600)
    assert library.leases == [600]
    device.unmap(40000, 40000)
    assert library.mapped == {}


def test_a_port_of_another_host_is_left_to_it(library: Library) -> None:
    device = igd.InternetGateway(OWN, GATEWAY, library)
    library.errors = ["ConflictInMappingEntry"]
    told = device.map(40000, 40000).told
    assert told.port != 40000
    assert library.mapped == {told.port: (OWN, 40000)}
    library.mapped[5000] = ("192.168.178.9", 5000)
    device.unmap(40000, 5000)
    assert 5000 in library.mapped, "it is given back by nobody but its own host"
    library.errors = ["ConflictInMappingEntry"] * 4
    with pytest.raises(NoMapping, match="another host has it"):
        device.map(40001, 40001)


def test_a_router_that_maps_for_ever_only_is_not_used(library: Library) -> None:
    library.errors = ["OnlyPermanentLeasesSupported"]
    with pytest.raises(NoMapping, match="would go on without nfreaim"):
        igd.InternetGateway(OWN, GATEWAY, library).map(40000, 40000)
    assert library.mapped == {}


@pytest.mark.parametrize("address", [None, "", "not.an.address", "8.8.4"])
def test_a_router_without_an_outside_address_is_not_used(library: Library, address: object) -> None:
    library.address = address
    with pytest.raises(NoMapping, match="does not know its own outside address"):
        igd.InternetGateway(OWN, GATEWAY, library).map(40000, 40000)


def test_a_description_that_names_another_device_is_not_believed(library: Library) -> None:
    library.control = "http://192.168.178.50:80/ctl"
    with pytest.raises(NoMapping, match="names another device"):
        igd.InternetGateway(OWN, GATEWAY, library)


def test_without_the_library_the_remedy_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    usual = builtins.__import__

    def without(name: str, *more: Any) -> Any:
        if name == "miniupnpc":
            raise ImportError(name)
        return usual(name, *more)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(NoMapping, match=r"not installed; remedy: .*python.* -m pip install miniupnpc"):
        igd.library()
