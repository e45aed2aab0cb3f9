"""Pinholes on this machine: the firewall, other rules' forwards, and the host of the peer gate."""
