"""nfreaim: lets peers of chat clients connect through a translating Linux router.

The words that every module uses, and the file of each:

    endpoint      an address with a port                                              core/address.py
    segment       one queued IPv4/TCP packet, seen as a buffer with named positions   core/tcp/segment.py
    edit          replaces the stream bytes [start, end) by others                    core/tcp/offsets.py
    offset map    where an original byte of a stream stands in the edited one         core/tcp/offsets.py
    stream        one direction of a flow: bytes seen, offset map, packets held back  core/tcp/stream.py
    custody       held bytes that the sender is told have arrived before they have     core/tcp/custody.py
    flow          one control connection: two streams, a state and a helper           core/flow.py
    state         how the bytes of a flow are treated: read, looked at, or passed     core/flow.py
    record        the data that let the next daemon go on with a flow                 core/records.py
    position      where reading stands in a direction: numbers, no text               core/resume.py
    helper        reads the new bytes of a flow in order, and answers with edits      core/helper.py
    protocol      a HelperSpec: name, ports, helper, services; HELPERS lists all      core/helper.py
    expectation   "a peer will connect to this inside endpoint because of that flow"  core/helper.py
    agreement     the name of what two peers agreed on, unique within its flow        core/helper.py
    service       the kind of peer connection, as the configuration names it          core/helper.py
    pinhole       an outside endpoint that leads to an inside one, until a deadline   core/firewall/pinhole.py
    reach         which address peers are told, so that they arrive at a pinhole      core/reach.py
    mapping       a port of the router in front that leads to one of ours             core/firewall/mapping.py
    greeting      bytes that a connection through a pinhole has to begin with         core/greeting.py
    sample        a short session of a protocol that a self-test plays                core/sample.py
    verdict       accept or drop a packet, and the bytes it leaves with               core/verdict.py
    backend       what the engine asks of Linux: conntrack, queue, store, reset, home core/backend.py

Directions and ends: "original direction" runs from the client, which opened the connection, to the server,
"reply direction" back. "Inside" is the network behind this router, "outside" the rest.

Flows: one is *established* once its helper has recognised the protocol and may expect peers. One that is
*bypassed* or *foreign* is no longer read; its earlier edits are repeated in retransmissions. A foreign flow
is *offloaded*: a set entry takes it out of the queue. One is *resizable* if its edits may change a length,
and *skewed* from the first such edit on, or while its sender relies on bytes in custody: then its headers are
translated, and it fails closed. A *followed*
server is one that a redirect named to a client; that client's connections to it are queued.

Pinholes: a peer *claims* one by completing a connection through it. A *standing* one has no deadline but the
end of its flow.

Imports point one way: core knows the standard library only, layers knows scapy, helpers know core and layers,
host knows core and Linux. cli, config and replay know protocols by their HelperSpec.
"""

__version__ = "0.1.0"
