"""A virtual network with real kernel NAT; stand-ins for the OSCAR server, the clients and their peer
links."""
