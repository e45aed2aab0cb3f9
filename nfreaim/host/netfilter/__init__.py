"""The kernel's interfaces to its packet filter: queue, connection tracking, sets, tables and raw packets."""
