"""A virtual network with real kernel NAT; stand-ins for the OSCAR server, the clients and their peer
links."""

import os

# What a router of the lab decides is not about this machine.
os.environ.setdefault("NFREAIM_FIREWALL_RECORD", "")
