"""A box that maps ports by PCP, and is behind a provider's translator itself.

miniupnpd maps nothing then, but others do. ``python -m tests.lab.private_box ADDRESS`` answers each MAP
request (RFC 6887, section 11.1) on port 5351 of the address, and prints its lifetime: 0 gives a mapping back.
"""

from __future__ import annotations

import socket
import struct
import sys
from typing import Final

OUTSIDE: Final = "100.64.0.9"


def main() -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as end:
        end.bind((sys.argv[1], 5351))
        print("listens", flush=True)
        while True:
            request, sender = end.recvfrom(2000)
            version, opcode, lifetime = struct.unpack_from(">BBxxI", request.ljust(8))
            if version != 2:
                end.sendto(struct.pack(">BBBBI16x", 2, 0x80 | opcode, 0, 1, 0), sender)
                continue
            print(f"MAP for {lifetime} s", flush=True)
            head = struct.pack(">BBBBII12x", 2, 0x80 | opcode, 0, 0, lifetime, 1000)
            outside = bytes(10) + b"\xff\xff" + socket.inet_aton(OUTSIDE)
            end.sendto(head + request[24:44] + outside, sender)


if __name__ == "__main__":
    main()
