"""Pinholes on this machine: the firewall, the forwards of other rules, and the peer gate's host."""
