"""ICQ's messages for the tests of the OSCAR helper: golden ones, and built ones around them."""

from __future__ import annotations

from nfreaim.core.address import Endpoint
from pcaps.wire import put, tlv
from tests.golden import load
from tests.unit.fakes import Wire
from tests.unit.proposals import OWN, wire_of

GOLDEN = load()
STATUS = GOLDEN["icq-status"].data
PUBLISHED = GOLDEN["icq-status"].expected["same-port"]
ARRIVAL = GOLDEN["icq-buddy-arrival"].data
REVERSE = GOLDEN["icq-reverse-connect"].data
ACK = GOLDEN["icq-file-ack"].data
AMY = Endpoint("10.0.0.6", 40123)
RELAY = bytes.fromhex("094613494c7f11d18222444553540000")


def snac(name: str, body: bytes) -> bytes:
    data = bytes.fromhex(name) + bytes(2) + b"\0\0\0\x77" + body
    return b"\x2a\2\0\1" + len(data).to_bytes(2, "big") + data


def direct(address: bytes = OWN, port: int = 4001, kind: int = 4) -> bytes:
    return put(STATUS[34:71], (0, address + port.to_bytes(4, "big")), (8, bytes([kind])))


def status(*infos: bytes) -> bytes:
    return snac("0001001e", tlv(6, bytes(4)) + b"".join(tlv(0xC, info) for info in infos))


def info(*tlvs: bytes, name: bytes = b"100003") -> bytes:
    return bytes([len(name)]) + name + bytes(2) + len(tlvs).to_bytes(2, "big") + b"".join(tlvs)


def moved_wire() -> Wire:
    """Another host has the announced ports outside."""
    return wire_of(taken=(4001, 4010), ports=range(40001, 40010))


def beside(wire: Wire) -> Wire:
    """Amy, on the same LAN."""
    return Wire(wire.router, client=AMY).sign_on()


def reasons(wire: Wire) -> list[str]:
    return [report.reason for report in wire.router.watcher.reports]


def ends(wire: Wire) -> list[str]:
    return [reason for _, reason in wire.router.watcher.closes]
