"""``make demo``: what works between clients that NAT keeps apart, without and with nfreaim."""
