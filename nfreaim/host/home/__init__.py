"""Servers of the operator's own, on the inside or on the router: who may speak for the hosts of the LAN."""
