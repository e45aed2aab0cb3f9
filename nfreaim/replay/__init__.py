"""``nfreaim replay``: what nfreaim would have done to the packets of a capture. No root, no network.

The capture stands for the router's LAN side, before source NAT, where each packet is seen once. The engine
gets what the hooks would queue. Firewall and connection tracking are the permissive ones of core.null, and
the clock is the capture's. Nothing here may import host/, or decide what becomes of a message.

What a capture cannot tell: that a peer used a pinhole, or that a control connection was lost without a FIN.
Pinholes therefore live until a message, a FIN or their deadline ends them. Nor does a sender slow down: where
a longer message does not fit into the receiver's window, it is written as if it did.
"""
