"""``nfreaim replay``: shows and writes what nfreaim would have done to the packets of a capture.

It needs neither root nor a network. The capture is taken as that of the router's LAN side, before source NAT,
where each packet is seen once. The engine gets the packets that the hooks would queue, with the permissive
firewall and connection tracking of core.null, and with the capture's times as its clock. No module here
imports host/.

A capture does not show that a peer used a pinhole, or that a control connection was lost without a FIN. So
pinholes last until a message, a FIN or their deadline ends them. Nor can its senders slow down: a longer
message that does not fit into the receiver's window is written as if it did.
"""
