"""Reports to the operator: log, status and counters."""
