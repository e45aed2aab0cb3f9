"""``python -m stress.flood SOURCES TARGET COUNT FLAGS``: packets as fast as they go, from made-up clients.

FLAGS are TCP's: 2 for SYNs, 16 for ACKs of no connection. SOURCES is a network such as 10.0.0.128/25: each
packet has one of its addresses, and a port that no other has with it. TARGET is ADDRESS:PORT. Prints how many
seconds it took. Layouts: RFC 791 section 3.1, RFC 9293 section 3.1.
"""

from __future__ import annotations

import socket
import struct
import sys
import time
from collections.abc import Iterator
from ipaddress import IPv4Network

_IP = struct.Struct("!BBHHHBBHI4s")
_TCP = struct.Struct("!HHIIBBHHH")


def packets(sources: IPv4Network, target: tuple[str, int], count: int, flags: int) -> Iterator[bytes]:
    """*count* packets, IPv4 header included; its checksum is left to the kernel."""
    address, port = socket.inet_aton(target[0]), target[1]
    high, low = struct.unpack("!HH", address)
    hosts = sources.num_addresses - 2 or 1
    for number in range(count):
        source = int(sources.network_address) + 1 + number % hosts
        sport = 1024 + number // hosts
        seq = number & 0xFFFFFFFF
        # Pseudo header, then every word of a header with data offset 5, these flags and a window of 8192.
        total = (source >> 16) + (source & 0xFFFF) + high + low + socket.IPPROTO_TCP + 20
        total += sport + port + (seq >> 16) + (seq & 0xFFFF) + (0x5000 | flags) + 8192
        total = (total & 0xFFFF) + (total >> 16)
        total = (total & 0xFFFF) + (total >> 16)
        yield _IP.pack(0x45, 0, 40, 0, 0, 64, socket.IPPROTO_TCP, 0, source, address) + _TCP.pack(
            sport, port, seq, 0, 0x50, flags, 8192, total ^ 0xFFFF, 0
        )


def main() -> None:
    network, target, count, flags = sys.argv[1:]
    address, port = target.split(":")
    made = packets(IPv4Network(network), (address, int(port)), int(count), int(flags))
    with socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_RAW) as raw:
        began = time.monotonic()
        for packet in made:
            try:
                raw.sendto(packet, (address, 0))
            except OSError:  # the device's queue is full: that one is lost, as on a wire
                continue
        print(f"{time.monotonic() - began:.2f}")


if __name__ == "__main__":
    main()
