"""``nfreaim explain``: tells what became of each rendezvous in a capture, as text and as a picture.

A rendezvous is what two clients agree on to meet: announcements of an address, answers, connections. The
engine reads the announcements, by replay: those of the LAN side as the clients wrote and got them, those of
the WAN side as they left the router and came to it. Where the capture has both sides, the difference is what
the router did; where it has one, replay says what nfreaim would have done. The connections are read from
their SYNs. No module here knows a protocol, needs root, or prints more of a message than its addresses.
"""
