"""An OSCAR codec for tests: what unit, property, replay, fuzz and lab tests and pcaps/ write and read.

Nothing of `nfreaim` is imported here, nor anything that imports it: this is the oracle, and a mistake made in
one of the two must not be repeated by the other and so go unseen. Each fact of the wire stands here once.
All integers are big-endian unless a name says otherwise.

    values      addresses, ports and their complements as bytes
    flap        frames, their numbers, and how a stream is cut into them
    tlv         TLVs, names, user info
    snac        SNACs and their names
    icbm        messages: SNAC(04,06), (04,07), (04,0B)
    rendezvous  the block of a channel 2 message
    profiles    that block as each client writes it
    messages    rendezvous messages made to order, with usual values for what a test does not care about
    icq         ICQ's published endpoints, reverse connections and type-2 messages
    redirect    messages that name another server
    signon      how a connection begins and signs off
    peer        the headers of peer links: OFT2, ODC2
    fields      which bytes of a frame may be changed, and in which form they hold an address or a port
"""
