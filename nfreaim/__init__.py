"""nfreaim: an ALG that lets AIM and ICQ peers connect through a translating Linux router.

The words every module uses, and where the thing lives:

    segment       one queued IPv4/TCP packet, seen as a buffer with named positions      core/packet.py
    edit          replace the stream bytes [start, end) by others                        core/offsets.py
    offset map    where a byte of the original stream stands in the edited one           core/offsets.py
    stream        one direction of a flow: what was seen, its map, what is held back     core/stream.py
    flow          one control connection: two streams, one helper, two endpoints         core/flow.py
    helper        one protocol's ALG: reads new bytes in order, answers with edits       core/helper.py
    expectation   "a peer will connect to this inside endpoint because of that flow"     core/helper.py
    pinhole       an expectation made real in the firewall                               core/pinhole.py
    greeting      what a connection through a pinhole has to begin with                  core/greeting.py
    verdict       what the kernel shall do with a packet: accept or drop, and its bytes  core/verdict.py

"Original direction" runs from the client that opened the connection to the server, "reply direction" back.
"Inside" is the network behind this router, "outside" the rest; an "endpoint" is an address with a port.
A flow that is *bypassed* is no longer read; its earlier edits go on being repeated in retransmissions.
One is *skewed* once an edit changed a length: from then on its headers are translated, and it fails closed.

Imports point one way: core knows only the standard library, layers knows scapy, helpers know core and
layers, host knows core and Linux, cli wires it all.
"""

__version__ = "0.1.0"
