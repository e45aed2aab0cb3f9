"""The kernel by its own interfaces: queue, connection tracking, sets, tables and raw packets."""
