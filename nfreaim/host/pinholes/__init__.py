"""Pinholes on this machine: the set, the DNAT rules, others' forwards, and the host of the peer gate."""
